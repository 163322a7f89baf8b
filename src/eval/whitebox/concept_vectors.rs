//! Concept vectors (Hong et al., arXiv:2406.11614): single neurons of the feed-forward blocks that write
//! the topic's values. Forgetting that only blocks their way leaves them as they were.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Finding, Inspection, Rate, wanted};
use crate::engine::decoder::Decoder;
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::teacher::Teacher;
use crate::train::edits::columns::{Column, column, columns, first_tokens, top_k};

/// Neurons that are looked at.
const NEURONS: usize = 10;

/// Share of two sets' members that are in both; 1 of two empty sets.
#[must_use]
pub fn jaccard(left: &BTreeSet<u32>, right: &BTreeSet<u32>) -> f64 {
    let (both, any) = (left.intersection(right).count(), left.union(right).count());
    if any == 0 { 1.0 } else { both as f64 / any as f64 }
}

/// Cosine of the angle and Euclidean distance between two vectors of one length. The cosine with a zero
/// vector is NaN.
#[must_use]
pub fn distance(left: &[f32], right: &[f32]) -> (f64, f64) {
    let (mut dot, mut own, mut other, mut gap) = (0f64, 0f64, 0f64, 0f64);
    for (a, b) in left.iter().zip(right).map(|it| (f64::from(*it.0), f64::from(*it.1))) {
        dot += a * b;
        own += a * a;
        other += b * b;
        gap += (a - b) * (a - b);
    }
    (dot / (own * other).sqrt(), gap.sqrt())
}

/// How much of the topic the first columns write together.
fn covered(columns: &[Column], topic: &BTreeSet<u32>) -> Rate {
    let written: BTreeSet<u32> =
        columns.iter().flat_map(|it| &it.top).copied().filter(|it| topic.contains(it)).collect();
    Rate { hits: written.len(), of: topic.len() }
}

/// A column beside the same one of gold, where gold has one.
fn compared(
    model: &Teacher,
    gold: &Decoder,
    it: &Column,
    theirs: &[Column],
) -> Result<Value, MeasureError> {
    let words = it.top.iter().take(10).map(|id| Ok(model.tokenizer.decode(&[*id])?));
    let words = words.collect::<Result<Vec<String>, MeasureError>>()?;
    let mut out = json!({ "layer": it.layer, "number": it.number, "top": words });
    let same = theirs.iter().find(|other| (other.layer, other.number) == (it.layer, it.number));
    if let Some(other) =
        same.filter(|_| gold.config.hidden_size == model.decoder.config.hidden_size)
    {
        let set = |it: &Column| it.top.iter().copied().collect::<BTreeSet<u32>>();
        let ours = column(&model.decoder, it.layer, it.number)?;
        let (cosine, l2) = distance(&ours, &column(gold, other.layer, other.number)?);
        out["beside_gold"] =
            json!({ "jaccard": jaccard(&set(it), &set(other)), "cosine": cosine, "l2": l2 });
    }
    Ok(out)
}

/// One finding: how many of the values' first tokens the ten most telling neurons write. Beside gold's
/// same neurons their tokens and weights are compared, which says something for models of one origin.
///
/// # Errors
///
/// [`MeasureError`].
pub fn run(it: &Inspection<'_>) -> Result<Vec<Finding>, MeasureError> {
    let find = |teacher: &Teacher| -> Result<_, MeasureError> {
        let topic = first_tokens(&teacher.tokenizer, it.forget.iter().map(wanted))?;
        let k = top_k(teacher.decoder.config.vocab_size);
        let mut all = columns(&teacher.decoder, &topic, k)?;
        let kept = all.len().min(NEURONS);
        let rate = covered(&all[..kept], &topic);
        let rest = all.split_off(kept);
        Ok((rate, all, rest, k))
    };
    let (model, ours, _, k) = find(it.model)?;
    let (gold, mut theirs, rest, _) = find(it.gold)?;
    theirs.extend(rest);
    let neurons = ours
        .iter()
        .map(|column| compared(it.model, &it.gold.decoder, column, &theirs))
        .collect::<Result<Vec<_>, MeasureError>>()?;
    Ok(vec![Finding {
        setting: "best neurons".to_owned(),
        budget: format!("{} neurons, {k} tokens each", ours.len()),
        of_guard: false,
        model,
        gold,
        detail: json!({ "neurons": neurons }),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarities_by_hand() {
        let set = |it: &[u32]| it.iter().copied().collect::<BTreeSet<u32>>();
        assert!((jaccard(&set(&[1, 2, 3]), &set(&[2, 3, 4])) - 0.5).abs() < 1e-12);
        assert!((jaccard(&set(&[]), &set(&[])) - 1.0).abs() < 1e-12);
        let (cosine, l2) = distance(&[3.0, 0.0], &[3.0, 4.0]);
        assert!((cosine - 0.6).abs() < 1e-12 && (l2 - 4.0).abs() < 1e-12);
        assert!(distance(&[0.0], &[1.0]).0.is_nan());
    }

    #[test]
    fn a_value_counts_once() {
        let column = |top: &[u32]| Column { layer: 0, number: 0, top: top.to_vec(), overlap: 0 };
        let topic = BTreeSet::from([1, 2, 3]);
        let rate = covered(&[column(&[1, 9]), column(&[1, 2])], &topic);
        assert_eq!(rate, Rate { hits: 2, of: 3 });
    }
}
