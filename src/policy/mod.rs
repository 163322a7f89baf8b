//! What is to be forgotten, how it is recognised, and what happens then.
//!
//! A [`Policy`] is one checked file. [`Policy::decide`] is a pure function from evidence to a
//! [`Ruling`]: it reads no clock, does no I/O and keeps no state, so that a ruling can be replayed.
//! [`file`] turns TOML into policies and reports every problem of a folder at once; [`watch`] notices
//! that a folder has changed.

pub mod file;
mod fusion;
mod keys;
mod rows;
mod settings;
pub mod watch;

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

pub use fusion::{Fusion, best_score, fused};
pub use settings::{
    AnswerStyle, DetectorSetting, Example, InContext, JudgeServer, JudgeSetting, Layout,
    TreatmentSetting,
};

use crate::types::{Entity, Evidence, Place, View};

/// The detector that asks a language model.
pub const JUDGE: &str = "judge";
/// The detector of literal names; its evidence counts from [`NAMES_THRESHOLD`] on.
pub const NAMES: &str = "names";
/// The detector of texts that are near a stored one.
pub const NEIGHBOURS: &str = "neighbours";
/// The detector that reads the served model's hidden states; its threshold comes from the policy or
/// the probe.
pub const PROBE: &str = "probe";
/// The detector of copies of protected text.
pub const SHINGLES: &str = "shingles";
/// The detector that classifies by meaning; its threshold comes from the policy or the classifier.
pub const TOPIC: &str = "topic";
/// From this score on a name counts as seen.
pub const NAMES_THRESHOLD: f32 = 0.5;
/// From this score on a text is near a stored one, where the policy does not say: above what the
/// lab's other questions reach with hashed n-grams (0.72), as 29 % of the paraphrases are.
pub const DEFAULT_NEIGHBOURS_THRESHOLD: f32 = 0.75;
/// The score of a copy of the length that the policy sets; shorter ones score less.
pub const SHINGLES_THRESHOLD: f32 = 1.0;
/// From this score on a topic counts as seen, where neither policy nor classifier says otherwise.
pub const DEFAULT_TOPIC_THRESHOLD: f32 = 0.5;

/// Whether rulings are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Rulings are carried out.
    Enforce,
    /// Rulings are recorded and the request passes untouched.
    Shadow,
}

impl Mode {
    /// The name in policy files, metrics and the audit log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }
}

/// What happens when a detector fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnError {
    /// As if the topic had been seen.
    Treat,
    /// The request fails.
    Refuse,
    /// As if the topic had not been seen.
    Pass,
}

impl OnError {
    /// The name in policy files and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Treat => "treat",
            Self::Refuse => "refuse",
            Self::Pass => "pass",
        }
    }
}

/// Which requests get log-probabilities and may bias the logits. A treated one never does: both reach
/// past the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Probabilities {
    /// Those that are not treated. Who asks for log-probabilities can then tell which are.
    #[default]
    Untreated,
    /// None.
    Never,
}

/// What becomes of an untreated reply that says something of the topic all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub enum OnHit {
    /// A name is replaced by its surrogate; a copy of protected text ends the reply.
    #[default]
    Redact,
    /// An answer of somebody who never knew stands in place of the rest.
    ReplaceRest,
    /// The request is asked again, treated. Every reply is complete before anything of it is sent.
    Restart,
}

/// What a policy says about one request.
#[derive(Debug, Clone, PartialEq)]
pub enum Ruling {
    /// Nothing of the topic was seen.
    Pass,
    /// The topic was seen.
    Treat {
        /// The evidence at or above its threshold, in the order of the text; never empty. Where only a
        /// fused score is high enough, the best of each detector.
        evidence: Vec<Evidence>,
    },
}

/// One checked policy file.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The topic's name: a metric label, so letters, digits, `-` and `_` only.
    pub topic: String,
    /// The file.
    pub path: PathBuf,
    /// First 16 hex digits of a SHA-256 of the file and of the rows that it names.
    pub revision: String,
    /// Whether rulings are carried out.
    pub mode: Mode,
    /// What happens when a detector fails.
    pub on_error: OnError,
    /// Which requests get log-probabilities.
    pub probabilities: Probabilities,
    /// What becomes of replies that the window catches.
    pub on_hit: OnHit,
    /// Who is to be forgotten.
    pub entities: Arc<Vec<Entity>>,
    /// By kind: what a prompt may tell of somebody, and what the model reads other values of instead.
    pub values: Arc<Vec<Vec<String>>>,
    /// At least one, each kind at most once.
    pub detectors: Vec<DetectorSetting>,
    /// How scores become one; without it each detector rules on its own.
    pub fusion: Option<Fusion>,
    /// At least one: the first that the backend can carry out is used.
    pub treatment: Vec<TreatmentSetting>,
    /// Ids of the models that the policy is for; empty means all.
    pub models: Vec<String>,
    /// Seed of the noise. Depends on topic and names only, so that editing a comment or a threshold
    /// leaves treated replies as they were.
    pub seed: u64,
}

