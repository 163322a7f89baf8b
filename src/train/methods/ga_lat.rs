//! Gradient ascent under a latent adversary (Sheshadri et al., arXiv:2407.15549): the answer is to be
//! unlikely even where something in the residual stream asks for it.
//!
//! Ascent is the authors' bounded one: `-log(1 - p)` of the labels, without those of `log p < -5`.
//! Theirs has a third part, towards another text, which is left out: there is none here.

use candle_core::{D, Result, Tensor};

use super::{Built, Entry, Loss, Method, Parameters, open, published};
use crate::engine::model_config::ModelConfig;
use crate::train::loss::token_nll;
use crate::train::unlearn::adversary::Adversary;
use crate::train::unlearn::step::Step;
use crate::train::unlearn::terms::others;

/// The registry's line. `layer` counts blocks from 0; without it, it is 7, or a quarter into a model
/// of fewer than 28 blocks. `radius` has to fit the size of the residual stream there.
pub const ENTRY: Entry = Entry {
    name: "ga_lat",
    about: "gradient ascent, bounded, against an adversary in the residual stream",
    parameters: &[
        open("layer"),
        published("radius", 2.0),
        published("steps", 16.0),
        published("rate", 0.05),
        published("alpha", 4.0),
    ],
    learning_rate: 2e-5,
    epochs: 1,
    build,
};

/// Labels less likely than this, as a logarithm, are left alone.
const UNLIKELY: f64 = -5.0;

#[derive(Debug)]
struct GaLat {
    adversary: Adversary,
    alpha: f64,
}

fn build(parameters: &Parameters, config: &ModelConfig, _: u64) -> Built {
    let adversary = adversary(parameters, config.layers, 7usize.min(config.layers / 4))?;
    Ok(Box::new(GaLat { adversary, alpha: parameters.positive("alpha")? }))
}

/// The adversary of a run, after block `layer` unless another one is set.
pub(super) fn adversary(
    parameters: &Parameters,
    layers: usize,
    layer: usize,
) -> std::result::Result<Adversary, String> {
    let layer = match parameters.get("layer") {
        Some(_) => parameters.count("layer")?,
        None => layer,
    };
    if layer + 1 >= layers {
        return Err(format!(
            "`layer` is {layer}; the adversary needs a block after it, of {layers}"
        ));
    }
    let (radius, rate) = (parameters.positive("radius")?, parameters.positive("rate")?);
    Ok(Adversary { layer, radius, steps: parameters.count("steps")?, rate })
}

/// The mean of `-log(1 - p)` over labels, 0 where `log p < -5`: `logits` is `[labels, vocab]`.
///
/// # Errors
///
/// [`candle_core::Error`] when `labels` is not one id per row.
pub fn away(logits: &Tensor, labels: &[u32]) -> Result<Tensor> {
    let away = (logits.log_sum_exp(D::Minus1)? - others(logits, labels)?)?;
    let likely = token_nll(&logits.detach(), labels)?.le(-UNLIKELY)?.to_dtype(logits.dtype())?;
    (away * likely)?.mean_all()
}

impl Method for GaLat {
    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let (model, batch) = (&step.model, &step.forget.batch);
        let last = self.adversary.disturbed(model, batch, model.last_block())?;
        let forget = away(&model.logits_of(&last, batch)?, &batch.labels)?;
        Loss::weighted((1.0, forget), step.retain_nll(self.alpha)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::methods::find;
    use crate::train::trainable::tests::tiny_config;
    use candle_core::{Device, Var};

    /// `p = 3/4` costs `ln 4`; the second label has `log p < -5`.
    #[test]
    fn the_bounded_ascent_by_hand() {
        let logits = [[0f32, 3f32.ln()], [9.0, 0.0]];
        let logits = Var::from_tensor(&Tensor::new(&logits, &Device::Cpu).unwrap()).unwrap();
        let loss = away(&logits, &[1, 1]).unwrap();
        assert!((loss.to_scalar::<f32>().unwrap() - 4f32.ln() / 2.0).abs() < 1e-6);
        // The derivative of -log(1 - p) by the label's logit is p, by the other one -p.
        let grads = loss.backward().unwrap();
        let grads = grads.get(&logits).unwrap().to_vec2::<f32>().unwrap();
        let want = [[-0.375, 0.375], [0.0, 0.0]];
        for (got, want) in grads.concat().iter().zip(want.concat()) {
            assert!((got - want).abs() < 1e-6, "{grads:?}");
        }
    }

    #[test]
    fn the_last_block_has_none_after_it() {
        let entry = find("ga_lat").unwrap();
        let last = tiny_config().layers - 1;
        let set = [("layer".to_owned(), last as f64)];
        let parameters = Parameters::new(entry, &set).unwrap();
        let error = (entry.build)(&parameters, &tiny_config(), 1).unwrap_err();
        assert!(error.contains("`layer`"), "{error}");
    }
}
