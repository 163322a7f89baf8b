//! Causal grouped-query attention over packed sequences, with rotary positions.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{add_scaled, dot, fused, softmax, values, with_values};
use crate::engine::rope::Rope;

/// Where the sequences of a packed batch lie, and how wide the heads are.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Row at which each sequence starts, and the number of rows last: `sequences + 1` values.
    pub starts: Arc<Vec<usize>>,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// Self-attention of every sequence to itself, positions counted from its own start.
///
/// `qkv` is `[rows, (heads + 2 * kv_heads) * head_dim]`: queries, keys and values before rotation,
/// side by side. Returns `[rows, heads * head_dim]`. Differentiable with respect to `qkv`.
///
/// # Errors
///
/// [`candle_core::Error`] when the shapes disagree.
pub fn attention(qkv: &Tensor, packed: &Packed, rope: &Rope) -> Result<Tensor> {
    if fused(qkv) {
        let op = Attention { packed: packed.clone(), rope: rope.clone() };
        return qkv.contiguous()?.apply_op1(op);
    }
    let outputs: Vec<Tensor> = packed
        .starts
        .windows(2)
        .map(|it| slow(&qkv.narrow(0, it[0], it[1] - it[0])?, packed, rope))
        .collect::<Result<_>>()?;
    Tensor::cat(&outputs, 0)
}

/// One sequence by candle's differentiable chain.
fn slow(qkv: &Tensor, packed: &Packed, rope: &Rope) -> Result<Tensor> {
    let (heads, kv_heads, dim) = (packed.heads, packed.kv_heads, packed.head_dim);
    let rows = qkv.dim(0)?;
    let split = |start: usize, count: usize| -> Result<Tensor> {
        let x = qkv.narrow(1, start * dim, count * dim)?.reshape((rows, count, dim))?;
        x.transpose(0, 1)?.contiguous()
    };
    let (cos, sin) = rope.tensors(rows, qkv.device(), qkv.dtype())?;
    let rotate =
        |x: &Tensor| candle_nn::rotary_emb::rope_slow(&x.unsqueeze(0)?, &cos, &sin)?.squeeze(0);
    let q = rotate(&split(0, heads)?)?;
    let repeat = |x: Tensor| -> Result<Tensor> {
        let group = heads / kv_heads;
        x.unsqueeze(1)?.expand((kv_heads, group, rows, dim))?.reshape((heads, rows, dim))
    };
    let k = repeat(rotate(&split(heads, kv_heads)?)?)?;
    let v = repeat(split(heads + kv_heads, kv_heads)?)?;
    let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? * (dim as f64).sqrt().recip())?;
    let mask: Vec<f32> = (0..rows * rows)
        .map(|at| if at % rows > at / rows { f32::NEG_INFINITY } else { 0.0 })
        .collect();
    let mask = Tensor::from_vec(mask, (rows, rows), qkv.device())?;
    // Sums of many small weights need more than eight bits.
    let scores = scores.to_dtype(DType::F32)?.broadcast_add(&mask)?;
    let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.to_dtype(qkv.dtype())?;
    weights.matmul(&v.contiguous()?)?.transpose(0, 1)?.reshape((rows, heads * dim))
}

#[derive(Debug)]
struct Attention {
    packed: Packed,
    rope: Rope,
}

impl Attention {
    fn width(&self) -> usize {
        (self.packed.heads + 2 * self.packed.kv_heads) * self.packed.head_dim
    }

    /// Rows of one sequence with queries and keys rotated (`inverse`: rotated back).
    fn rotate(&self, rows: &mut [f32], inverse: bool) {
        let rotated = (self.packed.heads + self.packed.kv_heads) * self.packed.head_dim;
        for (position, row) in rows.chunks_mut(self.width()).enumerate() {
            for head in row[..rotated].chunks_mut(self.packed.head_dim) {
                self.rope.apply(head, position, inverse);
            }
        }
    }

