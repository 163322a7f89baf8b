//! Keys and values of running sequences: preallocated slots, one per sequence.

use candle_core::{DType, Device, Result, Tensor};
use rayon::prelude::*;

use super::model_config::ModelConfig;
use super::ops::{add_scaled, dot, softmax, values_of};
use super::rope::Rope;

/// One sequence's share of a packed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Slot of the sequence.
    pub slot: usize,
    /// First row of the packed batch.
    pub row: usize,
    /// Number of rows.
    pub rows: usize,
    /// Position of the first row; everything before it is in the cache.
    pub position: usize,
}

/// Slots of `capacity` positions, for every layer.
#[derive(Debug)]
pub struct KvCache {
    config: ModelConfig,
    rope: Rope,
    capacity: usize,
    store: Store,
}

#[derive(Debug)]
enum Store {
    /// Per layer: `[slot][position][keys, values]` in f32.
    Host(Vec<Vec<f32>>),
    /// Per layer and slot: keys and values, each `[capacity, kv_heads, head_dim]`.
    Device(Vec<Vec<(Tensor, Tensor)>>),
}

impl KvCache {
    /// An empty cache.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when the device is out of memory.
    pub fn new(
        config: &ModelConfig,
        rope: &Rope,
        slots: usize,
        capacity: usize,
        device: &Device,
        dtype: DType,
    ) -> Result<Self> {
        let store = if device.is_cpu() {
            let width = 2 * config.kv_heads * config.head_dim;
            Store::Host((0..config.layers).map(|_| vec![0f32; slots * capacity * width]).collect())
        } else {
            let shape = (capacity, config.kv_heads, config.head_dim);
            let pair =
                || Ok((Tensor::zeros(shape, dtype, device)?, Tensor::zeros(shape, dtype, device)?));
            let layer = |_| (0..slots).map(|_| pair()).collect::<Result<Vec<_>>>();
            Store::Device((0..config.layers).map(layer).collect::<Result<_>>()?)
        };
        Ok(Self { config: config.clone(), rope: rope.clone(), capacity, store })
    }

    /// Rows that one slot holds.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Begins a slot with the first `rows` positions of another.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn copy(&mut self, from: usize, to: usize, rows: usize) -> Result<()> {
        match &mut self.store {
            Store::Host(layers) => {
                let width = 2 * self.config.kv_heads * self.config.head_dim;
                let [from, to] = [from, to].map(|it| it * self.capacity * width);
                layers.iter_mut().for_each(|it| it.copy_within(from..from + rows * width, to));
            }
            Store::Device(layers) => {
                for slots in layers.iter().filter(|_| rows > 0) {
                    let ((from_k, from_v), (to_k, to_v)) = (&slots[from], &slots[to]);
                    to_k.slice_set(&from_k.narrow(0, 0, rows)?, 0, 0)?;
                    to_v.slice_set(&from_v.narrow(0, 0, rows)?, 0, 0)?;
                }
            }
        }
        Ok(())
    }

    /// Attention of the packed rows of one layer to their own sequences: writes the rows' keys and
    /// values at their positions, then attends to everything up to each row. `qkv` is
    /// `[rows, qkv_width]` before rotation, the result `[rows, heads * head_dim]`. A position that is
    /// written again replaces what was there, which is how a sequence is rewound.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] from any operation.
    pub fn attend(&mut self, layer: usize, qkv: &Tensor, chunks: &[Chunk]) -> Result<Tensor> {
        match &mut self.store {
            Store::Host(layers) => {
                let shape = (self.config.heads, self.config.kv_heads, self.config.head_dim);
                let host = Host { shape, rope: &self.rope, capacity: self.capacity };
                let out = host.attend(&mut layers[layer], &values_of(qkv)?, chunks);
                Tensor::from_vec(out, (qkv.dim(0)?, shape.0 * shape.2), qkv.device())
            }
            Store::Device(layers) => {
                let parts = chunks
                    .iter()
                    .map(|it| {
                        device_attend(&self.config, &self.rope, &layers[layer][it.slot], qkv, *it)
                    })
                    .collect::<Result<Vec<_>>>()?;
                Tensor::cat(&parts, 0)
            }
        }
    }
}

struct Host<'a> {
    /// Heads, key and value heads, width of a head.
    shape: (usize, usize, usize),
    rope: &'a Rope,
    capacity: usize,
}

