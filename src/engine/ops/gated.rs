//! The gated activation of the feed-forward block.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{exp, fused, values, with_values};

/// `silu(gate) * up` for rows that hold `gate` and `up` side by side: `[rows, 2 * width]` in,
/// `[rows, width]` out (SwiGLU, Shazeer, arXiv:2002.05202).
///
/// # Errors
///
/// [`candle_core::Error`] when the width is odd.
pub fn gated_silu(gate_up: &Tensor) -> Result<Tensor> {
    let width = gate_up.dim(D::Minus1)? / 2;
    if fused(gate_up) {
        return gate_up.contiguous()?.apply_op1(GatedSilu { width });
    }
    let gate = gate_up.narrow(D::Minus1, 0, width)?;
    let up = gate_up.narrow(D::Minus1, width, width)?;
    gate.silu()?.mul(&up)
}

#[derive(Debug)]
struct GatedSilu {
    width: usize,
}

impl CustomOp1 for GatedSilu {
    fn name(&self) -> &'static str {
        "gated-silu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = values(storage, layout)?;
        let mut out = vec![0f32; x.len() / 2];
        out.par_chunks_mut(self.width).with_min_len(32).zip(x.par_chunks(2 * self.width)).for_each(
            |(out, row)| {
                let (gate, up) = row.split_at(self.width);
                for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
                    *out = gate * up / (1.0 + exp(-gate));
                }
            },
        );
        let rows = x.len() / (2 * self.width);
        Ok((CpuStorage::F32(out), Shape::from((rows, self.width))))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let dx = with_values(arg, |x| {
            with_values(grad, |grad| {
                let mut dx = vec![0f32; x.len()];
                dx.par_chunks_mut(2 * self.width)
                    .with_min_len(32)
                    .zip(x.par_chunks(2 * self.width).zip(grad.par_chunks(self.width)))
                    .for_each(|(dx, (row, grad))| {
                        let (gate, up) = row.split_at(self.width);
                        let (dgate, dup) = dx.split_at_mut(self.width);
                        let outputs = dgate.iter_mut().zip(dup);
                        let inputs = gate.iter().zip(up).zip(grad);
                        for ((dgate, dup), ((gate, up), grad)) in outputs.zip(inputs) {
                            let sigmoid = 1.0 / (1.0 + exp(-gate));
                            let silu = gate * sigmoid;
                            *dup = grad * silu;
                            *dgate = grad * up * (sigmoid + silu * (1.0 - sigmoid));
                        }
                    });
                Ok(dx)
            })
        })?;
        Ok(Some(Tensor::from_vec(dx, arg.shape(), arg.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::finite;
    use crate::seed::Stream;

    #[test]
    fn agrees_with_the_slow_chain_and_with_finite_differences() {
        let x = finite::random(&mut Stream::new(2), &[4, 12]);
        let slow =
            (x.narrow(1, 0, 6).unwrap().silu().unwrap() * x.narrow(1, 6, 6).unwrap()).unwrap();
        let gap = (gated_silu(&x).unwrap() - slow).unwrap().abs().unwrap().max_all().unwrap();
        assert!(gap.to_scalar::<f32>().unwrap() < 1e-5);
        finite::check(&[x], |it| gated_silu(&it[0]));
    }
}
