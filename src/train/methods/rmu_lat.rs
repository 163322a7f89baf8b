//! RMU under a latent adversary (Sheshadri et al., arXiv:2407.15549): the residual stream of forget rows
//! is steered away even where something before it asks for the answer.
//!
//! Published for RMU at block 8 of 32 with the adversary at 7, and reported to cost more of everything
//! else than RMU alone.

use candle_core::Result;

use super::ga_lat::adversary;
use super::rmu::Rmu;
use super::{Built, Entry, Loss, Method, Needs, Parameters, open, published};
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::adversary::Adversary;
use crate::train::unlearn::step::Step;

/// The registry's line. `layer` is the adversary's, counted from 0; the block after it is steered.
/// Without it, it is 7, or the one before the middle of a model of fewer than 16 blocks.
pub const ENTRY: Entry = Entry {
    name: "rmu_lat",
    about: "RMU against an adversary in the residual stream",
    parameters: &[
        open("layer"),
        published("radius", 2.0),
        published("steps", 16.0),
        published("rate", 0.05),
        published("steering", 6.5),
        published("alpha", 1200.0),
    ],
    learning_rate: 5e-5,
    epochs: 1,
    build,
};

#[derive(Debug)]
struct RmuLat {
    adversary: Adversary,
    rmu: Rmu,
}

fn build(parameters: &Parameters, config: &ModelConfig, seed: u64) -> Built {
    let before = (config.layers / 2).saturating_sub(1);
    let adversary = adversary(parameters, config.layers, 7usize.min(before))?;
    let (steering, alpha) = (parameters.positive("steering")?, parameters.positive("alpha")?);
    let rmu = Rmu { layer: adversary.layer + 1, steering, alpha, seed };
    Ok(Box::new(RmuLat { adversary, rmu }))
}

impl Method for RmuLat {
    fn trains(&self, weight: &str) -> bool {
        self.rmu.trains(weight)
    }

    fn needs(&self) -> Needs {
        Needs { reference: true, ..Needs::default() }
    }

    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let batch = &step.forget.batch;
        let forget = self.adversary.disturbed(&step.model, batch, self.rmu.layer)?;
        self.rmu.misdirected(step, &forget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Batch;
    use crate::train::initial;
    use crate::train::methods::find;
    use crate::train::trainable::tests::tiny_config;
    use crate::train::unlearn::step::{Pass, Rows};

    /// Without an adversary, it is RMU at the same block.
    #[test]
    fn without_steps_it_is_rmu() {
        let (model, reference) = (
            initial::decoder(&tiny_config(), 4).unwrap(),
            initial::decoder(&tiny_config(), 3).unwrap(),
        );
        let rows = |first: u32| Rows {
            batch: Batch::of(&[(vec![first, 4, 5], vec![false, true, true])]),
            ..Rows::default()
        };
        let (forget, retain) = (rows(3), rows(7));
        let loss = |name: &str, set: &[(&str, f64)]| {
            let entry = find(name).unwrap();
            let set: Vec<_> = set.iter().map(|it| (it.0.to_owned(), it.1)).collect();
            let parameters = Parameters::new(entry, &set).unwrap();
            let method = (entry.build)(&parameters, &tiny_config(), 9).unwrap();
            let step = Step {
                model: Pass::new(&model),
                reference: Some(Pass::new(&reference)),
                epoch: 0,
                carried: 0.0,
                forget: &forget,
                answers: &forget,
                retain: &retain,
            };
            method.loss(&step).unwrap().total.to_scalar::<f32>().unwrap()
        };
        let common = [("steering", 6.5), ("alpha", 10.0)];
        let plain = loss("rmu", &[common[0], common[1], ("layer", 1.0)]);
        let still = loss("rmu_lat", &[common[0], common[1], ("layer", 0.0), ("steps", 0.0)]);
        let moved = loss("rmu_lat", &[common[0], common[1], ("layer", 0.0), ("steps", 4.0)]);
        assert!((plain - still).abs() < 1e-5 * plain, "{plain} {still}");
        assert!((plain - moved).abs() > 1e-5 * plain, "{plain} {moved}");
    }
}
