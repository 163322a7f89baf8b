//! Gradient difference (Liu et al., arXiv:2203.12817): the loss on the forget rows upwards, that on
//! retain rows downwards.

use candle_core::Result;

use super::gradient_ascent::ascent;
use super::{Built, Entry, Loss, Method, Parameters, published};
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::Step;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "grad_diff",
    about: "raises the loss on forget rows, lowers it on retain rows",
    parameters: &[published("forget", 1.0), published("retain", 1.0)],
    learning_rate: 1e-5,
    epochs: 5,
    build,
};

#[derive(Debug)]
struct GradDiff {
    forget: f64,
    retain: f64,
}

fn build(parameters: &Parameters, _: &ModelConfig, _: u64) -> Built {
    let (forget, retain) = (parameters.positive("forget")?, parameters.number("retain")?);
    Ok(Box::new(GradDiff { forget, retain }))
}

impl Method for GradDiff {
    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let forget = ascent(&step.model.nll(&step.forget.batch)?)?;
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
        let forget = ascent(&recorded.forget.nll()).unwrap();
        let loss = Loss::weighted((1.0, forget), Some((1.0, recorded.retain.mean()))).unwrap();
        recorded.check("grad_diff", &loss.total);
    }
}
