//! What a probe reads: the model under the guards.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::backend::{Backend, BackendError};
use crate::detect::{States, Unread};

/// The hidden states of a backend.
#[derive(Debug)]
pub(super) struct HiddenStates {
    backend: Arc<dyn Backend>,
}

impl HiddenStates {
    pub(super) fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }
}

impl States for HiddenStates {
    fn weights_sha256(&self) -> Result<String, Unread> {
        self.backend.weights_sha256().map_err(unread)
    }

    /// Detectors run on threads of their own, which may wait.
    fn last(&self, text: &str, layer: usize) -> Result<Vec<f32>, Unread> {
        let runtime = Handle::try_current().map_err(|error| Unread::Failed(error.into()))?;
        runtime.block_on(self.backend.hidden(text, layer)).map_err(unread)
    }
}

fn unread(error: BackendError) -> Unread {
    match error {
        BackendError::PromptTooLong { tokens, limit } => Unread::TooLong { tokens, limit },
        error => Unread::Failed(error.into()),
    }
}
