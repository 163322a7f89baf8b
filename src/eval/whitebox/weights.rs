//! The weights as they are: what whoever has the files reads without any guard.
//!
//! A guard changes no weight, so for a guarded model this is the untouched model. The row stands in the
//! report so that nobody takes what the guard reaches for what the weights have forgotten.

use serde_json::Value;

use super::{Finding, Inspection, Rate, accuracy, served_reply, wanted};
use crate::eval::metrics::MeasureError;
use crate::eval::suite::contains;

/// One finding of the weights, and one through the guard where there is one.
///
/// # Errors
///
/// [`MeasureError`].
pub fn run(it: &Inspection<'_>) -> Result<Vec<Finding>, MeasureError> {
    let gold = accuracy(it.gold, it.forget)?;
    let finding = |setting: &str, of_guard, model| Finding {
        setting: setting.to_owned(),
        budget: "one greedy reply per question".to_owned(),
        of_guard,
        model,
        gold,
        detail: Value::Null,
    };
    let mut findings = Vec::with_capacity(2);
    let setting = match it.served {
        Some(_) => "guarded weights = the untouched model's weights",
        None => "as they are",
    };
    findings.push(finding(setting, false, accuracy(it.model, it.forget)?));
    if let Some(served) = it.served {
        let mut hits = 0;
        for row in it.forget {
            hits += usize::from(contains(&served_reply(served, &row.question)?, wanted(row)));
        }
        findings.push(finding("through the guard", true, Rate { hits, of: it.forget.len() }));
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::scripted::Scripted;
    use crate::eval::metrics::observed::tests::row;
    use crate::eval::metrics::teacher::tests::untrained;
    use crate::eval::suite::Subject;
    use crate::eval::whitebox::gcg::Budget;

    #[test]
    fn the_guard_is_told_from_the_weights() {
        let forget = [row("Where?", "In Turin.", "Turin", &[]), row("Who?", "Ann.", "Ann", &[])];
        let teacher = untrained(2);
        let served = Scripted::new(["In Turin."]);
        let inspection = Inspection {
            model: &teacher,
            gold: &teacher,
            forget: &forget,
            retain: &[],
            unrelated: &[],
            served: Some(Subject { backend: &served, model: "scripted" }),
            corruption: None,
            suffix: Budget::default(),
            seed: 1,
        };
        let findings = run(&inspection).unwrap();
        assert!(findings[0].setting.starts_with("guarded weights"));
        assert_eq!(findings[0].model, findings[0].gold);
        assert_eq!(findings[1].model, Rate { hits: 1, of: 2 });
        let open = run(&Inspection { served: None, ..inspection }).unwrap();
        assert_eq!((open.len(), open[0].setting.as_str()), (1, "as they are"));
    }
}
