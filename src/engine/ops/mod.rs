//! Fused operations of the decoder that keep their gradients.
//!
//! candle's own fused `rms_norm`, `softmax_last_dim` and `rope` cut the gradient silently; its
//! differentiable variants are chains of small single-threaded kernels. These are one pass each on
//! the CPU, in f32, over packed rows (`[tokens, width]`, no padding), with hand-written backward
//! passes that tests compare with finite differences. On other devices, and in other dtypes, they
//! fall back to candle's differentiable chains.

mod attention;
mod exp;
mod gated;
mod lanes;
mod linear;
mod norm;

pub use attention::{Packed, attention};
pub(crate) use exp::exp;
pub use gated::gated_silu;
pub(crate) use lanes::{add_scaled, dot, exp_sum, largest, softmax, square_sum};
pub use linear::linear;
pub(crate) use linear::turned;
pub use norm::rms_norm;

use candle_core::{CpuStorage, DType, Device, Error, Layout, Result, Storage, Tensor};

/// Does work of many small parallel operations on one of rayon's own threads. From any other, each
/// operation would wake the pool and wait for it, a seventh to a fifth of a training step of the lab's
/// model. The work must not wait for another thread that needs the pool.
pub fn on_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| work())
}

/// Whether the fused path applies.
pub(crate) fn fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// The values of a contiguous f32 CPU storage.
pub(crate) fn values<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let all = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&all[start..end]),
        None => Err(Error::RequiresContiguous { op: "fused decoder op" }.bt()),
    }
}

/// Calls `f` with the values of a CPU f32 tensor, made contiguous first.
pub(crate) fn with_values<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(cpu) => f(values(cpu, layout)?),
        Storage::Cuda(_) | Storage::Metal(_) => candle_core::bail!("a fused op left the CPU"),
    }
}

/// Some of the rows of a matrix, in this order.
pub(crate) fn select(matrix: &Tensor, rows: &[u32]) -> Result<Tensor> {
    matrix.index_select(&Tensor::new(rows, matrix.device())?, 0)
}

/// The values of a tensor, copied to the host in f32.
pub(crate) fn values_of(tensor: &Tensor) -> Result<Vec<f32>> {
    let tensor = tensor.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
    with_values(&tensor, |it| Ok(it.to_vec()))
}

#[cfg(test)]
pub(crate) mod finite {
    //! Gradients against central differences.

    use candle_core::{Device, Result, Tensor, Var};

    use crate::seed::Stream;

    /// Random values of a shape.
    pub(crate) fn random(stream: &mut Stream, shape: &[usize]) -> Tensor {
        let n = shape.iter().product();
        let data: Vec<f32> = (0..n).map(|_| stream.normal() as f32).collect();
        Tensor::from_vec(data, shape, &Device::Cpu).unwrap()
    }

    /// Compares the gradients of `sum(f(inputs) * w)` for a fixed random `w` with central differences.
    pub(crate) fn check(inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
        let mut stream = Stream::new(99);
        let vars: Vec<Var> = inputs.iter().map(|it| Var::from_tensor(it).unwrap()).collect();
        let tensors: Vec<Tensor> = vars.iter().map(|it| it.as_tensor().clone()).collect();
        let out = f(&tensors).unwrap();
        let weights = random(&mut stream, out.dims());
        let total = |inputs: &[Tensor]| -> f64 {
            let sum = (f(inputs).unwrap() * &weights).unwrap().sum_all().unwrap();
            f64::from(sum.to_scalar::<f32>().unwrap())
        };
        let grads = (out * &weights).unwrap().sum_all().unwrap().backward().unwrap();
        for (k, var) in vars.iter().enumerate() {
            let grad = grads.get(var).expect("every input gets a gradient");
            let grad: Vec<f32> = grad.flatten_all().unwrap().to_vec1().unwrap();
            let base: Vec<f32> = inputs[k].flatten_all().unwrap().to_vec1().unwrap();
            for _ in 0..12 {
                let at = stream.below(base.len());
                let step = 1e-2f32;
                let moved = |delta: f32| {
                    let mut data = base.clone();
                    data[at] += delta;
                    let mut changed = inputs.to_vec();
                    changed[k] = Tensor::from_vec(data, inputs[k].dims(), &Device::Cpu).unwrap();
                    total(&changed)
                };
                let want = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
                let got = f64::from(grad[at]);
                assert!(
                    (got - want).abs() < 2e-2 * (1.0 + want.abs()),
                    "input {k}[{at}]: {got} {want}"
                );
            }
        }
    }
}
