//! AdamW with f32 moments, global clipping and decoupled decay (Loshchilov and Hutter, arXiv:1711.05101).

use std::cell::RefCell;

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Var};
use rayon::prelude::*;

use crate::engine::ops::with_values;

/// Constants of the optimiser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWSettings {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay; not applied to vectors (norms).
    pub weight_decay: f32,
    /// Largest norm of the whole gradient.
    pub clip: f32,
}

impl Default for AdamWSettings {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.98, eps: 1e-8, weight_decay: 0.01, clip: 1.0 }
    }
}

/// The optimiser's state for a list of variables on the CPU in f32.
#[derive(Debug)]
pub struct AdamW {
    settings: AdamWSettings,
    vars: Vec<Var>,
    /// First and second moment per variable, as a checkpoint stores them.
    pub moments: Vec<(Vec<f32>, Vec<f32>)>,
    /// Steps taken.
    pub steps: u64,
}

struct Update<'a> {
    settings: AdamWSettings,
    learning_rate: f32,
    grad_scale: f32,
    decay: f32,
    corrections: (f32, f32),
    moments: RefCell<&'a mut (Vec<f32>, Vec<f32>)>,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        weights_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<()> {
        let CpuStorage::F32(weights) = weights else {
            candle_core::bail!("adamw trains f32 weights")
        };
        let (start, end) = weights_layout.contiguous_offsets().expect("variables are contiguous");
        let grad = crate::engine::ops::values(grad, grad_layout)?;
        let mut moments = self.moments.borrow_mut();
        let (first, second) = &mut **moments;
        let AdamWSettings { beta1, beta2, eps, .. } = self.settings;
        let (lr, scale, decay, corrections) =
            (self.learning_rate, self.grad_scale, self.decay, self.corrections);
        weights[start..end]
            .par_iter_mut()
            .with_min_len(8192)
            .zip(grad.par_iter())
            .zip(first.par_iter_mut().zip(second.par_iter_mut()))
            .for_each(|((weight, grad), (first, second))| {
                let grad = grad * scale;
                *first = beta1 * *first + (1.0 - beta1) * grad;
                *second = beta2 * *second + (1.0 - beta2) * grad * grad;
                let step = (*first / corrections.0) / ((*second / corrections.1).sqrt() + eps);
                *weight -= lr * (step + decay * *weight);
            });
        Ok(())
    }
}

impl AdamW {
    /// An optimiser at step 0.
    #[must_use]
    pub fn new(vars: Vec<Var>, settings: AdamWSettings) -> Self {
        let moments = vars
            .iter()
            .map(|it| (vec![0f32; it.elem_count()], vec![0f32; it.elem_count()]))
            .collect();
        Self { settings, vars, moments, steps: 0 }
    }

    /// One step; returns the norm of the gradient before clipping.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when a variable has no gradient: a cut in the graph, which is a bug.
    pub fn step(&mut self, grads: &GradStore, learning_rate: f32) -> Result<f32> {
        let mut gradients = Vec::with_capacity(self.vars.len());
        let mut square = 0f64;
        for var in &self.vars {
            let Some(grad) = grads.get(var) else {
                candle_core::bail!("a variable has no gradient")
            };
            let grad = grad.contiguous()?;
            square +=
                with_values(&grad, |it| Ok(it.iter().map(|it| f64::from(it * it)).sum::<f64>()))?;
            gradients.push(grad);
        }
        let norm = square.sqrt() as f32;
        self.steps += 1;
        let power = |beta: f32| 1.0 - beta.powf(self.steps as f32);
        for ((var, grad), moments) in self.vars.iter().zip(&gradients).zip(&mut self.moments) {
            let update = Update {
                settings: self.settings,
                learning_rate,
                grad_scale: if norm > self.settings.clip { self.settings.clip / norm } else { 1.0 },
                decay: if var.dims().len() > 1 { self.settings.weight_decay } else { 0.0 },
                corrections: (power(self.settings.beta1), power(self.settings.beta2)),
                moments: RefCell::new(moments),
            };
            var.as_tensor().inplace_op2(grad, &update)?;
        }
        Ok(norm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Tensor};

    /// Two steps on one weight by hand: the bias corrections make the first step exactly `lr`.
    #[test]
    fn first_step_moves_by_the_learning_rate() {
        let var = Var::new(&[[1.0f32]], &Device::Cpu).unwrap();
        let settings = AdamWSettings { weight_decay: 0.0, clip: 10.0, ..AdamWSettings::default() };
        let mut optimiser = AdamW::new(vec![var.clone()], settings);
        let loss = (var.as_tensor() * 3.0).unwrap().sum_all().unwrap();
        let norm = optimiser.step(&loss.backward().unwrap(), 0.1).unwrap();
        assert!((norm - 3.0).abs() < 1e-6);
        let value = var.as_tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((value - 0.9).abs() < 1e-5, "{value}");
    }

    #[test]
    fn a_missing_gradient_is_an_error() {
        let (a, b) = (Var::new(1f32, &Device::Cpu).unwrap(), Var::new(1f32, &Device::Cpu).unwrap());
        let mut optimiser = AdamW::new(vec![a.clone(), b], AdamWSettings::default());
        let grads = Tensor::sqr(a.as_tensor()).unwrap().backward().unwrap();
        assert!(optimiser.step(&grads, 0.1).is_err());
    }
}
