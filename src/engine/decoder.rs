//! The decoder: embedding lookup apart from the layers, so that corrupted rows are laid over per
//! request, and attention given from outside, so that serving and training share the rest.

use candle_core::{DType, Device, Result, Tensor};

use super::model_config::ModelConfig;
use super::ops::{self, linear};
use super::rope::Rope;

/// Weights of one block. Matrices are `[out, in]`.
#[derive(Debug, Clone)]
pub struct Block {
    /// RMS weight before attention, `[hidden]`.
    pub attention_norm: Tensor,
    /// Queries, keys and values side by side, `[qkv_width, hidden]`.
    pub qkv: Tensor,
    /// Attention output, `[hidden, heads * head_dim]`.
    pub output: Tensor,
    /// RMS weight before the feed-forward block, `[hidden]`.
    pub feed_forward_norm: Tensor,
    /// Gate and up projections side by side, `[2 * intermediate, hidden]`.
    pub gate_up: Tensor,
    /// Down projection, `[hidden, intermediate]`.
    pub down: Tensor,
}

/// A decoder of the Llama family.
#[derive(Debug, Clone)]
pub struct Decoder {
    /// Sizes.
    pub config: ModelConfig,
    /// Embedding table, `[vocab, hidden]`.
    pub embedding: Tensor,
    /// Blocks in order.
    pub blocks: Vec<Block>,
    /// RMS weight before the head, `[hidden]`.
    pub norm: Tensor,
    /// The head, `[vocab, hidden]`; `None` when it is the embedding table.
    pub head: Option<Tensor>,
    /// Rotary tables for the whole context.
    pub rope: Rope,
}

impl Decoder {
    /// Rows of the embedding table: `ids` is `[rows]` of `u32`, the result `[rows, hidden]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when an id is outside the vocabulary.
    pub fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        self.embedding.index_select(ids, 0)
    }

    /// Runs all blocks over packed rows `[rows, hidden]` and returns the residual stream before the
    /// last norm. `attend(layer, qkv)` maps unrotated `[rows, qkv_width]` to `[rows, heads * head_dim]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn blocks(
        &self,
        rows: Tensor,
        attend: impl FnMut(usize, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.blocks_watched(rows, attend, |_, _| Ok(()))
    }

    /// The same, with a look at the residual stream after each block: `watch(blocks done, rows)`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn blocks_watched(
        &self,
        rows: Tensor,
        attend: impl FnMut(usize, &Tensor) -> Result<Tensor>,
        watch: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        self.blocks_routed(rows, attend, |_, neurons| Ok(neurons), watch)
    }

    /// The same, with the activations of every feed-forward block, `[rows, intermediate]`, replaced by
    /// what `route(layer, activations)` makes of them.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn blocks_routed(
        &self,
        rows: Tensor,
        mut attend: impl FnMut(usize, &Tensor) -> Result<Tensor>,
        mut route: impl FnMut(usize, Tensor) -> Result<Tensor>,
        mut watch: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let eps = self.config.norm_eps;
        let mut x = rows;
        for (layer, block) in self.blocks.iter().enumerate() {
            let normed = ops::rms_norm(&x, &block.attention_norm, eps)?;
            let attended = attend(layer, &linear(&normed, &block.qkv)?)?;
            x = (x + linear(&attended, &block.output)?)?;
            let normed = ops::rms_norm(&x, &block.feed_forward_norm, eps)?;
            let gated = route(layer, ops::gated_silu(&linear(&normed, &block.gate_up)?)?)?;
            x = (x + linear(&gated, &block.down)?)?;
            watch(layer + 1, &x)?;
        }
        Ok(x)
    }

    /// Logits of residual rows `[rows, hidden]`: `[rows, vocab]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn logits(&self, rows: &Tensor) -> Result<Tensor> {
        let (normed, head) = self.head_inputs(rows)?;
        linear(&normed, head)
    }

    /// What the head multiplies: the normalised rows, and its matrix `[vocab, hidden]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn head_inputs(&self, rows: &Tensor) -> Result<(Tensor, &Tensor)> {
        let normed = ops::rms_norm(rows, &self.norm, self.config.norm_eps)?;
        Ok((normed, self.head.as_ref().unwrap_or(&self.embedding)))
    }

    /// Logits of some of the residual rows, in f32 on the host: `[rows.len(), vocab]` row after row.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn logits_of(&self, residual: &Tensor, rows: &[u32]) -> Result<Vec<f32>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let chosen = residual.index_select(&Tensor::new(rows, self.device())?, 0)?;
        let logits = self.logits(&chosen)?;
        ops::values_of(&logits)
    }

    /// Residual stream of packed sequences, differentiable: `embedded` is `[rows, hidden]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn forward(&self, embedded: Tensor, starts: &[usize]) -> Result<Tensor> {
        self.forward_routed(embedded, starts, |_, neurons| Ok(neurons))
    }

    /// The same with changed activations, as in [`Self::blocks_routed`].
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn forward_routed(
        &self,
        embedded: Tensor,
        starts: &[usize],
        route: impl FnMut(usize, Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let packed = ops::Packed {
            starts: std::sync::Arc::new(starts.to_vec()),
            heads: self.config.heads,
            kv_heads: self.config.kv_heads,
            head_dim: self.config.head_dim,
        };
        let attend = |_, qkv: &Tensor| ops::attention(qkv, &packed, &self.rope);
        self.blocks_routed(embedded, attend, route, |_, _| Ok(()))
    }

    /// Where the weights are.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.embedding.device()
    }

    /// The dtype of the weights.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.embedding.dtype()
    }
}
