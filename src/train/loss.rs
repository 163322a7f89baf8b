//! Losses over rows of logits.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::engine::decoder::Decoder;
use crate::engine::ops::{exp, exp_sum, fused, largest, linear, with_values};

/// Negative log-likelihood of `targets` under `logits`, in nats: `[rows, vocab]` in, `[rows]` out.
/// One pass, numerically stable, differentiable with respect to `logits`.
///
/// # Errors
///
/// [`candle_core::Error`] when `targets` is not one id per row.
pub fn token_nll(logits: &Tensor, targets: &[u32]) -> Result<Tensor> {
    if logits.device().is_cpu() {
        let logits = logits.contiguous()?;
        let nll = TokenNll::of(&logits, targets)?;
        return logits.apply_op1(nll);
    }
    let (rows, vocab) = logits.dims2()?;
    check(targets, rows, vocab)?;
    let targets = Tensor::new(targets, logits.device())?.unsqueeze(1)?;
    candle_nn::ops::log_softmax(logits, D::Minus1)?.gather(&targets, 1)?.squeeze(1)?.neg()
}

fn check(targets: &[u32], rows: usize, vocab: usize) -> Result<()> {
    if rows != targets.len() || targets.iter().any(|it| *it as usize >= vocab) {
        candle_core::bail!("{} targets for {rows} rows over {vocab} tokens", targets.len());
    }
    Ok(())
}

/// The same of the logits `rows * head^T`: `[rows, hidden]` and `[vocab, hidden]` in, `[rows]` out, in f32
/// whatever the logits are computed in. On the CPU they are no node of the graph, so that candle does not
/// add their gradient, as large as they are, to zeros first.
///
/// # Errors
///
/// As [`token_nll`].
pub fn linear_nll(rows: &Tensor, head: &Tensor, targets: &[u32]) -> Result<Tensor> {
    if !(fused(rows) && fused(head)) {
        return token_nll(&linear(rows, head)?.to_dtype(DType::F32)?, targets);
    }
    let logits = linear(&rows.detach(), &head.detach())?;
    let nll = TokenNll::of(&logits, targets)?;
    rows.apply_op2(head, LinearNll { logits, nll })
}

/// The same of rows of the residual stream, one per label: `[labels, hidden]` to `[labels]`.
///
/// # Errors
///
/// [`candle_core::Error`] from any operation.
pub fn residual_nll(decoder: &Decoder, labelled: &Tensor, labels: &[u32]) -> Result<Tensor> {
    let (rows, head) = decoder.head_inputs(labelled)?;
    linear_nll(&rows, head, labels)
}

/// Of a row of logits each: the target, the logarithm of the sum of exponentials, and the result.
#[derive(Debug)]
struct TokenNll {
    targets: Vec<u32>,
    log_sums: Vec<f32>,
    values: Vec<f32>,
}

fn log_sum_exp(row: &[f32]) -> f32 {
    let max = largest(row);
    max + exp_sum(row, max).ln()
}

impl TokenNll {
    fn of(logits: &Tensor, targets: &[u32]) -> Result<Self> {
        let (rows, vocab) = logits.dims2()?;
        check(targets, rows, vocab)?;
        with_values(logits, |logits| {
            let log_sums: Vec<f32> = logits.par_chunks(vocab).map(log_sum_exp).collect();
            let labelled = logits.chunks(vocab).zip(targets).map(|(row, it)| row[*it as usize]);
            let values = log_sums.iter().zip(labelled).map(|(sum, logit)| sum - logit).collect();
            Ok(Self { targets: targets.to_vec(), log_sums, values })
        })
    }

    /// The gradient of the logits: their softmax less one at the target, times the row's `grad`.
    fn gradient(&self, logits: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let vocab = logits.dim(D::Minus1)?;
        let out = with_values(logits, |logits| {
            with_values(grad, |grad| {
                let mut out = vec![0f32; logits.len()];
                out.par_chunks_mut(vocab)
                    .zip(logits.par_chunks(vocab))
                    .zip(grad.par_iter().zip(self.targets.par_iter().zip(&self.log_sums)))
                    .for_each(|((out, row), (grad, (target, log_sum)))| {
                        for (out, logit) in out.iter_mut().zip(row) {
                            *out = grad * exp(logit - log_sum);
                        }
                        out[*target as usize] -= grad;
                    });
                Ok(out)
            })
        })?;
        Tensor::from_vec(out, logits.shape(), logits.device())
    }
}

impl CustomOp1 for TokenNll {
    fn name(&self) -> &'static str {
        "token-nll"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.values.clone()), Shape::from(self.values.len())))
    }

    fn bwd(&self, arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(self.gradient(arg, grad)?))
    }
}

#[derive(Debug)]
struct LinearNll {
    logits: Tensor,
    nll: TokenNll,
}

impl CustomOp2 for LinearNll {
    fn name(&self) -> &'static str {
        "linear-nll"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let values = &self.nll.values;
        Ok((CpuStorage::F32(values.clone()), Shape::from(values.len())))
    }

    fn bwd(
        &self,
        rows: &Tensor,
        head: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let of_logits = self.nll.gradient(&self.logits, grad)?;
        // Detached: a gradient that is kept must not keep the whole pass in memory.
        let of_rows = rows.track_op().then(|| of_logits.matmul(&head.detach())).transpose()?;
        let of_head = head.track_op().then(|| of_logits.t()?.matmul(&rows.detach())).transpose()?;
        Ok((of_rows, of_head))
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

    /// The product of what two linear maps give, with the gradients of both.
    #[test]
    fn of_rows_and_head_it_is_that_of_their_logits() {
        let mut stream = Stream::new(5);
        let rows = finite::random(&mut stream, &[3, 6]);
        let head = finite::random(&mut stream, &[11, 6]);
        let targets = [10, 0, 4];
        let want = token_nll(&rows.matmul(&head.t().unwrap()).unwrap(), &targets).unwrap();
        let got = linear_nll(&rows, &head, &targets).unwrap();
        assert_eq!(got.to_vec1::<f32>().unwrap(), want.to_vec1::<f32>().unwrap());
        finite::check(&[rows.clone(), head.clone()], |it| linear_nll(&it[0], &it[1], &targets));
        assert!(linear_nll(&rows, &head, &[11, 0, 4]).is_err());
    }
}
