//! AdamW with f32 moments, global clipping and decoupled decay (Loshchilov and Hutter, arXiv:1711.05101).

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Tensor, Var};
use rayon::prelude::*;

use crate::engine::ops::{self, fused, values, with_values};

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

/// The optimiser's state for a list of f32 variables, on their device.
#[derive(Debug)]
pub struct AdamW {
    settings: AdamWSettings,
    vars: Vec<Var>,
    /// First and second moment per variable, shaped like it.
    pub moments: Vec<(Var, Var)>,
    /// Steps taken.
    pub steps: u64,
}

/// What one step has in common for all variables.
#[derive(Debug, Clone, Copy)]
struct Update {
    settings: AdamWSettings,
    learning_rate: f32,
    grad_scale: f32,
    /// What the moments are divided by.
    corrections: (f32, f32),
}

/// A moment, from gradients or their squares.
struct Moment {
    beta: f32,
    grad_scale: f32,
    squared: bool,
}

/// Weights, from both moments.
struct Descent {
    update: Update,
    decay: f32,
}

/// The values of a variable's storage, to be changed.
fn changeable<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    let CpuStorage::F32(all) = storage else { candle_core::bail!("adamw trains f32 weights") };
    let (start, end) = layout.contiguous_offsets().expect("variables are contiguous");
    Ok(&mut all[start..end])
}

/// Values that one thread changes at least.
const AT_LEAST: usize = 8192;

impl InplaceOp2 for Moment {
    fn name(&self) -> &'static str {
        "adamw-moment"
    }

    fn cpu_fwd(
        &self,
        moment: &mut CpuStorage,
        moment_layout: &Layout,
        grad: &CpuStorage,
        grad_layout: &Layout,
    ) -> Result<()> {
        let moment = changeable(moment, moment_layout)?.par_iter_mut().with_min_len(AT_LEAST);
        let grad = values(grad, grad_layout)?.par_iter();
        let Self { beta, grad_scale, squared } = *self;
        moment.zip(grad).for_each(|(moment, grad)| {
            let grad = grad * grad_scale;
            let added = (1.0 - beta) * grad;
            *moment = beta * *moment + if squared { added * grad } else { added };
        });
        Ok(())
    }
}

impl InplaceOp3 for Descent {
    fn name(&self) -> &'static str {
        "adamw-descent"
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        weights_layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> Result<()> {
        let weights = changeable(weights, weights_layout)?.par_iter_mut().with_min_len(AT_LEAST);
        let (first, second) = (values(first, first_layout)?, values(second, second_layout)?);
        let Update { settings, learning_rate, corrections, .. } = self.update;
        weights.zip(first.par_iter()).zip(second.par_iter()).for_each(
            |((weight, first), second)| {
                let root = (second / corrections.1).sqrt() + settings.eps;
                let step = (first / corrections.0) / root;
                *weight -= learning_rate * (step + self.decay * *weight);
            },
        );
        Ok(())
    }
}

impl Update {
    /// Moves a variable and its moments on the CPU, each in one pass.
    fn fused(self, var: &Var, grad: &Tensor, (first, second): &(Var, Var)) -> Result<()> {
        let AdamWSettings { beta1, beta2, .. } = self.settings;
        let moment = |beta, squared| Moment { beta, grad_scale: self.grad_scale, squared };
        first.as_tensor().inplace_op2(grad, &moment(beta1, false))?;
        second.as_tensor().inplace_op2(grad, &moment(beta2, true))?;
        let descent = Descent { update: self, decay: self.decay(var) };
        var.as_tensor().inplace_op3(first.as_tensor(), second.as_tensor(), &descent)
    }

    /// The same by candle's operations, on any device.
    fn by_operations(self, var: &Var, grad: &Tensor, (first, second): &(Var, Var)) -> Result<()> {
        let AdamWSettings { beta1, beta2, eps, .. } = self.settings;
        let grad = (grad * f64::from(self.grad_scale))?;
        let moved = |moment: &Var, beta: f32, by: &Tensor| {
            moment.set(&((moment.as_tensor() * f64::from(beta))? + (by * f64::from(1.0 - beta))?)?)
        };
        moved(first, beta1, &grad)?;
        moved(second, beta2, &grad.sqr()?)?;
        let root = (second.as_tensor() / f64::from(self.corrections.1))?.sqrt()?;
        let step =
            (first.as_tensor() / f64::from(self.corrections.0))?.div(&(root + f64::from(eps))?)?;
        let step = (step + (var.as_tensor() * f64::from(self.decay(var)))?)?;
        var.set(&(var.as_tensor() - (step * f64::from(self.learning_rate))?)?)
    }

