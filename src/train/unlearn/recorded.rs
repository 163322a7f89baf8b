//! Losses of fixed rows by `torch` (`tests/fixtures/losses`), to compare ours with.

use candle_core::backprop::GradStore;
use candle_core::{Device, Tensor, Var};
use serde_json::Value;

use super::terms::{sequence_means, sequence_sums};
use crate::engine::ops::values_of;
use crate::train::loss::token_nll;

/// Rows that all predict a label, with two models' logits and hidden rows.
pub(crate) struct Side {
    pub(crate) logits: Var,
    pub(crate) reference: Tensor,
    pub(crate) hidden: Tensor,
    pub(crate) reference_hidden: Tensor,
    pub(crate) labels: Vec<u32>,
    pub(crate) counts: Vec<usize>,
}

impl Side {
    fn of(json: &Value) -> Self {
        let ints = |it: &Value| -> Vec<usize> { serde_json::from_value(it.clone()).unwrap() };
        Self {
            logits: Var::from_tensor(&matrix(&json["logits"])).unwrap(),
            reference: matrix(&json["reference"]),
            hidden: matrix(&json["hidden"]),
            reference_hidden: matrix(&json["reference_hidden"]),
            labels: serde_json::from_value(json["labels"].clone()).unwrap(),
            counts: ints(&json["counts"]),
        }
    }

    pub(crate) fn nll(&self) -> Tensor {
        token_nll(&self.logits, &self.labels).unwrap()
    }

    /// The mean over all labels.
    pub(crate) fn mean(&self) -> Tensor {
        self.nll().mean_all().unwrap()
    }

    pub(crate) fn sums(&self) -> Tensor {
        sequence_sums(&self.nll(), &self.counts).unwrap()
    }

    pub(crate) fn means(&self) -> Tensor {
        sequence_means(&self.nll(), &self.counts).unwrap()
    }

    pub(crate) fn reference_sums(&self) -> Tensor {
        sequence_sums(&token_nll(&self.reference, &self.labels).unwrap(), &self.counts).unwrap()
    }
}

/// The fixture.
pub(crate) struct Recorded {
    pub(crate) forget: Side,
    pub(crate) answers: Side,
    pub(crate) retain: Side,
    /// Uniform draws of a steering direction.
    pub(crate) direction: Vec<f64>,
    losses: Value,
}

fn matrix(json: &Value) -> Tensor {
    let rows: Vec<Vec<f32>> = serde_json::from_value(json.clone()).unwrap();
    Tensor::new(rows, &Device::Cpu).unwrap()
}

#[track_caller]
fn near(what: &str, got: f64, want: f64) {
    assert!((got - want).abs() <= 1e-5 * (1.0 + want.abs()), "{what}: {got} vs {want}");
}

impl Recorded {
    pub(crate) fn read() -> Self {
        let text = include_str!("../../../tests/fixtures/losses/losses.json");
        let mut json: Value = serde_json::from_str(text).unwrap();
        Self {
            forget: Side::of(&json["forget"]),
            answers: Side::of(&json["answers"]),
            retain: Side::of(&json["retain"]),
            direction: serde_json::from_value(json["direction"].clone()).unwrap(),
            losses: json["losses"].take(),
        }
    }

    /// Compares a loss, and its gradients with respect to the logits, with what was recorded under
    /// `name`: to 1e-5 of one plus the recorded size.
    #[track_caller]
    pub(crate) fn check(&self, name: &str, loss: &Tensor) {
        let recorded = &self.losses[name];
        let want = recorded["value"].as_f64().expect("the loss is recorded");
        near(name, f64::from(loss.to_scalar::<f32>().unwrap()), want);
        let Some(gradients) = recorded.get("gradients") else { return };
        let grads = loss.backward().unwrap();
        let sides =
            [("forget", &self.forget), ("answers", &self.answers), ("retain", &self.retain)];
        let mut compared = 0;
        for (side, rows) in sides {
            if let Some(want) = gradients.get(side) {
                compare(&format!("{name} by {side}"), &grads, rows, want);
                compared += 1;
            }
        }
        assert!(compared > 0, "{name} has no recorded gradient");
    }
}

#[track_caller]
fn compare(what: &str, grads: &GradStore, rows: &Side, want: &Value) {
    let got = values_of(grads.get(&rows.logits).expect("the logits have a gradient")).unwrap();
    let want = values_of(&matrix(want)).unwrap();
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.into_iter().zip(want) {
        near(what, f64::from(got), f64::from(want));
    }
}
