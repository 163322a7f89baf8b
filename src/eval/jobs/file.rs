//! From TOML to a checked [`Job`]: unknown keys are refused, and so is everything that would fail an
//! hour later.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::grid::{self, Action, Bound, Variant};
use crate::eval::{attacks, whitebox};

/// What can be measured, with one line about each. Cost is always measured.
pub const METRICS: &[(&str, &str)] = &[
    (
        "distinguishability",
        "AUC by which a client tells forget questions from the same about unknown names",
    ),
    ("exact_memorisation", "share of answer tokens that are the most probable ones, as served"),
    ("extraction_strength", "share of the answer that follows from the rest of it, as served"),
    ("fluency", "entropy in bits of pairs and triples of words of replies"),
    ("forget_quality", "Kolmogorov-Smirnov p of the truth ratios against gold's"),
    ("hard_non_targets", "right answers to the kept questions nearest to the forgotten ones"),
    ("leak", "right values in replies to forget questions, in every wording"),
    (
        "membership",
        "AUC of forget rows against rows that nobody was trained on by min-40 %, and privleak",
    ),
    ("mixed", "right values for the kept half of mixed questions"),
    ("model_utility", "harmonic mean of TOFU's nine parts on what is kept"),
    ("multiple_choice", "how often the right answer is more probable than all wrong ones"),
    ("representation", "cosine of hidden states with those of the untouched model"),
];

/// Forget splits of the lab, and how many authors are in each; attacks are made from their names.
pub const LAB_SPLITS: [(&str, usize); 3] = [("forget10", 4), ("forget05", 2), ("forget01", 1)];

/// Names of the data files, without `.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SplitNames {
    /// Rows to be forgotten, trained on and asked about.
    pub forget: String,
    /// Rows to be kept that methods train on.
    pub retain: String,
    /// Rows to be kept that are asked about.
    pub retain_asked: String,
    /// Rows like the forget rows that no model was trained on: what membership is told by.
    pub holdout: String,
    /// Well-known authors.
    pub real_authors: String,
    /// Facts of the world.
    pub world_facts: String,
}

impl Default for SplitNames {
    fn default() -> Self {
        Self {
            forget: "forget10".to_owned(),
            retain: "retain90".to_owned(),
            retain_asked: "retain_perturbed".to_owned(),
            holdout: "holdout".to_owned(),
            real_authors: "real_authors".to_owned(),
            world_facts: "world_facts".to_owned(),
        }
    }
}

impl SplitNames {
    /// All of them with their keys.
    #[must_use]
    pub fn all(&self) -> [(&'static str, &str); 6] {
        [
            ("forget", &self.forget),
            ("retain", &self.retain),
            ("retain_asked", &self.retain_asked),
            ("holdout", &self.holdout),
            ("real_authors", &self.real_authors),
            ("world_facts", &self.world_facts),
        ]
    }
}

/// How much is asked of every point; rows are spread evenly over their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Forget rows.
    pub forget: usize,
    /// Retain rows.
    pub retain: usize,
    /// Rows of real authors, and of world facts.
    pub others: usize,
    /// Hard non-targets.
    pub hard: usize,
    /// Forget questions of each black-box attack.
    pub attack_questions: usize,
    /// Retain rows of attacks on weights; they use every forget row.
    pub whitebox_retain: usize,
    /// Steps of the search for a suffix, `gcg`.
    pub suffix_steps: usize,
    /// Requests that are timed, one at a time, of forget and of retain questions.
    pub timed: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            forget: 400,
            retain: 100,
            others: 50,
            hard: 40,
            attack_questions: 8,
            whitebox_retain: 40,
            suffix_steps: 50,
            timed: 8,
        }
    }
}

