//! Quantisation (Zhang et al., arXiv:2410.16454): rounding can undo a small change of weights, and with
//! it the forgetting.

use candle_core::{Result, Tensor};
use serde_json::json;

use super::{Finding, Inspection, accuracy};
use crate::engine::decoder::Decoder;
use crate::engine::ops::values_of;
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::teacher::Teacher;
use crate::train::named::tensors_mut;

/// Neighbours in a row that share one scale.
pub const GROUP: usize = 32;

/// Widths that are tried.
const BITS: [u32; 2] = [8, 4];

/// Values rounded to signed integers of `bits` (2 to 16), symmetric around 0 with one scale for every
/// [`GROUP`] neighbours of a row, and back. `width` is the length of a row; the last group of a row may
/// be shorter.
#[must_use]
pub fn rounded(values: &[f32], width: usize, bits: u32) -> Vec<f32> {
    let most = ((1u32 << (bits - 1)) - 1) as f32;
    let mut out = Vec::with_capacity(values.len());
    for group in values.chunks(width.max(1)).flat_map(|row| row.chunks(GROUP)) {
        let largest = group.iter().fold(0f32, |most, it| most.max(it.abs()));
        let scale = largest / most;
        out.extend(
            group.iter().map(|it| if scale > 0.0 { (it / scale).round() * scale } else { 0.0 }),
        );
    }
    out
}

/// The decoder with all matrices rounded, norms kept; and the root mean square of the error relative to
/// that of the weights.
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub fn quantised(decoder: &Decoder, bits: u32) -> Result<(Decoder, f64)> {
    let mut decoder = decoder.clone();
    let (mut error, mut size) = (0f64, 0f64);
    for (_, tensor) in tensors_mut(&mut decoder) {
        if tensor.rank() < 2 {
            continue;
        }
        let values = values_of(tensor)?;
        let new = rounded(&values, tensor.dim(1)?, bits);
        for (old, new) in values.iter().zip(&new) {
            error += f64::from(old - new).powi(2);
            size += f64::from(*old).powi(2);
        }
        *tensor = Tensor::from_vec(new, tensor.shape(), tensor.device())?;
    }
    Ok((decoder, (error / size).sqrt()))
}

/// One finding per width, with the accuracy on retain rows beside it.
///
/// # Errors
///
/// [`MeasureError`].
pub fn run(it: &Inspection<'_>) -> std::result::Result<Vec<Finding>, MeasureError> {
    let mut findings = Vec::with_capacity(BITS.len());
    for bits in BITS {
        let attacked = |teacher: &Teacher| -> std::result::Result<_, MeasureError> {
            let (decoder, error) = quantised(&teacher.decoder, bits)?;
            let rounded = teacher.with(decoder);
            let forget = accuracy(&rounded, it.forget)?;
            Ok((forget, accuracy(&rounded, it.retain)?, error))
        };
        let ((model, kept, error), (gold, _, _)) = (attacked(it.model)?, attacked(it.gold)?);
        findings.push(Finding {
            setting: format!("int{bits}"),
            budget: "one rounding".to_owned(),
            of_guard: false,
            model,
            gold,
            detail: json!({ "relative_error": error, "retain": kept }),
        });
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::teacher::tests::untrained;

    /// Four bits reach from -7 to 7, so the scale is 1/7: 3.85 rounds to 4, 1.82 to 2.
    #[test]
    fn rounds_by_hand() {
        let out = rounded(&[1.0, -0.55, 0.26, 0.0], 4, 4);
        for (got, want) in out.iter().zip([1.0, -4.0 / 7.0, 2.0 / 7.0, 0.0]) {
            assert!((got - want).abs() < 1e-6, "{out:?}");
        }
        assert_eq!(rounded(&[0.0, 0.0], 2, 8), [0.0, 0.0]);
    }

    /// Rows do not share a scale, nor do the groups of a row.
    #[test]
    fn scales_are_local() {
        assert_eq!(rounded(&[700.0, 1.0, 0.01, 0.07], 2, 4)[2..], rounded(&[0.01, 0.07], 2, 4));
        let mut row = vec![0.01f32; GROUP + 1];
        row[0] = 100.0;
        let out = rounded(&row, GROUP + 1, 8);
        assert!(out[1] == 0.0 && (out[GROUP] - 0.01).abs() < 1e-6, "{out:?}");
    }

    #[test]
    fn fewer_bits_cost_more() {
        let decoder = untrained(3).decoder;
        let (_, eight) = quantised(&decoder, 8).unwrap();
        let (_, four) = quantised(&decoder, 4).unwrap();
        assert!(0.0 < eight && 10.0 * eight < four && four < 0.2, "{eight} {four}");
    }
}
