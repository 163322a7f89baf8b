//! CE-U, cross-entropy unlearning (Yang, arXiv:2503.01224): each forget label is predicted as the
//! model itself would, had it never heard of the right token.

use candle_core::{Result, Tensor};

use super::{Built, Entry, Loss, Method, Parameters, published};
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::Step;
use crate::train::unlearn::terms::{shift_labels, soft_cross_entropy};

/// The registry's line. `skip` is how many labels at the start of an answer are left alone.
pub const ENTRY: Entry = Entry {
    name: "ce_u",
    about: "the model's own distribution without the right token; nothing holds the rest",
    parameters: &[published("skip", 1.0)],
    learning_rate: 1e-5,
    epochs: 10,
    build,
};

#[derive(Debug)]
struct CeU {
    skip: usize,
}

fn build(parameters: &Parameters, _: &ModelConfig, _: u64) -> Built {
    Ok(Box::new(CeU { skip: parameters.count("skip")? }))
}

/// The cross-entropy of `logits`, `[labels, vocab]`, against their own softmax with the label's logit
/// at minus infinity, averaged over the labels after the first `skip` of each sequence.
///
/// # Errors
///
/// [`candle_core::Error`] when no label is left.
pub fn ce_u(logits: &Tensor, labels: &[u32], counts: &[usize], skip: usize) -> Result<Tensor> {
    let of_sequence = counts.iter().flat_map(|it| 0..*it);
    let kept: Vec<u32> =
        (0u32..).zip(of_sequence).filter(|it| it.1 >= skip).map(|it| it.0).collect();
    if kept.is_empty() {
        candle_core::bail!("no answer has more than {skip} tokens");
    }
    let labels: Vec<u32> = kept.iter().map(|it| labels[*it as usize]).collect();
    let logits = logits.index_select(&Tensor::new(kept, logits.device())?, 0)?;
    soft_cross_entropy(&logits, &shift_labels(&logits, &labels, f32::NEG_INFINITY)?)
}

impl Method for CeU {
    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let batch = &step.forget.batch;
        let logits = step.model.logits(batch)?;
        let forget = ce_u(&logits, &batch.labels, &batch.label_counts, self.skip)?;
        Loss::weighted((1.0, forget), None)
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
        let loss = ce_u(&rows.logits, &rows.labels, &rows.counts, 1).unwrap();
        recorded.check("ce_u", &loss);
        assert!(ce_u(&rows.logits, &rows.labels, &rows.counts, 9).is_err());
    }
}