impl Limits {
    fn all(self) -> [(&'static str, usize); 8] {
        [
            ("forget", self.forget),
            ("retain", self.retain),
            ("others", self.others),
            ("hard", self.hard),
            ("attack_questions", self.attack_questions),
            ("whitebox_retain", self.whitebox_retain),
            ("suffix_steps", self.suffix_steps),
            ("timed", self.timed),
        ]
    }
}

/// A checked job. Paths are as they are opened: those in the file start at its folder.
#[derive(Debug, Clone)]
pub struct Job {
    /// The file.
    pub path: PathBuf,
    /// Headline of the report.
    pub title: String,
    /// The model that knows everything.
    pub model: PathBuf,
    /// The model retrained without the forget rows.
    pub gold: PathBuf,
    /// The same from another seed.
    pub second_gold: Option<PathBuf>,
    /// The policy whose detectors and names guards use.
    pub policy: Option<PathBuf>,
    /// Folder of the data files.
    pub data: PathBuf,
    /// Seed of the lab's world, for attacks.
    pub world_seed: u64,
    /// Names out of [`METRICS`].
    pub metrics: Vec<String>,
    /// Names of black-box attacks.
    pub attacks: Vec<String>,
    /// Names of attacks on weights.
    pub whitebox: Vec<String>,
    /// Names of the data files.
    pub splits: SplitNames,
    /// Budgets.
    pub limits: Limits,
    /// SHA-256 of data files by name of the split; empty where none is pinned.
    pub data_hashes: BTreeMap<String, String>,
    /// Whether trained models are kept beside the results.
    pub keep_models: bool,
    /// The rows of the report, sweeps expanded.
    pub variants: Vec<Variant>,
}

/// Why a job cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML, or has an unknown key or a value of the wrong type.
    #[error("{}: not a valid job", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Values that cannot be used: all of them, one a line, with file and key.
    #[error("{}", problems.join("\n"))]
    Invalid {
        /// The lines.
        problems: Vec<String>,
    },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    title: Option<String>,
    model: PathBuf,
    gold: PathBuf,
    second_gold: Option<PathBuf>,
    policy: Option<PathBuf>,
    data: PathBuf,
    #[serde(default = "world_seed")]
    world_seed: u64,
    #[serde(default = "seeds")]
    seeds: Vec<u64>,
    metrics: Option<Vec<String>>,
    #[serde(default)]
    attacks: Vec<String>,
    #[serde(default)]
    whitebox: Vec<String>,
    #[serde(default)]
    keep_models: bool,
    #[serde(default)]
    splits: SplitNames,
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    data_hashes: BTreeMap<String, String>,
    #[serde(default)]
    method: Vec<toml::Table>,
}

fn world_seed() -> u64 {
    42
}

/// Three, because one run of a method says little about it.
fn seeds() -> Vec<u64> {
    vec![1, 2, 3]
}

impl Job {
    /// Reads a job file.
    ///
    /// # Errors
    ///
    /// [`JobError`].
    pub fn load(path: &Path) -> Result<Self, JobError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| JobError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Checks the text of a job file; nothing that it names is opened.
    ///
    /// # Errors
    ///
    /// [`JobError::Parse`] or [`JobError::Invalid`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, JobError> {
        let raw: Raw = toml::from_str(text).map_err(|source| {
            let source = Box::new(source);
            JobError::Parse { path: path.to_owned(), source }
        })?;
        let mut problems = Vec::new();
        let mut variants = Vec::new();
        for (at, table) in raw.method.iter().enumerate() {
            let key = format!("method[{at}]");
            variants.extend(grid::expand(table, &key, &raw.seeds, &mut problems));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        for variant in &mut variants {
            if let Action::Model(path) = &mut variant.action {
                *path = folder.join(&path);
            }
        }
        let metrics =
            raw.metrics.unwrap_or_else(|| METRICS.iter().map(|it| it.0.to_owned()).collect());
        let job = Self {
            path: path.to_owned(),
            title: raw.title.unwrap_or_else(|| "Comparison".to_owned()),
            model: folder.join(raw.model),
            gold: folder.join(raw.gold),
            second_gold: raw.second_gold.map(|it| folder.join(it)),
            policy: raw.policy.map(|it| folder.join(it)),
            data: folder.join(raw.data),
            world_seed: raw.world_seed,
            metrics,
            attacks: raw.attacks,
            whitebox: raw.whitebox,
            splits: raw.splits,
            limits: raw.limits,
            data_hashes: raw.data_hashes,
            keep_models: raw.keep_models,
            variants,
        };
        job.check(&raw.seeds, &mut problems);
        if problems.is_empty() {
            return Ok(job);
        }
        let named = problems.into_iter().map(|it| format!("{}: {it}", path.display()));
        Err(JobError::Invalid { problems: named.collect() })
    }

