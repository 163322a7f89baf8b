//! RMU, representation misdirection (Li et al., arXiv:2403.03218): the residual stream of forget rows
//! is steered to one random direction, that of retain rows held where it was.
//!
//! Only the down projections of the steered block and the two before it are trained. Both terms are
//! means over all rows, prompts included, and all dimensions, as in the authors' code.

use candle_core::{Result, Tensor};

use super::{Built, Entry, Loss, Method, Needs, Parameters, open, published};
use crate::engine::model_config::ModelConfig;
use crate::seed::Stream;
use crate::train::unlearn::step::Step;

/// The registry's line. `layer` counts blocks from 0; without it, it is 7, or the middle of a model
/// of fewer than 16 blocks. `steering` has to fit the size of the residual stream there.
pub const ENTRY: Entry = Entry {
    name: "rmu",
    about: "steers the residual stream of forget rows to a random direction",
    parameters: &[open("layer"), published("steering", 20.0), published("alpha", 100.0)],
    learning_rate: 5e-5,
    epochs: 1,
    build,
};

/// Both terms at one block.
#[derive(Debug)]
pub(super) struct Rmu {
    pub(super) layer: usize,
    pub(super) steering: f64,
    pub(super) alpha: f64,
    pub(super) seed: u64,
}

impl Rmu {
    /// The loss of a step whose forget rows have this residual stream after the block, `[rows, hidden]`.
    pub(super) fn misdirected(&self, step: &Step<'_>, forget: &Tensor) -> Result<Loss> {
        let mut stream = Stream::named(self.seed, "rmu");
        let draws: Vec<f64> = (0..forget.dim(1)?).map(|_| stream.uniform()).collect();
        let target = Tensor::new(steering_vector(&draws, self.steering), forget.device())?;
        let retain = step.model.hidden(&step.retain.batch, self.layer)?;
        let before = step.reference()?.hidden(&step.retain.batch, self.layer)?;
        Loss::weighted(
            (1.0, squared_distance(forget, &target)?),
            Some((self.alpha, squared_distance(&retain, &before)?)),
        )
    }
}

fn build(parameters: &Parameters, config: &ModelConfig, seed: u64) -> Built {
    let layer = match parameters.get("layer") {
        Some(_) => parameters.count("layer")?,
        None => 7usize.min(config.layers / 2),
    };
    if layer >= config.layers {
        return Err(format!("there is no block {layer}; the model has {}", config.layers));
    }
    let (steering, alpha) = (parameters.positive("steering")?, parameters.positive("alpha")?);
    Ok(Box::new(Rmu { layer, steering, alpha, seed }))
}

/// The vector of length `steering` in the direction of `draws`, uniform in [0, 1): `[hidden]`, all
/// of it positive.
#[must_use]
pub fn steering_vector(draws: &[f64], steering: f64) -> Vec<f32> {
    let length = draws.iter().map(|it| it * it).sum::<f64>().sqrt();
    draws.iter().map(|it| (steering * it / length) as f32).collect()
}

/// Mean squared difference over all elements. `target` is `[hidden]` or as `hidden`, `[rows, hidden]`.
///
/// # Errors
///
/// [`candle_core::Error`] when the shapes do not fit.
pub fn squared_distance(hidden: &Tensor, target: &Tensor) -> Result<Tensor> {
    hidden.broadcast_sub(&target.detach())?.sqr()?.mean_all()
}

impl Method for Rmu {
    fn trains(&self, weight: &str) -> bool {
        let Some((layer, "down")) = weight.split_once('.') else { return false };
        let trained = self.layer.saturating_sub(2)..=self.layer;
        layer.parse::<usize>().is_ok_and(|it| trained.contains(&it))
    }

    fn needs(&self) -> Needs {
        Needs { reference: true, ..Needs::default() }
    }

    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let forget = step.model.hidden(&step.forget.batch, self.layer)?;
        self.misdirected(step, &forget)
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
        let target = steering_vector(&recorded.direction, 6.5);
        let target = Tensor::new(target, &Device::Cpu).unwrap();
        let forget = squared_distance(&recorded.forget.hidden, &target).unwrap();
        let retain = &recorded.retain;
        let held = squared_distance(&retain.hidden, &retain.reference_hidden).unwrap();
        let loss = Loss::weighted((1.0, forget), Some((1200.0, held))).unwrap();
        recorded.check("rmu", &loss.total);
    }

    #[test]
    fn trains_three_down_projections() {
        let rmu = |layer| Rmu { layer, steering: 20.0, alpha: 100.0, seed: 1 };
        for weight in ["5.down", "6.down", "7.down"] {
            assert!(rmu(7).trains(weight), "{weight}");
        }
        for weight in ["4.down", "8.down", "7.output", "17.down", "embedding", "norm"] {
            assert!(!rmu(7).trains(weight), "{weight}");
        }
        assert!(rmu(1).trains("0.down") && !rmu(1).trains("2.down"));
    }
}
