//! Activation recompute (Chen et al., arXiv:1604.06174): of a pass only the residual stream before each
//! block is kept, and a block runs again when its gradients are wanted. A third more work for the memory of
//! one block instead of all. What a method runs beside its pass (TAR's copies, the adversary of latent
//! training) keeps its activations, which it needs for one pass at a time.

use std::cell::RefCell;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};

use super::named::detached;
use crate::engine::decoder::{Block, Decoder};

/// Passes over blocks that were made without a graph, in their order.
#[derive(Debug, Default)]
pub struct Recompute {
    passes: RefCell<Vec<Kept>>,
}

/// What is kept of one pass.
#[derive(Debug)]
struct Kept {
    /// The blocks, differentiable.
    decoder: Decoder,
    /// Where sequences start.
    starts: Vec<usize>,
    /// The residual stream before each block, `[rows, hidden]`; the first with the graph that it came from.
    inputs: Vec<Tensor>,
    /// The stream after the last block, whose gradient the loss finds.
    output: Var,
}

impl Kept {
    /// The first block behind which something is trained; none where nothing is.
    fn first_wanted(&self) -> Option<usize> {
        if self.inputs.first().is_some_and(Tensor::track_op) {
            return Some(0);
        }
        let trained = |block: usize| {
            let Block { attention_norm, qkv, output, feed_forward_norm, gate_up, down } =
                &self.decoder.blocks[block];
            let all = [attention_norm, qkv, output, feed_forward_norm, gate_up, down];
            all.into_iter().any(Tensor::track_op)
        };
        (0..self.decoder.blocks.len()).find(|it| trained(*it))
    }
}

/// A decoder of one of the blocks.
fn alone(decoder: &Decoder, block: usize) -> Decoder {
    Decoder { blocks: vec![decoder.blocks[block].clone()], ..decoder.clone() }
}

/// The gradients of whatever made a tensor whose own gradient is `grad`.
fn behind(made: &Tensor, grad: &Tensor) -> Result<GradStore> {
    let mut grads = (made * grad)?.sum_all()?.backward()?;
    // candle finds that of the constant too.
    grads.remove(grad);
    Ok(grads)
}