    /// Whether a metric is asked for.
    #[must_use]
    pub fn measures(&self, metric: &str) -> bool {
        self.metrics.iter().any(|it| it == metric)
    }

    /// Authors in the forget split, where it is the lab's.
    #[must_use]
    pub fn authors(&self) -> Option<usize> {
        LAB_SPLITS.iter().find(|it| it.0 == self.splits.forget).map(|it| it.1)
    }

    fn check(&self, seeds: &[u64], problems: &mut Vec<String>) {
        let metrics: Vec<&str> = METRICS.iter().map(|it| it.0).collect();
        names("metrics", &self.metrics, &metrics, problems);
        let known: Vec<&str> = attacks::ALL.iter().map(|it| it.name).collect();
        names("attacks", &self.attacks, &known, problems);
        let known: Vec<&str> = whitebox::ATTACKS.iter().map(|it| it.name).collect();
        names("whitebox", &self.whitebox, &known, problems);
        if seeds.is_empty() {
            problems.push("seeds: empty; name at least one".to_owned());
        }
        let zero = self.limits.all().into_iter().filter(|it| it.1 == 0);
        problems.extend(zero.map(|it| format!("limits.{}: is 0; use 1 or more", it.0)));
        if self.authors().is_none() && (!self.attacks.is_empty() || self.measures("mixed")) {
            let lab: Vec<&str> = LAB_SPLITS.iter().map(|it| it.0).collect();
            problems.push(format!(
                "splits.forget: attacks and `mixed` are made from the lab's names, and `{}` is not one of \
                 {}; set attacks = [] and leave `mixed` out of `metrics`",
                self.splits.forget,
                lab.join(", ")
            ));
        }
        let guards = self.variants.iter().any(|it| matches!(it.action, Action::Guard { .. }));
        if guards && self.policy.is_none() {
            problems.push("policy: missing; a method of the kind `guard` needs one".to_owned());
        }
        for (at, variant) in self.variants.iter().enumerate() {
            if self.variants[..at].iter().any(|it| it.label == variant.label) {
                problems
                    .push(format!("method: two rows are called `{}`; rename one", variant.label));
            }
        }
        self.check_bounds(problems);
    }

    fn check_bounds(&self, problems: &mut Vec<String>) {
        let has = |bound: Bound| {
            self.variants.iter().any(|it| matches!(it.action, Action::Bound(it) if it == bound))
        };
        for (bound, name) in [(Bound::Untouched, "untouched"), (Bound::Gold, "gold")] {
            if !has(bound) {
                problems.push(format!(
                    "method: none with kind = \"bound\" and of = \"{name}\"; every method is set beside it"
                ));
            }
        }
        if has(Bound::SecondGold) && self.second_gold.is_none() {
            problems.push("second_gold: missing, but a method has of = \"second_gold\"".to_owned());
        }
    }
}

