//! The statistics behind the reports, in `f64` and without tables.
//!
//! Values that are not numbers give results that are not numbers: an evaluation that failed must
//! not look like one that measured something.

use serde::Serialize;

use crate::seed::Stream;

/// A two-sided two-sample Kolmogorov-Smirnov test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KsTest {
    /// Largest distance between the empirical distribution functions, 0 to 1.
    pub statistic: f64,
    /// Probability of at least this distance if both samples have one distribution, exact.
    pub p_value: f64,
}

/// A range that holds a statistic with some confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The Kolmogorov-Smirnov test of two samples, equal to `scipy.stats.ks_2samp(method="exact")`.
///
/// Ties between the samples count as they do there: the distance is taken after each distinct value
/// and the probability is that of samples without ties. Takes `left.len() * right.len()` steps: 0.2 s
/// for two samples of 10,000.
///
/// Both fields are NaN for an empty sample or one with NaN in it.
#[must_use]
pub fn ks_two_sample(left: &[f64], right: &[f64]) -> KsTest {
    let empty = left.is_empty() || right.is_empty();
    if empty || left.iter().chain(right).any(|value| value.is_nan()) {
        return KsTest { statistic: f64::NAN, p_value: f64::NAN };
    }
    let (n, m) = (left.len() as u64, right.len() as u64);
    let divisor = gcd(n, m);
    let distance = largest_distance(left, right) / divisor;
    let statistic = distance as f64 / (n / divisor * m) as f64;
    KsTest { statistic, p_value: exit_probability(n, m, distance) }
}

/// `max |i * m - j * n|` over the sorted, merged samples, where `i` and `j` count the values of
/// `left` and `right` so far. Whole numbers keep the comparison in [`exit_probability`] exact.
fn largest_distance(left: &[f64], right: &[f64]) -> u64 {
    let (left, right) = (sorted(left), sorted(right));
    let (n, m) = (left.len(), right.len());
    let (mut i, mut j, mut largest) = (0, 0, 0);
    while i < n && j < m {
        let value = left[i].min(right[j]);
        i += left[i..].iter().take_while(|it| **it <= value).count();
        j += right[j..].iter().take_while(|it| **it <= value).count();
        largest = largest.max((i * m).abs_diff(j * n));
    }
    largest as u64
}

/// The share of lattice paths from (0, 0) to (n, m) that somewhere reach
/// `|i * m - j * n| / gcd >= distance`.
///
/// `outside` of a point is that share among the paths to it: 1 where the point itself is that far
/// out, else the mean of its two predecessors weighted by the paths through them, `i : j`. Nothing
/// is subtracted, so small shares keep their precision (J. L. Hodges, "The significance probability
/// of the Smirnov two-sample test", Arkiv för Matematik 3, 1958).
fn exit_probability(n: u64, m: u64, distance: u64) -> f64 {
    if distance == 0 {
        return 1.0;
    }
    let divisor = gcd(n, m);
    let (step_i, step_j) = (m / divisor, n / divisor);
    let mut inverse = Vec::with_capacity((n + m + 1) as usize);
    inverse.push(0.0);
    inverse.extend((1..=n + m).map(|total| 1.0 / total as f64));
    let mut row = vec![0.0_f64; m as usize + 1];
    for i in 0..=n {
        let mut before = 0.0;
        for j in 0..=m {
            let at = j as usize;
            before = if (i * step_i).abs_diff(j * step_j) >= distance {
                1.0
            } else {
                // At (0, 0) both weights are 0; that path has not left.
                (i as f64 * row[at] + j as f64 * before) * inverse[(i + j) as usize]
            };
            row[at] = before;
        }
    }
    row[m as usize]
}

/// The middle value; NaN of nothing.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => 0.5 * (values[middle - 1] + values[middle]),
    }
}

/// The area under the ROC curve: how often a positive scores above a negative, ties counting half.
/// NaN where either side is empty or holds NaN.
#[must_use]
pub fn auc(positives: &[f64], negatives: &[f64]) -> f64 {
    let empty = positives.is_empty() || negatives.is_empty();
    if empty || positives.iter().chain(negatives).any(|score| score.is_nan()) {
        return f64::NAN;
    }
    let negatives = sorted(negatives);
    let half_wins: usize = positives
        .iter()
        .map(|score| {
            let below = negatives.partition_point(|it| it < score);
            let up_to = negatives.partition_point(|it| it <= score);
            below + up_to
        })
        .sum();
    half_wins as f64 / (2 * positives.len() * negatives.len()) as f64
}

/// The mean; NaN of nothing.
#[must_use]
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The harmonic mean of values that are not negative: 0 as soon as one is 0, NaN of nothing.
#[must_use]
pub fn harmonic_mean(values: &[f64]) -> f64 {
    if values.iter().any(|value| value.is_nan()) {
        return f64::NAN;
    }
    if values.contains(&0.0) {
        return 0.0;
    }
    values.len() as f64 / values.iter().map(|value| value.recip()).sum::<f64>()
}

