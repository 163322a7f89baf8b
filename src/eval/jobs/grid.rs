//! `[[method]]` tables, their sweeps, and the points of a grid.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::train::edits::{self, Edit};
use crate::train::methods::{self, Entry, Parameters};
use crate::train::unlearn::locate::Locate;

/// Forget rows per pass where a job does not say: the lab has 80 rows, so that 5 steps are an epoch.
const BATCH: usize = 16;

/// What kind of method a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A model as it is.
    Bound,
    /// A treatment of requests; the weights stay as they are.
    Guard,
    /// Finetuning.
    Unlearn,
    /// A change of weights without a training loop.
    Edit,
    /// A finished model, made elsewhere.
    Model,
}

impl Kind {
    /// The name in job files and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::Guard => "guard",
            Self::Unlearn => "unlearn",
            Self::Edit => "edit",
            Self::Model => "model",
        }
    }
}

/// A model that methods are set beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The model that knows everything.
    Untouched,
    /// The model retrained without the forget rows.
    Gold,
    /// The same from another seed: how far apart two models are that never knew.
    SecondGold,
}

/// What is done for a row.
#[derive(Debug, Clone)]
pub enum Action {
    /// Nothing.
    Bound(Bound),
    /// Requests are treated.
    Guard {
        /// A `[[treatment]]` of a policy.
        treatment: toml::Table,
        /// `[[detector]]` tables in place of the policy's own.
        detectors: Option<Vec<toml::Table>>,
    },
    /// The model is finetuned.
    Unlearn {
        /// The method.
        method: &'static Entry,
        /// Parameters in place of the published ones.
        set: Vec<(String, f64)>,
        /// Passes over the forget rows.
        epochs: Option<usize>,
        /// Highest learning rate.
        learning_rate: Option<f64>,
        /// Forget rows per pass.
        batch: usize,
        /// Passes per step.
        accumulate: usize,
        /// Whether activations are computed again instead of kept.
        recompute: bool,
        /// Rank of adapters to train instead of the weights.
        lora: Option<usize>,
        /// Matrices to train, chosen by attribution, instead of all weights.
        locate: Option<Locate>,
    },
    /// The weights are edited.
    Edit {
        /// The method.
        edit: &'static Edit,
        /// Its strength.
        strength: Option<f64>,
    },
    /// A finished model's folder, from the job file's.
    Model(PathBuf),
}

/// A row of the report: a method with all its settings, run once per seed.
#[derive(Debug, Clone)]
pub struct Variant {
    /// Name and swept values, such as `npo epochs=5`.
    pub label: String,
    /// The name in the job.
    pub name: String,
    /// What kind of method.
    pub kind: Kind,
    /// The table as it is written, swept values filled in.
    pub settings: Value,
    /// What is done.
    pub action: Action,
    /// Seeds.
    pub seeds: Vec<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    kind: Kind,
    of: Option<Bound>,
    method: Option<String>,
    seeds: Option<Vec<u64>>,
    epochs: Option<usize>,
    learning_rate: Option<f64>,
    batch: Option<usize>,
    accumulate: Option<usize>,
    recompute: Option<bool>,
    lora: Option<usize>,
    locate: Option<Locate>,
    strength: Option<f64>,
    #[serde(default)]
    set: BTreeMap<String, f64>,
    treatment: Option<toml::Table>,
    detector: Option<Vec<toml::Table>>,
    path: Option<PathBuf>,
}

type Sweep = BTreeMap<String, Vec<toml::Value>>;

/// The rows of one `[[method]]` table: one, or as many as its sweep has combinations. `key` names the
/// table in problems.
pub(super) fn expand(
    table: &toml::Table,
    key: &str,
    seeds: &[u64],
    problems: &mut Vec<String>,
) -> Vec<Variant> {
    let mut table = table.clone();
    let sweep = match table.remove("sweep").map(|it| it.try_into::<Sweep>()) {
        None => Sweep::new(),
        Some(Ok(sweep)) => sweep,
        Some(Err(error)) => {
            problems.push(format!("{key}.sweep: {}", error.message()));
            return Vec::new();
        }
    };
    if let Some((name, _)) = sweep.iter().find(|it| it.1.is_empty()) {
        problems.push(format!("{key}.sweep.{name}: empty; name at least one value"));
    }
    let before = problems.len();
    let mut variants = Vec::new();
    for chosen in combinations(&sweep) {
        match variant(&table, &chosen, seeds) {
            Ok(variant) => variants.push(variant),
            Err(problem) => problems.push(format!("{key}{problem}")),
        }
    }
    // A mistake beside the sweep would be repeated for each of its values.
    let mut seen: Vec<String> = problems.drain(before..).collect();
    seen.dedup();
    problems.extend(seen);
    variants
}

