//! The composition root: a checked configuration becomes a guarded backend.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::reload::Reloader;
use super::{Guard, GuardError, Guarded};
use crate::backend::local::Local;
use crate::backend::upstream::Upstream;
use crate::backend::{Backend, BackendError};
use crate::config::{Config, ModelSource};
use crate::engine::error::EngineError;
use crate::engine::model_config::ModelConfig;
use crate::engine::offset::fitting;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::{Engine, EngineSettings, device, hub};
use crate::policy::watch::Watch;
use crate::policy::{Policy, PolicySet, Problem, TreatmentSetting, file};
use crate::telemetry::AuditLog;
use crate::telemetry::Metrics;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Policy files have problems, all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Policies(Vec<Problem>),
    /// A detector cannot be loaded.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The models of a treatment cannot be loaded.
    #[error("{}: the models of the treatment `offset` cannot be loaded", path.display())]
    Offset {
        /// The policy's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: BackendError,
    },
    /// The model cannot be loaded.
    #[error("the model cannot be loaded")]
    Engine(#[from] EngineError),
    /// The upstream's certificate authorities cannot be read.
    #[error("{}: no certificate authorities ({why})", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The upstream's address is unusable.
    #[error("the upstream cannot be used")]
    Upstream(#[from] BackendError),
    /// The audit log cannot be opened.
    #[error("the audit log cannot be opened")]
    Audit(#[source] std::io::Error),
    /// The thread that loaded policies panicked.
    #[error("the policies could not be loaded to the end")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// Everything that serves.
#[derive(Debug)]
pub struct App {
    /// The guarded model.
    pub backend: Arc<Guarded>,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// The policies in force at the start.
    pub policies: PolicySet,
    /// Keeps them up to date, once it runs.
    pub reloader: Reloader,
}

/// Loads a model folder or hub id into the engine, on the best device of this machine.
///
/// # Errors
///
/// [`EngineError`] naming the file that is missing or damaged.
pub fn load_local(
    folder: &Path,
    id: &str,
    queue: usize,
    slots: usize,
) -> Result<Local, EngineError> {
    let settings =
        EngineSettings { queue, slots, device: device::best(), ..EngineSettings::default() };
    Ok(Local::new(Engine::load(&hub::resolve(folder)?, &settings)?, id))
}

/// The guards of a folder of policies.
///
/// # Errors
///
/// [`AppError::Policies`] with all problems, or [`AppError::Guard`].
pub fn load_guards(folder: &Path) -> Result<(PolicySet, Vec<Guard>), AppError> {
    let policies = file::load_dir(folder).map_err(AppError::Policies)?;
    let guards = policies.policies.iter().cloned().map(Guard::build).collect::<Result<_, _>>()?;
    Ok((policies, guards))
}

/// Checks what a start would read of the policies, without the models' weights: the files, the
/// detectors, and whether the models of `offset` fit the served one.
///
/// # Errors
///
/// [`AppError`] as [`build`] would have it.
pub fn check(config: &Config) -> Result<PolicySet, AppError> {
    let (policies, _) = load_guards(&config.policies)?;
    let ModelSource::Local { folder, id } = &config.model else { return Ok(policies) };
    let mut served: Option<(ModelConfig, Tokenizer)> = None;
    for policy in policies.policies.iter().filter(|it| it.applies_to(id)) {
        for it in &policy.treatment {
            let TreatmentSetting::Offset(offset) = it else { continue };
            let (model, tokenizer) = match &mut served {
                Some(read) => read,
                None => served.insert(served_model(folder)?),
            };
            let context = EngineSettings::default().context.min(model.context_length);
            for folder in [&offset.pair.expert, &offset.pair.anti_expert] {
                fitting(folder, model, tokenizer, context).map_err(|source| AppError::Offset {
                    path: policy.path.clone(),
                    source: source.into(),
                })?;
            }
        }
    }
    Ok(policies)
}

fn served_model(folder: &Path) -> Result<(ModelConfig, Tokenizer), EngineError> {
    let folder = hub::resolve_without_weights(folder)?;
    let model = ModelConfig::read(&folder)?;
    let tokenizer = Tokenizer::read(&folder, &model.end_tokens)?;
    Ok((model, tokenizer))
}

/// Reads the further models of the policies that are for one of the models `served`; does nothing for
/// a backend that cannot use them, whose requests get the next treatment.
///
/// # Errors
///
/// [`AppError::Offset`] for the first model that is missing or does not fit the served one.
pub fn load_offsets(
    policies: &[Arc<Policy>],
    served: &[String],
    backend: &dyn Backend,
) -> Result<(), AppError> {
    if !backend.capabilities().offsets {
        return Ok(());
    }
    for policy in policies.iter().filter(|it| served.iter().any(|id| it.applies_to(id))) {
        for it in &policy.treatment {
            if let TreatmentSetting::Offset(offset) = it {
                let failed = |source| AppError::Offset { path: policy.path.clone(), source };
                backend.load_offset(&offset.pair).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Gives the probes of the guards that are for one of the models `served` their model. A backend that
/// shows no hidden states serves no policy with a probe.
///
/// # Errors
///
/// [`AppError::Guard`] for the first probe that cannot read the backend.
pub fn seat(
    guards: &mut [Guard],
    served: &[String],
    backend: &Arc<dyn Backend>,
) -> Result<(), AppError> {
    let shows = backend.capabilities().hidden_states;
    for guard in guards {
        if !shows || served.iter().any(|id| guard.policy.applies_to(id)) {
            guard.seat(backend)?;
        }
    }
    Ok(())
}

/// The certificates of a PEM file.
fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, AppError> {
    let failed = |why: String| AppError::Authorities { path: path.to_owned(), why };
    let read = CertificateDer::pem_file_iter(path).map_err(|it| failed(it.to_string()))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(|it| failed(it.to_string()))?;
    if found.is_empty() {
        return Err(failed("it has no certificate".to_owned()));
    }
    Ok(found)
}

/// Builds everything a configuration names.
///
/// # Errors
///
/// [`AppError`].
pub fn build(config: &Config) -> Result<App, AppError> {
    let watch = Watch::new(&config.policies);
    let (policies, mut guards) = load_guards(&config.policies)?;
    let backend: Arc<dyn Backend> = match &config.model {
        ModelSource::Local { folder, id } => {
            Arc::new(load_local(folder, id, config.queue, config.max_batch)?)
        }
        ModelSource::Upstream { url, api_key, authorities } => {
            let key = api_key.as_ref().map(|it| it.expose().to_owned());
            let authorities = authorities.as_deref().map(read_authorities).transpose()?;
            Arc::new(Upstream::trusting(url, key, &authorities.unwrap_or_default())?)
        }
    };
    let served = match &config.model {
        ModelSource::Local { id, .. } => vec![id.clone()],
        ModelSource::Upstream { .. } => Vec::new(),
    };
    load_offsets(&policies.policies, &served, backend.as_ref())?;
    seat(&mut guards, &served, &backend)?;
    let metrics = Arc::new(Metrics::new());
    metrics.set_policies(policies.labels());
    let audit =
        config.audit_log.as_deref().map(AuditLog::open).transpose().map_err(AppError::Audit)?;
    let backend = Arc::new(Guarded::new(backend, guards, metrics.clone(), audit.map(Arc::new)));
    let reloader = Reloader::new(config.policies.clone(), watch, backend.clone(), metrics.clone());
    Ok(App { backend, metrics, policies, reloader })
}
