//! An adversary inside of the model (latent adversarial training, Sheshadri et al., arXiv:2407.15549):
//! what has to be added to the residual stream to make a model say what it is to forget.

use candle_core::{D, Result, Tensor, Var};

use super::step::Pass;
use crate::data::Batch;
use crate::train::adamw::{AdamW, AdamWSettings};
use crate::train::loss::token_nll;

/// The adversary's means.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adversary {
    /// The block after which it adds, counted from 0.
    pub layer: usize,
    /// The longest that it may add to a row.
    pub radius: f64,
    /// Its steps.
    pub steps: usize,
    /// Its learning rate.
    pub rate: f64,
}

impl Adversary {
    /// The addition under which the labels of a batch are likeliest, as far as its steps get from
    /// zero: `[rows, hidden]`, no row longer than the radius. AdamW against the mean loss, projected
    /// after each step. The model's weights stay, and get no gradients.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when there is no such block, or from any operation.
    pub fn addition(&self, model: &Pass<'_>, batch: &Batch) -> Result<Tensor> {
        let frozen = model.frozen();
        let pass = model.beside(&frozen);
        let stream = pass.hidden(batch, self.layer)?.detach();
        let added = Var::from_tensor(&stream.zeros_like()?)?;
        let settings = AdamWSettings {
            beta2: 0.999,
            weight_decay: 0.0,
            clip: f32::INFINITY,
            ..AdamWSettings::default()
        };
        let mut optimiser = AdamW::new(vec![added.clone()], settings)?;
        for _ in 0..self.steps {
            let changed = (&stream + added.as_tensor())?;
            let last = pass.resume(&changed, batch, self.layer, pass.last_block())?;
            let loss = token_nll(&pass.logits_of(&last, batch)?, &batch.labels)?.mean_all()?;
            optimiser.step(&loss.backward()?, self.rate as f32)?;
            added.set(&projected(added.as_tensor(), self.radius)?)?;
        }
        model.charge(pass.tokens());
        Ok(added.as_tensor().detach())
    }

    /// The residual stream after block `to` with the addition in it, differentiable: `[rows, hidden]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when there are no such blocks, or from any operation.
    pub fn disturbed(&self, model: &Pass<'_>, batch: &Batch, to: usize) -> Result<Tensor> {
        let added = self.addition(model, batch)?;
        let stream = (model.hidden(batch, self.layer)? + added)?;
        model.resume(&stream, batch, self.layer, to)
    }
}

/// Rows no longer than `radius`, in their direction: `[rows, hidden]` in and out.
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub fn projected(rows: &Tensor, radius: f64) -> Result<Tensor> {
    let lengths = rows.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
    let longest = lengths.ones_like()?.affine(radius, 0.0)?;
    let scale = longest.div(&lengths.maximum(&longest)?)?;
    rows.broadcast_mul(&scale)?.detach().contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::values_of;
    use crate::train::initial;
    use crate::train::trainable::tests::tiny_config;
    use candle_core::Device;

    #[test]
    fn rows_are_cut_to_the_radius() {
        let rows = Tensor::new(&[[3f32, 4.0], [0.3, 0.4], [0.0, 0.0]], &Device::Cpu).unwrap();
        let cut = values_of(&projected(&rows, 1.0).unwrap()).unwrap();
        for (got, want) in cut.iter().zip([0.6, 0.8, 0.3, 0.4, 0.0, 0.0]) {
            assert!((got - want).abs() < 1e-6, "{cut:?}");
        }
    }

    #[test]
    fn the_addition_makes_the_labels_likelier_within_its_radius() {
        let decoder = initial::decoder(&tiny_config(), 3).unwrap();
        let batch = Batch::of(&[
            (vec![3, 4, 5, 6], vec![false, false, true, true]),
            (vec![7, 8, 9], vec![false, true, true]),
        ]);
        let pass = Pass::new(&decoder);
        let loss = |steps| {
            let adversary = Adversary { layer: 0, radius: 0.5, steps, rate: 0.05 };
            let added = adversary.addition(&pass, &batch).unwrap();
            let hidden = added.dim(1).unwrap();
            for row in values_of(&added).unwrap().chunks(hidden) {
                assert!(row.iter().map(|it| it * it).sum::<f32>().sqrt() <= 0.5 + 1e-5);
            }
            let last = adversary.disturbed(&pass, &batch, pass.last_block()).unwrap();
            let nll = token_nll(&pass.logits_of(&last, &batch).unwrap(), &batch.labels).unwrap();
            nll.mean_all().unwrap().to_scalar::<f32>().unwrap()
        };
        let plain = pass.nll(&batch).unwrap().mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!((loss(0) - plain).abs() < 1e-6);
        assert!(loss(4) < plain && loss(16) < loss(4), "{plain} {} {}", loss(4), loss(16));
        let before = pass.tokens();
        let adversary = Adversary { layer: 0, radius: 0.5, steps: 3, rate: 0.05 };
        adversary.addition(&pass, &batch).unwrap();
        // One pass up to the block, and three on from there.
        assert_eq!(pass.tokens() - before, 4 * batch.ids.len() as u64);
    }
}
