//! RMS normalisation.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{dot, fused, values, with_values};

/// `x / rms(x) * weight` over the last dimension: `x` is `[rows, width]`, `weight` is `[width]`.
///
/// # Errors
///
/// [`candle_core::Error`] when the shapes disagree.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    if fused(x) {
        return x.contiguous()?.apply_op2(weight, RmsNorm { eps });
    }
    candle_nn::ops::rms_norm_slow(&x.contiguous()?, weight, eps)
}

#[derive(Debug)]
struct RmsNorm {
    eps: f32,
}

fn inverse_rms(row: &[f32], eps: f32) -> f32 {
    (dot(row, row) / row.len() as f32 + eps).sqrt().recip()
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight) = (values(x, x_layout)?, values(weight, weight_layout)?);
        let mut out = vec![0f32; x.len()];
        out.par_chunks_mut(weight.len()).with_min_len(64).zip(x.par_chunks(weight.len())).for_each(
            |(out, row)| {
                let scale = inverse_rms(row, self.eps);
                for ((out, x), weight) in out.iter_mut().zip(row).zip(weight) {
                    *out = x * scale * weight;
                }
            },
        );
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (width, trained) = (weight.elem_count(), weight.track_op());
        let (dx, dweight) = with_values(x, |x| {
            with_values(weight, |weight| {
                with_values(grad, |grad| {
                    let mut dx = vec![0f32; x.len()];
                    let mut dweight = vec![0f32; width];
                    dx.par_chunks_mut(width)
                        .with_min_len(64)
                        .zip(x.par_chunks(width).zip(grad.par_chunks(width)))
                        .for_each(|(dx, (x, grad))| {
                            let scale = inverse_rms(x, self.eps);
                            for ((dx, grad), weight) in dx.iter_mut().zip(grad).zip(weight) {
                                *dx = grad * weight;
                            }
                            let pull = dot(dx, x) * scale * scale * scale / width as f32;
                            for (dx, x) in dx.iter_mut().zip(x) {
                                *dx = *dx * scale - x * pull;
                            }
                        });
                    // In row order on one thread, so that the sum does not depend on scheduling.
                    for (x, grad) in x.chunks(width).zip(grad.chunks(width)).filter(|_| trained) {
                        let scale = inverse_rms(x, self.eps);
                        for ((dweight, x), grad) in dweight.iter_mut().zip(x).zip(grad) {
                            *dweight += x * scale * grad;
                        }
                    }
                    Ok((dx, dweight))
                })
            })
        })?;
        let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
        let dweight = Tensor::from_vec(dweight, weight.shape(), weight.device())?;
        Ok((Some(dx), trained.then_some(dweight)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::finite;
    use crate::seed::Stream;

    #[test]
    fn agrees_with_the_slow_chain_and_with_finite_differences() {
        let mut stream = Stream::new(1);
        let inputs = [finite::random(&mut stream, &[5, 8]), finite::random(&mut stream, &[8])];
        let fast = rms_norm(&inputs[0], &inputs[1], 1e-5).unwrap();
        let slow = candle_nn::ops::rms_norm_slow(&inputs[0], &inputs[1], 1e-5).unwrap();
        let gap = (fast - slow).unwrap().abs().unwrap().max_all().unwrap();
        assert!(gap.to_scalar::<f32>().unwrap() < 1e-5);
        finite::check(&inputs, |it| rms_norm(&it[0], &it[1], 1e-5));
    }
}
