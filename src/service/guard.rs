//! A policy with its detectors loaded.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use super::record::Recorder;
use crate::detect::Names;
use crate::detect::Topic;
use crate::detect::{Detector, DetectorError};
use crate::policy::{DetectorSetting, Policy, TOPIC};
use crate::types::{Evidence, Place};

/// A policy and what it asks of its detectors.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The policy, the classifier's threshold filled in.
    pub policy: Arc<Policy>,
    /// Its detectors, in its order.
    pub detectors: Vec<Arc<dyn Detector>>,
}

/// A detector of a policy cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("the detector `{detector}` of the topic `{topic}` cannot be loaded")]
pub struct GuardError {
    /// The policy's topic.
    pub topic: String,
    /// The detector's name.
    pub detector: &'static str,
    /// Why.
    #[source]
    pub source: DetectorError,
}

/// What a detector's failure is, by the time the policy is asked about it.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

impl Guard {
    /// Loads the detectors of a policy.
    ///
    /// # Errors
    ///
    /// [`GuardError`] when a name is unusable or a classifier's folder is.
    pub fn build(policy: Arc<Policy>) -> Result<Self, GuardError> {
        let mut detectors: Vec<Arc<dyn Detector>> = Vec::new();
        let mut filled = None;
        for setting in &policy.detectors {
            let failed = |source| GuardError {
                topic: policy.topic.clone(),
                detector: setting.name(),
                source,
            };
            match setting {
                DetectorSetting::Names => {
                    detectors.push(Arc::new(Names::new(&spellings(&policy)).map_err(failed)?));
                }
                DetectorSetting::Topic { folder, threshold } => {
                    let topic = Topic::load(folder).map_err(failed)?;
                    if threshold.is_none() {
                        let mut own = Policy::clone(&policy);
                        own.set_topic_threshold(topic.threshold());
                        filled = Some(Arc::new(own));
                    }
                    detectors.push(Arc::new(topic));
                }
            }
        }
        Ok(Self { policy: filled.unwrap_or(policy), detectors })
    }

    /// What the detectors see in the texts. A panic of a detector on another thread is a failure.
    pub(super) async fn inspect(
        &self,
        texts: &Arc<Vec<(Place, String)>>,
        recorder: &Recorder,
    ) -> Result<Vec<Evidence>, Failure> {
        let detectors = self.detectors.clone();
        let (texts, recorder) = (Arc::clone(texts), recorder.clone());
        let work = move || inspect(&detectors, &texts, &recorder);
        let slow = self.detectors.iter().any(|it| it.name() == TOPIC);
        let evidence = if slow { tokio::task::spawn_blocking(work).await? } else { work() };
        Ok(evidence?)
    }
}

fn inspect(
    detectors: &[Arc<dyn Detector>],
    texts: &[(Place, String)],
    recorder: &Recorder,
) -> Result<Vec<Evidence>, DetectorError> {
    let mut evidence = Vec::new();
    for detector in detectors {
        let since = Instant::now();
        for (place, text) in texts {
            evidence.extend(detector.inspect(*place, text)?);
        }
        recorder.detector(detector.name(), since.elapsed());
    }
    Ok(evidence)
}

/// Each name with its other spellings.
fn spellings(policy: &Policy) -> Vec<(String, Vec<String>)> {
    let aliases = policy.aliases.iter().cloned().chain(std::iter::repeat_with(Vec::new));
    policy.entities.iter().map(|it| it.name.clone()).zip(aliases).collect()
}
