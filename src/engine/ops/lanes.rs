//! Passes over slices that compilers turn into vector instructions: sums and maxima are taken in lanes,
//! which are brought together at the end.

use std::ops::{Add, Mul};

use super::exp;

/// Values of one pass of a loop.
const LANES: usize = 16;

/// All lanes in one, by halves.
fn together<T: Copy>(mut lanes: [T; LANES], of: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = of(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The sum of products.
pub(crate) fn dot<T>(a: &[T], b: &[T]) -> T
where
    T: Copy + Default + Add<Output = T> + Mul<Output = T>,
{
    let mut lanes = [T::default(); LANES];
    let (a_whole, b_whole) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_whole.remainder().iter().zip(b_whole.remainder());
    let rest = rest.fold(T::default(), |sum, (a, b)| sum + *a * *b);
    for (a, b) in a_whole.zip(b_whole) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane = *lane + *a * *b;
        }
    }
    together(lanes, |a, b| a + b) + rest
}

/// The sum of squares, in double precision.
pub(crate) fn square_sum(values: &[f32]) -> f64 {
    let mut lanes = [0f64; LANES];
    let whole = values.chunks_exact(LANES);
    let square = |it: &f32| f64::from(it * it);
    let rest: f64 = whole.remainder().iter().map(square).sum();
    for chunk in whole {
        for (lane, it) in lanes.iter_mut().zip(chunk) {
            *lane += square(it);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// The largest value; of nothing it is negative infinity.
pub(crate) fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let whole = values.chunks_exact(LANES);
    let rest = whole.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for chunk in whole {
        for (lane, it) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(*it);
        }
    }
    together(lanes, f32::max).max(rest)
}

/// The sum of `exp(value - less)`.
pub(crate) fn exp_sum(values: &[f32], less: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let whole = values.chunks_exact(LANES);
    let rest: f32 = whole.remainder().iter().map(|it| exp(it - less)).sum();
    for chunk in whole {
        for (lane, it) in lanes.iter_mut().zip(chunk) {
            *lane += exp(it - less);
        }
    }
    together(lanes, |a, b| a + b) + rest
}

/// `y += scale * x`.
pub(crate) fn add_scaled(y: &mut [f32], x: &[f32], scale: f32) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += scale * x;
    }
}

/// Softmax in place.
pub(crate) fn softmax(scores: &mut [f32]) {
    let max = largest(scores);
    for score in scores.iter_mut() {
        *score = exp(*score - max);
    }
    let scale = scores.iter().sum::<f32>().recip();
    for score in scores.iter_mut() {
        *score *= scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Stream;

    /// Every length has whole chunks, a rest, or both: against sums in double precision, one by one.
    #[test]
    fn agrees_with_double_precision() {
        let mut stream = Stream::new(4);
        for length in 0..=70 {
            let mut draw = || (0..length).map(|_| stream.normal() as f32).collect::<Vec<f32>>();
            let (a, b) = (draw(), draw());
            let doubles = || a.iter().copied().map(f64::from).zip(b.iter().copied().map(f64::from));
            let near = |got: f64, want: f64| {
                assert!((got - want).abs() < 2e-5 * (1.0 + want.abs()), "{length}: {got}, {want}");
            };
            near(f64::from(dot(&a, &b)), doubles().map(|it| it.0 * it.1).sum());
            near(square_sum(&a), doubles().map(|it| it.0 * it.0).sum());
            near(f64::from(exp_sum(&a, 0.5)), doubles().map(|it| (it.0 - 0.5).exp()).sum());
            let most = doubles().map(|it| it.0).fold(f64::NEG_INFINITY, f64::max);
            assert!(f64::from(largest(&a)).total_cmp(&most).is_eq(), "{length}");
            let mut weights = a.clone();
            softmax(&mut weights);
            let sum: f64 = doubles().map(|it| it.0.exp()).sum();
            for (weight, score) in weights.iter().zip(&a) {
                near(f64::from(*weight), f64::from(*score).exp() / sum);
            }
            let mut moved = a.clone();
            add_scaled(&mut moved, &b, -2.0);
            for (moved, (a, b)) in moved.iter().zip(doubles()) {
                near(f64::from(*moved), a - 2.0 * b);
            }
        }
    }
}
