//! How far two systems are apart, question by question.

use std::fmt::{self, Display};

use crate::seed::Stream;
use crate::stats::{Interval, bootstrap_mean, mean};

/// A difference that counts as none: two points.
pub(super) const WITHIN: f64 = 0.02;
const RESAMPLES: usize = 2000;

/// The mean difference of two systems over the same questions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Difference {
    mean: f64,
    /// Its 95 % bootstrap interval over questions.
    interval: Interval,
}

impl Difference {
    /// What a system leaked less what gold said anyway; the attack's name is the seed. NaN without
    /// questions, and where one system was not asked all of them.
    pub(super) fn of(attack: &str, system: &[f64], gold: &[f64]) -> Self {
        let paired = if system.len() == gold.len() { system } else { &[] };
        let each: Vec<f64> = paired.iter().zip(gold).map(|(a, b)| a - b).collect();
        let mut stream = Stream::named(0, attack);
        let interval = bootstrap_mean(&each, RESAMPLES, 0.95, &mut stream);
        Self { mean: mean(&each), interval }
    }

    /// Whether the two are within [`WITHIN`] of each other.
    pub(super) fn verdict(&self) -> &'static str {
        let Interval { low, high } = self.interval;
        if low >= -WITHIN && high <= WITHIN {
            "yes"
        } else if low > WITHIN || high < -WITHIN {
            "no"
        } else {
            "not shown"
        }
    }
}

impl Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.mean.is_nan() {
            return out.write_str("n/a");
        }
        let Interval { low, high } = self.interval;
        write!(out, "{:+.3} ({low:+.3} to {high:+.3})", self.mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaks(count: usize, of: usize) -> Vec<f64> {
        (0..of).map(|it| if it < count { 1.0 } else { 0.0 }).collect()
    }

    #[test]
    fn differences_by_hand() {
        let same = Difference::of("direct", &leaks(3, 80), &leaks(3, 80));
        assert_eq!(same.to_string(), "+0.000 (+0.000 to +0.000)");
        assert_eq!(same.verdict(), "yes");
        let all = Difference::of("direct", &leaks(80, 80), &leaks(0, 80));
        assert_eq!(all.to_string(), "+1.000 (+1.000 to +1.000)");
        assert_eq!(all.verdict(), "no");
        // A tenth of the questions: the deviation of the mean is sqrt(.1 * .9 / 100) = .03.
        let some = Difference::of("direct", &leaks(10, 100), &leaks(0, 100));
        assert!((some.mean - 0.1).abs() < 1e-12);
        let Interval { low, high } = some.interval;
        assert!((low - 0.041).abs() < 0.015 && (high - 0.159).abs() < 0.015, "{low} {high}");
        // Which questions they are matters: pairs that agree leave no doubt.
        let few = Difference::of("direct", &leaks(4, 100), &leaks(3, 100));
        assert_eq!(few.verdict(), "not shown");
        assert_eq!(Difference::of("direct", &[], &[]).to_string(), "n/a");
        assert_eq!(Difference::of("direct", &[1.0], &[]).verdict(), "not shown");
    }
}
