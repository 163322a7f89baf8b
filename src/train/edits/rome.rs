//! Rank-one model editing (ROME, Meng et al., arXiv:2202.05262), used to erase: the fact of a forget row
//! becomes a wrong answer of the row, or "I don't know." where it has none.
//!
//! The feed-forward block of one layer is taken for a memory, whose key is what comes into the down projection
//! at the last token of the subject. A value is sought with which the model gives the new answer, and the
//! projection is changed by the rank-one matrix that maps the key to it and disturbs other keys least, as
//! weighed by their second moments over the retain rows. Of the paper's loss, the term that keeps the essence
//! of the subject is left out: a forgotten subject has none to keep.

use super::Job;
use super::memory::{
    Cholesky, Passed, Search, edited_layer, others, product, rewrite, rows_of, second_moments,
    singular, subject,
};
use crate::data::Batch;
use crate::engine::ops::values_of;
use crate::train::fit::TrainError;
use crate::train::named::detached;
use crate::train::trainable::Trainable;

/// Weight of the change's squared length, relative to the old value's.
const DECAY: f64 = 0.5;

/// `weights + (value - weights * key) direction^T / (direction . key)`: maps `key` to `value`, and
/// leaves what is orthogonal to `direction`. `weights` is `[value.len(), key.len()]` row after row;
/// with the direction `C^-1 key` the change is least in the sense of `C`.
pub fn rank_one(weights: &mut [f32], key: &[f64], value: &[f64], direction: &[f64]) {
    let reach = product(direction, key);
    for (row, value) in weights.chunks_mut(key.len()).zip(value) {
        let now: f64 = row.iter().zip(key).map(|(weight, key)| f64::from(*weight) * key).sum();
        let missing = (value - now) / reach;
        for (weight, direction) in row.iter_mut().zip(direction) {
            *weight += (missing * direction) as f32;
        }
    }
}

pub(super) fn apply(model: &Trainable, job: &Job<'_>) -> Result<(), TrainError> {
    // The same storage outside of the graph: an edit shows here at once.
    let frozen = detached(model.decoder.clone());
    let layer = edited_layer(frozen.config.layers);
    let moments = second_moments(&frozen, layer, job)?;
    let moments = Cholesky::of(&moments, frozen.config.intermediate_size).ok_or_else(singular)?;
    for fact in job.forget {
        let sequence = fact.dialogue_with(others(fact)[0]).encode(job.tokenizer)?;
        let batch = Batch::of(&[sequence]);
        let question = batch.label_rows.first().map_or(0, |it| *it as usize + 1);
        let row = subject(job.tokenizer, fact, &batch.ids[..question])?;
        let Passed { keys, after } = Passed::through(&frozen, layer, &batch.ids, &batch.starts)?;
        job.saw(1);
        job.read(&frozen, batch.ids.len());
        let key = rows_of(&keys, &[row])?.remove(0);
        let weights = values_of(&frozen.blocks[layer].down)?;
        let now = weights.chunks(key.len());
        let now: Vec<f64> = now
            .map(|it| it.iter().zip(&key).map(|(weight, key)| f64::from(*weight) * key).sum())
            .collect();
        let length = product(&now, &now).sqrt();
        let direction = moments.solve(&key);
        if length == 0.0 || product(&direction, &key) == 0.0 {
            return Err(singular());
        }
        let (limit, rows) = (job.strength, &[row]);
        let search = Search { decoder: &frozen, layer, rows, length, limit, decay: DECAY };
        let (change, steps) = search.run(&after, &batch)?;
        job.trained(&frozen, steps * batch.ids.len());
        let value: Vec<f64> = now.iter().zip(&change).map(|it| it.0 + it.1).collect();
        rewrite(model, layer, |weights| rank_one(weights, &key, &value, &direction))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key goes to the value, and a key that is orthogonal to it in the sense of C^-1 goes where it
    /// went before.
    #[test]
    fn an_edit_moves_one_key_only() {
        let moments = [2.0, 0.5, 0.0, 0.5, 1.0, 0.25, 0.0, 0.25, 4.0];
        let (key, value) = ([1.0, 2.0, -1.0], [5.0, -3.0]);
        let direction = Cholesky::of(&moments, 3).unwrap().solve(&key);
        let other = [-direction[1], direction[0], 0.0];
        assert!(product(&other, &direction).abs() < 1e-12);
        let before: Vec<f32> = vec![1.0, 0.0, 2.0, -1.0, 0.5, 0.25];
        let mut weights = before.clone();
        rank_one(&mut weights, &key, &value, &direction);
        let through = |weights: &[f32], x: &[f64]| -> Vec<f64> {
            let row = |it: &[f32]| it.iter().zip(x).map(|(w, x)| f64::from(*w) * x).sum();
            weights.chunks(3).map(row).collect()
        };
        for (got, want) in through(&weights, &key).iter().zip(value) {
            assert!((got - want).abs() < 1e-5, "{weights:?}");
        }
        for (got, want) in through(&weights, &other).iter().zip(through(&before, &other)) {
            assert!((got - want).abs() < 1e-5, "{weights:?}");
        }
        assert!(weights.iter().zip(&before).any(|it| (it.0 - it.1).abs() > 0.1));
    }
}
