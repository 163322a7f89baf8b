//! `--target`: a served path that somebody else runs.

use std::sync::Arc;

use clap::Args;
use unlearn_proxy::backend::Backend;
use unlearn_proxy::backend::upstream::Upstream;
use unlearn_proxy::config::process_environment;

/// The variable that holds the target's API key.
const KEY: &str = "UNLEARN_TARGET_KEY";

#[derive(Debug, Args)]
pub(crate) struct TargetArgs {
    /// Measure this server instead of --model and --policy: any OpenAI base URL. Its API key is read
    /// from the environment variable `UNLEARN_TARGET_KEY`; without the variable none is sent. What needs
    /// log-probabilities of a given text is not available.
    #[arg(long, value_name = "URL", requires = "target_model")]
    target: Option<String>,
    /// The model to ask the target for.
    #[arg(long, value_name = "ID", requires = "target")]
    target_model: Option<String>,
}

impl TargetArgs {
    /// The target and its model id, where one is given. Connects on first use.
    pub(crate) fn backend(&self) -> anyhow::Result<Option<(Arc<dyn Backend>, String)>> {
        let (Some(url), Some(model)) = (&self.target, &self.target_model) else { return Ok(None) };
        let key = process_environment(KEY).filter(|it| !it.is_empty());
        let backend: Arc<dyn Backend> = Arc::new(Upstream::new(url, key)?);
        Ok(Some((backend, model.clone())))
    }
}
