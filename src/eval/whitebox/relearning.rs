//! Relearning (Lynch et al., arXiv:2402.16835): the model is finetuned on a few forget rows, and asked
//! about others. What was hidden rather than removed comes back with them.

use std::time::Duration;

use serde_json::Value;

use super::{Finding, Inspection, accuracy};
use crate::data::{Batch, Dialogue};
use crate::engine::ops::on_pool;
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::teacher::Teacher;
use crate::eval::suite::Row;
use crate::seed::Stream;
use crate::train::fit::{Fit, Schedule};
use crate::train::lora::LoraSettings;
use crate::train::named::detached;
use crate::train::unlearn::step::Pass;
use crate::train::unlearn::student::Student;

/// Numbers of rows that are trained on; none is the model as it is.
const SHOWN: [usize; 4] = [0, 4, 16, 64];

/// Fewest rows to ask about.
const TESTED: usize = 8;

/// Plain finetuning of all weights.
pub(super) const FINETUNING: Schedule =
    Schedule { steps: 40, tokens_per_step: 256, peak: 5e-4, warmup: 4, floor: 0.1 };

/// Four times as many steps, on the most rows: for what does not come back at once.
const LONGER: Schedule = Schedule { steps: 160, ..FINETUNING };

/// The model after finetuning of all weights on rows, drawn at random.
pub(super) fn finetuned(
    teacher: &Teacher,
    rows: &[Row],
    schedule: Schedule,
    stream: &mut Stream,
) -> Result<Teacher, MeasureError> {
    finetuned_by(teacher, rows, schedule, stream, None)
}

/// The same of adapters of a size and a seed, where these are given.
pub(super) fn finetuned_by(
    teacher: &Teacher,
    rows: &[Row],
    schedule: Schedule,
    stream: &mut Stream,
    adapters: Option<(LoraSettings, u64)>,
) -> Result<Teacher, MeasureError> {
    let (lora, seed) = (adapters.map(|it| it.0), adapters.map_or(0, |it| it.1));
    let model = Student::new(&teacher.decoder, lora, seed, |_| true)?;
    let fit = Fit {
        tokenizer: &teacher.tokenizer,
        schedule,
        checkpoint: None,
        identity: "finetuning".to_owned(),
        every: Duration::MAX,
    };
    let next = || {
        let row = stream.pick(rows);
        let turns = vec![(row.question.clone(), row.answer.clone())];
        (Dialogue::Chat { system: None, turns, given: 0 }, false)
    };
    let loss = |batch: &Batch, _: &[bool]| Pass::new(&model.decoder()?).nll(batch)?.mean_all();
    on_pool(|| fit.run_marked(model.vars(), next, loss))?;
    Ok(teacher.with(detached(model.decoder()?)))
}

/// The numbers of rows that leave enough others to ask about.
pub(super) fn how_many(rows: usize) -> Vec<usize> {
    SHOWN.into_iter().filter(|it| it + TESTED <= rows).collect()
}

/// Rows to be shown, most first, and those that are asked about, which none trains on.
pub(super) fn asked(it: &Inspection<'_>) -> Result<(Vec<Row>, Vec<Row>), MeasureError> {
    let mut rows = it.forget.to_vec();
    Stream::named(it.seed, "whitebox/relearning").shuffle(&mut rows);
    let Some(most) = how_many(rows.len()).last().copied() else {
        let message = format!("{} forget rows are too few; relearning needs {TESTED}", rows.len());
        return Err(MeasureError::Rows(message));
    };
    let tested = rows.split_off(most);
    Ok((rows, tested))
}

/// One finding per number of rows, and one of more steps on the most.
///
/// # Errors
///
/// [`MeasureError::Rows`] for fewer than eight forget rows, and any error of training.
pub fn run(it: &Inspection<'_>) -> Result<Vec<Finding>, MeasureError> {
    let (rows, tested) = asked(it)?;
    let short = how_many(it.forget.len()).into_iter().map(|count| (count, FINETUNING));
    let long = Some((rows.len(), LONGER)).filter(|it| it.0 > 0);
    let mut findings = Vec::new();
    for (count, schedule) in short.chain(long) {
        let rate = |teacher: &Teacher| {
            if count == 0 {
                return accuracy(teacher, &tested);
            }
            let mut stream = Stream::named(it.seed, "whitebox/relearning/order");
            accuracy(&finetuned(teacher, &rows[..count], schedule, &mut stream)?, &tested)
        };
        let steps = if count == 0 { 0 } else { schedule.steps };
        let setting = match schedule == LONGER {
            true => format!("{count} rows, {steps} steps"),
            false => format!("{count} rows"),
        };
        findings.push(Finding {
            budget: format!("{steps} steps on {count} rows"),
            of_guard: false,
            model: rate(it.model)?,
            gold: it.once(it.gold, &format!("relearning, {setting}"), || rate(it.gold))?,
            detail: Value::Null,
            setting,
        });
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::values_of;
    use crate::eval::metrics::observed::tests::row;
    use crate::eval::metrics::teacher::tests::untrained;

    #[test]
    fn enough_rows_are_left_to_ask_about() {
        assert_eq!(how_many(7), Vec::<usize>::new());
        assert_eq!(how_many(8), [0]);
        assert_eq!(how_many(72), SHOWN);
        assert_eq!(how_many(71), SHOWN[..3]);
    }

    /// By all weights, and by adapters, which leave the embedding and the teacher as they are.
    #[test]
    fn what_is_shown_becomes_more_probable() {
        let teacher = untrained(6);
        let rows = [row("Where was she born?", "In Turin.", "Turin", &[])];
        let shown = [("Where was she born?", "In Turin.")];
        let loss = |it: &Teacher| it.score(&shown).unwrap()[0].nll();
        let before = loss(&teacher);
        let embedding = |it: &Teacher| values_of(&it.decoder.embedding).unwrap();
        for lora in [None, Some((LoraSettings { rank: 2, alpha: 4.0 }, 3))] {
            let mut stream = Stream::new(1);
            let rate = if lora.is_some() { 1e-2 } else { FINETUNING.peak };
            let schedule = Schedule { peak: rate, ..FINETUNING };
            let after = finetuned_by(&teacher, &rows, schedule, &mut stream, lora).unwrap();
            assert!(loss(&after) < before - 0.05, "{lora:?} {} {before}", loss(&after));
            assert_eq!(embedding(&after) == embedding(&teacher), lora.is_some());
            assert!(!after.decoder.blocks[0].down.track_op() && !after.decoder.norm.track_op());
            assert!((loss(&teacher) - before).abs() < 1e-12);
        }
    }
}
