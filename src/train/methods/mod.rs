//! Objectives of finetuning a model to forget: one file per method.
//!
//! A method turns one [`Step`] into a loss to be minimised and remembers nothing; the loop in
//! [`unlearn`](super::unlearn) does the rest. Losses are functions over rows of log-likelihoods and
//! logits, compared with `torch` in each file. Where the published code averages over padding and
//! prompts by accident, ours averages over labels, and the file says so.
//!
//! To add one, write `methods/<name>.rs` with its `ENTRY`, and its two lines below.

pub mod ce_u;
pub mod dpo;
pub mod ga_lat;
pub mod grad_diff;
pub mod gradient_ascent;
pub mod idk;
pub mod kl_minimisation;
pub mod llmu;
pub mod npo;
pub mod pdu;
pub mod relabelling;
pub mod rmu;
pub mod rmu_lat;
pub mod satimp;
pub mod scrub;
pub mod simnpo;
pub mod tar;
pub mod undial;
pub mod wga;
pub mod whp;

use std::collections::BTreeMap;
use std::fmt::Debug;

use candle_core::{Result, Tensor};

use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::Step;

/// Every method, by name.
pub const METHODS: &[Entry] = &[
    ce_u::ENTRY,
    dpo::ENTRY,
    ga_lat::ENTRY,
    grad_diff::ENTRY,
    gradient_ascent::ENTRY,
    idk::ENTRY,
    kl_minimisation::ENTRY,
    llmu::ENTRY,
    npo::ENTRY,
    pdu::ENTRY,
    relabelling::ENTRY,
    rmu::ENTRY,
    rmu_lat::ENTRY,
    satimp::ENTRY,
    scrub::ENTRY,
    simnpo::ENTRY,
    tar::ENTRY,
    undial::ENTRY,
    wga::ENTRY,
    whp::ENTRY,
];

/// The method of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    METHODS.iter().find(|it| it.name == name)
}

/// A method, or a sentence about the parameter that does not fit.
pub type Built = std::result::Result<Box<dyn Method>, String>;

/// A method before its parameters are set.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its name on the command line and in records.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// What can be set.
    pub parameters: &'static [Parameter],
    /// Published learning rate, for models of billions of parameters; small ones need more.
    pub learning_rate: f64,
    /// Published passes over the forget set.
    pub epochs: usize,
    /// Makes the method for a model; the last argument is the run's seed.
    pub build: fn(&Parameters, &ModelConfig, u64) -> Built,
}

/// A number that can be set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Its published default; `None` where it depends on the model or has to be set.
    pub default: Option<f64>,
}

/// A parameter with its published default.
const fn published(name: &'static str, default: f64) -> Parameter {
    Parameter { name, default: Some(default) }
}

/// A parameter without a default.
const fn open(name: &'static str) -> Parameter {
    Parameter { name, default: None }
}

/// The parameters of a method with their values.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters(pub BTreeMap<&'static str, f64>);

impl Parameters {
    /// The published values, with those of `set` in their place.
    ///
    /// # Errors
    ///
    /// A sentence naming the parameter that the method does not have.
    pub fn new(entry: &Entry, set: &[(String, f64)]) -> std::result::Result<Self, String> {
        let defaults = entry.parameters.iter().filter_map(|it| Some((it.name, it.default?)));
        let mut values: BTreeMap<&'static str, f64> = defaults.collect();
        for (name, value) in set {
            let Some(parameter) = entry.parameters.iter().find(|it| it.name == name) else {
                let known: Vec<&str> = entry.parameters.iter().map(|it| it.name).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(format!("`{}` has no parameter `{name}`; it has {known}", entry.name));
            };
            if !value.is_finite() {
                return Err(format!("`{name}` is {value}, not a number"));
            }
            values.insert(parameter.name, *value);
        }
        Ok(Self(values))
    }

    /// The value of a parameter, when it has one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name).copied()
    }

    fn number(&self, name: &str) -> std::result::Result<f64, String> {
        self.get(name).ok_or_else(|| format!("needs `--set {name}=NUMBER`"))
    }

    fn positive(&self, name: &str) -> std::result::Result<f64, String> {
        let value = self.number(name)?;
        if value > 0.0 { Ok(value) } else { Err(format!("`{name}` is {value}, not above 0")) }
    }

    fn count(&self, name: &str) -> std::result::Result<usize, String> {
        let value = self.number(name)?;
        let whole = value >= 0.0 && value.fract() == 0.0;
        if whole { Ok(value as usize) } else { Err(format!("`{name}` is {value}, not a count")) }
    }
}

