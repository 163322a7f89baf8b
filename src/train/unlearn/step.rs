//! What a method sees of one step: two models, and rows to run them on.

use std::cell::Cell;

use candle_core::{Result, Tensor, Var};

use crate::data::Batch;
use crate::engine::decoder::Decoder;
use crate::train::loss::label_nll;
use crate::train::named::{detached, tensors_mut};
use crate::train::recompute::Recompute;

/// A packed batch and what was computed of it before training.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    /// The sequences.
    pub batch: Batch,
    /// Negative log-likelihood of each sequence's labels under the reference, summed, in nats:
    /// `[sequences]`. Empty for methods that do not ask for it.
    pub reference_nll: Vec<f32>,
    /// Another label for each of the batch's, or none, see
    /// [`offset_labels`](super::offset_labels). Empty for methods that do not ask for it.
    pub offset_labels: Vec<Option<u32>>,
}

impl Rows {
    /// The reference's summed losses as a tensor `[sequences]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when the method did not ask for them.
    pub fn reference_nll(&self, model: &Pass<'_>) -> Result<Tensor> {
        if self.reference_nll.len() != self.batch.label_counts.len() {
            candle_core::bail!("the reference's losses of these rows were not computed");
        }
        Tensor::new(self.reference_nll.as_slice(), model.decoder.device())
    }

    /// The other labels, one for each of the batch's.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when the method did not ask for them.
    pub fn offset_labels(&self) -> Result<&[Option<u32>]> {
        if self.offset_labels.len() != self.batch.labels.len() {
            candle_core::bail!("other labels of these rows were not computed");
        }
        Ok(&self.offset_labels)
    }
}

/// Forward passes of a decoder, with their tokens counted. Nothing is remembered between calls.
#[derive(Debug)]
pub struct Pass<'a> {
    decoder: &'a Decoder,
    recompute: Option<&'a Recompute>,
    tokens: Cell<u64>,
}

impl<'a> Pass<'a> {
    /// Passes of this decoder.
    #[must_use]
    pub fn new(decoder: &'a Decoder) -> Self {
        Self { decoder, recompute: None, tokens: Cell::new(0) }
    }

    /// The same, keeping no activations: gradients then come from [`Recompute::backward`].
    #[must_use]
    pub fn recomputed(self, by: &'a Recompute) -> Self {
        Self { recompute: Some(by), ..self }
    }

    fn forward(&self, decoder: &Decoder, rows: Tensor, batch: &Batch) -> Result<Tensor> {
        match self.recompute {
            Some(recompute) => recompute.forward(decoder, rows, &batch.starts),
            None => decoder.forward(rows, &batch.starts),
        }
    }

    /// Input tokens so far.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens.get()
    }

    fn residual(&self, decoder: &Decoder, batch: &Batch) -> Result<Tensor> {
        self.tokens.set(self.tokens.get() + batch.ids.len() as u64);
        let ids = Tensor::new(batch.ids.as_slice(), decoder.device())?;
        self.forward(decoder, decoder.embed(&ids)?, batch)
    }

    /// Logits of every row, prompts included: `[rows, vocab]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn all_logits(&self, batch: &Batch) -> Result<Tensor> {
        self.decoder.logits(&self.residual(self.decoder, batch)?)
    }

    /// Logits of the rows that predict a label: `[labels, vocab]`, in the batch's order.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn logits(&self, batch: &Batch) -> Result<Tensor> {
        self.logits_of(&self.residual(self.decoder, batch)?, batch)
    }

    /// The residual stream after block `to`, from that after block `from` on, which may have been
    /// changed: `[rows, hidden]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when there are no such blocks.
    pub fn resume(
        &self,
        residual: Tensor,
        batch: &Batch,
        from: usize,
        to: usize,
    ) -> Result<Tensor> {
        let Some(blocks) = self.decoder.blocks.get(from + 1..=to) else {
            candle_core::bail!("the model has no blocks {} to {to}", from + 1);
        };
        self.tokens.set(self.tokens.get() + batch.ids.len() as u64);
        let rest = Decoder { blocks: blocks.to_vec(), ..self.decoder.clone() };
        self.forward(&rest, residual, batch)
    }

    /// Logits of the rows that predict a label, of the residual stream after the last block:
    /// `[labels, vocab]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn logits_of(&self, residual: &Tensor, batch: &Batch) -> Result<Tensor> {
        let rows = Tensor::new(batch.label_rows.as_slice(), self.decoder.device())?;
        self.decoder.logits(&residual.index_select(&rows, 0)?)
    }

    /// The number of the last block.
    #[must_use]
    pub fn last_block(&self) -> usize {
        self.decoder.blocks.len().saturating_sub(1)
    }

    /// The same weights without gradients. Its passes are to be counted here, see [`Pass::charge`].
    #[must_use]
    pub fn frozen(&self) -> Decoder {
        detached(self.decoder.clone())
    }

    /// The same weights as variables of their own, each beside the weight that it is a copy of. Weights
    /// that are not in training are shared. Its passes are to be counted here, see [`Pass::charge`].
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when memory runs out.
    pub fn copied(&self) -> Result<(Decoder, Vec<(Tensor, Var)>)> {
        let mut decoder = self.decoder.clone();
        let mut pairs = Vec::new();
        for (_, tensor) in tensors_mut(&mut decoder) {
            if tensor.track_op() {
                let var = Var::from_tensor(&tensor.detach().contiguous()?.copy()?)?;
                let original = std::mem::replace(tensor, var.as_tensor().clone());
                pairs.push((original, var));
            }
        }
        Ok((decoder, pairs))
    }

    /// Counts tokens of passes that were made elsewhere for this one.
    pub fn charge(&self, tokens: u64) {
        self.tokens.set(self.tokens.get() + tokens);
    }

    /// Negative log-likelihood of every label, in nats: `[labels]`, in the batch's order.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn nll(&self, batch: &Batch) -> Result<Tensor> {
        label_nll(self.decoder, &self.residual(self.decoder, batch)?, batch)
    }

    /// The residual stream after block `layer` (counted from 0): `[rows, hidden]`. Later blocks are
    /// not run.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when there is no such block.
    pub fn hidden(&self, batch: &Batch, layer: usize) -> Result<Tensor> {
        let Some(blocks) = self.decoder.blocks.get(..=layer) else {
            candle_core::bail!("the model has no block {layer}");
        };
        let cut = Decoder { blocks: blocks.to_vec(), ..self.decoder.clone() };
        self.residual(&cut, batch)
    }
}