/// Every name must be known and stand there once.
fn names(key: &str, given: &[String], known: &[&str], problems: &mut Vec<String>) {
    for (at, name) in given.iter().enumerate() {
        if !known.contains(&name.as_str()) {
            let known = known.join(", ");
            problems.push(format!("{key}[{at}]: there is no `{name}`; there are {known}"));
        } else if given[..at].contains(name) {
            problems.push(format!("{key}[{at}]: `{name}` is there twice; keep one"));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A job with the two bounds.
    pub(crate) const HEAD: &str =
        "model = \"m\"\ngold = \"g\"\ndata = \"d\"\npolicy = \"p.toml\"\n";
    pub(crate) const BOUNDS: &str = "[[method]]\nname = \"untouched\"\nkind = \"bound\"\nof = \"untouched\"\n\
        [[method]]\nname = \"gold\"\nkind = \"bound\"\nof = \"gold\"\n";

    pub(crate) fn parse(head: &str, methods: &str) -> Result<Job, JobError> {
        let text = format!("{HEAD}{head}\n{BOUNDS}{methods}");
        Job::parse(Path::new("jobs/a.toml"), &text)
    }

    fn problems(head: &str, methods: &str) -> Vec<String> {
        match parse(head, methods).unwrap_err() {
            JobError::Invalid { problems } => problems,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_three_seeds_and_every_metric() {
        let job = parse("", "").unwrap();
        assert_eq!(job.metrics.len(), METRICS.len());
        assert_eq!(job.model, Path::new("jobs/m"));
        assert_eq!(job.authors(), Some(4));
        let methods = "[[method]]\nname = \"npo\"\nkind = \"unlearn\"\n";
        assert_eq!(parse("", methods).unwrap().variants[2].seeds, [1, 2, 3]);
        assert_eq!(parse("seeds = [7]", methods).unwrap().variants[2].seeds, [7]);
    }

    #[test]
    fn an_unknown_key_is_named_with_the_file() {
        let error = parse("modle = \"x\"", "").unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.to_string().contains("jobs/a.toml") && source.contains("modle"), "{source}");
        assert!(matches!(error, JobError::Parse { .. }));
        let limits = parse("[limits]\nforgets = 3", "").unwrap_err();
        assert!(std::error::Error::source(&limits).unwrap().to_string().contains("forgets"));
        let missing = Job::load(Path::new("no/such.toml"));
        assert!(matches!(missing, Err(JobError::Read { .. })));
    }

    #[test]
    fn every_unusable_value_is_listed_with_its_key() {
        let head = "metrics = [\"leek\"]\nattacks = [\"direct\", \"direct\"]\nwhitebox = [\"x\"]\n\
                    seeds = []\n[limits]\nforget = 0";
        let found = problems(head, "");
        for want in ["metrics[0]", "attacks[1]", "whitebox[0]", "seeds: empty", "limits.forget"] {
            assert!(found.iter().any(|it| it.contains(want)), "{want}: {found:#?}");
        }
        assert!(found.iter().all(|it| it.starts_with("jobs/a.toml: ")), "{found:#?}");
        assert!(found[0].contains("model_utility"), "known names are listed: {found:#?}");
        let foreign = problems("attacks = [\"direct\"]\n[splits]\nforget = \"mine\"", "");
        assert!(foreign[0].contains("splits.forget") && foreign[0].contains("forget10"));
    }

    #[test]
    fn bounds_policy_and_labels_are_checked() {
        let text = format!("{HEAD}[[method]]\nname = \"npo\"\nkind = \"unlearn\"\n");
        let Err(JobError::Invalid { problems: found }) = Job::parse(Path::new("a.toml"), &text)
        else {
            panic!("no bound")
        };
        assert_eq!(found.len(), 2, "{found:#?}");
        let second = "[[method]]\nname = \"2\"\nkind = \"bound\"\nof = \"second_gold\"\n";
        assert!(problems("", second)[0].contains("second_gold"));
        let twice = "[[method]]\nname = \"gold\"\nkind = \"edit\"\nmethod = \"ssd\"\n";
        assert!(problems("", twice)[0].contains("two rows"));
        let text = format!(
            "{}{BOUNDS}[[method]]\nname = \"p\"\nkind = \"guard\"\ntreatment = {{ use = \"prefix\" }}\n",
            HEAD.replace("policy = \"p.toml\"\n", "")
        );
        let error = Job::parse(Path::new("a.toml"), &text).unwrap_err();
        assert!(error.to_string().contains("policy: missing"), "{error}");
    }

    #[test]
    fn metrics_are_sorted_and_explained() {
        assert!(METRICS.windows(2).all(|it| it[0].0 < it[1].0));
        assert!(METRICS.iter().all(|it| !it.1.is_empty() && !it.1.ends_with('.')));
    }
}