/// Other answers to the question of a forget row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// One of [`idk::REFUSALS`] refusals.
    Refusals,
    /// One of the row's `perturbed_answer`.
    Wrong,
    /// The answer of a retain row.
    Retained,
}

/// What a method wants computed for it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Needs {
    /// Other answers, and how many per forget row.
    pub answers: Option<(Answers, usize)>,
    /// The losses of forget rows and answers under the reference
    /// ([`Rows::reference_nll`](crate::train::unlearn::step::Rows)).
    pub reference_nll: bool,
    /// The model as it was, beside every step ([`Step::reference`]); without it that model is given up
    /// after what is computed beforehand, and its memory with it.
    pub reference: bool,
    /// Other labels of forget rows ([`Rows::offset_labels`](crate::train::unlearn::step::Rows)).
    pub offset_labels: Option<OffsetLabels>,
}

/// How the labels of [`offset_labels`](crate::train::unlearn::offset_labels) are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OffsetLabels {
    /// What the difference to the reinforced model counts.
    pub alpha: f32,
    /// Passes over the forget rows that make the reinforced model.
    pub epochs: usize,
    /// Their highest learning rate.
    pub learning_rate: f64,
}

/// A loss and its parts.
#[derive(Debug)]
pub struct Loss {
    /// To be minimised.
    pub total: Tensor,
    /// The part about forget rows, before its weight.
    pub forget: Option<Tensor>,
    /// The part about retain rows, before its weight.
    pub retain: Option<Tensor>,
}

impl Loss {
    /// The weighted sum of a forget and, if there is one, a retain part.
    fn weighted(forget: (f64, Tensor), retain: Option<(f64, Tensor)>) -> Result<Self> {
        let mut total = (&forget.1 * forget.0)?;
        if let Some((weight, part)) = &retain {
            total = (total + (part * *weight)?)?;
        }
        Ok(Self { total, forget: Some(forget.1), retain: retain.map(|it| it.1) })
    }
}

/// An objective.
pub trait Method: Debug {
    /// What it wants computed for it.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Whether it trains a weight, named as in [`named`](super::named).
    fn trains(&self, _weight: &str) -> bool {
        true
    }

    /// The loss of one step, differentiable with respect to every weight that it trains.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    fn loss(&self, step: &Step<'_>) -> Result<Loss>;

    /// The number that the first step is given as [`Step::carried`].
    fn start(&self) -> f32 {
        0.0
    }

    /// The number that the next step is given, from this one's, its epoch and its retain part.
    fn carry(&self, carried: f32, _epoch: usize, _retain: f32) -> f32 {
        carried
    }

    /// Whether to stop after a step with this forget part.
    fn done(&self, _forget: f32) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_parameters_are_checked() {
        assert!(METHODS.windows(2).all(|it| it[0].name < it[1].name));
        let npo = find("npo").unwrap();
        let set = |name: &str, value| Parameters::new(npo, &[(name.to_owned(), value)]);
        assert_eq!(set("beta", 0.5).unwrap().get("beta"), Some(0.5));
        assert_eq!(Parameters::new(npo, &[]).unwrap().get("beta"), Some(0.1));
        let unknown = set("gamma", 1.0).unwrap_err();
        assert!(unknown.contains("gamma") && unknown.contains("beta"), "{unknown}");
        assert!(set("beta", f64::NAN).is_err());
        assert!(find("no such method").is_none());
    }

    #[test]
    fn values_of_the_wrong_kind_are_refused() {
        let parameters = Parameters(BTreeMap::from([("a", -1.0), ("b", 1.5), ("c", 3.0)]));
        assert!(parameters.positive("a").is_err() && parameters.count("a").is_err());
        assert!(parameters.count("b").is_err());
        assert_eq!(parameters.count("c"), Ok(3));
        assert!(parameters.number("d").unwrap_err().contains("--set d="));
    }
}