impl Recompute {
    /// The residual stream after all blocks, as [`Decoder::forward`]: `rows` is `[rows, hidden]`. Its
    /// gradients come from [`Self::backward`], not from the loss's own.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn forward(&self, decoder: &Decoder, rows: Tensor, starts: &[usize]) -> Result<Tensor> {
        let mut inputs = vec![rows];
        for block in 0..decoder.blocks.len() {
            let rows = inputs[block].detach();
            inputs.push(detached(alone(decoder, block)).forward(rows, starts)?);
        }
        let output = match inputs.pop() {
            Some(last) => Var::from_tensor(&last.detach())?,
            None => candle_core::bail!("a pass has rows"),
        };
        let rows = output.as_tensor().clone();
        let (decoder, starts) = (decoder.clone(), starts.to_vec());
        self.passes.borrow_mut().push(Kept { decoder, starts, inputs, output });
        Ok(rows)
    }

    /// The gradients of a loss of this object's passes, which are forgotten.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn backward(&self, loss: &Tensor) -> Result<GradStore> {
        let mut grads = loss.backward()?;
        // A pass may go on from one before it, never from one behind it.
        for kept in self.passes.take().into_iter().rev() {
            let Some(grad) = grads.remove(kept.output.as_tensor()) else { continue };
            // Detached: what is multiplied with a gradient must not lead back through it.
            let mut grad = grad.detach();
            let Some(first) = kept.first_wanted() else { continue };
            for (block, rows) in kept.inputs.iter().enumerate().skip(first).rev() {
                let input = Var::from_tensor(&rows.detach())?;
                let output =
                    alone(&kept.decoder, block).forward(input.as_tensor().clone(), &kept.starts)?;
                let mut own = behind(&output, &grad)?;
                grad = match own.remove(input.as_tensor()) {
                    Some(grad) => grad.detach(),
                    None => candle_core::bail!("a block has no gradient"),
                };
                grads.extend(own)?;
            }
            if let Some(rows) = kept.inputs.first().filter(|it| it.track_op()) {
                grads.extend(behind(rows, &grad)?)?;
            }
        }
        Ok(grads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Batch;
    use crate::engine::ops::{select, values_of};
    use crate::train::initial;
    use crate::train::lora::LoraSettings;
    use crate::train::loss::residual_nll;
    use crate::train::trainable::tests::tiny_config;
    use crate::train::unlearn::student::Student;

    const LORA: Option<LoraSettings> = Some(LoraSettings { rank: 2, alpha: 4.0 });

    fn batch(first: u32) -> Batch {
        Batch::of(&[
            (vec![first, 4, 5, 6], vec![false, false, true, true]),
            (vec![7, 8, first], vec![false, true, true]),
        ])
    }

    type Forward<'a> = &'a dyn Fn(&Decoder, Tensor, &[usize]) -> Result<Tensor>;

    /// Two batches, the second of which goes on from the middle with something added.
    fn loss(decoder: &Decoder, forward: Forward<'_>) -> Tensor {
        let embedded = |batch: &Batch| {
            let ids = Tensor::new(batch.ids.as_slice(), decoder.device()).unwrap();
            decoder.embed(&ids).unwrap()
        };
        let (first, second) = (batch(3), batch(9));
        let whole = forward(decoder, embedded(&first), &first.starts).unwrap();
        let half = |blocks: &[Block]| Decoder { blocks: blocks.to_vec(), ..decoder.clone() };
        let (lower, upper) = decoder.blocks.split_at(1);
        let middle = forward(&half(lower), embedded(&second), &second.starts).unwrap();
        let rest = forward(&half(upper), (middle * 1.5).unwrap(), &second.starts).unwrap();
        let mean = |rows: &Tensor, batch: &Batch| {
            residual_nll(decoder, &select(rows, &batch.label_rows)?, &batch.labels)?.mean_all()
        };
        (mean(&whole, &first).unwrap() - mean(&rest, &second).unwrap()).unwrap()
    }

    /// The same gradients as those of the whole graph: of weights, of adapters, and of a single matrix.
    #[test]
    fn gradients_are_those_of_the_whole_graph() {
        let decoder = initial::decoder(&tiny_config(), 3).unwrap();
        for (lora, only) in
            [(None, ""), (LORA, ""), (None, "1.down"), (None, "embedding"), (None, "0.qkv")]
        {
            let student = Student::new(&decoder, lora, 1, |it| it.contains(only)).unwrap();
            for (name, var) in student.vars().iter().filter(|it| it.0.ends_with(".b")) {
                let moved = (var.ones_like().unwrap() * 0.02).unwrap();
                var.set(&moved).unwrap_or_else(|it| panic!("{name}: {it}"));
            }
            let model = student.decoder().unwrap();
            let want = loss(&model, &|decoder, rows, starts| decoder.forward(rows, starts));
            let recompute = Recompute::default();
            let got =
                loss(&model, &|decoder, rows, starts| recompute.forward(decoder, rows, starts));
            assert_eq!(values_of(&got).unwrap(), values_of(&want).unwrap());
            let (want, got) = (want.backward().unwrap(), recompute.backward(&got).unwrap());
            let (all, stored) = (student.vars().len(), got.get_ids().count());
            assert!(stored >= all && (lora.is_some() || !only.is_empty() || stored == all));
            for (name, var) in student.vars() {
                let values = |grads: &GradStore| values_of(grads.get(var).unwrap()).unwrap();
                let (want, got) = (values(&want), values(&got));
                assert!(want.iter().any(|it| *it != 0.0), "{name}");
                for (want, got) in want.iter().zip(&got) {
                    assert!((want - got).abs() <= 1e-6 + 1e-5 * want.abs(), "{name} {want} {got}");
                }
            }
            assert!(recompute.passes.borrow().is_empty());
        }
    }

    /// A pass that the loss does not read costs nothing and has no gradient.
    #[test]
    fn what_is_not_read_is_left_out() {
        let decoder = initial::decoder(&tiny_config(), 3).unwrap();
        let student = Student::new(&decoder, None, 1, |_| true).unwrap();
        let model = student.decoder().unwrap();
        let recompute = Recompute::default();
        let batch = batch(3);
        let ids = Tensor::new(batch.ids.as_slice(), model.device()).unwrap();
        recompute.forward(&model, model.embed(&ids).unwrap(), &batch.starts).unwrap();
        let grads = recompute.backward(&model.norm.sum_all().unwrap()).unwrap();
        assert_eq!(grads.get_ids().count(), 1);
    }
}
