//! How far two systems are apart, question by question.

use std::cell::RefCell;
use std::fmt::{self, Display};

use crate::seed::Stream;
use crate::stats::{Interval, bootstrap};

/// A difference that counts as none: two points.
pub(super) const WITHIN: f64 = 0.02;
const RESAMPLES: usize = 2000;

/// Leaks of one system by question.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leaks<'a> {
    /// Of every draw of every model, model after model: `[models * draws][questions]`.
    pub(super) by_draw: &'a [Vec<f64>],
    /// Draws of each model, as many for all, at least 1; those of one are other than those of the next.
    pub(super) draws: usize,
}

impl Leaks<'_> {
    /// Models with replacement, and as many draws of each with replacement, as indices into `by_draw`.
    fn again(&self, stream: &mut Stream) -> Vec<usize> {
        let models = self.by_draw.len() / self.draws;
        let mut drawn = Vec::with_capacity(self.by_draw.len());
        for _ in 0..models {
            let model = stream.below(models);
            drawn.extend((0..self.draws).map(|_| model * self.draws + stream.below(self.draws)));
        }
        drawn
    }

    /// The share of leaks in some draws of some questions.
    fn share(&self, drawn: &[usize], asked: &[usize]) -> f64 {
        let of_draw = |draw: &usize| asked.iter().map(|at| self.by_draw[*draw][*at]).sum::<f64>();
        drawn.iter().map(of_draw).sum::<f64>() / (drawn.len() * asked.len()) as f64
    }
}

/// The mean difference of two systems over the same questions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Difference {
    mean: f64,
    /// Its 95 % bootstrap interval.
    interval: Interval,
}

impl Difference {
    /// What a system leaked less what golds said anyway. The interval is over questions and, crossed with
    /// them, models of either and draws of each model; the attack's name is the seed. NaN without questions,
    /// and where one was not asked all of them.
    pub(super) fn of(attack: &str, own: Leaks<'_>, golds: Leaks<'_>) -> Self {
        let questions = own.by_draw.first().map_or(0, Vec::len);
        let mut all = own.by_draw.iter().chain(golds.by_draw);
        let paired = !golds.by_draw.is_empty() && all.all(|it| it.len() == questions);
        let questions = if paired { questions } else { 0 };
        let others = RefCell::new(Stream::named(1, attack));
        let mut stream = Stream::named(0, attack);
        let interval = bootstrap(questions, RESAMPLES, 0.95, &mut stream, |asked| {
            let others = &mut *others.borrow_mut();
            own.share(&own.again(others), asked) - golds.share(&golds.again(others), asked)
        });
        let every = |count: usize| (0..count).collect::<Vec<usize>>();
        let mean = |of: &Leaks<'_>| of.share(&every(of.by_draw.len()), &every(questions));
        Self { mean: mean(&own) - mean(&golds), interval }
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

    fn difference(own: &[Vec<f64>], golds: &[Vec<f64>]) -> Difference {
        let leaks = |by_draw| Leaks { by_draw, draws: 1 };
        Difference::of("direct", leaks(own), leaks(golds))
    }

    #[test]
    fn differences_by_hand() {
        let same = difference(&leaks(3, 80), &leaks(3, 80));
        assert_eq!(same.to_string(), "+0.000 (+0.000 to +0.000)");
        assert_eq!(same.verdict(), "yes");
        let all = difference(&leaks(80, 80), &leaks(0, 80));
        assert_eq!(all.to_string(), "+1.000 (+1.000 to +1.000)");
        assert_eq!(all.verdict(), "no");
        // A tenth of the questions: the deviation of the mean is sqrt(.1 * .9 / 100) = .03.
        let some = difference(&leaks(10, 100), &leaks(0, 100));
        assert!((some.mean - 0.1).abs() < 1e-12);
        let Interval { low, high } = some.interval;
        assert!((low - 0.041).abs() < 0.015 && (high - 0.159).abs() < 0.015, "{low} {high}");
        // Which questions they are matters: pairs that agree leave no doubt.
        let few = difference(&leaks(4, 100), &leaks(3, 100));
        assert_eq!(few.verdict(), "not shown");
        assert_eq!(difference(&[], &[]).to_string(), "n/a");
        assert_eq!(difference(&leaks(1, 1), &[]).verdict(), "not shown");
        assert_eq!(difference(&leaks(1, 2), &leaks(1, 1)).to_string(), "n/a");
    }

    /// Of two golds one says everything and one nothing: half of the resamples say .5, a quarter 0 and
    /// a quarter 1, so that nothing is shown beside them.
    #[test]
    fn golds_are_chance_too() {
        let golds = [leaks(80, 80), leaks(0, 80)].concat();
        let half = difference(&leaks(40, 80), &golds);
        assert!(half.mean.abs() < 1e-12);
        assert!(half.interval.low < -0.4 && half.interval.high > 0.4, "{half}");
        let draws = difference(&golds, &leaks(40, 80));
        assert!(draws.mean.abs() < 1e-12 && draws.interval.high > 0.4, "{draws}");
    }

    /// Two models, one of which leaks under every draw: a quarter of the resamples has that one only, which
    /// eight models would hardly ever have.
    #[test]
    fn draws_of_one_model_do_not_stand_for_models() {
        let (all, none) = (leaks(80, 80), leaks(0, 80));
        let by_draw = [vec![all[0].clone(); 4], vec![none[0].clone(); 4]].concat();
        let gold = leaks(40, 80);
        let gold = Leaks { by_draw: &gold, draws: 1 };
        let two = Difference::of("direct", Leaks { by_draw: &by_draw, draws: 4 }, gold);
        assert!(two.mean.abs() < 1e-12);
        assert!(two.interval.low < -0.4 && two.interval.high > 0.4, "{two}");
        let eight = Difference::of("direct", Leaks { by_draw: &by_draw, draws: 1 }, gold);
        assert!(eight.interval.low > -0.45 && eight.interval.high < 0.45, "{eight}");
        // Of every model one draw leaks and one does not: models are alike, and draws average out.
        let by_draw: Vec<_> = (0..4).flat_map(|_| [all[0].clone(), none[0].clone()]).collect();
        let draws = Difference::of("direct", Leaks { by_draw: &by_draw, draws: 2 }, gold);
        assert!(draws.interval.low > -0.45 && draws.interval.high < 0.45, "{draws}");
        assert!(draws.interval.low < -0.2 && draws.interval.high > 0.2, "{draws}");
    }
}