impl Host<'_> {
    fn attend(&self, cache: &mut [f32], qkv: &[f32], chunks: &[Chunk]) -> Vec<f32> {
        let (heads, kv_heads, dim) = self.shape;
        let (q_width, kv_width) = (heads * dim, kv_heads * dim);
        let width = q_width + 2 * kv_width;
        for chunk in chunks {
            for row in 0..chunk.rows {
                let from = &qkv[(chunk.row + row) * width + q_width..][..2 * kv_width];
                let position = chunk.position + row;
                let to = &mut cache[(chunk.slot * self.capacity + position) * 2 * kv_width..]
                    [..2 * kv_width];
                to.copy_from_slice(from);
                for head in to[..kv_width].chunks_mut(dim) {
                    self.rope.apply(head, position, false);
                }
            }
        }
        let cache = &*cache;
        let jobs: Vec<(Chunk, usize)> =
            chunks.iter().flat_map(|it| (0..it.rows).map(move |row| (*it, row))).collect();
        let mut out = vec![0f32; jobs.len() * q_width];
        out.par_chunks_mut(q_width).with_min_len(4).zip(&jobs).for_each(|(out, (chunk, row))| {
            let position = chunk.position + row;
            let slot = &cache[chunk.slot * self.capacity * 2 * kv_width..]
                [..(position + 1) * 2 * kv_width];
            let mut q = qkv[(chunk.row + row) * width..][..q_width].to_vec();
            self.row(&mut q, slot, position, out);
        });
        out
    }

    fn row(&self, q: &mut [f32], slot: &[f32], position: usize, out: &mut [f32]) {
        let (heads, kv_heads, dim) = self.shape;
        let scale = (dim as f32).sqrt().recip();
        let stride = 2 * kv_heads * dim;
        let mut scores = vec![0f32; position + 1];
        for (head, (q, out)) in q.chunks_mut(dim).zip(out.chunks_mut(dim)).enumerate() {
            self.rope.apply(q, position, false);
            let k_at = head / (heads / kv_heads) * dim;
            let v_at = k_at + kv_heads * dim;
            for (score, row) in scores.iter_mut().zip(slot.chunks(stride)) {
                *score = scale * dot(q, &row[k_at..][..dim]);
            }
            softmax(&mut scores);
            for (weight, row) in scores.iter().zip(slot.chunks(stride)) {
                add_scaled(out, &row[v_at..][..dim], *weight);
            }
        }
    }
}

/// One sequence on an accelerator, by candle's kernels over the preallocated cache.
fn device_attend(
    config: &ModelConfig,
    rope: &Rope,
    cache: &(Tensor, Tensor),
    qkv: &Tensor,
    chunk: Chunk,
) -> Result<Tensor> {
    let (heads, kv_heads, dim) = (config.heads, config.kv_heads, config.head_dim);
    let group = heads / kv_heads;
    let end = chunk.position + chunk.rows;
    let rows = qkv.narrow(0, chunk.row, chunk.rows)?;
    let split = |start: usize, count: usize| {
        rows.narrow(1, start * dim, count * dim)?.reshape((1, chunk.rows, count, dim))
    };
    let (cos, sin) = rope.tensors(end, qkv.device(), qkv.dtype())?;
    let (cos, sin) =
        (cos.narrow(0, chunk.position, chunk.rows)?, sin.narrow(0, chunk.position, chunk.rows)?);
    let rotate =
        |x: Tensor| candle_nn::rotary_emb::rope(&x.transpose(1, 2)?.contiguous()?, &cos, &sin);
    let q = rotate(split(0, heads)?)?;
    let k = rotate(split(heads, kv_heads)?)?.transpose(1, 2)?.squeeze(0)?.contiguous()?;
    let v = split(heads + kv_heads, kv_heads)?.squeeze(0)?.contiguous()?;
    cache.0.slice_set(&k, 0, chunk.position)?;
    cache.1.slice_set(&v, 0, chunk.position)?;
    let seen = |x: &Tensor| x.narrow(0, 0, end)?.transpose(0, 1)?.contiguous();
    let (k, v) = (seen(&cache.0)?, seen(&cache.1)?);
    let q = q.squeeze(0)?.reshape((kv_heads, group * chunk.rows, dim))?;
    let scores = (q.matmul(&k.transpose(1, 2)?)? * (dim as f64).sqrt().recip())?;
    let mask: Vec<f32> = (0..group * chunk.rows)
        .flat_map(|it| {
            let last = chunk.position + it % chunk.rows;
            (0..end).map(move |at| if at > last { f32::NEG_INFINITY } else { 0.0 })
        })
        .collect();
    let mask =
        Tensor::from_vec(mask, (group * chunk.rows, end), qkv.device())?.to_dtype(qkv.dtype())?;
    let weights = candle_nn::ops::softmax_last_dim(&scores.broadcast_add(&mask)?)?;
    let out = weights.matmul(&v)?.reshape((heads, chunk.rows, dim))?;
    out.transpose(0, 1)?.reshape((chunk.rows, heads * dim))
}
