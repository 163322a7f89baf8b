//! The rows that every point of a job is asked about.

use std::collections::BTreeSet;

use super::file::Job;
use crate::eval::suite::{EvalError, Row, read_rows};

/// The rows, in the order of their files.
#[derive(Debug, Clone, Default)]
pub struct Material {
    /// To be forgotten, in every wording.
    pub forget: Vec<Row>,
    /// To be kept.
    pub retain: Vec<Row>,
    /// Never trained on.
    pub holdout: Vec<Row>,
    /// Of well-known authors.
    pub real_authors: Vec<Row>,
    /// Of the world.
    pub world_facts: Vec<Row>,
    /// Rows to be kept that are nearest to the forgotten ones, nearest first.
    pub hard: Vec<Row>,
    /// Every row to be forgotten, for attacks on weights.
    pub all_forget: Vec<Row>,
}

impl Material {
    /// Reads the splits of a job.
    ///
    /// # Errors
    ///
    /// [`EvalError::Data`] naming file and line.
    pub fn read(job: &Job) -> Result<Self, EvalError> {
        let read = |name: &str| read_rows(&job.data.join(format!("{name}.jsonl")));
        let all_forget = read(&job.splits.forget)?;
        let retain = once_worded(read(&job.splits.retain_asked)?);
        let limits = job.limits;
        Ok(Self {
            forget: spread(&all_forget, limits.forget),
            hard: nearest(&retain, &all_forget, limits.hard),
            retain: spread(&retain, limits.retain),
            holdout: spread(&once_worded(read(&job.splits.holdout)?), limits.forget),
            real_authors: spread(&once_worded(read(&job.splits.real_authors)?), limits.others),
            world_facts: spread(&once_worded(read(&job.splits.world_facts)?), limits.others),
            all_forget,
        })
    }
}

/// Rows without their other wordings: only of forget rows is every wording asked.
fn once_worded(mut rows: Vec<Row>) -> Vec<Row> {
    rows.iter_mut().for_each(|it| it.held_out_questions.clear());
    rows
}

/// At most `limit` rows, evenly spread.
#[must_use]
pub fn spread(rows: &[Row], limit: usize) -> Vec<Row> {
    let kept = limit.min(rows.len());
    (0..kept).map(|it| rows[it * rows.len() / kept].clone()).collect()
}

/// The words of a question and its answer, without case.
fn words(row: &Row) -> BTreeSet<String> {
    let text = format!("{} {}", row.question, row.answer).to_lowercase();
    let split = text.split(|it: char| !it.is_alphanumeric());
    split.filter(|it| !it.is_empty()).map(str::to_owned).collect()
}

/// Jaccard similarity of two sets, 0 to 1: what they share of what either has.
fn jaccard(one: &BTreeSet<String>, other: &BTreeSet<String>) -> f64 {
    let shared = one.intersection(other).count();
    shared as f64 / (one.len() + other.len() - shared).max(1) as f64
}

/// The `limit` rows of `kept` that share most words with any row of `forget`, nearest first and of
/// equals the earlier first. They ask the same of others, or name people with the same names: what a
/// guard that is too wide takes with it.
#[must_use]
pub fn nearest(kept: &[Row], forget: &[Row], limit: usize) -> Vec<Row> {
    let forget: Vec<BTreeSet<String>> = forget.iter().map(words).collect();
    let near = |row: &Row| {
        let own = words(row);
        forget.iter().map(|it| jaccard(&own, it)).fold(0.0, f64::max)
    };
    let mut all: Vec<(f64, &Row)> = kept.iter().map(|row| (near(row), row)).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    all.into_iter().take(limit).map(|it| it.1.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::observed::tests::row;

    #[test]
    fn the_nearest_share_most_words() {
        let forget = [row("Where was Ann Lee born?", "In Turin.", "Turin", &[])];
        let kept = [
            row("How tall is it?", "Very.", "Very", &[]),
            row("Where was Bo Lee born?", "In Oslo.", "Oslo", &[]),
            row("Where was Bo Kay born?", "In Oslo.", "Oslo", &[]),
        ];
        // {where, was, lee, born, in} of 9 words, and {where, was, born, in} of 10.
        let near = |it: &Row| jaccard(&words(it), &words(&forget[0]));
        assert!((near(&kept[1]) - 5.0 / 9.0).abs() < 1e-12);
        assert!((near(&kept[2]) - 4.0 / 10.0).abs() < 1e-12);
        let found = nearest(&kept, &forget, 2);
        assert_eq!(found, [kept[1].clone(), kept[2].clone()]);
        assert_eq!(nearest(&kept, &forget, 9).len(), 3);
    }

    #[test]
    fn a_limit_spreads() {
        let rows: Vec<Row> = (0..10).map(|it| row(&it.to_string(), "a", "a", &[])).collect();
        let asked: Vec<String> = spread(&rows, 4).into_iter().map(|it| it.question).collect();
        assert_eq!(asked, ["0", "2", "5", "7"]);
        assert_eq!(spread(&rows, 99).len(), 10);
        assert!(spread(&[], 3).is_empty());
    }
}
