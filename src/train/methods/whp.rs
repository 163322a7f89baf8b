//! Who's Harry Potter (Eldan and Russinovich, arXiv:2310.02238): finetuning on what a model that never
//! read the rows would say. See [`offset_labels`](crate::train::unlearn::offset_labels).
//!
//! The labels do not depend on the model in training and are computed once, before it. Learning rate and
//! epochs are those of the authors' script; those of the reinforced model, for which we have no source,
//! are the same.

use candle_core::{Result, Tensor};

use super::{Built, Entry, Loss, Method, Needs, OffsetLabels, Parameters, published};
use crate::engine::model_config::ModelConfig;
use crate::train::loss::token_nll;
use crate::train::unlearn::step::Step;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "whp",
    about: "learns what a model that never read the rows would say (Who's Harry Potter)",
    parameters: &[
        published("alpha", 5.0),
        published("reinforce_epochs", 3.0),
        published("reinforce_rate", 5e-5),
        published("retain", 0.0),
    ],
    learning_rate: 5e-5,
    epochs: 3,
    build,
};

#[derive(Debug)]
struct Whp {
    labels: OffsetLabels,
    retain: f64,
}

fn build(parameters: &Parameters, _: &ModelConfig, _: u64) -> Built {
    let labels = OffsetLabels {
        alpha: parameters.positive("alpha")? as f32,
        epochs: parameters.count("reinforce_epochs")?,
        learning_rate: parameters.positive("reinforce_rate")?,
    };
    Ok(Box::new(Whp { labels, retain: parameters.number("retain")? }))
}

/// The mean cross-entropy of `logits`, `[labels, vocab]`, against other labels; those that are `None` do
/// not count. 0 when none does.
///
/// # Errors
///
/// [`candle_core::Error`] when there is not one label for every row.
pub fn relabelled(logits: &Tensor, labels: &[Option<u32>]) -> Result<Tensor> {
    if labels.len() != logits.dim(0)? {
        candle_core::bail!("{} labels for {} rows", labels.len(), logits.dim(0)?);
    }
    let kept = (0u32..).zip(labels).filter_map(|(row, label)| Some((row, (*label)?)));
    let (rows, targets): (Vec<u32>, Vec<u32>) = kept.unzip();
    if rows.is_empty() {
        return logits.sum_all()? * 0.0;
    }
    let rows = Tensor::new(rows, logits.device())?;
    token_nll(&logits.index_select(&rows, 0)?, &targets)?.mean_all()
}

impl Method for Whp {
    fn needs(&self) -> Needs {
        Needs { offset_labels: Some(self.labels), ..Needs::default() }
    }

    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let logits = step.model.logits(&step.forget.batch)?;
        let forget = relabelled(&logits, step.forget.offset_labels()?)?;
        Loss::weighted((1.0, forget), step.retain_nll(self.retain)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// ln(1 + e^-2) for the first row, ln(2) for the third; the second does not count.
    #[test]
    fn only_labels_that_are_there_count() {
        let logits = Tensor::new(&[[2f32, 0.0], [9.0, 9.0], [1.0, 1.0]], &Device::Cpu).unwrap();
        let loss = relabelled(&logits, &[Some(0), None, Some(1)]).unwrap();
        let want = ((1.0 + (-2f64).exp()).ln() + 2f64.ln()) / 2.0;
        assert!((f64::from(loss.to_scalar::<f32>().unwrap()) - want).abs() < 1e-6);
        let none = relabelled(&logits, &[None; 3]).unwrap();
        assert_eq!(none.to_scalar::<f32>().unwrap(), 0.0);
        assert!(relabelled(&logits, &[None]).is_err());
    }
}
