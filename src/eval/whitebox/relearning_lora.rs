//! Relearning as those do who cannot finetune all weights, or rent it (Łucki et al., arXiv:2409.18025):
//! low-rank adapters are trained on a few forget rows, and the model is asked about others.

use serde_json::Value;

use super::relearning::{FINETUNING, asked, finetuned_by, how_many};
use super::{Finding, Inspection, accuracy};
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::teacher::Teacher;
use crate::seed::Stream;
use crate::train::fit::Schedule;
use crate::train::lora::LoraSettings;

/// Adapters on every matrix of every block. The published rank of 128 is the whole width of the lab's
/// model.
const LORA: LoraSettings = LoraSettings { rank: 16, alpha: 32.0 };

/// As many steps as of all weights; adapters take a higher rate.
const ADAPTING: Schedule = Schedule { peak: 4e-3, ..FINETUNING };

/// One finding per number of rows. All ask about the rows that `relearning` asks about.
///
/// # Errors
///
/// As [`relearning`](super::relearning::run).
pub fn run(it: &Inspection<'_>) -> Result<Vec<Finding>, MeasureError> {
    let (rows, tested) = asked(it)?;
    let mut findings = Vec::new();
    for count in how_many(it.forget.len()).into_iter().filter(|it| *it > 0) {
        let rate = |teacher: &Teacher| {
            let mut stream = Stream::named(it.seed, "whitebox/relearning_lora/order");
            let adapters = Some((LORA, it.seed));
            let after = finetuned_by(teacher, &rows[..count], ADAPTING, &mut stream, adapters)?;
            accuracy(&after, &tested)
        };
        findings.push(Finding {
            setting: format!("{count} rows"),
            budget: format!("rank {}, {} steps on {count} rows", LORA.rank, ADAPTING.steps),
            of_guard: false,
            model: rate(it.model)?,
            gold: it.once(it.gold, &format!("relearning_lora, {count} rows"), || rate(it.gold))?,
            detail: Value::Null,
        });
    }
    Ok(findings)
}
