//! Removal of rows by one Newton step (Koh and Liang, arXiv:1703.04730; Guo et al.,
//! arXiv:1911.03030), with the diagonal Fisher matrix in the place of the Hessian.

use candle_core::{Result, Tensor};

use super::Job;
use super::fisher::{combined, moments};
use crate::engine::ops::values_of;
use crate::train::fit::TrainError;
use crate::train::trainable::Trainable;

/// Added to the Fisher values, in units of their mean over a tensor, so that weights about which the
/// rows say nothing do not run away.
const DAMPING: f32 = 1.0;

/// `weights + scale * gradient / (fisher + damping)`: without the rows of `gradient` the minimum
/// lies uphill on their loss. All three have one shape.
///
/// # Errors
///
/// [`candle_core::Error`] when a tensor is not f32 on the CPU.
pub fn newton(
    weights: &Tensor,
    gradient: &Tensor,
    fisher: &Tensor,
    scale: f32,
    damping: f32,
) -> Result<Tensor> {
    combined([weights, gradient, fisher], |weight, gradient, fisher| {
        let stiffness = fisher + damping;
        if stiffness > 0.0 { weight + scale * gradient / stiffness } else { weight }
    })
}

pub(super) fn apply(model: &Trainable, job: &Job<'_>) -> std::result::Result<(), TrainError> {
    let forget = moments(model, job.tokenizer, job.forget)?;
    let retain = moments(model, job.tokenizer, job.retain)?;
    job.saw(job.forget.len());
    job.trained(&model.decoder, forget.tokens + retain.tokens);
    let share = job.forget.len() as f64 / (job.forget.len() + job.retain.len()) as f64;
    for (at, (_, var)) in model.vars.iter().enumerate() {
        let fisher = ((&forget.square[at] * share)? + (&retain.square[at] * (1.0 - share))?)?;
        let values = values_of(&fisher)?;
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let scale = (job.strength * share) as f32;
        let step = newton(var.as_tensor(), &forget.mean[at], &fisher, scale, DAMPING * mean)?;
        var.set(&step)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// 1 + 0.5 * 4 / (3 + 1) = 1.5; where nothing is known nothing moves.
    #[test]
    fn a_step_by_hand() {
        let of = |it: [f32; 2]| Tensor::new(&it, &Device::Cpu).unwrap();
        let step = newton(&of([1.0, 1.0]), &of([4.0, -4.0]), &of([3.0, 0.0]), 0.5, 1.0).unwrap();
        let step = values_of(&step).unwrap();
        assert!((step[0] - 1.5).abs() < 1e-6 && (step[1] + 1.0).abs() < 1e-6, "{step:?}");
        let still = newton(&of([1.0, 1.0]), &of([4.0, 0.0]), &of([0.0, 0.0]), 0.5, 0.0).unwrap();
        assert_eq!(values_of(&still).unwrap(), [1.0, 1.0]);
    }

    /// For the loss of two rows, (w - 1)^2 / 2 and (w - 3)^2 / 2, of curvature 1 each, the minimum is 2
    /// and the gradient of the first there 1. Removing it with half of the rows' weight, the step of
    /// 1/2 of its gradient goes towards 3.
    #[test]
    fn goes_towards_the_minimum_of_the_rows_that_stay() {
        let of = |it: f32| Tensor::new(&[it], &Device::Cpu).unwrap();
        let step = values_of(&newton(&of(2.0), &of(1.0), &of(1.0), 0.5, 0.0).unwrap()).unwrap();
        assert!((step[0] - 2.5).abs() < 1e-6);
    }
}
