//! Simple negative preference optimisation (Fan et al., arXiv:2410.07163): NPO without a reference,
//! over the mean loss of a sequence instead of its sum.
//!
//! `delta` is subtracted from the mean loss before it is multiplied by `beta`: the paper's margin is
//! `beta * delta`.

use candle_core::{Result, Tensor};

use super::{Built, Entry, Loss, Method, Parameters, published};
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::Step;
use crate::train::unlearn::terms::{log_sigmoid, sequence_means};

/// The registry's line. The defaults are those for a tenth of TOFU; for a twentieth the authors
/// took `beta` 2.5 and `forget` 0.1375.
pub const ENTRY: Entry = Entry {
    name: "simnpo",
    about: "npo over the mean loss of an answer, without a reference",
    parameters: &[
        published("beta", 4.5),
        published("delta", 0.0),
        published("forget", 0.125),
        published("retain", 1.0),
    ],
    learning_rate: 1e-5,
    epochs: 10,
    build,
};

#[derive(Debug)]
struct SimNpo {
    beta: f64,
    delta: f64,
    forget: f64,
    retain: f64,
}

fn build(parameters: &Parameters, _: &ModelConfig, _: u64) -> Built {
    Ok(Box::new(SimNpo {
        beta: parameters.positive("beta")?,
        delta: parameters.number("delta")?,
        forget: parameters.positive("forget")?,
        retain: parameters.number("retain")?,
    }))
}

/// `-2 / beta * mean log sigmoid(beta * (nll - delta))` over sequences, with the loss averaged over
/// the labels of a sequence: `[sequences]`, in nats.
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub fn simnpo(nll_means: &Tensor, beta: f64, delta: f64) -> Result<Tensor> {
    let margin = ((nll_means - delta)? * beta)?;
    log_sigmoid(&margin)?.mean_all()? * (-2.0 / beta)
}

impl Method for SimNpo {
    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let batch = &step.forget.batch;
        let means = sequence_means(&step.model.nll(batch)?, &batch.label_counts)?;
        let forget = simnpo(&means, self.beta, self.delta)?;
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
        let means = recorded.forget.means();
        let forget = simnpo(&means, 4.5, 0.0).unwrap();
        let loss = Loss::weighted((0.125, forget), Some((1.0, recorded.retain.mean()))).unwrap();
        recorded.check("simnpo", &loss.total);
        recorded.check("simnpo_margin", &simnpo(&means, 2.5, 1.5).unwrap());
    }
}
