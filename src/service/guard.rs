//! A policy with its detectors loaded.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::cache::{Scope, Verdicts};
use super::record::Recorder;
use crate::detect::{Detector, DetectorError, Names, Neighbours, Shingles, Topic, other_orders};
use crate::policy::{DetectorSetting, Policy};
use crate::types::{Entity, Evidence, Place};
use crate::window::{Kind, PatternSet, Replacement};

/// A policy and what it asks of its detectors.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The policy, the classifier's threshold filled in.
    pub policy: Arc<Policy>,
    /// Its detectors, in its order.
    pub detectors: Vec<Arc<dyn Detector>>,
    /// Its names in every spelling that replies are searched for, owned by their entities.
    pub(super) redactions: Arc<PatternSet>,
}

/// A detector of a policy cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[error("{}: the detector `{detector}` of the topic `{topic}` cannot be loaded", path.display())]
pub struct GuardError {
    /// The policy's file.
    pub path: PathBuf,
    /// The policy's topic.
    pub topic: String,
    /// The detector's name.
    pub detector: &'static str,
    /// Why.
    #[source]
    pub source: Box<DetectorError>,
}

/// What a detector's failure is, by the time the policy is asked about it.
pub(super) type Failure = Box<dyn Error + Send + Sync>;

impl Guard {
    /// A policy with detectors at hand.
    #[must_use]
    pub fn new(policy: Arc<Policy>, detectors: Vec<Arc<dyn Detector>>) -> Self {
        let redact = |(owner, entity): (usize, &Entity)| {
            let with = entity.surrogate.clone();
            let written: Vec<String> = entity
                .spellings()
                .flat_map(|it| std::iter::once(it.to_owned()).chain(other_orders(it)))
                .collect();
            written.into_iter().map(move |pattern| {
                (owner, Replacement { pattern, with: with.clone(), kind: Kind::Redact })
            })
        };
        let redactions = PatternSet::new(policy.entities.iter().enumerate().flat_map(redact));
        Self { policy, detectors, redactions: Arc::new(redactions) }
    }

    /// Loads the detectors of a policy.
    ///
    /// # Errors
    ///
    /// [`GuardError`] when a name, a stored text or a classifier's folder is unusable.
    pub fn build(policy: Arc<Policy>) -> Result<Self, GuardError> {
        let mut detectors: Vec<Arc<dyn Detector>> = Vec::new();
        let mut filled = None;
        for setting in &policy.detectors {
            let failed = |source: DetectorError| GuardError {
                path: policy.path.clone(),
                topic: policy.topic.clone(),
                detector: setting.name(),
                source: Box::new(source),
            };
            match setting {
                DetectorSetting::Names => {
                    detectors.push(Arc::new(Names::new(&policy.entities).map_err(failed)?));
                }
                DetectorSetting::Neighbours { texts, encoder, floor, .. } => {
                    let neighbours = Neighbours::load(texts, encoder.as_deref(), *floor);
                    detectors.push(Arc::new(neighbours.map_err(failed)?));
                }
                DetectorSetting::Shingles { texts, n, run } => {
                    detectors.push(Arc::new(Shingles::new(texts, *n, *run).map_err(failed)?));
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
        Ok(Self::new(filled.unwrap_or(policy), detectors))
    }

    /// What the detectors see in the texts. A panic of a detector on another thread is a failure.
    pub(super) async fn inspect(
        &self,
        texts: &Arc<Vec<(Place, String)>>,
        recorder: &Recorder,
        verdicts: &Verdicts,
        scope: Scope,
    ) -> Result<Vec<Evidence>, Failure> {
        let looks = self.recall(texts, recorder, verdicts, scope);
        let slow = looks.iter().any(|it| it.key.is_some() && it.evidence.is_none());
        let detectors = self.detectors.clone();
        let (own, recorder) = (Arc::clone(texts), recorder.clone());
        let work = move || inspect(&detectors, &own, looks, &recorder);
        let looks = if slow { tokio::task::spawn_blocking(work).await? } else { work() };
        let mut seen = Vec::new();
        for it in looks? {
            let evidence = it.evidence.unwrap_or_default();
            if let (Some(key), true) = (it.key, it.fresh) {
                verdicts.insert(key, evidence.clone());
            }
            seen.extend(evidence);
        }
        seen.extend(self.detectors.iter().flat_map(|it| it.across(texts)));
        Ok(seen)
    }

    /// A look of every detector at every text, detector by detector, with what is known already.
    fn recall(
        &self,
        texts: &[(Place, String)],
        recorder: &Recorder,
        verdicts: &Verdicts,
        scope: Scope,
    ) -> Vec<Look> {
        let mut looks = Vec::with_capacity(self.detectors.len() * texts.len());
        for detector in &self.detectors {
            for (place, text) in texts {
                let key = verdicts.key(scope, &self.policy, detector.name(), text);
                let evidence = key.and_then(|it| verdicts.get(it, *place));
                if key.is_some() {
                    recorder.recalled(evidence.is_some());
                }
                looks.push(Look { key, evidence, fresh: false });
            }
        }
        looks
    }
}

/// One detector on one text.
struct Look {
    /// Where the verdict is kept, when it is.
    key: Option<u128>,
    /// `None` until the detector has looked.
    evidence: Option<Vec<Evidence>>,
    /// The detector has looked, and what it saw is not kept yet.
    fresh: bool,
}

/// Does what is left of the looks, which are in the order of detectors and texts.
fn inspect(
    detectors: &[Arc<dyn Detector>],
    texts: &[(Place, String)],
    mut looks: Vec<Look>,
    recorder: &Recorder,
) -> Result<Vec<Look>, DetectorError> {
    let mut open = looks.iter_mut();
    for detector in detectors {
        let since = Instant::now();
        let mut looked = false;
        for ((place, text), look) in texts.iter().zip(open.by_ref()) {
            if look.evidence.is_none() {
                look.evidence = Some(detector.inspect(*place, text)?);
                look.fresh = true;
                looked = true;
            }
        }
        if looked {
            recorder.detector(detector.name(), since.elapsed());
        }
    }
    Ok(looks)
}
