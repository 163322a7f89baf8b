//! Low-rank adapters (Hu et al., arXiv:2106.09685): the dense weights are frozen, a product of two
//! narrow matrices is trained and added to them.
//!
//! The sum `W + alpha / rank * B A` is formed once a step, differentiably, and the decoder runs on it.
//! That costs two dense matrices per adapter, the product and the sum, which models of the size trained here
//! can afford.

use std::collections::BTreeMap;

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, Var};

use super::named::tensors_mut;
use crate::engine::decoder::Decoder;
use crate::engine::ops::{fused, values, with_values};
use crate::seed::Stream;

/// The matrices of a block that get an adapter.
pub const MATRICES: [&str; 4] = ["qkv", "output", "gate_up", "down"];

/// Size of the adapters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraSettings {
    /// Width of the narrow side, at least 1.
    pub rank: usize,
    /// The product is scaled by `alpha / rank`.
    pub alpha: f64,
}

/// A frozen decoder and its adapters.
#[derive(Debug)]
pub struct Lora {
    frozen: Decoder,
    scale: f64,
    /// `A` `[rank, in]` and `B` `[out, rank]` by the name of their matrix.
    adapters: BTreeMap<String, (Var, Var)>,
    /// The adapters' variables, `<matrix>.a` and `<matrix>.b`: all that is trained.
    pub vars: Vec<(String, Var)>,
}

impl Lora {
    /// Adapters for the [`MATRICES`] that `trains` names. `A` is uniform in ±1/sqrt(in) and `B` is
    /// zero, so that the first step starts from the frozen model.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when memory runs out or the rank is 0.
    pub fn new(
        frozen: &Decoder,
        settings: LoraSettings,
        seed: u64,
        trains: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        if settings.rank == 0 {
            candle_core::bail!("an adapter has at least rank 1");
        }
        let mut frozen = frozen.clone();
        let (mut adapters, mut vars) = (BTreeMap::new(), Vec::new());
        for (name, tensor) in tensors_mut(&mut frozen) {
            let matrix = name.split_once('.').is_some_and(|it| MATRICES.contains(&it.1));
            if !matrix || !trains(&name) {
                continue;
            }
            let (rows, columns) = tensor.dims2()?;
            let mut stream = Stream::named(seed, &format!("lora/{name}"));
            let bound = (columns as f64).sqrt().recip();
            let a: Vec<f32> = (0..settings.rank * columns)
                .map(|_| (bound * (2.0 * stream.uniform() - 1.0)) as f32)
                .collect();
            let a = Var::from_vec(a, (settings.rank, columns), tensor.device())?;
            let b = Var::zeros((rows, settings.rank), DType::F32, tensor.device())?;
            vars.push((format!("{name}.a"), a.clone()));
            vars.push((format!("{name}.b"), b.clone()));
            adapters.insert(name, (a, b));
        }
        Ok(Self { frozen, scale: settings.alpha / settings.rank as f64, adapters, vars })
    }

    /// The decoder with the adapters added, differentiable with respect to them.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when memory runs out.
    pub fn merged(&self) -> Result<Decoder> {
        let mut merged = self.frozen.clone();
        for (name, tensor) in tensors_mut(&mut merged) {
            let Some((a, b)) = self.adapters.get(&name) else { continue };
            let product = (b.as_tensor() * self.scale)?.matmul(a.as_tensor())?;
            *tensor = if fused(&product) {
                product.apply_op1(Beside(tensor.clone()))?
            } else {
                (product + &*tensor)?
            };
        }
        Ok(merged)
    }
}

/// Adds a frozen tensor of the same shape, on the CPU. candle's own addition would store a gradient for it,
/// as large as the weights.
#[derive(Debug)]
struct Beside(Tensor);

impl CustomOp1 for Beside {
    fn name(&self) -> &'static str {
        "beside-frozen"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let added = values(storage, layout)?;
        let sum = with_values(&self.0, |frozen| {
            if frozen.len() != added.len() {
                candle_core::bail!("{} numbers beside {} frozen ones", added.len(), frozen.len());
            }
            Ok(added.iter().zip(frozen).map(|(a, b)| a + b).collect::<Vec<f32>>())
        })?;
        Ok((CpuStorage::F32(sum), Shape::from(layout.dims())))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.clone()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::data::Batch;
    use crate::engine::ops::values_of;
    use crate::train::adamw::{AdamW, AdamWSettings};
    use crate::train::initial;
    use crate::train::trainable::{Trainable, tests::tiny_config};

