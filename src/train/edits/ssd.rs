//! Selective synaptic dampening (Foster et al., arXiv:2308.07707).

use candle_core::{Result, Tensor};

use super::Job;
use super::fisher::{combined, moments};
use crate::train::fit::TrainError;
use crate::train::trainable::Trainable;

/// The paper's lambda: how far a weight is dampened at least.
const LAMBDA: f32 = 1.0;

/// Weights whose Fisher value for forget rows is more than `alpha` times that for retain rows are
/// multiplied by `min(lambda * retain / forget, 1)`; the others stay. All three have one shape.
///
/// # Errors
///
/// [`candle_core::Error`] when a tensor is not f32 on the CPU.
pub fn dampen(
    weights: &Tensor,
    forget: &Tensor,
    retain: &Tensor,
    alpha: f32,
    lambda: f32,
) -> Result<Tensor> {
    combined([weights, forget, retain], |weight, forget, retain| {
        if forget > alpha * retain { weight * (lambda * retain / forget).min(1.0) } else { weight }
    })
}

pub(super) fn apply(model: &Trainable, job: &Job<'_>) -> std::result::Result<(), TrainError> {
    let forget = moments(model, job.tokenizer, job.forget)?;
    let retain = moments(model, job.tokenizer, job.retain)?;
    job.saw(job.forget.len());
    job.trained(&model.decoder, forget.tokens + retain.tokens);
    for (at, (_, var)) in model.vars.iter().enumerate() {
        let alpha = job.strength as f32;
        var.set(&dampen(var.as_tensor(), &forget.square[at], &retain.square[at], alpha, LAMBDA)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::values_of;
    use candle_core::Device;

    /// 30 is not above 10 * 3, so the first stays; 40 is, so the second becomes 2 * 3 / 40; a weight
    /// that matters to no retain row vanishes, one that matters to none stays.
    #[test]
    fn dampens_by_hand() {
        let of = |it: [f32; 4]| Tensor::new(&it, &Device::Cpu).unwrap();
        let weights = of([2.0, 2.0, -1.0, 0.5]);
        let (forget, retain) = (of([30.0, 40.0, 1.0, 0.0]), of([3.0, 3.0, 0.0, 0.0]));
        let out = values_of(&dampen(&weights, &forget, &retain, 10.0, 1.0).unwrap()).unwrap();
        for (got, want) in out.iter().zip([2.0, 0.15, 0.0, 0.5]) {
            assert!((got - want).abs() < 1e-6, "{out:?}");
        }
        let more = values_of(&dampen(&weights, &forget, &retain, 10.0, 20.0).unwrap()).unwrap();
        assert!((more[1] - 2.0).abs() < 1e-6, "never enlarged: {more:?}");
    }
}
