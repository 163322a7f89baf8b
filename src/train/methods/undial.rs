//! UNDIAL (Dong et al., arXiv:2402.10052): distillation from the reference with the logit of the
//! right token lowered, so that what stood behind it takes its place.
//!
//! Averaged over the labels; open-unlearning's code averages over padding and prompts as well.

use candle_core::{Result, Tensor};

use super::{Built, Entry, Loss, Method, Needs, Parameters, published};
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::Step;
use crate::train::unlearn::terms::{shift_labels, soft_cross_entropy};

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "undial",
    about: "distils from the first model with the right tokens' logits lowered",
    parameters: &[published("beta", 10.0), published("forget", 1.0), published("retain", 0.0)],
    learning_rate: 1e-4,
    epochs: 10,
    build,
};

#[derive(Debug)]
struct Undial {
    beta: f64,
    forget: f64,
    retain: f64,
}

fn build(parameters: &Parameters, _: &ModelConfig, _: u64) -> Built {
    Ok(Box::new(Undial {
        beta: parameters.positive("beta")?,
        forget: parameters.positive("forget")?,
        retain: parameters.number("retain")?,
    }))
}

/// The cross-entropy of `logits` against `softmax(reference - beta * onehot(label))`: both
/// `[labels, vocab]`; a scalar, averaged over the labels.
///
/// # Errors
///
/// [`candle_core::Error`] when the shapes differ.
pub fn undial(logits: &Tensor, reference: &Tensor, labels: &[u32], beta: f64) -> Result<Tensor> {
    soft_cross_entropy(logits, &shift_labels(reference, labels, -beta as f32)?)
}

impl Method for Undial {
    fn needs(&self) -> Needs {
        Needs { reference: true, ..Needs::default() }
    }

    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let batch = &step.forget.batch;
        let reference = step.reference()?.logits(batch)?;
        let forget = undial(&step.model.logits(batch)?, &reference, &batch.labels, self.beta)?;
        Loss::weighted((self.forget, forget), step.retain_nll(self.retain)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::unlearn::recorded::Recorded;

    #[test]
    fn agrees_with_torch() {
        let recorded = Recorded::read();
        let rows = &recorded.forget;
        let loss = undial(&rows.logits, &rows.reference, &rows.labels, 10.0).unwrap();
        recorded.check("undial", &loss);
    }
}