    fn decay(self, var: &Var) -> f32 {
        if var.dims().len() > 1 { self.settings.weight_decay } else { 0.0 }
    }
}

/// The sum of squares of a gradient.
fn square_sum(grad: &Tensor) -> Result<f64> {
    if fused(grad) {
        return with_values(grad, |it| Ok(ops::square_sum(it)));
    }
    Ok(f64::from(grad.sqr()?.sum_all()?.to_scalar::<f32>()?))
}

impl AdamW {
    /// An optimiser at step 0.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when memory runs out.
    pub fn new(vars: Vec<Var>, settings: AdamWSettings) -> Result<Self> {
        let nothing = |it: &Var| Var::from_tensor(&it.as_tensor().zeros_like()?);
        let moments = vars.iter().map(|it| Ok((nothing(it)?, nothing(it)?)));
        let moments = moments.collect::<Result<_>>()?;
        Ok(Self { settings, vars, moments, steps: 0 })
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
            let grad = grad.detach().contiguous()?;
            square += square_sum(&grad)?;
            gradients.push(grad);
        }
        let norm = square.sqrt() as f32;
        self.steps += 1;
        let power = |beta: f32| 1.0 - beta.powf(self.steps as f32);
        let update = Update {
            settings: self.settings,
            learning_rate,
            grad_scale: if norm > self.settings.clip { self.settings.clip / norm } else { 1.0 },
            corrections: (power(self.settings.beta1), power(self.settings.beta2)),
        };
        for ((var, grad), moments) in self.vars.iter().zip(&gradients).zip(&self.moments) {
            if fused(var.as_tensor()) {
                update.fused(var, grad, moments)?;
            } else {
                update.by_operations(var, grad, moments)?;
            }
        }
        Ok(norm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    use crate::engine::ops::{finite::random, values_of};
    use crate::seed::Stream;

    /// Two steps on one weight by hand: the bias corrections make the first step exactly `lr`.
    #[test]
    fn first_step_moves_by_the_learning_rate() {
        let var = Var::new(&[[1.0f32]], &Device::Cpu).unwrap();
        let settings = AdamWSettings { weight_decay: 0.0, clip: 10.0, ..AdamWSettings::default() };
        let mut optimiser = AdamW::new(vec![var.clone()], settings).unwrap();
        let loss = (var.as_tensor() * 3.0).unwrap().sum_all().unwrap();
        let norm = optimiser.step(&loss.backward().unwrap(), 0.1).unwrap();
        assert!((norm - 3.0).abs() < 1e-6);
        let value = var.as_tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((value - 0.9).abs() < 1e-5, "{value}");
    }

    #[test]
    fn a_missing_gradient_is_an_error() {
        let (a, b) = (Var::new(1f32, &Device::Cpu).unwrap(), Var::new(1f32, &Device::Cpu).unwrap());
        let mut optimiser = AdamW::new(vec![a.clone(), b], AdamWSettings::default()).unwrap();
        let grads = Tensor::sqr(a.as_tensor()).unwrap().backward().unwrap();
        assert!(optimiser.step(&grads, 0.1).is_err());
    }

    /// What runs on a GPU does what the fused passes do, to rounding.
    #[test]
    fn operations_agree_with_the_fused_passes() {
        let mut stream = Stream::new(6);
        let settings = AdamWSettings::default();
        for shape in [vec![3, 5], vec![7]] {
            let start = random(&mut stream, &shape);
            let own = || {
                let var = |it: &Tensor| Var::from_tensor(&it.copy().unwrap()).unwrap();
                let nothing = start.zeros_like().unwrap();
                (var(&start), (var(&nothing), var(&nothing)))
            };
            let (one, other) = (own(), own());
            for step in 1..=3 {
                let grad = random(&mut stream, &shape);
                let update = Update {
                    settings,
                    learning_rate: 0.1,
                    grad_scale: 0.5,
                    corrections: (1.0 - 0.9f32.powi(step), 1.0 - 0.98f32.powi(step)),
                };
                update.fused(&one.0, &grad, &one.1).unwrap();
                update.by_operations(&other.0, &grad, &other.1).unwrap();
            }
            let values = |it: &(Var, (Var, Var))| {
                [&it.0, &it.1.0, &it.1.1].map(|it| values_of(it.as_tensor()).unwrap()).concat()
            };
            assert_ne!(values(&one)[..3], values_of(&start).unwrap()[..3]);
            for (one, other) in values(&one).iter().zip(values(&other)) {
                assert!((one - other).abs() <= 1e-6 + 1e-5 * one.abs(), "{one} {other}");
            }
        }
    }
}
