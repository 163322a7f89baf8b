//! Policies that change while the server runs.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::app::{AppError, load_guards, load_offsets, seat};
use super::{Guard, Guarded};
use crate::policy::PolicySet;
use crate::policy::watch::Watch;
use crate::telemetry::Metrics;

/// Puts the policies of a folder in force, again and again.
#[derive(Debug)]
pub struct Reloader {
    folder: PathBuf,
    watch: Watch,
    guarded: Arc<Guarded>,
    metrics: Arc<Metrics>,
}

impl Reloader {
    /// Guards that follow the folder of `policies`; `watch` was made before they were read.
    #[must_use]
    pub fn new(
        policies: PathBuf,
        watch: Watch,
        guarded: Arc<Guarded>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { folder: policies, watch, guarded, metrics }
    }

    /// Reads the folder again after every change of a file in it and after every SIGHUP, which is for
    /// changes elsewhere, as in a classifier's folder. Never ends.
    pub async fn run(mut self) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => Some(hangups),
            Err(error) => {
                tracing::warn!(%error, "cannot watch for SIGHUP");
                None
            }
        };
        loop {
            tokio::select! {
                () = self.watch.changed() => {}
                () = hangup(&mut hangups) => {}
            }
            // What went wrong is in the log, and the former policies stay.
            drop(self.reload().await);
        }
    }

    /// Reads and checks all policies, loads their detectors, and swaps the guards at once. Requests
    /// under way keep the policies that they began with.
    ///
    /// # Errors
    ///
    /// [`AppError`] when anything is wrong; the guards are as before, and the log says why.
    pub async fn reload(&self) -> Result<PolicySet, AppError> {
        match self.load().await {
            Ok((policies, guards)) => {
                self.guarded.replace(guards);
                self.metrics.set_policies(policies.labels());
                self.metrics.policies_reloaded(true);
                let (revision, topics) = (policies.revision.as_str(), policies.policies.len());
                tracing::info!(revision, topics, "policies reloaded");
                Ok(policies)
            }
            Err(error) => {
                self.metrics.policies_reloaded(false);
                report(&error);
                Err(error)
            }
        }
    }

    async fn load(&self) -> Result<(PolicySet, Vec<Guard>), AppError> {
        let (folder, backend) = (self.folder.clone(), Arc::clone(&self.guarded.inner));
        let can = backend.capabilities();
        let served: Vec<String> = if can.offsets || can.hidden_states {
            backend.models().await?.into_iter().map(|it| it.id).collect()
        } else {
            Vec::new()
        };
        // A classifier takes a while to load, and a model longer.
        let load = move || -> Result<(PolicySet, Vec<Guard>), AppError> {
            let (policies, mut guards) = load_guards(&folder)?;
            load_offsets(&policies.policies, &served, backend.as_ref())?;
            seat(&mut guards, &served, &backend)?;
            Ok((policies, guards))
        };
        let loaded = tokio::task::spawn_blocking(load).await;
        loaded.unwrap_or_else(|error| Err(AppError::Interrupted(error)))
    }
}

/// The next signal; never, where signals cannot be watched.
async fn hangup(signals: &mut Option<Signal>) {
    if let Some(signals) = signals
        && signals.recv().await.is_some()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// One line for each thing that is wrong.
fn report(error: &AppError) {
    const KEPT: &str = "policies not reloaded, the former ones stay in force";
    if let AppError::Policies(problems) = error {
        for it in problems {
            let (path, key, message) = (it.path.display(), it.key.as_str(), it.message.as_str());
            tracing::error!(%path, key, problem = message, "{KEPT}");
        }
    } else {
        let error: &(dyn Error + 'static) = error;
        tracing::error!(error, "{KEPT}");
    }
}
