//! Rows times a matrix.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::fused;

/// `x * weight^T`: `[rows, in]` and `[out, in]` to `[rows, out]`.
///
/// The same product as candle's. Its way back gives the weights' gradient as it is stored, and none to
/// what is not trained.
///
/// # Errors
///
/// [`candle_core::Error`] when the shapes disagree.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if fused(x) && fused(weight) {
        return x.apply_op2(weight, Linear);
    }
    x.matmul(&weight.t()?)
}

/// The same matrix, column after column in memory, for many products of few rows each.
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub(crate) fn turned(weight: &Tensor) -> Result<Tensor> {
    if fused(weight) { weight.t()?.contiguous()?.t() } else { Ok(weight.clone()) }
}

#[derive(Debug)]
struct Linear;

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((rows, width), (out, expected)) =
            (x_layout.shape().dims2()?, weight_layout.shape().dims2()?);
        if width != expected {
            candle_core::bail!("rows of {width} values for a matrix of {expected} columns");
        }
        let transposed = weight_layout.transpose(0, 1)?;
        let product = x.matmul(weight, (1, rows, out, width), x_layout, &transposed)?;
        Ok((product, Shape::from((rows, out))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        // Detached: a gradient that is kept must not keep the whole pass in memory.
        let of_x = x.track_op().then(|| grad.matmul(&weight.detach())).transpose()?;
        let of_weight = weight.track_op().then(|| grad.t()?.matmul(&x.detach())).transpose()?;
        Ok((of_x, of_weight))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;
    use crate::engine::ops::finite;
    use crate::seed::Stream;

    #[test]
    fn agrees_with_candle_and_with_finite_differences() {
        let mut stream = Stream::new(6);
        let (x, weight) =
            (finite::random(&mut stream, &[5, 4]), finite::random(&mut stream, &[3, 4]));
        let want: Vec<Vec<f32>> = x.matmul(&weight.t().unwrap()).unwrap().to_vec2().unwrap();
        assert_eq!(linear(&x, &weight).unwrap().to_vec2::<f32>().unwrap(), want);
        finite::check(&[x.clone(), weight.clone()], |it| linear(&it[0], &it[1]));
        // Rows and matrices that lie in memory the other way round.
        let turned =
            [x.t().unwrap().contiguous().unwrap(), weight.t().unwrap().contiguous().unwrap()];
        finite::check(&turned, |it| linear(&it[0].t()?, &it[1].t()?));
        assert!(linear(&x, &turned[1]).is_err());
        let same = super::turned(&weight).unwrap();
        assert!(!same.is_contiguous() && same.dims() == weight.dims());
        let product = linear(&x, &same).unwrap().to_vec2::<f32>().unwrap().concat();
        for (got, want) in product.iter().zip(want.concat()) {
            assert!((got - want).abs() < 1e-5, "{got}, {want}");
        }
    }

    #[test]
    fn what_is_not_trained_gets_no_gradient() {
        let mut stream = Stream::new(7);
        let x = Var::from_tensor(&finite::random(&mut stream, &[2, 4])).unwrap();
        let weight = finite::random(&mut stream, &[3, 4]);
        let grads = linear(&x, &weight).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(grads.get(&x).is_some() && grads.get(&weight).is_none());
    }

    #[test]
    fn gradients_keep_no_graph() {
        let mut stream = Stream::new(8);
        let of = |shape: &[usize], stream: &mut Stream| {
            Var::from_tensor(&finite::random(stream, shape)).unwrap()
        };
        let (x, weight) = (of(&[2, 4], &mut stream), of(&[3, 4], &mut stream));
        let grads = linear(&x, &weight).unwrap().sum_all().unwrap().backward().unwrap();
        for var in [&x, &weight] {
            assert!(!grads.get(var).unwrap().track_op());
        }
    }
}
