//! Weighted gradient ascent (Wang et al., arXiv:2502.19301): ascent that loses interest in a token as
//! its probability `p` falls, by the weight `p^beta`.

use candle_core::{Result, Tensor};

use super::{Built, Entry, Loss, Method, Parameters, published};
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::Step;
use crate::train::unlearn::terms::weighted_ascent;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "wga",
    about: "ascent weighted by the tokens' probability",
    parameters: &[published("beta", 1.0), published("forget", 1.0), published("retain", 1.0)],
    learning_rate: 1e-5,
    epochs: 5,
    build,
};

#[derive(Debug)]
struct Wga {
    beta: f64,
    forget: f64,
    retain: f64,
}

fn build(parameters: &Parameters, _: &ModelConfig, _: u64) -> Built {
    Ok(Box::new(Wga {
        beta: parameters.positive("beta")?,
        forget: parameters.positive("forget")?,
        retain: parameters.number("retain")?,
    }))
}

/// `mean(-p^beta * nll)` over `[labels]`; the weight gets no gradient.
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub fn wga(nll: &Tensor, beta: f64) -> Result<Tensor> {
    weighted_ascent(nll, |probability| probability.powf(beta))
}

impl Method for Wga {
    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let forget = wga(&step.model.nll(&step.forget.batch)?, self.beta)?;
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
        let forget = wga(&recorded.forget.nll(), 0.7).unwrap();
        let loss = Loss::weighted((1.0, forget), Some((1.0, recorded.retain.mean()))).unwrap();
        recorded.check("wga", &loss.total);
    }
}
