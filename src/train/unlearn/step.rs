//! What a method sees of one step: two models, and rows to run them on.

use std::cell::{Cell, OnceCell};
use std::ops::Range;

use candle_core::{DType, Result, Tensor, Var};

use crate::data::Batch;
use crate::engine::decoder::Decoder;
use crate::engine::ops::select;
use crate::train::loss::residual_nll;
use crate::train::named::{detached, rounded, tensors_mut};
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

/// Forward passes of a decoder, with their tokens counted. Whatever they compute in, they take and give
/// f32. Nothing of a batch is remembered between calls; in mixed precision the rounded weights are, so that
/// weights which have changed want passes of their own.
#[derive(Debug)]
pub struct Pass<'a> {
    decoder: &'a Decoder,
    dtype: DType,
    /// The decoder in that dtype, once it was wanted.
    rounded: OnceCell<Decoder>,
    recompute: Option<&'a Recompute>,
    tokens: Cell<u64>,
}

impl<'a> Pass<'a> {
    /// Passes of this decoder, in the dtype of its weights.
    #[must_use]
    pub fn new(decoder: &'a Decoder) -> Self {
        Self::in_dtype(decoder, decoder.dtype())
    }

    /// Mixed precision (Micikevicius et al., arXiv:1710.03740): blocks and head are computed in `dtype` from
    /// rounded weights; embedding rows, losses and gradients of weights have the weights' own.
    #[must_use]
    pub fn in_dtype(decoder: &'a Decoder, dtype: DType) -> Self {
        let rounded = OnceCell::new();
        Self { decoder, dtype, rounded, recompute: None, tokens: Cell::new(0) }
    }

