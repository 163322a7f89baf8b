//! Estimates over questions and seeds, with 95 % bootstrap intervals.
//!
//! Questions and seeds are drawn crossed: the same seeds for every question, and the same questions
//! for every seed, because a question is as hard for one seed as for another.

use std::cell::RefCell;

use serde::Serialize;

use super::result::{Asked, Measured, number};
use crate::eval::tofu::{self, ModelUtility};
use crate::seed::Stream;
use crate::stats::{Interval, bootstrap, mean};

/// Resamples of an interval.
const RESAMPLES: usize = 1000;

/// Share of resamples inside of an interval.
const LEVEL: f64 = 0.95;

/// A number with its interval; NaN, null in JSON, where nothing was measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Estimate {
    /// The number.
    #[serde(with = "number")]
    pub value: f64,
    /// Lower end.
    #[serde(with = "number")]
    pub low: f64,
    /// Upper end.
    #[serde(with = "number")]
    pub high: f64,
}

impl Estimate {
    /// Nothing was measured.
    pub const NONE: Self = Self { value: f64::NAN, low: f64::NAN, high: f64::NAN };

    fn of(value: f64, interval: Interval) -> Self {
        Self { value, low: interval.low, high: interval.high }
    }
}

/// The mean of `cells`, one list of questions per seed, with its interval. Lists that are longer than
/// the shortest are cut.
#[must_use]
pub fn crossed(cells: &[Vec<f64>]) -> Estimate {
    let questions = cells.iter().map(Vec::len).min().unwrap_or(0);
    if questions == 0 {
        return Estimate::NONE;
    }
    let all: Vec<f64> = cells.iter().flat_map(|it| it[..questions].to_vec()).collect();
    let seeds = RefCell::new(Stream::named(42, "compare/seeds"));
    let mut stream = Stream::named(42, "compare/questions");
    let interval = bootstrap(questions, RESAMPLES, LEVEL, &mut stream, |drawn| {
        let mut seeds = seeds.borrow_mut();
        let mut sum = 0.0;
        for _ in cells {
            let cell = &cells[seeds.below(cells.len())];
            sum += drawn.iter().map(|it| cell[*it]).sum::<f64>();
        }
        sum / (cells.len() * drawn.len()) as f64
    });
    Estimate::of(mean(&all), interval)
}

/// The kept splits of one seed, in the order of utility's parts.
type Splits<'a> = [&'a [Asked]; 3];

fn splits(measured: &Measured) -> Splits<'_> {
    [&measured.retain, &measured.real_authors, &measured.world_facts]
}

/// Probability, ROUGE-L recall and truth of a row, as utility averages them.
fn part(asked: &Asked, at: usize) -> f64 {
    match at {
        0 => asked.probability,
        1 => asked.rouge,
        // What was withheld tells right from wrong as little as a ratio of 1.
        _ if asked.withheld => 0.0,
        _ => tofu::utility_truth_ratio(&[asked.log_ratio.exp()]),
    }
}

