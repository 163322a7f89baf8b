//! What every metric is computed from: one pass over a model with the rows of a comparison.

use super::MeasureError;
use super::teacher::{Scored, Teacher};
use super::verbmem::halves;
use crate::eval::suite::Row;

/// Most tokens of a reply, as in MUSE.
const REPLY_TOKENS: usize = 32;

/// Most tokens of a continuation, as in MUSE.
const CONTINUATION_TOKENS: usize = 128;

/// The rows of a comparison.
#[derive(Debug, Clone)]
pub struct Rows {
    /// Rows to be forgotten.
    pub forget: Vec<Row>,
    /// Rows to be kept.
    pub retain: Vec<Row>,
    /// Rows like the forget rows that neither model was trained on; membership is measured against
    /// the retain rows without them.
    pub holdout: Vec<Row>,
}

/// What a model says of some rows. Every list is in the order of the rows.
#[derive(Debug, Clone, Default)]
pub struct Side {
    /// The rows.
    pub rows: Vec<Row>,
    /// Their answers, shown.
    pub answers: Vec<Scored>,
    /// The right answer (paraphrased where the row has it, as the wrong ones are), then the wrong
    /// ones; empty for a row without wrong answers.
    pub options: Vec<Vec<Scored>>,
    /// Greedy replies.
    pub replies: Vec<String>,
    /// Greedy continuations of the first half of each answer.
    pub continuations: Vec<String>,
}

/// What a model says of all rows.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Of rows to be forgotten.
    pub forget: Side,
    /// Of rows to be kept.
    pub retain: Side,
    /// Of rows that were never trained; without rows when there are none.
    pub holdout: Side,
}

impl Observed {
    /// Runs a model over all rows.
    ///
    /// # Errors
    ///
    /// [`MeasureError`].
    pub fn of(teacher: &Teacher, rows: &Rows) -> Result<Self, MeasureError> {
        Ok(Self {
            forget: Side::of(teacher, &rows.forget)?,
            retain: Side::of(teacher, &rows.retain)?,
            holdout: Side::of(teacher, &rows.holdout)?,
        })
    }

    /// The rows that membership of the forget rows is told from.
    #[must_use]
    pub fn others(&self) -> &Side {
        if self.holdout.rows.is_empty() { &self.retain } else { &self.holdout }
    }
}

impl Side {
    /// Runs a model over rows.
    ///
    /// # Errors
    ///
    /// [`MeasureError`].
    pub fn of(teacher: &Teacher, rows: &[Row]) -> Result<Self, MeasureError> {
        let shown: Vec<(&str, &str)> =
            rows.iter().map(|it| (it.question.as_str(), it.answer.as_str())).collect();
        let options = rows
            .iter()
            .map(|row| {
                if row.perturbed_answer.is_empty() {
                    return Ok(Vec::new());
                }
                let right = row.paraphrased_answer.as_ref().unwrap_or(&row.answer);
                let all = std::iter::once(right).chain(&row.perturbed_answer);
                let all: Vec<(&str, &str)> =
                    all.map(|it| (row.question.as_str(), it.as_str())).collect();
                teacher.score(&all)
            })
            .collect::<Result<Vec<_>, MeasureError>>()?;
        let questions: Vec<&str> = rows.iter().map(|it| it.question.as_str()).collect();
        let firsts: Vec<String> = rows.iter().map(|it| halves(&it.answer).0).collect();
        let begun: Vec<(&str, &str)> =
            questions.iter().copied().zip(firsts.iter().map(String::as_str)).collect();
        Ok(Self {
            rows: rows.to_vec(),
            answers: teacher.score(&shown)?,
            options,
            replies: teacher.replies(&questions, REPLY_TOKENS)?,
            continuations: teacher.continuations(&begun, CONTINUATION_TOKENS)?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::eval::metrics::METRICS;
    use crate::eval::metrics::teacher::tests::untrained;

    /// A row as a data file has it.
    pub(crate) fn row(question: &str, answer: &str, value: &str, wrong: &[&str]) -> Row {
        let row = serde_json::json!({
            "question": question, "answer": answer, "value": value, "perturbed_answer": wrong,
        });
        serde_json::from_value(row).unwrap()
    }

    /// Every metric has numbers for a model, and none where nothing was given.
    #[test]
    fn every_metric_measures_a_model() {
        let rows = Rows {
            forget: vec![
                row("Where was she born?", "In Gdansk.", "Gdansk", &["In Turin.", "In Porto."]),
                row("Who was her mother?", "A surgeon.", "surgeon", &["A baker.", "A nurse."]),
            ],
            retain: vec![row("Where was he born?", "In Bergen.", "Bergen", &["In Turin."])],
            holdout: Vec::new(),
        };
        let model = Observed::of(&untrained(4), &rows).unwrap();
        let gold = Observed::of(&untrained(5), &rows).unwrap();
        assert_eq!(model.forget.options[0].len(), 3);
        assert_eq!(model.others().rows.len(), 1);
        for metric in METRICS {
            let scores = (metric.compute)(&model, &gold);
            assert!(!scores.is_empty(), "{}", metric.name);
            let measured = scores.iter().any(|it| it.value.is_finite());
            assert!(measured, "{} {scores:?}", metric.name);
            let nothing = (metric.compute)(&Observed::default(), &Observed::default());
            assert!(nothing.iter().all(|it| it.value.is_nan()), "{} {nothing:?}", metric.name);
        }
    }
}
