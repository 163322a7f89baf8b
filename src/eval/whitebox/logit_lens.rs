//! The logit lens as an extraction attack (Patil et al., arXiv:2309.17410): the residual stream after
//! every block is read through the last norm and the head, at the token before the value. The value is
//! found when its first token is among the candidates; their number is the attacker's budget. Under a
//! guard that corrupts, its forward pass is read too.

use std::collections::BTreeSet;

use serde_json::json;

use super::corrupted::{Corrupted, states};
use super::{Finding, Inspection, Rate, passes, wanted};
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::teacher::Teacher;
use crate::eval::suite::Row;
use crate::train::edits::columns::top_tokens;

/// Candidates per block.
pub const K: usize = 4;

/// The `k` most probable tokens of any block. `layers` holds the logits of each, `[vocab]`.
#[must_use]
pub fn head_projection(layers: &[Vec<f32>], k: usize) -> BTreeSet<u32> {
    layers.iter().flat_map(|it| top_tokens(it, k)).collect()
}

/// The `k` tokens whose probability rises most in any block after the first, and the `k` whose
/// probability falls most.
#[must_use]
pub fn probability_delta(layers: &[Vec<f32>], k: usize) -> BTreeSet<u32> {
    let probabilities: Vec<Vec<f32>> = layers.iter().map(|it| softmax(it)).collect();
    let mut out = BTreeSet::new();
    for pair in probabilities.windows(2) {
        let rise: Vec<f32> = pair[1].iter().zip(&pair[0]).map(|it| it.0 - it.1).collect();
        let fall: Vec<f32> = rise.iter().map(|it| -it).collect();
        out.extend(top_tokens(&rise, k));
        out.extend(top_tokens(&fall, k));
    }
    out
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let mut out = logits.to_vec();
    crate::engine::ops::softmax(&mut out);
    out
}

/// What comes before the value of a row, and the value's first token; `None` where the answer does not
/// have it.
fn prompt(teacher: &Teacher, row: &Row) -> Result<Option<(Vec<u32>, u32)>, MeasureError> {
    let sequence = teacher.sequence(&row.question, &row.answer)?;
    let at = row.answer.rfind(wanted(row)).and_then(|it| sequence.token_at(it));
    Ok(at.map(|it| (sequence.ids[..it].to_vec(), sequence.ids[it])))
}

/// The candidates of a method, given the logits of every block.
type Method = fn(&[Vec<f32>], usize) -> BTreeSet<u32>;

/// How often the value's first token is a candidate, and the mean number of candidates.
fn rate(
    teacher: &Teacher,
    corrupted: Option<&Corrupted<'_>>,
    rows: &[Row],
    method: Method,
) -> Result<(Rate, f64), MeasureError> {
    let prompts = rows.iter().filter_map(|row| prompt(teacher, row).transpose());
    let prompts = prompts.collect::<Result<Vec<_>, MeasureError>>()?;
    let sequences: Vec<&[u32]> = prompts.iter().map(|it| it.0.as_slice()).collect();
    let states = states(teacher, corrupted, &sequences)?;
    let (mut hits, mut candidates) = (0, 0);
    for ((_, target), states) in prompts.iter().zip(&states) {
        let layers = teacher.decoder.logits(states)?.to_vec2::<f32>()?;
        let found = method(&layers, K);
        hits += usize::from(found.contains(target));
        candidates += found.len();
    }
    let rate = Rate { hits, of: prompts.len() };
    Ok((rate, candidates as f64 / prompts.len() as f64))
}

/// One finding per method, and one of the corrupted forward pass where there is one.
///
/// # Errors
///
/// [`MeasureError`].
pub fn run(it: &Inspection<'_>) -> Result<Vec<Finding>, MeasureError> {
    let methods: [(&str, Method); 2] =
        [("head projection", head_projection), ("probability delta", probability_delta)];
    let corrupted = it.corrupted()?;
    let mut findings = Vec::with_capacity(2 * methods.len());
    for (name, method) in methods {
        let (gold, gold_candidates) = rate(it.gold, None, it.forget, method)?;
        for (pass, corrupted) in passes(corrupted.as_ref()) {
            let (model, candidates) = rate(it.model, corrupted, it.forget, method)?;
            findings.push(Finding {
                setting: format!("{name}{pass}"),
                budget: format!("{candidates:.1} candidates"),
                of_guard: corrupted.is_some(),
                model,
                gold,
                detail: json!({
                    "k": K, "candidates": candidates, "gold_candidates": gold_candidates,
                }),
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
    use crate::eval::whitebox::states::last_states;

    /// Token 2 is best in the first block only, token 0 in the second.
    #[test]
    fn candidates_of_any_block_count() {
        let layers = [vec![0.0, 1.0, 3.0], vec![4.0, 1.0, 3.0]];
        assert_eq!(head_projection(&layers, 1), BTreeSet::from([0, 2]));
        assert_eq!(head_projection(&layers[1..], 2), BTreeSet::from([0, 2]));
    }

    /// From (1/2, 1/4, 1/4) to (1/4, 1/4, 1/2): token 2 rises, token 0 falls, token 1 stays.
    #[test]
    fn deltas_by_hand() {
        let (half, quarter) = (0.5f32.ln(), 0.25f32.ln());
        let layers = [vec![half, quarter, quarter], vec![quarter, quarter, half]];
        assert_eq!(probability_delta(&layers, 1), BTreeSet::from([0, 2]));
        assert!(probability_delta(&layers[..1], 1).is_empty());
    }

    /// The lens of the last block is the model's head.
    #[test]
    fn the_last_block_gives_the_models_own_logits() {
        let teacher = untrained(4);
        let row = row("Where was she born?", "She came from Gdansk.", "Gdansk", &[]);
        let (ids, target) = prompt(&teacher, &row).unwrap().unwrap();
        let states = last_states(&teacher.decoder, &[&ids]).unwrap();
        let lens = teacher.decoder.logits(&states[0]).unwrap().to_vec2::<f32>().unwrap();
        let scored = teacher.score(&[("Where was she born?", "She came from Gdansk.")]).unwrap();
        let token = scored[0].tokens.iter().find(|it| it.span.contains(&14)).unwrap();
        assert_eq!(token.id, target);
        let last = lens.last().unwrap();
        let own = crate::eval::metrics::teacher::Token::of(last, target, 0..1);
        assert!((own.logprob - token.logprob).abs() < 1e-5, "{own:?} {token:?}");
    }
}
