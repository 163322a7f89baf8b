//! Gradient ascent (Jang et al., arXiv:2210.01504): the loss on the forget rows, upwards. Without
//! anything that holds the rest, it takes the model apart when it runs for long.

use candle_core::{Result, Tensor};

use super::{Built, Entry, Loss, Method, Parameters};
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::Step;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "gradient_ascent",
    about: "raises the loss on the forget rows; nothing holds the rest",
    parameters: &[],
    learning_rate: 1e-5,
    epochs: 5,
    build,
};

#[derive(Debug)]
struct GradientAscent;

fn build(_: &Parameters, _: &ModelConfig, _: u64) -> Built {
    Ok(Box::new(GradientAscent))
}

/// Minus the mean of `[labels]` losses.
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub fn ascent(nll: &Tensor) -> Result<Tensor> {
    nll.mean_all()?.neg()
}

impl Method for GradientAscent {
    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        Loss::weighted((1.0, ascent(&step.model.nll(&step.forget.batch)?)?), None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::unlearn::recorded::Recorded;

    #[test]
    fn agrees_with_torch() {
        let recorded = Recorded::read();
        recorded.check("gradient_ascent", &ascent(&recorded.forget.nll()).unwrap());
    }
}
