//! The decoder: embedding lookup apart from the layers, so that corrupted rows are laid over per
//! request, and attention given from outside, so that serving and training share the rest.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

use super::model_config::ModelConfig;
use super::ops::{self, linear, select};
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
        if self.embedding.is_contiguous() {
            return self.embedding.index_select(ids, 0);
        }
        self.embedding.t()?.index_select(ids, 1)?.t()?.contiguous()
    }

    /// The same weights, every matrix column after column in memory where the fused operations apply. A
    /// product of few rows is faster so: of a matrix that lies row after row it makes such a copy each time.
    /// Variables in training, and what reads the weights themselves, want them row after row.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when memory runs out.
    pub fn turned(mut self) -> Result<Self> {
        let blocks = self.blocks.iter_mut();
        let of_blocks =
            blocks.flat_map(|it| [&mut it.qkv, &mut it.output, &mut it.gate_up, &mut it.down]);
        for matrix in of_blocks.chain(&mut self.head).chain([&mut self.embedding]) {
            *matrix = ops::turned(matrix)?;
        }
        Ok(self)
    }

    /// Runs all blocks over packed rows `[rows, hidden]` and returns the residual stream of the `chosen`
    /// ones before the last norm, `[chosen, hidden]`; the others end with the last attention.
    /// `attend(layer, qkv)` maps unrotated `[rows, qkv_width]` to `[rows, heads * head_dim]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn blocks(
        &self,
        rows: Tensor,
        chosen: &[u32],
        attend: impl FnMut(usize, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.blocks_watched(rows, chosen, attend, |_, _| Ok(()))
    }

    /// The same, with a look at the residual stream after each block: `watch(blocks done, rows)`, of the
    /// chosen rows after the last.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn blocks_watched(
        &self,
        rows: Tensor,
        chosen: &[u32],
        attend: impl FnMut(usize, &Tensor) -> Result<Tensor>,
        watch: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        self.run(rows, Some(chosen), attend, |_, neurons| Ok(neurons), watch)
    }

    /// All blocks over rows, of which the chosen ones or all go on after the last attention.
    fn run(
        &self,
        rows: Tensor,
        chosen: Option<&[u32]>,
        mut attend: impl FnMut(usize, &Tensor) -> Result<Tensor>,
        mut route: impl FnMut(usize, Tensor) -> Result<Tensor>,
        mut watch: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let eps = self.config.norm_eps;
        let mut x = rows;
        for (layer, block) in self.blocks.iter().enumerate() {
            let normed = ops::rms_norm(&x, &block.attention_norm, eps)?;
            let mut attended = attend(layer, &linear(&normed, &block.qkv)?)?;
            if let Some(chosen) = chosen.filter(|_| layer + 1 == self.blocks.len()) {
                if chosen.is_empty() {
                    return x.narrow(0, 0, 0);
                }
                (x, attended) = (select(&x, chosen)?, select(&attended, chosen)?);
            }
            x = (x + linear(&attended, &block.output)?)?;
            let normed = ops::rms_norm(&x, &block.feed_forward_norm, eps)?;
            let gated = route(layer, ops::gated_silu(&linear(&normed, &block.gate_up)?)?)?;
            x = (x + linear(&gated, &block.down)?)?;
            watch(layer + 1, &x)?;
        }
        match chosen.filter(|_| self.blocks.is_empty()) {
            Some(chosen) => select(&x, chosen),
            None => Ok(x),
        }
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

    /// Logits of residual rows in f32 on the host, row after row. There may be no rows.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn host_logits(&self, rows: &Tensor) -> Result<Vec<f32>> {
        if rows.elem_count() == 0 {
            return Ok(Vec::new());
        }
        ops::values_of(&self.logits(rows)?)
    }

    /// Residual stream of packed sequences, differentiable: `embedded` is `[rows, hidden]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn forward(&self, embedded: Tensor, starts: &[usize]) -> Result<Tensor> {
        self.forward_routed(embedded, starts, |_, neurons| Ok(neurons))
    }

    /// The same of the `chosen` rows only, `[chosen, hidden]`.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn forward_of(&self, embedded: Tensor, starts: &[usize], chosen: &[u32]) -> Result<Tensor> {
        let attend = self.attend(starts);
        self.blocks(embedded, chosen, |_, qkv| attend(qkv))
    }

    /// The same of all rows, with the activations of every feed-forward block, `[rows, intermediate]`,
    /// replaced by what `route(layer, activations)` makes of them.
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
        let attend = self.attend(starts);
        self.run(embedded, None, |_, qkv| attend(qkv), route, |_, _| Ok(()))
    }

    /// Attention of packed sequences, each to itself.
    fn attend(&self, starts: &[usize]) -> impl Fn(&Tensor) -> Result<Tensor> + '_ {
        let packed = ops::Packed {
            starts: Arc::new(starts.to_vec()),
            heads: self.config.heads,
            kv_heads: self.config.kv_heads,
            head_dim: self.config.head_dim,
        };
        move |qkv| ops::attention(qkv, &packed, &self.rope)
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
