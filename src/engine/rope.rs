//! Rotary position embeddings and their scalings (Su et al., arXiv:2104.09864).

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

/// How frequencies are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    /// Base of the geometric series of wavelengths.
    pub theta: f64,
    /// Stretching for longer contexts.
    pub scaling: RopeScaling,
}

/// The `rope_scaling` of a Hugging Face configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RopeScaling {
    /// None.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Llama 3.1's: low frequencies divided, high ones kept, a smooth ramp between.
    Llama3 {
        /// Divisor of low frequencies.
        factor: f64,
        /// Wavelengths above `original / low` are low frequencies.
        low: f64,
        /// Wavelengths below `original / high` are high frequencies.
        high: f64,
        /// Context length before stretching.
        original: f64,
    },
}

impl RopeScaling {
    /// As `config.json` writes it; null without scaling.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::None => serde_json::Value::Null,
            Self::Linear { factor } => {
                serde_json::json!({ "rope_type": "linear", "factor": factor })
            }
            Self::Llama3 { factor, low, high, original } => serde_json::json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }),
        }
    }
}

impl RopeConfig {
    /// No scaling.
    #[must_use]
    pub fn plain(theta: f64) -> Self {
        Self { theta, scaling: RopeScaling::None }
    }

    /// Radians per position of each of the `head_dim / 2` pairs of coordinates, fastest first.
    #[must_use]
    pub fn frequencies(&self, head_dim: usize) -> Vec<f64> {
        let plain = (0..head_dim / 2).map(|it| self.theta.powf(-2.0 * it as f64 / head_dim as f64));
        match self.scaling {
            RopeScaling::None => plain.collect(),
            RopeScaling::Linear { factor } => plain.map(|it| it / factor).collect(),
            RopeScaling::Llama3 { factor, low, high, original } => plain
                .map(|frequency| {
                    let wavelength = std::f64::consts::TAU / frequency;
                    let smooth = ((original / wavelength - low) / (high - low)).clamp(0.0, 1.0);
                    frequency * (smooth + (1.0 - smooth) / factor)
                })
                .collect(),
        }
    }
}

/// Cosines and sines for every position of a context. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rope {
    half: usize,
    cos: Arc<Vec<f32>>,
    sin: Arc<Vec<f32>>,
}

impl Rope {
    /// Tables for heads of width `head_dim` and positions below `context`.
    #[must_use]
    pub fn new(config: &RopeConfig, head_dim: usize, context: usize) -> Self {
        let frequencies = config.frequencies(head_dim);
        let angles = (0..context).flat_map(|position| {
            // Angles in f32, as transformers computes them.
            frequencies.iter().map(move |it| position as f32 * *it as f32)
        });
        let (cos, sin) = angles.map(|it| (it.cos(), it.sin())).unzip();
        Self { half: head_dim / 2, cos: Arc::new(cos), sin: Arc::new(sin) }
    }

    /// Rotates one head in place ("rotate half" pairing, as in Hugging Face's Llama).
    pub fn apply(&self, head: &mut [f32], position: usize, inverse: bool) {
        let cos = &self.cos[position * self.half..][..self.half];
        let sin = &self.sin[position * self.half..][..self.half];
        let (first, second) = head.split_at_mut(self.half);
        let sign = if inverse { -1.0 } else { 1.0 };
        for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            let (x, y) = (*a, *b);
            *a = x * cos - y * sin * sign;
            *b = y * cos + x * sin * sign;
        }
    }

    /// The first `rows` positions as `[rows, head_dim / 2]` tensors.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when the device is out of memory.
    pub fn tensors(&self, rows: usize, device: &Device, dtype: DType) -> Result<(Tensor, Tensor)> {
        let table = |values: &[f32]| {
            Tensor::from_slice(&values[..rows * self.half], (rows, self.half), device)?
                .to_dtype(dtype)
        };
        Ok((table(&self.cos)?, table(&self.sin)?))
    }
}