/// Every choice of one value per swept key, the last key varying fastest.
fn combinations(sweep: &Sweep) -> Vec<Vec<(&str, &toml::Value)>> {
    let mut out: Vec<Vec<(&str, &toml::Value)>> = vec![Vec::new()];
    for (name, values) in sweep {
        let mut longer = Vec::with_capacity(out.len() * values.len());
        for before in &out {
            for value in values {
                let mut next = before.clone();
                next.push((name.as_str(), value));
                longer.push(next);
            }
        }
        out = longer;
    }
    out
}

/// Sets a value at a path such as `set.beta`.
fn put(table: &mut toml::Table, path: &str, value: toml::Value) -> Result<(), String> {
    let Some((head, rest)) = path.split_once('.') else {
        table.insert(path.to_owned(), value);
        return Ok(());
    };
    match table.entry(head).or_insert_with(|| toml::Value::Table(toml::Table::new())) {
        toml::Value::Table(inner) => put(inner, rest, value),
        _ => Err(format!(".sweep: `{head}` is no table")),
    }
}

fn variant(
    table: &toml::Table,
    chosen: &[(&str, &toml::Value)],
    seeds: &[u64],
) -> Result<Variant, String> {
    let mut table = table.clone();
    let mut swept = String::new();
    for (path, value) in chosen {
        put(&mut table, path, (*value).clone())?;
        let shown = match value {
            toml::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let last = path.rsplit('.').next().unwrap_or(path);
        swept.push_str(&format!(" {last}={shown}"));
    }
    let settings = serde_json::to_value(&table).expect("a TOML table is JSON");
    let raw: Raw = table.try_into().map_err(|it| format!(": {}", it.message()))?;
    let seeds = raw.seeds.clone().unwrap_or_else(|| match raw.kind {
        // There is nothing random about a model as it is.
        Kind::Bound | Kind::Model => seeds.first().copied().into_iter().collect(),
        _ => seeds.to_vec(),
    });
    if raw.name.trim().is_empty() {
        return Err(".name: is empty".to_owned());
    }
    if (1..seeds.len()).any(|at| seeds[..at].contains(&seeds[at])) {
        return Err(".seeds: one of them is there twice".to_owned());
    }
    let label = format!("{}{swept}", raw.name);
    let (name, kind) = (raw.name.clone(), raw.kind);
    Ok(Variant { label, name, kind, settings, action: raw.action()?, seeds })
}

impl Raw {
    /// Keys that are there although the kind has no use for them.
    fn misplaced(&self) -> Option<&'static str> {
        use Kind::{Bound, Edit, Guard, Model, Unlearn};
        let given: [(&'static str, bool, &[Kind]); 14] = [
            ("of", self.of.is_some(), &[Bound]),
            ("method", self.method.is_some(), &[Unlearn, Edit]),
            ("epochs", self.epochs.is_some(), &[Unlearn]),
            ("learning_rate", self.learning_rate.is_some(), &[Unlearn]),
            ("batch", self.batch.is_some(), &[Unlearn]),
            ("accumulate", self.accumulate.is_some(), &[Unlearn]),
            ("recompute", self.recompute.is_some(), &[Unlearn]),
            ("lora", self.lora.is_some(), &[Unlearn]),
            ("locate", self.locate.is_some(), &[Unlearn]),
            ("strength", self.strength.is_some(), &[Edit]),
            ("set", !self.set.is_empty(), &[Unlearn]),
            ("treatment", self.treatment.is_some(), &[Guard]),
            ("detector", self.detector.is_some(), &[Guard]),
            ("path", self.path.is_some(), &[Model]),
        ];
        given.into_iter().find(|it| it.1 && !it.2.contains(&self.kind)).map(|it| it.0)
    }

    fn action(self) -> Result<Action, String> {
        if let Some(key) = self.misplaced() {
            return Err(format!(".{key}: the kind `{}` has no such key", self.kind.as_str()));
        }
        match self.kind {
            Kind::Bound => match self.of {
                Some(bound) => Ok(Action::Bound(bound)),
                None => Err(".of: missing; write of = \"gold\"".to_owned()),
            },
            Kind::Guard => match self.treatment {
                Some(treatment) => Ok(Action::Guard { treatment, detectors: self.detector }),
                None => {
                    Err(".treatment: missing; write treatment = { use = \"alias\" }".to_owned())
                }
            },
            Kind::Unlearn => self.unlearn(),
            Kind::Edit => self.edit(),
            Kind::Model => match self.path {
                Some(path) => Ok(Action::Model(path)),
                None => {
                    Err(".path: missing; write path = \"my-model\", a model's folder".to_owned())
                }
            },
        }
    }

    fn unlearn(self) -> Result<Action, String> {
        let wanted = self.method.as_ref().unwrap_or(&self.name);
        let Some(method) = methods::find(wanted) else {
            let known: Vec<&str> = methods::METHODS.iter().map(|it| it.name).collect();
            let known = known.join(", ");
            return Err(format!(".method: there is no method `{wanted}`; there are {known}"));
        };
        let set: Vec<(String, f64)> = self.set.into_iter().collect();
        Parameters::new(method, &set).map_err(|it| format!(".set: {it}"))?;
        let counts = [
            ("epochs", self.epochs),
            ("batch", self.batch),
            ("accumulate", self.accumulate),
            ("lora", self.lora),
            ("locate.matrices", self.locate.map(|it| it.matrices)),
        ];
        if let Some((key, _)) = counts.into_iter().find(|it| it.1 == Some(0)) {
            return Err(format!(".{key}: is 0; use 1 or more"));
        }
        if self.learning_rate.is_some_and(|it| !it.is_finite() || it <= 0.0) {
            return Err(".learning_rate: must be above 0".to_owned());
        }
        Ok(Action::Unlearn {
            method,
            set,
            epochs: self.epochs,
            learning_rate: self.learning_rate,
            batch: self.batch.unwrap_or(BATCH),
            accumulate: self.accumulate.unwrap_or(1),
            recompute: self.recompute.unwrap_or(false),
            lora: self.lora,
            locate: self.locate,
        })
    }

    fn edit(self) -> Result<Action, String> {
        let wanted = self.method.as_ref().unwrap_or(&self.name);
        let Some(edit) = edits::find(wanted) else {
            let known: Vec<&str> = edits::EDITS.iter().map(|it| it.name).collect();
            let known = known.join(", ");
            return Err(format!(".method: there is no edit `{wanted}`; there are {known}"));
        };
        if self.strength.is_some_and(|it| !it.is_finite()) {
            return Err(".strength: is not a number".to_owned());
        }
        Ok(Action::Edit { edit, strength: self.strength })
    }
}

/// One run: a row of the report and a seed.
#[derive(Debug, Clone, Copy)]
pub struct Point<'a> {
    /// Index of the row.
    pub order: usize,
    /// The row.
    pub variant: &'a Variant,
    /// The seed.
    pub seed: u64,
}