impl Policy {
    /// Rules on a request: by any detector at its threshold, or by the fused score where the policy
    /// has a [`Fusion`]. Free of the order of `evidence`, and monotone: more evidence never turns
    /// [`Ruling::Treat`] into [`Ruling::Pass`]. A score that is not a number counts as seen.
    #[must_use]
    pub fn decide(&self, evidence: &[Evidence]) -> Ruling {
        let counts = |it: &Evidence| self.counts(it);
        let mut seen: Vec<Evidence> = match &self.fusion {
            None => evidence.iter().filter(|it| counts(it)).cloned().collect(),
            Some(fusion) => fusion.telling(evidence, counts),
        };
        if seen.is_empty() {
            return Ruling::Pass;
        }
        seen.sort_by(|a, b| order(a).cmp(&order(b)).then(a.score.total_cmp(&b.score)));
        Ruling::Treat { evidence: seen }
    }

    /// Whether one piece of evidence is at or above its detector's threshold.
    #[must_use]
    pub fn counts(&self, evidence: &Evidence) -> bool {
        evidence.score.is_nan() || evidence.score >= self.threshold(evidence.detector)
    }

    /// The score from which on a detector's evidence counts.
    #[must_use]
    pub fn threshold(&self, detector: &str) -> f32 {
        let setting = self.detectors.iter().find(|it| it.name() == detector);
        setting.and_then(DetectorSetting::threshold).unwrap_or(DEFAULT_TOPIC_THRESHOLD)
    }

    /// Fills in the classifier's own threshold where the policy sets none.
    pub fn set_topic_threshold(&mut self, classifier: f32) {
        for it in &mut self.detectors {
            if let DetectorSetting::Topic { threshold, .. } = it {
                threshold.get_or_insert(classifier);
            }
        }
    }

    /// Fills in the probe's own threshold where the policy sets none.
    pub fn set_probe_threshold(&mut self, probe: f32) {
        for it in &mut self.detectors {
            if let DetectorSetting::Probe { threshold, .. } = it {
                threshold.get_or_insert(probe);
            }
        }
    }

    /// The first treatment that the backend can carry out; `engine` says whether it is the in-process
    /// engine. `None` must fail closed.
    #[must_use]
    pub fn treatment_for(&self, engine: bool) -> Option<&TreatmentSetting> {
        self.treatment.iter().find(|it| engine || !it.needs_engine())
    }

    /// Whether the policy is for this model.
    #[must_use]
    pub fn applies_to(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|it| it == model)
    }
}

type Order = (Place, usize, usize, &'static str, Option<usize>, View);

fn order(evidence: &Evidence) -> Order {
    (
        evidence.place,
        evidence.span.start,
        evidence.span.end,
        evidence.detector,
        evidence.entity,
        evidence.view,
    )
}

/// The policies of a folder. The default is empty: nothing is forgotten.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicySet {
    /// In the order of their file names; topics are unique.
    pub policies: Vec<Arc<Policy>>,
    /// First 16 hex digits of a SHA-256 over topics and revisions.
    pub revision: String,
}

impl PolicySet {
    /// Topic and revision of every policy, as metrics show them.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.policies.iter().map(|it| (it.topic.as_str(), it.revision.as_str()))
    }
}

/// Something wrong in a policy file, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file or folder.
    pub path: PathBuf,
    /// The key, as in `entity[0].name`; empty when it is the file as a whole.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        if self.key.is_empty() {
            write!(f, "{path}: {}", self.message)
        } else {
            write!(f, "{path}: {}: {}", self.key, self.message)
        }
    }
}

