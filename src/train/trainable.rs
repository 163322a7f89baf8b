//! A decoder whose weights are variables.

use candle_core::{Result, Tensor, Var};

use crate::engine::decoder::{Block, Decoder};
use crate::engine::ops::select;
use crate::train::loss::residual_nll;

use crate::data::Batch;

/// A decoder and the variables behind its tensors, in a fixed order.
#[derive(Debug)]
pub struct Trainable {
    /// Shares storage with `vars`: an optimiser's step shows here at once.
    pub decoder: Decoder,
    /// Named variables.
    pub vars: Vec<(String, Var)>,
}

impl Trainable {
    /// Makes variables of a decoder's weights (copied).
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when memory runs out.
    pub fn from_decoder(decoder: &Decoder) -> Result<Self> {
        let mut vars = Vec::new();
        let mut var = |name: String, tensor: &Tensor| -> Result<Tensor> {
            let var = Var::from_tensor(&tensor.contiguous()?.copy()?)?;
            let tensor = var.as_tensor().clone();
            vars.push((name, var));
            Ok(tensor)
        };
        let embedding = var("embedding".to_owned(), &decoder.embedding)?;
        let mut blocks = Vec::with_capacity(decoder.blocks.len());
        for (layer, block) in decoder.blocks.iter().enumerate() {
            let mut var = |name: &str, tensor: &Tensor| var(format!("{layer}.{name}"), tensor);
            blocks.push(Block {
                attention_norm: var("attention_norm", &block.attention_norm)?,
                qkv: var("qkv", &block.qkv)?,
                output: var("output", &block.output)?,
                feed_forward_norm: var("feed_forward_norm", &block.feed_forward_norm)?,
                gate_up: var("gate_up", &block.gate_up)?,
                down: var("down", &block.down)?,
            });
        }
        let norm = var("norm".to_owned(), &decoder.norm)?;
        let head = decoder.head.as_ref().map(|it| var("head".to_owned(), it)).transpose()?;
        let decoder = Decoder {
            config: decoder.config.clone(),
            embedding,
            blocks,
            norm,
            head,
            rope: decoder.rope.clone(),
        };
        Ok(Self { decoder, vars })
    }

    /// Negative log-likelihood of every label of a batch, in nats: `[labels]`, in the batch's order.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn label_nll(&self, batch: &Batch) -> Result<Tensor> {
        let (embedded, chosen) = (self.embedded(batch)?, batch.label_rows.as_slice());
        let labelled = self.decoder.forward_of(embedded, &batch.starts, chosen)?;
        residual_nll(&self.decoder, &labelled, &batch.labels)
    }

    /// The same with changed activations, as in [`Decoder::forward_routed`].
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn label_nll_routed(
        &self,
        batch: &Batch,
        route: impl FnMut(usize, Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let all = self.decoder.forward_routed(self.embedded(batch)?, &batch.starts, route)?;
        residual_nll(&self.decoder, &select(&all, &batch.label_rows)?, &batch.labels)
    }

    fn embedded(&self, batch: &Batch) -> Result<Tensor> {
        self.decoder.embed(&Tensor::new(batch.ids.as_slice(), self.decoder.device())?)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::engine::model_config::ModelConfig;
    use crate::engine::rope::RopeConfig;
    use crate::train::initial;

    /// A configuration small enough for unit tests.
    pub(crate) fn tiny_config() -> ModelConfig {
        ModelConfig {
            vocab_size: 32,
            hidden_size: 16,
            intermediate_size: 24,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 4,
            norm_eps: 1e-5,
            rope: RopeConfig::plain(10_000.0),
            context_length: 64,
            tied_head: true,
            end_tokens: vec![1],
        }
    }

    /// The trap of candle's fused operations: a cut graph trains nothing and says nothing.
    #[test]
    fn every_variable_gets_a_gradient() {
        for tied_head in [true, false] {
            let config = ModelConfig { tied_head, ..tiny_config() };
            let model = Trainable::from_decoder(&initial::decoder(&config, 5).unwrap()).unwrap();
            let batch = Batch::of(&[(vec![3, 4, 5, 6], vec![false, false, true, true])]);
            let loss = model.label_nll(&batch).unwrap().mean_all().unwrap();
            let grads = loss.backward().unwrap();
            for (name, var) in &model.vars {
                let grad = grads.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
                let size = grad.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
                assert!(size > 0.0, "{name}");
                assert!(!grad.track_op(), "{name}: the gradient keeps the pass in memory");
            }
        }
    }
}