    /// Cuts `buffer`, `stride` values a row, into one mutable slice per sequence.
    fn by_sequence<'a>(&self, mut buffer: &'a mut [f32], stride: usize) -> Vec<&'a mut [f32]> {
        let mut parts = Vec::with_capacity(self.packed.starts.len() - 1);
        for it in self.packed.starts.windows(2) {
            let (part, rest) = buffer.split_at_mut((it[1] - it[0]) * stride);
            parts.push(part);
            buffer = rest;
        }
        parts
    }

    fn forward(&self, qkv: &[f32], out: &mut [f32]) {
        let Packed { heads, kv_heads, head_dim: dim, .. } = self.packed;
        let (width, group) = (self.width(), heads / kv_heads);
        let scale = (dim as f32).sqrt().recip();
        let mut rows = qkv.to_vec();
        self.rotate(&mut rows, false);
        let count = rows.len() / width;
        let mut scores = vec![0f32; count];
        for head in 0..heads {
            let k_at = (heads + head / group) * dim;
            let v_at = k_at + kv_heads * dim;
            for i in 0..count {
                let q = &rows[i * width + head * dim..][..dim];
                for (j, score) in scores[..=i].iter_mut().enumerate() {
                    *score = scale * dot(q, &rows[j * width + k_at..][..dim]);
                }
                softmax(&mut scores[..=i]);
                let out = &mut out[i * heads * dim + head * dim..][..dim];
                for (j, weight) in scores[..=i].iter().enumerate() {
                    add_scaled(out, &rows[j * width + v_at..][..dim], *weight);
                }
            }
        }
    }

    fn backward(&self, qkv: &[f32], grad: &[f32], dqkv: &mut [f32]) {
        let Packed { heads, kv_heads, head_dim: dim, .. } = self.packed;
        let (width, group) = (self.width(), heads / kv_heads);
        let scale = (dim as f32).sqrt().recip();
        let mut rows = qkv.to_vec();
        self.rotate(&mut rows, false);
        let count = rows.len() / width;
        let (mut weights, mut pulls) = (vec![0f32; count], vec![0f32; count]);
        for head in 0..heads {
            let q_at = head * dim;
            let k_at = (heads + head / group) * dim;
            let v_at = k_at + kv_heads * dim;
            for i in 0..count {
                let q = &rows[i * width + q_at..][..dim];
                let grad = &grad[i * heads * dim + q_at..][..dim];
                for (j, weight) in weights[..=i].iter_mut().enumerate() {
                    *weight = scale * dot(q, &rows[j * width + k_at..][..dim]);
                }
                softmax(&mut weights[..=i]);
                let mut mean = 0.0;
                for j in 0..=i {
                    pulls[j] = dot(grad, &rows[j * width + v_at..][..dim]);
                    mean += weights[j] * pulls[j];
                }
                for j in 0..=i {
                    add_scaled(&mut dqkv[j * width + v_at..][..dim], grad, weights[j]);
                    let pull = scale * weights[j] * (pulls[j] - mean);
                    add_scaled(&mut dqkv[j * width + k_at..][..dim], q, pull);
                    add_scaled(
                        &mut dqkv[i * width + q_at..][..dim],
                        &rows[j * width + k_at..][..dim],
                        pull,
                    );
                }
            }
        }
        // A rotation is orthogonal: the gradient goes back through its inverse.
        self.rotate(dqkv, true);
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "packed-attention"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let qkv = values(storage, layout)?;
        let (width, stride) = (self.width(), self.packed.heads * self.packed.head_dim);
        let rows = qkv.len() / width;
        let mut out = vec![0f32; rows * stride];
        self.by_sequence(&mut out, stride)
            .into_par_iter()
            .zip(self.packed.starts.par_windows(2))
            .for_each(|(out, it)| self.forward(&qkv[it[0] * width..it[1] * width], out));
        Ok((CpuStorage::F32(out), Shape::from((rows, stride))))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (width, stride) = (self.width(), self.packed.heads * self.packed.head_dim);
        let dqkv = with_values(arg, |qkv| {
            with_values(grad, |grad| {
                let mut dqkv = vec![0f32; qkv.len()];
                self.by_sequence(&mut dqkv, width)
                    .into_par_iter()
                    .zip(self.packed.starts.par_windows(2))
                    .for_each(|(dqkv, it)| {
                        let (start, end) = (it[0], it[1]);
                        self.backward(
                            &qkv[start * width..end * width],
                            &grad[start * stride..end * stride],
                            dqkv,
                        );
                    });
                Ok(dqkv)
            })
        })?;
        Ok(Some(Tensor::from_vec(dqkv, arg.shape(), arg.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::finite;
    use crate::engine::rope::RopeConfig;
    use crate::seed::Stream;

    #[test]
    fn agrees_with_the_slow_chain_and_with_finite_differences() {
        let packed = Packed { starts: Arc::new(vec![0, 3, 7]), heads: 4, kv_heads: 2, head_dim: 8 };
        let rope = Rope::new(&RopeConfig::plain(10_000.0), 8, 16);
        let qkv = finite::random(&mut Stream::new(3), &[7, 64]);
        let fast = attention(&qkv, &packed, &rope).unwrap();
        let parts: Vec<Tensor> = [(0, 3), (3, 4)]
            .iter()
            .map(|(start, len)| {
                slow(&qkv.narrow(0, *start, *len).unwrap(), &packed, &rope).unwrap()
            })
            .collect();
        let gap = (fast - Tensor::cat(&parts, 0).unwrap()).unwrap().abs().unwrap();
        assert!(gap.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-5);
        finite::check(&[qkv], |it| attention(&it[0], &packed, &rope));
    }
}
