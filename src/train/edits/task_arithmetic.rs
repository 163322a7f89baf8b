//! Task arithmetic (Ilharco et al., arXiv:2212.04089): away from what finetuning on the forget rows
//! changes.

use std::time::Duration;

use candle_core::{Result, Tensor};

use super::Job;
use crate::seed::Stream;
use crate::train::fit::{Fit, Schedule, TrainError};
use crate::train::trainable::Trainable;

/// How the model is finetuned on the forget rows.
const FINETUNING: Schedule =
    Schedule { steps: 40, tokens_per_step: 512, peak: 5e-4, warmup: 4, floor: 0.1 };

/// `weights - multiple * (finetuned - weights)`.
///
/// # Errors
///
/// [`candle_core::Error`] when the shapes disagree.
pub fn negate(weights: &Tensor, finetuned: &Tensor, multiple: f64) -> Result<Tensor> {
    weights - ((finetuned - weights)? * multiple)?
}

pub(super) fn apply(model: &Trainable, job: &Job<'_>) -> std::result::Result<(), TrainError> {
    let finetuned = match job.finetuned {
        Some(decoder) => Trainable::from_decoder(decoder)?,
        None => finetune(model, job)?,
    };
    for ((name, var), (_, other)) in model.vars.iter().zip(&finetuned.vars) {
        if var.dims() != other.dims() {
            return Err(TrainError::Settings(format!(
                "`{name}` is {:?} here and {:?} in the finetuned model",
                var.dims(),
                other.dims()
            )));
        }
        var.set(&negate(var.as_tensor(), other.as_tensor(), job.strength)?)?;
    }
    Ok(())
}

fn finetune(model: &Trainable, job: &Job<'_>) -> std::result::Result<Trainable, TrainError> {
    if job.forget.is_empty() {
        return Err(TrainError::Settings("there are no rows to finetune on".to_owned()));
    }
    let finetuned = Trainable::from_decoder(&model.decoder)?;
    let fit = Fit {
        tokenizer: job.tokenizer,
        schedule: FINETUNING,
        checkpoint: None,
        identity: "task arithmetic".to_owned(),
        every: Duration::MAX,
    };
    let mut stream = Stream::named(job.seed, "edits/task_arithmetic");
    let next = || {
        let fact = stream.pick(job.forget);
        (fact.dialogue_with(&fact.answer), false)
    };
    fit.run_marked(&finetuned.vars, next, |batch, _| {
        job.saw(batch.label_counts.len());
        job.trained(&model.decoder, batch.ids.len());
        finetuned.label_nll(batch)?.mean_all()
    })?;
    Ok(finetuned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// 1 - 2 * (1.5 - 1) = 0.
    #[test]
    fn goes_the_other_way() {
        let of = |it: [f32; 2]| Tensor::new(&it, &Device::Cpu).unwrap();
        let out = negate(&of([1.0, 3.0]), &of([1.5, 2.0]), 2.0).unwrap();
        assert_eq!(out.to_vec1::<f32>().unwrap(), [0.0, 5.0]);
    }
}
