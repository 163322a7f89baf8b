//! Relearning (Lynch et al., arXiv:2402.16835): the model is finetuned on a few forget rows, and asked
//! about others. What was hidden rather than removed comes back with them.

use std::time::Duration;

use serde_json::Value;

use super::{Finding, Inspection, accuracy};
use crate::data::Dialogue;
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::teacher::Teacher;
use crate::eval::suite::Row;
use crate::seed::Stream;
use crate::train::fit::{Fit, Schedule};
use crate::train::trainable::Trainable;

/// Numbers of rows that are trained on; none is the model as it is.
const SHOWN: [usize; 4] = [0, 4, 16, 64];

/// Fewest rows to ask about.
const TESTED: usize = 8;

/// Plain finetuning of all weights.
const FINETUNING: Schedule =
    Schedule { steps: 40, tokens_per_step: 256, peak: 5e-4, warmup: 4, floor: 0.1 };

/// The model after finetuning of all weights on rows, drawn at random.
pub(super) fn finetuned(
    teacher: &Teacher,
    rows: &[Row],
    schedule: Schedule,
    stream: &mut Stream,
) -> Result<Teacher, MeasureError> {
    let model = Trainable::from_decoder(&teacher.decoder)?;
    let fit = Fit {
        tokenizer: &teacher.tokenizer,
        schedule,
        checkpoint: None,
        identity: "finetuning".to_owned(),
        every: Duration::MAX,
    };
    fit.run(&model, || {
        let row = stream.pick(rows);
        let turns = vec![(row.question.clone(), row.answer.clone())];
        Dialogue::Chat { system: None, turns, given: 0 }
    })?;
    Ok(teacher.with(model.decoder))
}

fn relearnt(teacher: &Teacher, rows: &[Row], seed: u64) -> Result<Teacher, MeasureError> {
    let mut stream = Stream::named(seed, "whitebox/relearning/order");
    finetuned(teacher, rows, FINETUNING, &mut stream)
}

/// The numbers of rows that leave enough others to ask about.
fn settings(rows: usize) -> Vec<usize> {
    SHOWN.into_iter().filter(|it| it + TESTED <= rows).collect()
}

/// One finding per number of rows. All ask about the same rows, which none trains on.
///
/// # Errors
///
/// [`MeasureError::Rows`] for fewer than eight forget rows, and any error of training.
pub fn run(it: &Inspection<'_>) -> Result<Vec<Finding>, MeasureError> {
    let mut rows = it.forget.to_vec();
    Stream::named(it.seed, "whitebox/relearning").shuffle(&mut rows);
    let settings = settings(rows.len());
    let Some(most) = settings.last() else {
        let message = format!("{} forget rows are too few; relearning needs {TESTED}", rows.len());
        return Err(MeasureError::Rows(message));
    };
    let (shown, tested) = rows.split_at(*most);
    let mut findings = Vec::with_capacity(settings.len());
    for count in settings {
        let rate = |teacher: &Teacher| {
            if count == 0 {
                return accuracy(teacher, tested);
            }
            accuracy(&relearnt(teacher, &shown[..count], it.seed)?, tested)
        };
        let steps = if count == 0 { 0 } else { FINETUNING.steps };
        findings.push(Finding {
            setting: format!("{count} rows"),
            budget: format!("{steps} steps on {count} rows"),
            of_guard: false,
            model: rate(it.model)?,
            gold: it.once(it.gold, &format!("relearning, {count} rows"), || rate(it.gold))?,
            detail: Value::Null,
        });
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::observed::tests::row;
    use crate::eval::metrics::teacher::tests::untrained;

    #[test]
    fn enough_rows_are_left_to_ask_about() {
        assert_eq!(settings(7), Vec::<usize>::new());
        assert_eq!(settings(8), [0]);
        assert_eq!(settings(72), SHOWN);
        assert_eq!(settings(71), SHOWN[..3]);
    }

    #[test]
    fn what_is_shown_becomes_more_probable() {
        let teacher = untrained(6);
        let rows = [row("Where was she born?", "In Turin.", "Turin", &[])];
        let after = relearnt(&teacher, &rows, 1).unwrap();
        let shown = [("Where was she born?", "In Turin.")];
        let loss = |it: &Teacher| it.score(&shown).unwrap()[0].nll();
        assert!(loss(&after) < loss(&teacher) - 0.05, "{} {}", loss(&after), loss(&teacher));
    }
}
