//! How far two systems are apart, question by question.

use std::cell::RefCell;
use std::fmt::{self, Display};

use crate::seed::Stream;
use crate::stats::{Interval, bootstrap};

/// A difference that counts as none: two points.
pub(super) const WITHIN: f64 = 0.02;
const RESAMPLES: usize = 2000;

/// The mean difference of two systems over the same questions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Difference {
    mean: f64,
    /// Its 95 % bootstrap interval.
    interval: Interval,
}

impl Difference {
    /// What a system leaked less what golds said anyway: leaks by question of every draw of either. The
    /// interval is over questions, draws and golds, drawn crossed; the attack's name is the seed. NaN
    /// without questions, and where one was not asked all of them.
    pub(super) fn of(attack: &str, draws: &[Vec<f64>], golds: &[Vec<f64>]) -> Self {
        let questions = draws.first().map_or(0, Vec::len);
        let paired = !golds.is_empty() && draws.iter().chain(golds).all(|it| it.len() == questions);
        let questions = if paired { questions } else { 0 };
        // The share of leaks in some draws of some questions.
        let share = |of: &[Vec<f64>], drawn: &[usize], asked: &[usize]| {
            let sums = drawn.iter().map(|draw| asked.iter().map(|at| of[*draw][*at]).sum::<f64>());
            sums.sum::<f64>() / (drawn.len() * asked.len()) as f64
        };
        let every = |count: usize| (0..count).collect::<Vec<usize>>();
        let others = RefCell::new(Stream::named(1, attack));
        let again = |count: usize| -> Vec<usize> {
            let mut others = others.borrow_mut();
            (0..count).map(|_| others.below(count)).collect()
        };
        let mut stream = Stream::named(0, attack);
        let interval = bootstrap(questions, RESAMPLES, 0.95, &mut stream, |asked| {
            share(draws, &again(draws.len()), asked) - share(golds, &again(golds.len()), asked)
        });
        let all = every(questions);
        let (own, gold) = (every(draws.len()), every(golds.len()));
        Self { mean: share(draws, &own, &all) - share(golds, &gold, &all), interval }
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

    fn leaks(count: usize, of: usize) -> Vec<Vec<f64>> {
        vec![(0..of).map(|it| if it < count { 1.0 } else { 0.0 }).collect()]
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
        assert_eq!(Difference::of("direct", &leaks(1, 1), &[]).verdict(), "not shown");
        assert_eq!(Difference::of("direct", &leaks(1, 2), &leaks(1, 1)).to_string(), "n/a");
    }

    /// Of two golds one says everything and one nothing: half of the resamples say .5, a quarter 0 and
    /// a quarter 1, so that nothing is shown beside them.
    #[test]
    fn golds_are_chance_too() {
        let golds = [leaks(80, 80), leaks(0, 80)].concat();
        let half = Difference::of("direct", &leaks(40, 80), &golds);
        assert!(half.mean.abs() < 1e-12);
        assert!(half.interval.low < -0.4 && half.interval.high > 0.4, "{half}");
        let draws = Difference::of("direct", &golds, &leaks(40, 80));
        assert!(draws.mean.abs() < 1e-12 && draws.interval.high > 0.4, "{draws}");
    }
}