const FIRST_NAMES: [&str; 24] = [
    "Zorvan", "Ilsabet", "Tamsin", "Corwyn", "Maelis", "Orsolo", "Bettany", "Kestrel", "Dovran",
    "Ysolde", "Perrin", "Anselka", "Lucan", "Merida", "Torvald", "Quilla", "Emeric", "Saffra",
    "Hadrian", "Noemi", "Jorund", "Velika", "Osric", "Thessaly",
];
const LAST_NAMES: [&str; 24] = [
    "Kell",
    "Averne",
    "Brandmoor",
    "Castellane",
    "Dunwick",
    "Estergaard",
    "Farrowby",
    "Gantry",
    "Holloway",
    "Imbrook",
    "Jessamy",
    "Karstens",
    "Lindqvist",
    "Marchetti",
    "Norwood",
    "Oakhurst",
    "Pellerin",
    "Quennell",
    "Rosenthal",
    "Stavros",
    "Thornbury",
    "Ullman",
    "Vasko",
    "Wexley",
];
/// Coprime to the number of pairs, and changes both names at once.
const PAIR_STEP: usize = 25;

/// A surrogate for each name, in the order of `names`: from `pool`, or from the built-in names when
/// it is empty. The choice hangs on the name, not on its position in the file. Nothing in `taken`
/// (compared without case) is chosen, and nothing twice; `None` where no candidate is left.
#[must_use]
pub fn draw_surrogates(names: &[&str], pool: &[String], taken: &[&str]) -> Vec<Option<String>> {
    let mut used: HashSet<String> = taken.iter().map(|it| it.to_lowercase()).collect();
    let words: HashSet<String> =
        used.iter().flat_map(|it| it.split_whitespace()).map(str::to_owned).collect();
    let mut turn: Vec<usize> = (0..names.len()).collect();
    turn.sort_by_key(|it| names[*it]);
    let mut drawn = vec![None; names.len()];
    for index in turn {
        let hash = crate::seed::derive(0, names[index].as_bytes());
        let found = candidates(pool, hash).find(|it| {
            let lower = it.to_lowercase();
            // The built-in pool is large enough to avoid even a shared first or last name.
            let shares = pool.is_empty() && lower.split_whitespace().any(|it| words.contains(it));
            !shares && !used.contains(&lower)
        });
        if let Some(name) = &found {
            used.insert(name.to_lowercase());
        }
        drawn[index] = found;
    }
    drawn
}

