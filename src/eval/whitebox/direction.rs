//! Directional ablation (Arditi et al., arXiv:2406.11717; of models that were made to forget Łucki et al.,
//! arXiv:2409.18025): the direction in which states on forget questions differ from those on kept ones is
//! taken out of everything that writes to the residual stream. Where a model was steered away along it, the
//! facts are back.

use candle_core::{Result, Tensor};
use serde_json::json;

use super::states::last_states;
use super::{Finding, Inspection, Rate, accuracy};
use crate::engine::decoder::Decoder;
use crate::engine::ops::values_of;
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::teacher::Teacher;
use crate::eval::suite::Row;
use crate::seed::Stream;

/// The unit vector from the mean of some states to that of others, `[hidden]` each; none where they are
/// the same.
fn direction(from: &[Vec<f32>], to: &[Vec<f32>]) -> Option<Vec<f32>> {
    let width = from.first()?.len();
    let mean = |states: &[Vec<f32>], at: usize| {
        states.iter().map(|it| f64::from(it[at])).sum::<f64>() / states.len() as f64
    };
    let difference: Vec<f64> = (0..width).map(|at| mean(to, at) - mean(from, at)).collect();
    let length = difference.iter().map(|it| it * it).sum::<f64>().sqrt();
    (length > 0.0).then(|| difference.iter().map(|it| (it / length) as f32).collect())
}

/// The decoder whose residual stream has nothing along a unit vector `[hidden]`: embedding rows, attention
/// outputs and down projections are made orthogonal to it. The head stays as it was, also where it is the
/// embedding table.
///
/// # Errors
///
/// [`candle_core::Error`] from any operation.
pub fn ablated(decoder: &Decoder, unit: &[f32]) -> Result<Decoder> {
    let mut out = decoder.clone();
    let unit = Tensor::new(unit, decoder.device())?;
    let (column, row) = (unit.unsqueeze(1)?, unit.unsqueeze(0)?);
    out.head = Some(decoder.head.as_ref().unwrap_or(&decoder.embedding).clone());
    out.embedding = (&out.embedding - out.embedding.matmul(&column)?.matmul(&row)?)?;
    for block in &mut out.blocks {
        for matrix in [&mut block.output, &mut block.down] {
            *matrix = (&*matrix - column.matmul(&row.matmul(matrix)?)?)?;
        }
    }
    Ok(out)
}

/// States after each block at the last token of each question, answer to come: by layer, then by row.
fn states(
    teacher: &Teacher,
    rows: &[Row],
) -> std::result::Result<Vec<Vec<Vec<f32>>>, MeasureError> {
    let mut prompts = Vec::with_capacity(rows.len());
    for row in rows {
        let mut sequence = teacher.sequence(&row.question, &row.answer)?;
        sequence.ids.truncate(sequence.first);
        prompts.push(sequence.ids);
    }
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let states = last_states(&teacher.decoder, &prompts)?;
    let layer = |layer: usize| states.iter().map(|it| values_of(&it.get(layer)?)).collect();
    Ok((0..teacher.decoder.blocks.len()).map(layer).collect::<Result<_>>()?)
}

/// What is found in one model: right answers to the rows asked about and to kept rows, and the block
/// (counted from 0) that was best on the other forget rows; none where all are worse than no ablation.
fn attacked(
    teacher: &Teacher,
    (tried, asked): (&[Row], &[Row]),
    retain: &[Row],
) -> std::result::Result<(Rate, Rate, Option<usize>), MeasureError> {
    let (forget, kept) = (states(teacher, tried)?, states(teacher, retain)?);
    let mut most = accuracy(teacher, tried)?.hits;
    let mut best: Option<(usize, Teacher)> = None;
    for (layer, (forget, kept)) in forget.iter().zip(&kept).enumerate() {
        let Some(unit) = direction(kept, forget) else { continue };
        let model = teacher.with(ablated(&teacher.decoder, &unit)?);
        let hits = accuracy(&model, tried)?.hits;
        if hits > most {
            (most, best) = (hits, Some((layer, model)));
        }
    }
    let (model, layer) = match &best {
        Some((layer, model)) => (model, Some(*layer)),
        None => (teacher, None),
    };
    Ok((accuracy(model, asked)?, accuracy(model, retain)?, layer))
}

/// One finding: one half of the forget rows is for the directions and to choose among the blocks, the other
/// half is asked.
///
/// # Errors
///
/// [`MeasureError::Rows`] without retain rows or for fewer than two forget rows.
pub fn run(it: &Inspection<'_>) -> std::result::Result<Vec<Finding>, MeasureError> {
    if it.retain.is_empty() || it.forget.len() < 2 {
        return Err(MeasureError::Rows("a direction needs forget rows and retain rows".to_owned()));
    }
    let mut rows = it.forget.to_vec();
    Stream::named(it.seed, "whitebox/direction").shuffle(&mut rows);
    let halves = rows.split_at(rows.len() / 2);
    let (model, kept, layer) = attacked(it.model, halves, it.retain)?;
    let (gold, ..) = it.once(it.gold, "direction", || attacked(it.gold, halves, it.retain))?;
    Ok(vec![Finding {
        setting: "the best block's".to_owned(),
        budget: format!(
            "{} known answers, {} kept questions, {} blocks",
            halves.0.len(),
            it.retain.len(),
            it.model.decoder.blocks.len()
        ),
        of_guard: false,
        model,
        gold,
        detail: json!({ "block": layer, "retain": kept }),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::teacher::tests::untrained;

    #[test]
    fn a_direction_by_hand() {
        let from = [vec![0.0, 1.0], vec![2.0, 1.0]];
        let to = [vec![4.0, 5.0]];
        assert_eq!(direction(&from, &to), Some(vec![0.6, 0.8]));
        assert_eq!(direction(&to, &to), None);
    }

    /// After ablation no block's state has a part along the direction, and what is orthogonal to it in the
    /// embedding stays.
    #[test]
    fn nothing_is_left_along_the_direction() {
        let decoder = untrained(2).decoder;
        let width = decoder.config.hidden_size;
        let mut unit = vec![0f32; width];
        (unit[0], unit[3]) = (0.6, -0.8);
        let along = |decoder: &Decoder| -> Vec<f32> {
            let states = last_states(decoder, &[&[5, 9, 300]]).unwrap();
            let states = states[0].to_vec2::<f32>().unwrap();
            states.iter().map(|it| 0.6 * it[0] - 0.8 * it[3]).collect()
        };
        assert!(along(&decoder).iter().any(|it| it.abs() > 1e-3));
        let after = ablated(&decoder, &unit).unwrap();
        assert!(along(&after).iter().all(|it| it.abs() < 1e-5), "{:?}", along(&after));
        let (old, new) =
            (values_of(&decoder.embedding).unwrap(), values_of(&after.embedding).unwrap());
        for (old, new) in old.chunks(width).zip(new.chunks(width)) {
            let part = 0.6 * old[0] - 0.8 * old[3];
            assert!((new[0] - (old[0] - 0.6 * part)).abs() < 1e-6);
            assert!((new[3] - (old[3] + 0.8 * part)).abs() < 1e-6);
            assert_eq!(new[1], old[1]);
        }
        let head = values_of(after.head.as_ref().unwrap()).unwrap();
        assert_eq!(head, values_of(decoder.head.as_ref().unwrap_or(&decoder.embedding)).unwrap());
    }
}
