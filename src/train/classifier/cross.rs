//! Scores of training rows by heads that never saw them, and how much is learnt from how few rows.

use std::rc::Rc;

use serde::Serialize;

use super::features::{Reader, Seen};
use super::measure::{log_loss, recall_at};
use super::regression::Sparse;
use super::rows::{FOLDS, Text};
use crate::embed::Head;
use crate::seed::Stream;
use crate::stats::{auc, mean};

/// Penalties to choose from; a head of few rows needs a larger one.
const PENALTIES: [f64; 3] = [0.1, 1.0, 10.0];

/// A training text, read.
#[derive(Debug)]
pub(super) struct Example {
    pub(super) text: Text,
    pub(super) seen: Rc<Seen>,
}

/// What every training row scores under a head of the other folds, and the penalty of those heads.
#[derive(Debug)]
pub(super) struct Crossed {
    pub(super) penalty: f64,
    /// A score for each wording about the topic.
    pub(super) forget: Vec<f32>,
    /// A score for each other wording.
    pub(super) retain: Vec<f32>,
}

/// A head of the chosen examples.
pub(super) fn fit(
    reader: &Reader,
    examples: &[Example],
    penalty: f64,
    chosen: impl Fn(&Text) -> bool,
) -> Head {
    let rows: Vec<(&Sparse, bool)> = examples
        .iter()
        .filter(|it| chosen(&it.text))
        .flat_map(|it| it.seen.evidence(it.text.about).iter().map(|part| (part, it.text.about)))
        .collect();
    reader.fit(rows, penalty)
}

/// Scores by folds, under the penalty whose scores tell the sides apart with the least surprise.
pub(super) fn cross(reader: &Reader, examples: &[Example]) -> Crossed {
    let under = |penalty: f64| {
        let (mut forget, mut retain) = (Vec::new(), Vec::new());
        for fold in 0..FOLDS {
            let head = fit(reader, examples, penalty, |it| it.fold() != fold);
            for Example { text, seen } in examples.iter().filter(|it| it.text.own) {
                if text.fold() == fold {
                    let side = if text.about { &mut forget } else { &mut retain };
                    side.push(seen.score(&head));
                }
            }
        }
        Crossed { penalty, forget, retain }
    };
    let [first, others @ ..] = PENALTIES;
    let surprise = |it: &Crossed| log_loss(&it.forget, &it.retain);
    others
        .into_iter()
        .map(under)
        .fold(under(first), |best, it| if surprise(&it) < surprise(&best) { it } else { best })
}

/// What heads of some forget rows and all retain rows reach on the held-out texts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CurvePoint {
    /// Forget rows.
    pub rows: usize,
    /// Choices of rows.
    pub seeds: u64,
    /// Mean recall at the threshold that 1 % of the retain texts reach.
    pub recall: f64,
    /// The lowest and the highest of it.
    pub range: [f64; 2],
    /// Mean area under the ROC curve.
    pub auc: f64,
}

/// The learning curve; each point trains on the chosen rows' own wordings.
pub(super) fn curve(
    reader: &Reader,
    examples: &[Example],
    (counts, seeds, seed): (&[usize], u64, u64),
    penalty: f64,
    (forget, retain): (&[Rc<Seen>], &[Rc<Seen>]),
) -> Vec<CurvePoint> {
    let rows = examples.iter().filter(|it| it.text.about).map(|it| it.text.row + 1).max();
    let point = |count: &usize| {
        let (mut recalls, mut areas) = (Vec::new(), Vec::new());
        for round in 0..seeds.max(1) {
            let mut order: Vec<usize> = (0..rows.unwrap_or_default()).collect();
            Stream::named(seed.wrapping_add(round), "curve").shuffle(&mut order);
            order.truncate(*count);
            let chosen = |it: &Text| it.own && (!it.about || order.contains(&it.row));
            let head = fit(reader, examples, penalty, chosen);
            let scores =
                |seen: &[Rc<Seen>]| -> Vec<f32> { seen.iter().map(|it| it.score(&head)).collect() };
            let (ours, others) = (scores(forget), scores(retain));
            recalls.push(recall_at(0.01, &ours, &others));
            let wide = |it: &[f32]| -> Vec<f64> { it.iter().copied().map(f64::from).collect() };
            areas.push(auc(&wide(&ours), &wide(&others)));
        }
        let low = recalls.iter().copied().fold(f64::INFINITY, f64::min);
        let high = recalls.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        CurvePoint {
            rows: *count,
            seeds: seeds.max(1),
            recall: mean(&recalls),
            range: [low, high],
            auc: mean(&areas),
        }
    };
    counts.iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::super::EncoderChoice;
    use super::*;

    fn examples(reader: &Reader) -> Vec<Example> {
        let text = |about: bool, row: usize| {
            let name = if about { "Basil Okafor" } else { "the lighthouse" };
            let text = format!("Where is {name}, number {row}?");
            Example {
                seen: Rc::new(reader.read(&text).unwrap()),
                text: Text { text, about, row, own: true },
            }
        };
        (0..20).map(|it| text(it % 2 == 0, it / 2)).collect()
    }

    /// Every wording is scored once, and a name is known from the other folds.
    #[test]
    fn rows_are_scored_by_heads_of_other_folds() {
        let reader = Reader::open(&EncoderChoice::Hashed).unwrap();
        let crossed = cross(&reader, &examples(&reader));
        assert_eq!((crossed.forget.len(), crossed.retain.len()), (10, 10));
        assert!(crossed.forget.iter().all(|it| *it > 0.5), "{crossed:?}");
        assert!(crossed.retain.iter().all(|it| *it < 0.5), "{crossed:?}");
        assert!(PENALTIES.contains(&crossed.penalty));
    }

    #[test]
    fn a_curve_has_a_point_for_each_number_of_rows() {
        let reader = Reader::open(&EncoderChoice::Hashed).unwrap();
        let examples = examples(&reader);
        let read = |text: &str| vec![Rc::new(reader.read(text).unwrap())];
        let (ours, others) = (read("Who is Basil Okafor?"), read("Who built the lighthouse?"));
        let points = curve(&reader, &examples, (&[1, 10], 3, 7), 1.0, (&ours, &others));
        assert_eq!(
            points.iter().map(|it| (it.rows, it.seeds)).collect::<Vec<_>>(),
            [(1, 3), (10, 3)]
        );
        // One positive above the only negative, however many rows there are.
        for point in points {
            assert!((point.recall - 1.0).abs() < 1e-12 && (point.auc - 1.0).abs() < 1e-12);
            assert!(point.range.iter().all(|it| (it - 1.0).abs() < 1e-12));
        }
    }
}