    /// Passes of another decoder in the same precision, which are to be counted here, see [`Pass::charge`].
    #[must_use]
    pub fn beside<'b>(&self, decoder: &'b Decoder) -> Pass<'b> {
        Pass::in_dtype(decoder, self.dtype)
    }

    /// The same, keeping no activations: gradients then come from [`Recompute::backward`].
    #[must_use]
    pub fn recomputed(self, by: &'a Recompute) -> Self {
        Self { recompute: Some(by), ..self }
    }

    /// What is computed with.
    fn computed(&self) -> Result<&Decoder> {
        if self.dtype == self.decoder.dtype() {
            return Ok(self.decoder);
        }
        if self.rounded.get().is_none() {
            let _first = self.rounded.set(rounded(self.decoder.clone(), self.dtype)?);
        }
        Ok(self.rounded.get().unwrap_or(self.decoder))
    }

    /// The residual stream behind some blocks, of that in front of them: `[rows, hidden]`, or
    /// `[labels, hidden]` of the rows that predict a label.
    fn through(
        &self,
        blocks: Range<usize>,
        rows: &Tensor,
        batch: &Batch,
        labelled: bool,
    ) -> Result<Tensor> {
        let decoder = self.computed()?;
        let Some(blocks) = decoder.blocks.get(blocks.clone()) else {
            candle_core::bail!("the model has no blocks {} to {}", blocks.start, blocks.end);
        };
        self.tokens.set(self.tokens.get() + batch.ids.len() as u64);
        let part = Decoder { blocks: blocks.to_vec(), ..decoder.clone() };
        let rows = rows.to_dtype(self.dtype)?;
        let chosen = batch.label_rows.as_slice();
        let rows = match self.recompute {
            Some(recompute) => {
                let all = recompute.forward(&part, rows, &batch.starts)?;
                if labelled { select(&all, &batch.label_rows) } else { Ok(all) }
            }
            None if labelled => part.forward_of(rows, &batch.starts, chosen),
            None => part.forward(rows, &batch.starts),
        };
        rows?.to_dtype(self.decoder.dtype())
    }

    /// Input tokens so far.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens.get()
    }

    /// The embedding rows of a batch, `[rows, hidden]`.
    fn embedded(&self, batch: &Batch) -> Result<Tensor> {
        self.decoder.embed(&Tensor::new(batch.ids.as_slice(), self.decoder.device())?)
    }

    /// The residual stream after all blocks: `[rows, hidden]`, or `[labels, hidden]`.
    fn residual(&self, batch: &Batch, labelled: bool) -> Result<Tensor> {
        self.through(0..self.decoder.blocks.len(), &self.embedded(batch)?, batch, labelled)
    }

    /// Logits of residual rows.
    fn head(&self, rows: &Tensor) -> Result<Tensor> {
        let logits = self.computed()?.logits(&rows.to_dtype(self.dtype)?)?;
        logits.to_dtype(self.decoder.dtype())
    }

    /// Logits of every row, prompts included: `[rows, vocab]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn all_logits(&self, batch: &Batch) -> Result<Tensor> {
        self.head(&self.residual(batch, false)?)
    }

    /// Logits of the rows that predict a label: `[labels, vocab]`, in the batch's order.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn logits(&self, batch: &Batch) -> Result<Tensor> {
        self.head(&self.residual(batch, true)?)
    }

    /// The residual stream after block `to`, from that after block `from` on, which may have been
    /// changed: `[rows, hidden]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when there are no such blocks.
    pub fn resume(
        &self,
        residual: &Tensor,
        batch: &Batch,
        from: usize,
        to: usize,
    ) -> Result<Tensor> {
        self.through(from + 1..to + 1, residual, batch, false)
    }

    /// Logits of the rows that predict a label, of the residual stream after the last block:
    /// `[labels, vocab]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn logits_of(&self, residual: &Tensor, batch: &Batch) -> Result<Tensor> {
        self.head(&select(residual, &batch.label_rows)?)
    }

    /// The number of the last block.
    #[must_use]
    pub fn last_block(&self) -> usize {
        self.decoder.blocks.len().saturating_sub(1)
    }

    /// The same weights without gradients, for passes [`Pass::beside`].
    #[must_use]
    pub fn frozen(&self) -> Decoder {
        detached(self.decoder.clone())
    }

    /// The same weights as variables of their own, each beside the weight that it is a copy of, for passes
    /// [`Pass::beside`]. Weights that are not in training are shared.
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
        let labelled = self.residual(batch, true)?.to_dtype(self.dtype)?;
        residual_nll(self.computed()?, &labelled, &batch.labels)
    }

    /// The residual stream after block `layer` (counted from 0): `[rows, hidden]`. Later blocks are
    /// not run.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when there is no such block.
    pub fn hidden(&self, batch: &Batch, layer: usize) -> Result<Tensor> {
        self.through(0..layer + 1, &self.embedded(batch)?, batch, false)
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
    use crate::engine::model_config::ModelConfig;
    use crate::engine::ops::values_of;
    use crate::train::initial;
    use crate::train::trainable::{Trainable, tests::tiny_config};

    /// The values of a tensor that has to be f32.
    fn f32s(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

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
        let resumed = pass.resume(&middle, &batch, 0, pass.last_block()).unwrap();
        assert_eq!(values_of(&resumed).unwrap(), values_of(&last).unwrap());
        assert_eq!(pass.tokens(), 5 * batch.ids.len() as u64);
        assert!(pass.hidden(&batch, tiny_config().layers).is_err());
    }

    /// Rounded to eight bits on the way forward and back; what comes out and what is trained is f32. Blocks
    /// that run again change nothing.
    #[test]
    fn mixed_precision_is_near() {
        for (tied_head, recomputed) in [(true, false), (false, false), (true, true)] {
            let config = ModelConfig { tied_head, ..tiny_config() };
            let model = Trainable::from_decoder(&initial::decoder(&config, 5).unwrap()).unwrap();
            let batch = batch();
            let of = |dtype: DType| {
                let recompute = Recompute::default();
                let pass = Pass::in_dtype(&model.decoder, dtype);
                let pass = if recomputed { pass.recomputed(&recompute) } else { pass };
                let (nll, logits) = (pass.nll(&batch).unwrap(), pass.logits(&batch).unwrap());
                let stream = pass.hidden(&batch, 0).unwrap();
                let outputs = [&nll, &logits, &stream].map(f32s);
                let grads = recompute.backward(&nll.mean_all().unwrap()).unwrap();
                let grads = model.vars.iter().map(|(name, var)| {
                    (name.clone(), f32s(grads.get(var).unwrap_or_else(|| panic!("{name}"))))
                });
                (outputs, grads.collect::<Vec<_>>())
            };
            let (want, got) = (of(DType::F32), of(DType::BF16));
            for (want, got) in want.0.iter().zip(&got.0) {
                assert_ne!(want, got);
                assert!(
                    want.iter().zip(got).all(|(a, b)| (a - b).abs() < 0.05),
                    "{want:?} {got:?}"
                );
            }
            for ((name, want), (_, got)) in want.1.iter().zip(&got.1) {
                let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
                let cosine = dot(want, got) / (dot(want, want) * dot(got, got)).sqrt();
                assert!(cosine > 0.995, "{name}: {cosine}");
            }
        }
    }

    #[test]
    fn losses_that_were_not_computed_are_an_error() {
        let decoder = initial::decoder(&tiny_config(), 3).unwrap();
        let rows = Rows { batch: batch(), ..Rows::default() };
        assert!(rows.reference_nll(&Pass::new(&decoder)).is_err());
        assert!(rows.offset_labels().is_err());
    }
}
