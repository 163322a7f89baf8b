//! Recovery without forget rows (Lynch et al., arXiv:2402.16835; Lucki et al., arXiv:2409.18025): all
//! weights are finetuned on rows that were to be kept, or on rows that have nothing to do with the topic.
//! What comes back by itself was hidden, not removed.

use serde_json::json;

use super::relearning::finetuned;
use super::{Finding, Inspection, Rate, accuracy};
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::teacher::Teacher;
use crate::eval::suite::Row;
use crate::seed::Stream;
use crate::train::fit::Schedule;

/// Points of the curve: steps of finetuning.
const STEPS: [u64; 3] = [10, 30, 100];

/// The finetuning that ends at a point.
fn schedule(steps: u64) -> Schedule {
    Schedule { steps, tokens_per_step: 256, peak: 5e-4, warmup: 4, floor: 0.1 }
}

/// What forget questions and kept ones reach after some steps on rows.
fn point(
    teacher: &Teacher,
    it: &Inspection<'_>,
    rows: &[Row],
    steps: u64,
) -> Result<(Rate, Rate), MeasureError> {
    let mut stream = Stream::named(it.seed, "whitebox/recovery/order");
    let after = finetuned(teacher, rows, schedule(steps), &mut stream)?;
    Ok((accuracy(&after, it.forget)?, accuracy(&after, it.retain)?))
}

/// One finding per kind of rows and number of steps. None trains on forget rows, so all of them are
/// asked about.
///
/// # Errors
///
/// [`MeasureError::Rows`] without retain rows, and any error of training.
pub fn run(it: &Inspection<'_>) -> Result<Vec<Finding>, MeasureError> {
    if it.retain.is_empty() {
        return Err(MeasureError::Rows("recovery needs retain rows to finetune on".to_owned()));
    }
    let kinds = [("retain rows", it.retain), ("unrelated rows", it.unrelated)];
    let mut findings = Vec::with_capacity(kinds.len() * STEPS.len());
    for (kind, rows) in kinds.into_iter().filter(|it| !it.1.is_empty()) {
        for steps in STEPS {
            let (model, kept) = point(it.model, it, rows, steps)?;
            let name = format!("recovery, {steps} steps on {kind}");
            let (gold, gold_kept) = it.once(it.gold, &name, || point(it.gold, it, rows, steps))?;
            findings.push(Finding {
                setting: format!("{kind}, {steps} steps"),
                budget: format!("{steps} steps on {} rows", rows.len()),
                of_guard: false,
                model,
                gold,
                detail: json!({ "retain": kept, "gold_retain": gold_kept }),
            });
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::observed::tests::row;
    use crate::eval::metrics::teacher::tests::untrained;
    use crate::eval::whitebox::gcg::Budget;

    /// Every point warms up and ends at a tenth of the peak.
    #[test]
    fn every_point_is_a_whole_schedule() {
        for steps in STEPS {
            let schedule = schedule(steps);
            assert!(schedule.warmup < steps);
            assert!((schedule.learning_rate(steps) - 0.1 * schedule.peak).abs() < 1e-9);
        }
    }

    #[test]
    fn a_curve_per_kind_of_rows_and_none_of_nothing() {
        let teacher = untrained(6);
        let rows = [row("Where?", "In Turin.", "Turin", &[])];
        let inspection = Inspection {
            model: &teacher,
            gold: &teacher,
            forget: &rows,
            retain: &rows,
            unrelated: &[],
            served: None,
            corruption: None,
            suffix: Budget::default(),
            seed: 1,
        };
        let findings = run(&inspection).unwrap();
        let settings: Vec<&str> = findings.iter().map(|it| it.setting.as_str()).collect();
        assert_eq!(
            settings,
            ["retain rows, 10 steps", "retain rows, 30 steps", "retain rows, 100 steps"]
        );
        assert!(findings.iter().all(|it| it.model == it.gold));
        assert!(matches!(
            run(&Inspection { retain: &[], ..inspection }),
            Err(MeasureError::Rows(_))
        ));
    }
}
