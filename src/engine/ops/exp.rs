//! The exponential in a form that compilers turn into vector instructions.

/// Adding this to a number of up to 2^22 leaves the nearest whole number in the lowest bits.
const SHIFT: f32 = 12_582_912.0;
/// ln 2 in two parts, the first exact in few bits, so that multiples of it are too.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// `(exp(r) - 1 - r) / r^2` for `|r| <= ln 2 / 2`, highest power first (Cephes, `expf.c`).
const POWERS: [f32; 6] =
    [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// `exp(x)` to 2e-7 of its value between -87 and 88, and constant beyond these, so that what should be
/// nothing or infinite is 2e-38 or 2e38; NaN stays NaN.
#[inline]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + SHIFT;
    let whole = shifted - SHIFT;
    let rest = (x - whole * LN_2[0]) - whole * LN_2[1];
    let sum = POWERS.iter().fold(0.0, |sum, it| sum * rest + it);
    let mantissa = sum * rest * rest + rest + 1.0;
    // 2^whole: the whole number goes from the lowest bits to the exponent's.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()));
    mantissa * power
}

#[cfg(test)]
mod tests {
    use super::exp;

    #[test]
    fn agrees_with_double_precision() {
        for step in -87_000..=88_000 {
            let x = step as f32 / 1000.0;
            let want = f64::from(x).exp();
            let gap = (f64::from(exp(x)) - want).abs() / want;
            assert!(gap < 2e-7, "exp({x}): {gap}");
        }
        assert!((exp(0.0) - 1.0).abs() < f32::EPSILON);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 2e-38 && exp(f32::INFINITY).is_finite());
    }
}
