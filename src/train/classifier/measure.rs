//! What scores of held-out rows say, in closed form.

use std::collections::BTreeMap;

/// The smallest threshold that at most `share` of these scores reach.
pub(super) fn quiet(mut scores: Vec<f32>, share: f64) -> f32 {
    scores.sort_by(|a, b| b.total_cmp(a));
    let allowed = (scores.len() as f64 * share).floor() as usize;
    scores.get(allowed).map_or(0.0, |it| it.next_up())
}

/// The share of scores that reach the threshold; 0 of none.
pub(super) fn flagged(scores: &[f32], threshold: f32) -> f64 {
    let count = scores.iter().filter(|it| **it >= threshold).count();
    count as f64 / scores.len().max(1) as f64
}

/// The recall at the threshold that at most `share` of the negatives reach.
pub(super) fn recall_at(share: f64, positives: &[f32], negatives: &[f32]) -> f64 {
    flagged(positives, quiet(negatives.to_vec(), share))
}

/// Expected calibration error over bins of equal width: the distance between mean score and share of
/// positives, averaged over the bins by how many scores each has (Naeini et al., AAAI 2015). Scores
/// are probabilities of the positive class. NaN of nothing.
pub(super) fn calibration_error(positives: &[f32], negatives: &[f32], bins: usize) -> f64 {
    // Sum of scores minus number of positives; the sizes of the bins cancel.
    let mut gaps = vec![0f64; bins];
    for (scores, label) in [(positives, 1.0), (negatives, 0.0)] {
        for score in scores.iter().map(|it| f64::from(*it)) {
            gaps[((score * bins as f64) as usize).min(bins - 1)] += score - label;
        }
    }
    let total = (positives.len() + negatives.len()) as f64;
    gaps.iter().map(|it| it.abs()).sum::<f64>() / total
}

/// Wilson's interval of a share, 95 %: where the true share may lie when `share` of `total` are counted
/// (Journal of the American Statistical Association 22, 1927). NaN of nothing.
pub(super) fn wilson(share: f64, total: usize) -> [f64; 2] {
    let (n, z) = (total as f64, 1.959_963_984_540_054_f64);
    let square = z * z / n;
    let middle = share + square / 2.0;
    let half = z * (share * (1.0 - share) / n + square / (4.0 * n)).sqrt();
    [(middle - half) / (1.0 + square), (middle + half) / (1.0 + square)]
}

/// The mean of `-ln` of what a score gives to the true side, each side counting half. NaN where a side is
/// empty.
pub(super) fn log_loss(positives: &[f32], negatives: &[f32]) -> f64 {
    let surprise = |it: f64| -it.max(1e-9).ln();
    let ours: f64 = positives.iter().map(|it| surprise(f64::from(*it))).sum();
    let theirs: f64 = negatives.iter().map(|it| surprise(1.0 - f64::from(*it))).sum();
    (ours / positives.len() as f64 + theirs / negatives.len() as f64) / 2.0
}

/// The ROC curve: shares of negatives and of positives at every threshold, from none to all. Scores that
/// are equal are passed together. Empty where a side is.
pub(super) fn roc(positives: &[f32], negatives: &[f32]) -> Vec<(f64, f64)> {
    if positives.is_empty() || negatives.is_empty() {
        return Vec::new();
    }
    let mut scores: Vec<(f32, bool)> = positives.iter().map(|it| (*it, true)).collect();
    scores.extend(negatives.iter().map(|it| (*it, false)));
    scores.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut hits, mut alarms) = (0usize, 0usize);
    let mut points = vec![(0.0, 0.0)];
    for equal in scores.chunk_by(|a, b| a.0 == b.0) {
        hits += equal.iter().filter(|it| it.1).count();
        alarms += equal.iter().filter(|it| !it.1).count();
        let share = |count: usize, all: &[f32]| count as f64 / all.len() as f64;
        points.push((share(alarms, negatives), share(hits, positives)));
    }
    points
}

