//! `SatImp` (Yang et al., arXiv:2505.11953): ascent weighted by how far a token is from being forgotten
//! (`p^beta1`) and by how much it matters (`(1 - p)^beta2`).

use candle_core::{Result, Tensor};

use super::{Built, Entry, Loss, Method, Parameters, published};
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::Step;
use crate::train::unlearn::terms::weighted_ascent;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "satimp",
    about: "ascent weighted by saturation and importance of the tokens",
    parameters: &[
        published("beta1", 5.0),
        published("beta2", 1.0),
        published("forget", 0.1),
        published("retain", 1.0),
    ],
    learning_rate: 1e-5,
    epochs: 5,
    build,
};

#[derive(Debug)]
struct SatImp {
    beta1: f64,
    beta2: f64,
    forget: f64,
    retain: f64,
}

fn build(parameters: &Parameters, _: &ModelConfig, _: u64) -> Built {
    Ok(Box::new(SatImp {
        beta1: parameters.positive("beta1")?,
        beta2: parameters.positive("beta2")?,
        forget: parameters.positive("forget")?,
        retain: parameters.number("retain")?,
    }))
}

/// `mean(-p^beta1 * (1 - p)^beta2 * nll)` over `[labels]`; the weights get no gradient.
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub fn satimp(nll: &Tensor, beta1: f64, beta2: f64) -> Result<Tensor> {
    // A loss that is below 0 by rounding would make a probability above 1, and its power not a number.
    weighted_ascent(nll, |p| p.powf(beta1)? * p.affine(-1.0, 1.0)?.relu()?.powf(beta2)?)
}

impl Method for SatImp {
    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let forget = satimp(&step.model.nll(&step.forget.batch)?, self.beta1, self.beta2)?;
        Loss::weighted((self.forget, forget), step.retain_nll(self.retain)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::unlearn::recorded::Recorded;
    use candle_core::Device;

    #[test]
    fn agrees_with_torch() {
        let recorded = Recorded::read();
        let forget = satimp(&recorded.forget.nll(), 5.0, 1.0).unwrap();
        let loss = Loss::weighted((0.1, forget), Some((1.0, recorded.retain.mean()))).unwrap();
        recorded.check("satimp", &loss.total);
    }

    #[test]
    fn a_certain_token_weighs_nothing() {
        let nll = Tensor::new(&[0f32, -1e-7], &Device::Cpu).unwrap();
        let loss = satimp(&nll, 5.0, 0.5).unwrap().to_scalar::<f32>().unwrap();
        assert!(loss.abs() < 1e-6, "{loss}");
    }
}
