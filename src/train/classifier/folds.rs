//! Every row held out once: what a classifier of few rows reaches, with less luck in it than one
//! held-out fifth has.

use std::collections::HashSet;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::reached::{Part, Reached};
use super::{ClassifierJob, Readings, train};
use crate::data::Wordings;
use crate::embed::EmbedError;
use crate::seed::Stream;

/// What classifiers of the same job reach, each on the part of the rows that it was not trained, calibrated
/// or chosen on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeldOutOnce {
    /// How many classifiers.
    pub folds: usize,
    /// On all parts together.
    #[serde(flatten)]
    pub reached: Reached,
}

/// All rows but every `folds`-th, and these, counted from `fold`.
fn split(rows: &[Wordings], folds: usize, fold: usize) -> (Vec<Wordings>, Vec<Wordings>) {
    let (held_out, others): (Vec<_>, Vec<_>) =
        rows.iter().enumerate().partition(|it| it.0 % folds == fold);
    let rows = |part: Vec<(usize, &Wordings)>| part.into_iter().map(|it| it.1.clone()).collect();
    (rows(others), rows(held_out))
}

/// What of these rows is not known word for word.
fn unknown(mut rows: Vec<Wordings>, known: &HashSet<&str>) -> Vec<Wordings> {
    rows.iter_mut().for_each(|row| row.retain(|it| !known.contains(it.as_str())));
    rows
}

impl HeldOutOnce {
    /// Trains as many classifiers as there are folds, on all rows but every so many-th.
    pub(super) fn measure(
        readings: &mut Readings<'_>,
        job: &ClassifierJob,
        [forget, retain]: [&[Wordings]; 2],
        hard: &[(String, Vec<Wordings>)],
    ) -> Result<Self, EmbedError> {
        let folds = job.study.folds;
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} folds, {eta} left")
            .expect("the template is valid");
        let bar = ProgressBar::new(folds as u64).with_style(style);
        bar.tick();
        let mut parts = Vec::new();
        for fold in 0..folds {
            let [(about, our_part), (others, their_part)] =
                [forget, retain].map(|rows| split(rows, folds, fold));
            let known: HashSet<&str> =
                about.iter().chain(&others).flatten().map(String::as_str).collect();
            let mut stream = Stream::named(job.seed, &format!("classifier fold {fold}"));
            let trained = train(readings, job, [&about, &others], &mut stream)?;
            let mut given = |rows: &[Wordings]| readings.scores(&trained.head, rows);
            parts.push(Part {
                forget: given(&unknown(our_part, &known))?,
                retain: given(&unknown(their_part, &known))?,
                hard: hard.iter().map(|it| given(&it.1)).collect::<Result<_, EmbedError>>()?,
                threshold: trained.threshold,
            });
            bar.inc(1);
        }
        bar.finish_and_clear();
        let names: Vec<&str> = hard.iter().map(|it| it.0.as_str()).collect();
        Ok(Self { folds, reached: Reached::of(&parts, &names) })
    }

    /// Short tables.
    pub(super) fn to_markdown(&self) -> String {
        let Self { folds, reached } = self;
        let (rows, neighbours) = (reached.rows(), reached.neighbours());
        format!(
            "\n| every row held out once ({folds} classifiers) | |\n|---|---:|\n{rows}{neighbours}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A paraphrase of the third row is the second one's question, on which this fold trains.
    #[test]
    fn what_is_known_word_for_word_is_not_held_out() {
        let rows = [vec!["a"], vec!["b"], vec!["c", "b"]]
            .map(|row| row.into_iter().map(str::to_owned).collect::<Wordings>());
        let (others, held_out) = split(&rows, 2, 0);
        assert_eq!((others.len(), held_out.len()), (1, 2));
        let known = others.iter().flatten().map(String::as_str).collect();
        assert_eq!(unknown(held_out, &known), [vec!["a".to_owned()], vec!["c".to_owned()]]);
    }
}