/// All points, seed by seed within a row; with `most`, only the first so many seeds of each.
#[must_use]
pub fn points(variants: &[Variant], most: Option<usize>) -> Vec<Point<'_>> {
    let of = |(order, variant): (usize, &'_ Variant)| -> Vec<(usize, u64)> {
        let kept = most.unwrap_or(usize::MAX);
        variant.seeds.iter().take(kept).map(|seed| (order, *seed)).collect()
    };
    let all = variants.iter().enumerate().flat_map(of);
    all.map(|(order, seed)| Point { order, variant: &variants[order], seed }).collect()
}

impl Point<'_> {
    /// Everything that decides the point's numbers; `shared` is what all points have in common.
    #[must_use]
    pub fn config(&self, shared: &Value) -> Value {
        json!({
            "label": self.variant.label,
            "name": self.variant.name,
            "kind": self.variant.kind,
            "settings": self.variant.settings,
            "seed": self.seed,
            "shared": shared,
        })
    }
}

/// The first 16 hexadecimal digits of a configuration's SHA-256: the name of its result.
#[must_use]
pub fn hash(config: &Value) -> String {
    let digest = Sha256::digest(config.to_string().as_bytes());
    digest.iter().take(8).map(|it| format!("{it:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::file::tests::parse;
    use super::*;

    fn problem(methods: &str) -> String {
        parse("", methods).unwrap_err().to_string()
    }

    /// Two learning rates by three betas, of two seeds each, and two bounds of one.
    #[test]
    fn a_sweep_is_a_product() {
        let methods = "[[method]]\nname = \"npo\"\nkind = \"unlearn\"\n\
            sweep = { \"set.beta\" = [0.05, 0.1, 1], learning_rate = [1e-4, 3e-4] }\n";
        let job = parse("seeds = [1, 2]", methods).unwrap();
        assert_eq!(job.variants.len(), 2 + 6);
        assert_eq!(points(&job.variants, None).len(), 2 + 6 * 2);
        assert_eq!(points(&job.variants, Some(1)).len(), 2 + 6);
        let labels: Vec<&str> = job.variants[2..].iter().map(|it| it.label.as_str()).collect();
        assert_eq!(labels[0], "npo learning_rate=0.0001 beta=0.05");
        assert_eq!(labels[5], "npo learning_rate=0.0003 beta=1");
        let Action::Unlearn { set, learning_rate, batch, .. } = &job.variants[7].action else {
            panic!("{:?}", job.variants[7])
        };
        assert_eq!(
            (set.as_slice(), *learning_rate),
            ([("beta".to_owned(), 1.0)].as_slice(), Some(3e-4))
        );
        assert_eq!(*batch, BATCH);
        let last = points(&job.variants, None).pop().map(|it| (it.order, it.seed));
        assert_eq!(last, Some((7, 2)));
    }

    #[test]
    fn a_treatment_can_be_swept() {
        let methods = "[[method]]\nname = \"noise\"\nkind = \"guard\"\n\
            treatment = { use = \"corrupt\", function = \"noise-first\", dims = 8 }\n\
            sweep = { \"treatment.strength\" = [4.0, 16.0] }\n";
        let job = parse("", methods).unwrap();
        let Action::Guard { treatment, detectors } = &job.variants[3].action else {
            panic!("no guard")
        };
        assert_eq!(treatment["strength"].as_float(), Some(16.0));
        assert!(detectors.is_none() && job.variants[3].label == "noise strength=16.0");
    }

    #[test]
    fn mistakes_are_named_with_table_and_key() {
        let of = |keys: &str| problem(&format!("[[method]]\nname = \"npo\"\n{keys}\n"));
        for (keys, want) in [
            (
                "kind = \"unlearn\"\nmethod = \"npoo\"",
                "method[2].method: there is no method `npoo`",
            ),
            ("kind = \"unlearn\"\nset = { gamma = 1 }", "method[2].set: `npo` has no parameter"),
            ("kind = \"unlearn\"\nepochs = 0", "method[2].epochs: is 0"),
            ("kind = \"unlearn\"\nlearning_rate = 0", "method[2].learning_rate"),
            ("kind = \"unlearn\"\nstrength = 1.0", "method[2].strength: the kind `unlearn` has"),
            ("kind = \"unlearn\"\nseeds = [1, 1]", "method[2].seeds"),
            ("kind = \"unlearn\"\nsweep = { epochs = [] }", "method[2].sweep.epochs: empty"),
            ("kind = \"unlearn\"\nsweep = { epochs = 3 }", "method[2].sweep: "),
            ("kind = \"unlearn\"\nepoch = 3", "method[2]: unknown field `epoch`"),
            (
                "kind = \"edit\"",
                "method[2].method: there is no edit `npo`; there are task_arithmetic",
            ),
            ("kind = \"guard\"", "method[2].treatment: missing"),
            ("kind = \"bound\"", "method[2].of: missing"),
        ] {
            let found = of(keys);
            assert!(found.contains(want), "{keys}: {found}");
        }
        assert!(of("kind = \"unlearn\"\nmethod = \"x\"").contains("gradient_ascent"));
        let swept = of("kind = \"unlearn\"\nmethod = \"x\"\nsweep = { epochs = [1, 2, 3] }");
        assert_eq!(swept.matches("there is no method").count(), 1, "{swept}");
    }

    #[test]
    fn the_name_of_a_result_is_its_configuration() {
        let job = parse("", "").unwrap();
        let all = points(&job.variants, None);
        let config = |at: usize, shared: Value| hash(&all[at].config(&shared));
        assert_eq!(config(0, json!({})), config(0, json!({})));
        assert_ne!(config(0, json!({})), config(1, json!({})));
        assert_ne!(config(0, json!({})), config(0, json!({ "limits": 1 })));
        assert_eq!(config(0, json!({})).len(), 16);
    }
}