/// Pairs of indices whose lengths differ by at most a fifth of the first: each first one takes the
/// nearest second one that is still free, the shorter of two that are equally near.
pub(super) fn length_matched(first: &[usize], second: &[usize]) -> Vec<(usize, usize)> {
    let mut free: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (at, length) in second.iter().enumerate() {
        free.entry(*length).or_default().push(at);
    }
    let mut pairs = Vec::new();
    for (at, length) in first.iter().copied().enumerate() {
        let shorter = free.range(..=length).next_back().map(|it| *it.0);
        let longer = free.range(length + 1..).next().map(|it| *it.0);
        let candidates = shorter.into_iter().chain(longer);
        let Some(nearest) = candidates.min_by_key(|it| it.abs_diff(length)) else { break };
        if 5 * nearest.abs_diff(length) > length {
            continue;
        }
        let Some(partners) = free.get_mut(&nearest) else { continue };
        pairs.extend(partners.pop().map(|partner| (at, partner)));
        if partners.is_empty() {
            free.remove(&nearest);
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of ten negatives one may be above, so the threshold is just above the second highest.
    #[test]
    fn recall_at_a_rate_by_hand() {
        let negatives: Vec<f32> = (0..10u8).map(|it| f32::from(it) / 10.0).collect();
        let positives = [0.95, 0.85, 0.8, 0.1];
        assert!((recall_at(0.1, &positives, &negatives) - 0.5).abs() < 1e-12);
        assert!((recall_at(0.0, &positives, &negatives) - 0.25).abs() < 1e-12);
        assert!((recall_at(1.0, &positives, &negatives) - 1.0).abs() < 1e-12);
        assert!(flagged(&[], 0.5).abs() < 1e-12);
    }

    /// Bins of a half: {0.25 -, 0.25 +} has mean 0.25 and share 0.5; {1 +, 0.5 +} has 0.75 and 1.
    #[test]
    fn calibration_error_by_hand() {
        let error = calibration_error(&[0.25, 1.0, 0.5], &[0.25], 2);
        assert!((error - (0.5 * 0.25 + 0.5 * 0.25)).abs() < 1e-9, "{error}");
        assert!(calibration_error(&[1.0], &[0.0], 15).abs() < 1e-12);
        assert!((calibration_error(&[0.0], &[1.0], 15) - 1.0).abs() < 1e-12);
        assert!(calibration_error(&[], &[], 15).is_nan());
    }

    #[test]
    fn lengths_are_matched_once_and_within_a_fifth() {
        assert_eq!(length_matched(&[10, 10, 100], &[11, 9, 50]), [(0, 1), (1, 0)]);
        assert_eq!(length_matched(&[10], &[13, 12]), [(0, 1)]);
        assert_eq!(length_matched(&[10, 10], &[10]), [(0, 0)]);
        assert!(length_matched(&[10], &[]).is_empty());
    }

    /// 8 of 10 may be 49 to 94 %; of none of 20 the upper end is z^2 / (20 + z^2).
    #[test]
    fn intervals_of_shares() {
        let [low, high] = wilson(0.8, 10);
        assert!(
            (low - 0.490_162_47).abs() < 1e-7 && (high - 0.943_317_82).abs() < 1e-7,
            "{low} {high}"
        );
        let [low, high] = wilson(0.0, 20);
        let square = 1.959_963_984_540_054_f64.powi(2);
        assert!(
            low.abs() < 1e-12 && (high - square / (20.0 + square)).abs() < 1e-12,
            "{low} {high}"
        );
        assert!(wilson(0.5, 0)[0].is_nan());
    }

    /// `-(ln 0.5 + ln 0.25) / 2` and `-ln(1 - 0.5)`, each side half.
    #[test]
    fn log_loss_by_hand() {
        let ln2 = std::f64::consts::LN_2;
        let loss = log_loss(&[0.5, 0.25], &[0.5]);
        assert!((loss - f64::midpoint(1.5 * ln2, ln2)).abs() < 1e-12, "{loss}");
        assert!(log_loss(&[0.0], &[1.0]).is_finite() && log_loss(&[], &[0.5]).is_nan());
    }

    /// The trapezia under the curve are the area that counts pairs.
    #[test]
    fn the_curve_encloses_the_area() {
        let (positives, negatives) = ([0.9, 0.5, 0.5], [0.7, 0.5]);
        let points = roc(&positives, &negatives);
        let thirds = |it: f64| it / 3.0;
        assert_eq!(points, [(0.0, 0.0), (0.0, thirds(1.0)), (0.5, thirds(1.0)), (1.0, 1.0)]);
        let area: f64 =
            points.windows(2).map(|it| (it[1].0 - it[0].0) * f64::midpoint(it[0].1, it[1].1)).sum();
        let wide = |it: &[f32]| it.iter().copied().map(f64::from).collect::<Vec<_>>();
        assert!((area - crate::stats::auc(&wide(&positives), &wide(&negatives))).abs() < 1e-12);
        assert!(roc(&[], &[0.5]).is_empty());
    }
}