/// One step of a method.
#[derive(Debug)]
pub struct Step<'a> {
    /// The model in training, differentiable.
    pub model: Pass<'a>,
    /// The model as it was before training, without gradients, when the method asked for it.
    pub reference: Option<Pass<'a>>,
    /// Passes over the forget set before this one.
    pub epoch: usize,
    /// What [`Method::carry`](crate::train::methods::Method::carry) returned last.
    pub carried: f32,
    /// Rows to forget.
    pub forget: &'a Rows,
    /// The questions of `forget` with other answers, when the method asked for them.
    pub answers: &'a Rows,
    /// Rows to keep, as many as `forget` has.
    pub retain: &'a Rows,
}

impl<'a> Step<'a> {
    /// The model as it was before training.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when the method did not ask for it.
    pub fn reference(&self) -> Result<&Pass<'a>> {
        match &self.reference {
            Some(reference) => Ok(reference),
            None => candle_core::bail!("the method did not ask for the model as it was"),
        }
    }

    /// `weight` and the mean loss of the retain rows over all their labels; nothing for weight 0.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn retain_nll(&self, weight: f64) -> Result<Option<(f64, Tensor)>> {
        if weight == 0.0 {
            return Ok(None);
        }
        Ok(Some((weight, self.model.nll(&self.retain.batch)?.mean_all()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::values_of;
    use crate::train::initial;
    use crate::train::trainable::tests::tiny_config;

    fn batch() -> Batch {
        Batch::of(&[
            (vec![3, 4, 5, 6], vec![false, false, true, true]),
            (vec![7, 8, 9], vec![false, true, true]),
        ])
    }

    /// The last block's residual through norm and head is what the whole decoder says.
    #[test]
    fn views_of_one_batch_agree() {
        let decoder = initial::decoder(&tiny_config(), 3).unwrap();
        let (pass, batch) = (Pass::new(&decoder), batch());
        let all = pass.all_logits(&batch).unwrap();
        let last = pass.hidden(&batch, tiny_config().layers - 1).unwrap();
        assert_eq!(values_of(&decoder.logits(&last).unwrap()).unwrap(), values_of(&all).unwrap());
        let some = values_of(&pass.logits(&batch).unwrap()).unwrap();
        let (all, vocab) = (values_of(&all).unwrap(), tiny_config().vocab_size);
        for (row, at) in some.chunks(vocab).zip(&batch.label_rows) {
            let same = &all[*at as usize * vocab..][..vocab];
            assert!(row.iter().zip(same).all(|(a, b)| (a - b).abs() < 1e-5));
        }
        let middle = pass.hidden(&batch, 0).unwrap();
        let resumed = pass.resume(middle, &batch, 0, pass.last_block()).unwrap();
        assert_eq!(values_of(&resumed).unwrap(), values_of(&last).unwrap());
        assert_eq!(pass.tokens(), 5 * batch.ids.len() as u64);
        assert!(pass.hidden(&batch, tiny_config().layers).is_err());
    }

    #[test]
    fn losses_that_were_not_computed_are_an_error() {
        let decoder = initial::decoder(&tiny_config(), 3).unwrap();
        let rows = Rows { batch: batch(), ..Rows::default() };
        assert!(rows.reference_nll(&Pass::new(&decoder)).is_err());
        assert!(rows.offset_labels().is_err());
    }
}