    const SETTINGS: LoraSettings = LoraSettings { rank: 2, alpha: 4.0 };

    fn loss(decoder: Decoder) -> Tensor {
        let batch = Batch::of(&[(vec![3, 4, 5, 6], vec![false, false, true, true])]);
        let model = Trainable { decoder, vars: Vec::new() };
        model.label_nll(&batch).unwrap().mean_all().unwrap()
    }

    fn values(decoder: &mut Decoder) -> Vec<(String, Vec<f32>)> {
        tensors_mut(decoder).into_iter().map(|it| (it.0, values_of(it.1).unwrap())).collect()
    }

    #[test]
    fn starts_at_the_frozen_model_and_moves_only_the_matrices() {
        let mut frozen = initial::decoder(&tiny_config(), 3).unwrap();
        let before = values(&mut frozen);
        let lora = Lora::new(&frozen, SETTINGS, 1, |_| true).unwrap();
        assert_eq!(values(&mut lora.merged().unwrap()), before);

        let vars = lora.vars.iter().map(|it| it.1.clone()).collect();
        let mut optimiser = AdamW::new(vars, AdamWSettings::default()).unwrap();
        for _ in 0..3 {
            let grads = loss(lora.merged().unwrap()).backward().unwrap();
            for (name, tensor) in tensors_mut(&mut frozen) {
                assert!(grads.get(tensor).is_none(), "{name} is frozen and has a gradient");
            }
            optimiser.step(&grads, 1e-2).unwrap();
        }
        assert_eq!(values(&mut frozen), before, "the frozen weights moved");
        assert!(tensors_mut(&mut frozen).iter().all(|it| !it.1.is_variable()));
        for ((name, merged), (_, frozen)) in values(&mut lora.merged().unwrap()).iter().zip(&before)
        {
            let adapted = MATRICES.iter().any(|it| name.ends_with(it));
            assert_eq!(merged != frozen, adapted, "{name}");
        }
    }

    /// Every adapter learns once `B` has left zero; before that the gradient of `A` is zero.
    #[test]
    fn every_adapter_gets_a_gradient() {
        let frozen = initial::decoder(&tiny_config(), 3).unwrap();
        let lora = Lora::new(&frozen, SETTINGS, 1, |_| true).unwrap();
        assert_eq!(lora.vars.len(), 2 * MATRICES.len() * tiny_config().layers);
        for (name, var) in lora.vars.iter().filter(|it| it.0.ends_with(".b")) {
            let ones = Tensor::ones(var.dims(), DType::F32, &Device::Cpu).unwrap();
            var.set(&(ones * 0.01).unwrap()).unwrap_or_else(|it| panic!("{name}: {it}"));
        }
        let grads = loss(lora.merged().unwrap()).backward().unwrap();
        for (name, var) in &lora.vars {
            let grad = grads.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
            assert!(values_of(grad).unwrap().iter().any(|it| *it != 0.0), "{name}");
        }
    }

    /// `W + alpha / rank * B A` by hand, at one place.
    #[test]
    fn only_the_named_matrices_are_adapted_and_scaled() {
        let frozen = initial::decoder(&tiny_config(), 3).unwrap();
        let lora = Lora::new(&frozen, SETTINGS, 1, |it| it == "1.down").unwrap();
        let names: Vec<&str> = lora.vars.iter().map(|it| it.0.as_str()).collect();
        assert_eq!(names, ["1.down.a", "1.down.b"]);
        let (a, b) = (&lora.vars[0].1, &lora.vars[1].1);
        b.set(&Tensor::ones(b.dims(), DType::F32, &Device::Cpu).unwrap()).unwrap();
        let columns: Vec<Vec<f32>> = a.to_vec2().unwrap();
        let merged = lora.merged().unwrap().blocks[1].down.to_vec2::<f32>().unwrap();
        let base = frozen.blocks[1].down.to_vec2::<f32>().unwrap();
        let want = base[5][7] + 2.0 * (columns[0][7] + columns[1][7]);
        assert!((merged[5][7] - want).abs() < 1e-6);
    }
}
