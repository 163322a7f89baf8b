//! Losses over rows of logits.

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::engine::ops::{values, with_values};

/// Negative log-likelihood of `targets` under `logits`, in nats: `[rows, vocab]` in, `[rows]` out.
/// One pass, numerically stable, differentiable with respect to `logits`.
///
/// # Errors
///
/// [`candle_core::Error`] when `targets` is not one id per row.
pub fn token_nll(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    let (rows, vocab) = logits.dims2()?;
    if rows != targets.len() || targets.iter().any(|it| *it as usize >= vocab) {
        candle_core::bail!("{} targets for {rows} rows over {vocab} tokens", targets.len());
    }
    if logits.device().is_cpu() {
        return logits.contiguous()?.apply_op1(TokenNll { targets: targets.to_vec(), vocab });
    }
    let targets = Tensor::new(targets, logits.device())?.unsqueeze(1)?;
    candle_nn::ops::log_softmax(logits, D::Minus1)?.gather(&targets, 1)?.squeeze(1)?.neg()
}

#[derive(Debug)]
struct TokenNll {
    targets: Vec<u32>,
    vocab: usize,
}

fn log_sum_exp(row: &[f32]) -> f32 {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    max + row.iter().map(|it| (it - max).exp()).sum::<f32>().ln()
}

impl CustomOp1 for TokenNll {
    fn name(&self) -> &'static str {
        "token-nll"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let logits = values(storage, layout)?;
        let out: Vec<f32> = logits
            .par_chunks(self.vocab)
            .zip(&self.targets)
            .map(|(row, target)| log_sum_exp(row) - row[*target as usize])
            .collect();
        let rows = out.len();
        Ok((CpuStorage::F32(out), Shape::from(rows)))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let dlogits = with_values(arg, |logits| {
            with_values(grad, |grad| {
                let mut out = vec![0f32; logits.len()];
                out.par_chunks_mut(self.vocab)
                    .zip(logits.par_chunks(self.vocab))
                    .zip(grad.par_iter().zip(&self.targets))
                    .for_each(|((out, row), (grad, target))| {
                        let log_sum = log_sum_exp(row);
                        for (out, logit) in out.iter_mut().zip(row) {
                            *out = grad * (logit - log_sum).exp();
                        }
                        out[*target as usize] -= grad;
                    });
                Ok(out)
            })
        })?;
        Ok(Some(Tensor::from_vec(dlogits, arg.shape(), arg.device())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::finite;
    use crate::seed::Stream;
    use candle_core::Device;

    /// Equal logits give ln(vocab) whatever the target.
    #[test]
    fn equal_logits_cost_the_log_of_the_vocabulary() {
        let logits = Tensor::full(3f32, (2, 8), &Device::Cpu).unwrap();
        let nll: Vec<f32> = token_nll(&logits, &[0, 7]).unwrap().to_vec1().unwrap();
        assert!(nll.iter().all(|it| (it - 8f32.ln()).abs() < 1e-6), "{nll:?}");
    }

    #[test]
    fn gradient_agrees_with_finite_differences() {
        let logits = finite::random(&mut Stream::new(4), &[3, 9]);
        finite::check(&[logits], |it| token_nll(&it[0], &[1, 8, 4]));
    }
}