/// Model utility of drawn rows of drawn seeds.
fn utility_of(seeds: &[Splits<'_>], drawn: &[usize], rows: &[Vec<usize>; 3]) -> ModelUtility {
    let mean_of = |split: usize, at: usize| {
        let of_seed = |seed: &usize| {
            rows[split].iter().map(|it| part(&seeds[*seed][split][*it], at)).sum::<f64>()
        };
        drawn.iter().map(of_seed).sum::<f64>() / (drawn.len() * rows[split].len()) as f64
    };
    tofu::utility_of(std::array::from_fn(|it| mean_of(it / 3, it % 3)))
}

/// Rows of each split that every seed has.
fn shared_rows(seeds: &[Splits<'_>]) -> [usize; 3] {
    std::array::from_fn(|split| seeds.iter().map(|it| it[split].len()).min().unwrap_or(0))
}

/// Model utility over seeds, and its interval over rows and seeds. Parts are averaged over seeds
/// before the harmonic mean.
#[must_use]
pub fn utility(measured: &[&Measured]) -> Estimate {
    let seeds: Vec<Splits<'_>> = measured.iter().map(|it| splits(it)).collect();
    resampled(shared_rows(&seeds), |rows, stream| {
        utility_of(&seeds, &seeds_of(seeds.len(), stream), rows).value
    })
}

/// How much utility is above that of `base`, on the same rows in every resample.
#[must_use]
pub fn utility_gain(measured: &[&Measured], base: &[&Measured]) -> Estimate {
    let seeds: Vec<Splits<'_>> = measured.iter().map(|it| splits(it)).collect();
    let base: Vec<Splits<'_>> = base.iter().map(|it| splits(it)).collect();
    let (own, theirs) = (shared_rows(&seeds), shared_rows(&base));
    let rows = std::array::from_fn(|it| own[it].min(theirs[it]));
    resampled(rows, |rows, stream| {
        let drawn = seeds_of(seeds.len(), stream);
        let of_base: Vec<usize> = (0..base.len()).collect();
        utility_of(&seeds, &drawn, rows).value - utility_of(&base, &of_base, rows).value
    })
}

/// All seeds as they are without a stream, else as many drawn with replacement.
fn seeds_of(count: usize, stream: Option<&mut Stream>) -> Vec<usize> {
    match stream {
        None => (0..count).collect(),
        Some(stream) => (0..count).map(|_| stream.below(count)).collect(),
    }
}

/// A statistic of all rows, and its interval over drawn ones.
fn resampled(
    rows: [usize; 3],
    statistic: impl Fn(&[Vec<usize>; 3], Option<&mut Stream>) -> f64,
) -> Estimate {
    if rows.contains(&0) {
        return Estimate::NONE;
    }
    let all = rows.map(|it| (0..it).collect::<Vec<usize>>());
    let value = statistic(&all, None);
    let rest = RefCell::new(Stream::named(42, "compare/utility"));
    let mut stream = Stream::named(42, "compare/rows");
    let interval = bootstrap(rows[0], RESAMPLES, LEVEL, &mut stream, |first| {
        let mut rest = rest.borrow_mut();
        let mut draw =
            |count: usize| -> Vec<usize> { (0..count).map(|_| rest.below(count)).collect() };
        let drawn = [first.to_vec(), draw(rows[1]), draw(rows[2])];
        statistic(&drawn, Some(&mut *rest))
    });
    Estimate::of(value, interval)
}

/// Wilson's 95 % interval of a share (Journal of the American Statistical Association 22, 1927).
#[must_use]
pub fn wilson(hits: usize, of: usize) -> Estimate {
    if of == 0 {
        return Estimate::NONE;
    }
    let (z, n) = (1.959_963_985, of as f64);
    let share = hits as f64 / n;
    let centre = (share + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    Estimate { value: share, low: (centre - half).max(0.0), high: (centre + half).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::super::grid::Kind;
    use super::super::result::tests::{asked, point};
    use super::*;

    fn halves(count: usize) -> Vec<f64> {
        (0..count).map(|it| (it % 2) as f64).collect()
    }

    /// The standard error of the mean of 0 and 1 in equal parts is 0.5 / sqrt(n), and a second seed
    /// that says the same of every question takes nothing off it.
    #[test]
    fn equal_seeds_have_the_width_of_one() {
        let half = 1.96 * 0.5 / 20.0;
        for cells in [vec![halves(400)], vec![halves(400); 3]] {
            let found = crossed(&cells);
            assert!((found.value - 0.5).abs() < 1e-12);
            assert!((found.high - found.low - 2.0 * half).abs() < 0.012, "{found:?}");
        }
    }

    /// Four seeds of constants 0, 0, 1, 1: the standard error over seeds is 0.5 / sqrt(4), and no
    /// number of questions takes anything off it. Resampled means are 0, 1/4, .. 1, so that the
    /// interval is 0 to 1: each end has 1/16, more than 2.5 %.
    #[test]
    fn differing_seeds_widen_it() {
        let cells = [0.0, 0.0, 1.0, 1.0].map(|it| vec![it; 100]);
        let found = crossed(&cells);
        assert_eq!((found.value, found.low, found.high), (0.5, 0.0, 1.0));
        assert!(crossed(&[]).value.is_nan() && crossed(&[Vec::new()]).low.is_nan());
    }

    /// Of 400 intervals for 60 throws of a coin of 0.3 about 95 % hold 0.3: 380, with a standard
    /// deviation of 4.4; the percentile bootstrap is known to be a little too narrow.
    #[test]
    fn intervals_cover() {
        let mut stream = Stream::new(3);
        let covered = (0..400)
            .filter(|_| {
                let throws = (0..60).map(|_| f64::from(u8::from(stream.chance(0.3)))).collect();
                let found = crossed(&[throws]);
                (found.low..=found.high).contains(&0.3)
            })
            .count();
        assert!((358..=396).contains(&covered), "{covered}");
    }

    /// Nine parts of one half, of two seeds alike.
    #[test]
    fn utility_by_hand() {
        let measured = |seed| point("a", Kind::Guard, seed, Vec::new()).measured.unwrap();
        let (one, two) = (measured(1), measured(2));
        let found = utility(&[&one, &two]);
        assert!((found.value - 0.5).abs() < 1e-12 && (found.low - found.high).abs() < 1e-12);
        let gain = utility_gain(&[&one], &[&two]);
        assert!(gain.value.abs() < 1e-12 && gain.low.abs() < 1e-12);
        // Retain rows without any probability: one part is 0, and so is the harmonic mean.
        let mut broken = one.clone();
        broken.retain.iter_mut().for_each(|it| it.probability = 0.0);
        let loss = utility_gain(&[&broken], &[&one]);
        assert!((loss.value + 0.5).abs() < 1e-12 && loss.high < -0.49, "{loss:?}");
        broken.retain.clear();
        assert!(utility(&[&broken]).value.is_nan() && utility(&[]).value.is_nan());
        let withheld = Asked { withheld: true, log_ratio: f64::NAN, ..asked(1, 0.0) };
        assert_eq!(part(&withheld, 2), 0.0);
    }

    /// Brown, Cai and `DasGupta` (Statistical Science 16, 2001): no success in ten is up to 0.2775.
    #[test]
    fn wilson_by_hand() {
        let found = wilson(0, 10);
        assert!((found.high - 0.277_5).abs() < 1e-4 && found.low.abs() < 1e-12, "{found:?}");
        let half = wilson(5, 10);
        assert!((half.low + half.high - 1.0).abs() < 1e-12);
        assert!(wilson(0, 0).value.is_nan());
    }
}