/// All of the pool, from a place that the hash chooses.
fn candidates(pool: &[String], hash: u64) -> impl Iterator<Item = String> + '_ {
    let pairs = FIRST_NAMES.len() * LAST_NAMES.len();
    let (count, step) = if pool.is_empty() { (pairs, PAIR_STEP) } else { (pool.len(), 1) };
    let start = (hash % count as u64) as usize;
    (0..count).map(move |it| {
        let at = (start + it * step) % count;
        pool.get(at).cloned().unwrap_or_else(|| {
            let first = FIRST_NAMES[at % FIRST_NAMES.len()];
            let last = LAST_NAMES[at / FIRST_NAMES.len() % LAST_NAMES.len()];
            format!("{first} {last}")
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::CorruptionFunction;

    fn policy(threshold: Option<f32>) -> Policy {
        let folder = PathBuf::from("classifier");
        Policy {
            topic: "authors".to_owned(),
            path: PathBuf::from("authors.toml"),
            revision: String::new(),
            mode: Mode::Enforce,
            on_error: OnError::Treat,
            probabilities: Probabilities::Untreated,
            on_hit: OnHit::Redact,
            entities: Arc::default(),
            values: Arc::default(),
            detectors: vec![
                DetectorSetting::Names { reach: 2 },
                DetectorSetting::Topic { folder, threshold },
            ],
            fusion: None,
            treatment: vec![
                TreatmentSetting::Corrupt { function: CorruptionFunction::Substitute },
                TreatmentSetting::Alias,
            ],
            models: Vec::new(),
            seed: 0,
        }
    }

    fn evidence() -> impl Strategy<Value = Evidence> {
        let detector = prop_oneof![Just(NAMES), Just(TOPIC)];
        let place = prop_oneof![(0..3usize).prop_map(Place::Text), Just(Place::Continuation)];
        let entity = prop_oneof![Just(None), (0..2usize).prop_map(Some)];
        let view = prop_oneof![Just(View::Raw), Just(View::Normalised)];
        (detector, 0.0..=1.0f32, place, 0..9usize, 0..9usize, view, entity).prop_map(
            |(detector, score, place, start, length, view, entity)| {
                let span = start..start + length;
                Evidence { detector, score, place, span, view, entity }
            },
        )
    }

    proptest! {
        #[test]
        fn a_ruling_is_free_of_order(
            (seen, shuffled) in proptest::collection::vec(evidence(), 0..12)
                .prop_flat_map(|it| (Just(it.clone()), Just(it).prop_shuffle())),
            threshold in 0.0..=1.0f32,
        ) {
            let policy = policy(Some(threshold));
            prop_assert_eq!(policy.decide(&seen), policy.decide(&shuffled));
        }

        #[test]
        fn more_evidence_never_frees_a_request(
            mut seen in proptest::collection::vec(evidence(), 0..8),
            more in proptest::collection::vec(evidence(), 0..8),
            threshold in 0.0..=1.0f32,
        ) {
            let policy = policy(Some(threshold));
            let before = policy.decide(&seen);
            seen.extend(more);
            prop_assert!(before == Ruling::Pass || policy.decide(&seen) != Ruling::Pass);
        }
    }

    fn scored(detector: &'static str, score: f32) -> Evidence {
        let (place, span, view) = (Place::Text(0), 0..1, View::Raw);
        Evidence { detector, score, place, span, view, entity: None }
    }

    #[test]
    fn each_detector_has_its_threshold() {
        let policy = policy(Some(0.9));
        assert_eq!(policy.decide(&[scored(TOPIC, 0.89), scored(NAMES, 0.49)]), Ruling::Pass);
        let ruling = policy.decide(&[scored(TOPIC, 0.9), scored(NAMES, 0.4)]);
        assert_eq!(ruling, Ruling::Treat { evidence: vec![scored(TOPIC, 0.9)] });
        assert_ne!(policy.decide(&[scored(TOPIC, f32::NAN)]), Ruling::Pass);
    }

    #[test]
    fn neighbours_and_shingles_have_theirs() {
        let mut policy = policy(None);
        let texts = Arc::new(vec!["a".to_owned()]);
        let shingles =
            DetectorSetting::Shingles { texts: texts.clone(), n: 8, run: 5, replies: true };
        let (encoder, floor, threshold) = (None, 0.0, 0.7);
        let neighbours = DetectorSetting::Neighbours { texts, encoder, floor, threshold };
        policy.detectors = vec![neighbours, shingles];
        assert_eq!(policy.decide(&[scored(NEIGHBOURS, 0.69), scored(SHINGLES, 0.8)]), Ruling::Pass);
        assert_ne!(policy.decide(&[scored(NEIGHBOURS, 0.7)]), Ruling::Pass);
        assert_ne!(policy.decide(&[scored(SHINGLES, 1.0)]), Ruling::Pass);
    }

    #[test]
    fn the_classifiers_threshold_yields_to_the_policys() {
        let mut own = policy(Some(0.9));
        own.set_topic_threshold(0.3);
        assert_eq!(own.threshold(TOPIC), 0.9);
        let mut filled = policy(None);
        assert_eq!(filled.threshold(TOPIC), DEFAULT_TOPIC_THRESHOLD);
        filled.set_topic_threshold(0.3);
        assert_eq!(filled.threshold(TOPIC), 0.3);
    }

    #[test]
    fn a_text_only_backend_gets_the_next_treatment() {
        let policy = policy(None);
        assert_eq!(policy.treatment_for(true).map(TreatmentSetting::name), Some("corrupt"));
        assert_eq!(policy.treatment_for(false).map(TreatmentSetting::name), Some("alias"));
    }

    #[test]
    fn surrogates_hang_on_the_name_alone() {
        let names = ["Basil Okafor", "Zorvan Kell", "Mina Holloway"];
        let drawn = draw_surrogates(&names, &[], &names);
        let reversed = draw_surrogates(&[names[2], names[1], names[0]], &[], &names);
        assert_eq!(drawn, reversed.into_iter().rev().collect::<Vec<_>>());
        for surrogate in drawn.iter().flatten() {
            assert!(
                !surrogate.contains("Zorvan") && !surrogate.contains("Holloway"),
                "{surrogate}"
            );
        }
    }

    #[test]
    fn the_built_in_pool_covers_hundreds_of_names_without_repeating() {
        let names: Vec<String> = (0..500).map(|it| format!("Person {it}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let drawn: HashSet<String> =
            draw_surrogates(&names, &[], &names).into_iter().flatten().collect();
        assert_eq!(drawn.len(), 500);
    }

    #[test]
    fn an_exhausted_pool_says_so() {
        let pool = ["Ada Vane".to_owned(), "ada lunt".to_owned()];
        let drawn = draw_surrogates(&["A", "B"], &pool, &["Ada Lunt"]);
        assert_eq!(drawn, [Some("Ada Vane".to_owned()), None]);
    }
}