/// The percentile bootstrap interval of a statistic over `n_items` items.
///
/// Draws `resamples` times `n_items` items with replacement and hands their indices to `statistic`;
/// the ends cut off `(1 - level) / 2` of the results on either side, interpolated as numpy's
/// `percentile` does. Items are the unit of chance: pass users or documents where rows depend on
/// each other. Resamples whose statistic is NaN are left out; both ends are NaN where none remains.
#[must_use]
pub fn bootstrap(
    n_items: usize,
    resamples: usize,
    level: f64,
    stream: &mut Stream,
    statistic: impl Fn(&[usize]) -> f64,
) -> Interval {
    if n_items == 0 {
        return Interval { low: f64::NAN, high: f64::NAN };
    }
    let mut items = vec![0; n_items];
    let mut results = Vec::with_capacity(resamples);
    for _ in 0..resamples {
        items.fill_with(|| stream.below(n_items));
        let result = statistic(&items);
        if !result.is_nan() {
            results.push(result);
        }
    }
    let results = sorted(&results);
    let tail = (1.0 - level) / 2.0;
    Interval { low: quantile(&results, tail), high: quantile(&results, 1.0 - tail) }
}

/// [`bootstrap`] of the mean of `values`.
#[must_use]
pub fn bootstrap_mean(
    values: &[f64],
    resamples: usize,
    level: f64,
    stream: &mut Stream,
) -> Interval {
    bootstrap(values.len(), resamples, level, stream, |items| {
        items.iter().map(|item| values[*item]).sum::<f64>() / items.len() as f64
    })
}

/// The quantile `share` (0 to 1) of sorted values, linear between neighbours; NaN of nothing.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share.clamp(0.0, 1.0) * last as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, want: f64) {
        assert!((got - want).abs() <= 1e-12 * want.abs(), "{got} vs {want}");
    }

    /// Two disjoint samples: of the C(2n, n) orders, 2 are as far apart.
    #[test]
    fn disjoint_samples_have_the_smallest_p() {
        let low: Vec<f64> = (0..10).map(f64::from).collect();
        let high: Vec<f64> = (20..30).map(f64::from).collect();
        let test = ks_two_sample(&low, &high);
        near(test.statistic, 1.0);
        near(test.p_value, 2.0 / 184_756.0);
    }

    /// Of the three orders of two values and one, the one in the middle has distance 1/2 and the other
    /// two have 1.
    #[test]
    fn unequal_sizes_by_hand() {
        let test = ks_two_sample(&[1.0, 3.0], &[2.0]);
        near(test.statistic, 0.5);
        near(test.p_value, 1.0);
        let test = ks_two_sample(&[1.0, 2.0], &[3.0]);
        near(test.statistic, 1.0);
        near(test.p_value, 2.0 / 3.0);
    }

    #[test]
    fn the_order_of_samples_and_values_is_irrelevant() {
        let (left, right) = ([3.0, 1.0, 2.0, 9.0], [2.0, 5.0, 4.0, 8.0, 7.0, 6.0]);
        let test = ks_two_sample(&left, &right);
        let swapped = ks_two_sample(&right, &left);
        near(swapped.statistic, test.statistic);
        near(swapped.p_value, test.p_value);
    }

    #[test]
    fn a_sample_agrees_with_itself() {
        let test = ks_two_sample(&[1.0, 1.0, 2.0], &[1.0, 1.0, 2.0]);
        assert_eq!(test, KsTest { statistic: 0.0, p_value: 1.0 });
    }

    /// C(20000, 10000) is past the range of `f64`, so the share of 2 paths is 0, not NaN.
    #[test]
    fn large_samples_neither_overflow_nor_turn_nan() {
        let low: Vec<f64> = (0..2_000).map(f64::from).collect();
        let high: Vec<f64> = low.iter().map(|value| value + 5_000.0).collect();
        assert_eq!(ks_two_sample(&low, &high).p_value, 0.0);
    }

    #[test]
    fn what_was_not_measured_is_not_a_number() {
        assert!(ks_two_sample(&[], &[1.0]).p_value.is_nan());
        assert!(ks_two_sample(&[f64::NAN], &[1.0]).statistic.is_nan());
        assert!(auc(&[], &[1.0]).is_nan());
        assert!(mean(&[]).is_nan());
        assert!(harmonic_mean(&[1.0, f64::NAN]).is_nan());
    }

    #[test]
    fn auc_counts_ties_half() {
        near(auc(&[2.0, 3.0], &[1.0, 2.0]), 3.5 / 4.0);
        near(auc(&[1.0, 1.0], &[1.0]), 0.5);
    }

    #[test]
    fn harmonic_mean_by_hand() {
        near(harmonic_mean(&[1.0, 2.0, 4.0]), 12.0 / 7.0);
        assert_eq!(harmonic_mean(&[0.5, 0.0]), 0.0);
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        near(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        near(quantile(&[5.0], 0.3), 5.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    /// The standard error of the mean of 0 and 1 in equal parts is 0.5 / sqrt(n).
    #[test]
    fn bootstrap_of_a_mean_has_the_normal_width() {
        let values: Vec<f64> = (0..400).map(|at| f64::from(at % 2)).collect();
        let mut stream = Stream::new(7);
        let found = bootstrap_mean(&values, 2_000, 0.95, &mut stream);
        let half = 1.96 * 0.5 / 20.0;
        assert!((found.low - (0.5 - half)).abs() < 0.005, "{found:?}");
        assert!((found.high - (0.5 + half)).abs() < 0.005, "{found:?}");
        let constant = bootstrap_mean(&[3.0; 5], 10, 0.9, &mut stream);
        assert_eq!(constant, Interval { low: 3.0, high: 3.0 });
    }

    #[test]
    fn median_of_odd_and_even_counts() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-12);
        assert!(median(&[]).is_nan());
    }
}
