//! A policy with its detectors loaded.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures::future::{try_join, try_join_all};

use super::cache::{Scope, Verdicts};
use super::copied::Protected;
use super::judge::{Seated, Served};
use super::probe::HiddenStates;
use super::record::Recorder;
use crate::backend::Backend;
use crate::detect::{Detector, DetectorError, Names, Neighbours, Probe, Shingles, Topic};
use crate::policy::{DetectorSetting, JUDGE, NAMES, PROBE, Policy};
use crate::text::{Values, other_orders};
use crate::treat::own_names;
use crate::types::{Entity, Evidence, Place};
use crate::window::{Copies, Kind, PatternSet, Replacement};

/// Texts that a judge reads at the same time.
const JUDGED_AT_ONCE: usize = 4;

/// A policy and what it asks of its detectors.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The policy, the classifier's threshold filled in.
    pub policy: Arc<Policy>,
    /// Its detectors but the judge, in its order.
    pub detectors: Vec<Arc<dyn Detector>>,
    pub(super) judge: Option<Arc<Seated>>,
    /// Its surrogates, which become the names again where a treatment put them; owned by the entities.
    pub(super) restorations: Arc<PatternSet>,
    /// Values that its treatments exchange.
    pub(super) values: Arc<Values>,
    /// Its names in every spelling that replies are searched for, owned by their entities.
    pub(super) redactions: Arc<PatternSet>,
    /// What replies must not copy.
    pub(super) copies: Vec<Arc<dyn Copies>>,
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
            let redact = move |(pattern, with): (String, String)| {
                (owner, Replacement { pattern, with, kind: Kind::Redact })
            };
            let written = entity.spellings().flat_map(|it| {
                let own = (it.to_owned(), entity.surrogate.clone());
                std::iter::once(own).chain(other_orders(it, &entity.surrogate))
            });
            written.map(redact).collect::<Vec<_>>()
        };
        let restored = policy.entities.iter().enumerate();
        let restored = restored.flat_map(|(owner, it)| own_names(it).map(move |it| (owner, it)));
        let restorations = Arc::new(PatternSet::new(restored));
        let redactions = PatternSet::new(policy.entities.iter().enumerate().flat_map(redact));
        let values = Arc::new(Values::new(policy.values.iter().map(Vec::as_slice)));
        Self {
            policy,
            detectors,
            judge: None,
            restorations,
            values,
            redactions: Arc::new(redactions),
            copies: Vec::new(),
        }
    }

    /// Loads the detectors of a policy. A probe has no model yet, see [`Guard::seat`].
    ///
    /// # Errors
    ///
    /// [`GuardError`] when a name, a stored text, a classifier's folder or a judge's server is
    /// unusable.
    pub fn build(policy: Arc<Policy>) -> Result<Self, GuardError> {
        let mut detectors: Vec<Arc<dyn Detector>> = Vec::new();
        let mut copies: Vec<Arc<dyn Copies>> = Vec::new();
        let (mut judge, mut filled): (_, Option<Policy>) = (None, None);
        for setting in &policy.detectors {
            let failed = |source: DetectorError| GuardError {
                path: policy.path.clone(),
                topic: policy.topic.clone(),
                detector: setting.name(),
                source: Box::new(source),
            };
            match setting {
                DetectorSetting::Judge(setting) => {
                    judge = Some(Arc::new(Seated::new(setting).map_err(failed)?));
                }
                DetectorSetting::Names { reach } => {
                    let names = Names::new(&policy.entities, *reach);
                    detectors.push(Arc::new(names.map_err(failed)?));
                }
                DetectorSetting::Neighbours { texts, encoder, floor, .. } => {
                    let neighbours = Neighbours::load(texts, encoder.as_deref(), *floor);
                    detectors.push(Arc::new(neighbours.map_err(failed)?));
                }
                DetectorSetting::Shingles { texts, n, run, replies } => {
                    let shingles = Arc::new(Shingles::new(texts, *n, *run).map_err(failed)?);
                    if *replies {
                        copies.push(Arc::new(Protected(Arc::clone(&shingles))));
                    }
                    detectors.push(shingles);
                }
                DetectorSetting::Probe { folder, .. } => {
                    let probe = Probe::load(folder).map_err(failed)?;
                    let own = filled.get_or_insert_with(|| Policy::clone(&policy));
                    own.set_probe_threshold(probe.threshold());
                    detectors.push(Arc::new(probe));
                }
                DetectorSetting::Topic { folder, .. } => {
                    let topic = Topic::load(folder).map_err(failed)?;
                    let own = filled.get_or_insert_with(|| Policy::clone(&policy));
                    own.set_topic_threshold(topic.threshold());
                    detectors.push(Arc::new(topic));
                }
            }
        }
        Ok(Self { judge, copies, ..Self::new(filled.map_or(policy, Arc::new), detectors) })
    }

    /// Gives a probe the model that it reads; other detectors need none.
    ///
    /// # Errors
    ///
    /// [`GuardError`] when the backend shows no hidden states, or is another model than the probe was
    /// trained on.
    pub fn seat(&mut self, backend: &Arc<dyn Backend>) -> Result<(), GuardError> {
        for setting in &self.policy.detectors {
            let DetectorSetting::Probe { folder, .. } = setting else { continue };
            let states = Arc::new(HiddenStates::new(Arc::clone(backend)));
            let probe = Probe::over(folder, states).map_err(|source| GuardError {
                path: self.policy.path.clone(),
                topic: self.policy.topic.clone(),
                detector: PROBE,
                source: Box::new(source),
            })?;
            let probe: Arc<dyn Detector> = Arc::new(probe);
            for it in self.detectors.iter_mut().filter(|it| it.name() == PROBE) {
                *it = Arc::clone(&probe);
            }
        }
        Ok(())
    }

    pub(super) fn name(&self, entity: usize) -> &str {
        &self.policy.entities[entity].name
    }

    /// The entities that have one of these names.
    pub(super) fn entities_named(&self, names: &[&str]) -> impl Iterator<Item = usize> {
        let named = self.policy.entities.iter().enumerate();
        named.filter(|it| names.contains(&it.1.name.as_str())).map(|it| it.0)
    }

    /// Whether a text names anybody, as the detector of names reads it; one that fails says yes.
    pub(super) fn names_somebody(&self, text: &str) -> bool {
        let mut names = self.detectors.iter().filter(|it| it.name() == NAMES);
        names.any(|it| it.inspect(Place::Text(0), text).map_or(true, |seen| !seen.is_empty()))
    }

    /// What the detectors see in one text on its own. Nothing is remembered or recorded, and a judge
    /// needs a server of its own.
    ///
    /// # Errors
    ///
    /// The first detector's failure.
    pub async fn read(&self, text: &str) -> Result<Vec<Evidence>, DetectorError> {
        let place = Place::Text(0);
        let mut seen = Vec::new();
        for it in &self.detectors {
            seen.extend(it.inspect(place, text)?);
        }
        if let Some(judge) = &self.judge {
            seen.extend(judge.inspect(place, text, None).await?);
        }
        Ok(seen)
    }

    /// What the detectors see in the texts; the judge is asked meanwhile.
    pub(super) async fn inspect(
        &self,
        texts: &Arc<Vec<(Place, String)>>,
        recorder: &Recorder,
        (verdicts, scope): (&Verdicts, Scope),
        served: Served<'_>,
    ) -> Result<Vec<Evidence>, Failure> {
        let looked = self.look(texts, recorder, verdicts, scope);
        let Some(judge) = &self.judge else { return looked.await };
        let judged = self.ask(judge, texts, recorder, (verdicts, scope), served);
        let (mut seen, judged) = try_join(looked, judged).await?;
        seen.extend(judged);
        Ok(seen)
    }

    /// What the judge sees in the texts. A verdict holds for the model that gave it.
    async fn ask(
        &self,
        judge: &Seated,
        texts: &[(Place, String)],
        recorder: &Recorder,
        (verdicts, scope): (&Verdicts, Scope),
        served: Served<'_>,
    ) -> Result<Vec<Evidence>, Failure> {
        let since = Instant::now();
        let who = format!("{JUDGE} {}", judge.model(served));
        let (mut seen, mut open) = (Vec::new(), Vec::new());
        for (place, text) in texts {
            let key = verdicts.key(scope, &self.policy, &who, text);
            let known = key.and_then(|it| verdicts.get(it, *place));
            recorder.recalled(known.is_some());
            match known {
                Some(evidence) => seen.extend(evidence),
                None => open.push((*place, text.as_str(), key)),
            }
        }
        for some in open.chunks(JUDGED_AT_ONCE) {
            let mut questions = Vec::with_capacity(some.len());
            for (place, text, _) in some {
                questions.push(judge.inspect(*place, text, Some(served)));
            }
            let answers = try_join_all(questions).await?;
            for ((.., key), evidence) in some.iter().zip(answers) {
                if let Some(key) = key {
                    verdicts.insert(*key, evidence.clone());
                }
                seen.extend(evidence);
            }
        }
        if !open.is_empty() {
            recorder.detector(JUDGE, since.elapsed());
        }
        Ok(seen)
    }

    /// What the other detectors see. A panic of one on another thread is a failure.
    async fn look(
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
