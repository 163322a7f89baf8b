//! Mass editing of memories (MEMIT, Meng et al., arXiv:2210.07229), used to erase subjects: what the model
//! writes at the name of an author becomes what answers all questions about the author wrongly.
//!
//! One change of the residual stream is sought for each author, at the last of a few layers and at the last
//! token of the name in all rows at once (ROME's are sought row by row, and what is edited last overwrites
//! what was edited before, as keys of one name are nearly the same). Layer after layer each takes an equal
//! share of what is still missing, with the least change in the sense of the retain rows' keys:
//! `W + R K^T (lambda C + K K^T)^-1` (equation 14), for the keys `K` of all rows together.

use std::collections::BTreeMap;

use super::Job;
use super::facts::Fact;
use super::memory::{
    Cholesky, Passed, Search, edited_layer, others, product, rewrite, rows_of, second_moments,
    singular, subject,
};
use crate::data::Batch;
use crate::engine::decoder::Decoder;
use crate::train::fit::TrainError;
use crate::train::named::detached;
use crate::train::trainable::Trainable;

/// Largest change of the residual stream, relative to its length.
const LIMIT: f64 = 4.0;

/// Weight of the change's squared length in the search. A tenth of the paper's: with that of one fact, too
/// little of an author is given up.
const DECAY: f64 = 0.05;

/// Layers that share an edit.
const LAYERS: usize = 3;

/// `weights + residuals keys^T (lambda moments + keys keys^T)^-1`: brings each key nearer to its value, by the
/// residual that is missing to it. `weights` is `[residual.len(), key.len()]` row after row, `moments`
/// `[key.len(), key.len()]`. `None` without keys, and where the sum is not positive definite.
pub fn batch_edit(
    weights: &mut [f32],
    keys: &[Vec<f64>],
    residuals: &[Vec<f64>],
    (moments, lambda): (&[f64], f64),
) -> Option<()> {
    let mut sum: Vec<f64> = moments.iter().map(|it| lambda * it).collect();
    for key in keys {
        for (row, left) in sum.chunks_mut(key.len()).zip(key) {
            row.iter_mut().zip(key).for_each(|(sum, right)| *sum += left * right);
        }
    }
    let sum = Cholesky::of(&sum, keys.first()?.len())?;
    for (key, residual) in keys.iter().zip(residuals) {
        let direction = sum.solve(key);
        for (row, missing) in weights.chunks_mut(key.len()).zip(residual) {
            for (weight, direction) in row.iter_mut().zip(&direction) {
                *weight += (missing * direction) as f32;
            }
        }
    }
    Some(())
}

/// The questions about one author.
struct Subject {
    /// Each with one answer, packed.
    batch: Batch,
    /// Row of the name's last token in each.
    rows: Vec<usize>,
    /// What the residual stream is to be there, after the last of the edited layers.
    wanted: Vec<Vec<f64>>,
}

/// Rows of tokens that stand at `places` in the sequences of a batch.
fn rows_in(batch: &Batch, places: &[usize]) -> Vec<usize> {
    batch.starts.iter().zip(places).map(|it| it.0 + it.1).collect()
}

impl Subject {
    /// Seeks the change with which every question gets its wrong answers.
    fn sought(
        facts: &[&Fact],
        frozen: &Decoder,
        layer: usize,
        job: &Job<'_>,
    ) -> Result<Self, TrainError> {
        let (mut sequences, mut places, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
        for fact in facts {
            firsts.push(sequences.len());
            for answer in others(fact) {
                let sequence = fact.dialogue_with(answer).encode(job.tokenizer)?;
                let question = sequence.1.iter().position(|it| *it).unwrap_or(sequence.0.len());
                places.push(subject(job.tokenizer, fact, &sequence.0[..question])?);
                sequences.push(sequence);
            }
        }
        let batch = Batch::of(&sequences);
        let rows = rows_in(&batch, &places);
        let after = Passed::through(frozen, layer, &batch.ids, &batch.starts)?.after;
        let before = rows_of(&after, &rows)?;
        let lengths: f64 = before.iter().map(|it| product(it, it).sqrt()).sum();
        let length = lengths / before.len() as f64;
        let search =
            Search { decoder: frozen, layer, rows: &rows, length, limit: LIMIT, decay: DECAY };
        let (change, steps) = search.run(&after, &batch)?;
        job.saw(facts.len());
        job.read(frozen, batch.ids.len());
        job.trained(frozen, steps * batch.ids.len());
        let moved = |it: &usize| before[*it].iter().zip(&change).map(|it| it.0 + it.1).collect();
        let wanted = firsts.iter().map(moved).collect();
        let batch = batch.only(|it| firsts.contains(&it));
        let places: Vec<usize> = firsts.iter().map(|it| places[*it]).collect();
        let rows = rows_in(&batch, &places);
        Ok(Self { batch, rows, wanted })
    }

    /// The keys of the names at one layer, and what is missing to the wanted values after another one.
    fn missing(
        &self,
        decoder: &Decoder,
        (layer, last): (usize, usize),
    ) -> candle_core::Result<Vec<(Vec<f64>, Vec<f64>)>> {
        let Batch { ids, starts, .. } = &self.batch;
        let keys = rows_of(&Passed::through(decoder, layer, ids, starts)?.keys, &self.rows)?;
        let now = rows_of(&Passed::through(decoder, last, ids, starts)?.after, &self.rows)?;
        let rest = |(wanted, now): (&Vec<f64>, Vec<f64>)| {
            wanted.iter().zip(now).map(|it| it.0 - it.1).collect()
        };
        Ok(keys.into_iter().zip(self.wanted.iter().zip(now).map(rest)).collect())
    }
}

pub(super) fn apply(model: &Trainable, job: &Job<'_>) -> Result<(), TrainError> {
    // The same storage outside of the graph: an edit shows here at once.
    let frozen = detached(model.decoder.clone());
    let last = edited_layer(frozen.config.layers);
    let mut authors: BTreeMap<&str, Vec<&Fact>> = BTreeMap::new();
    for fact in job.forget {
        authors.entry(fact.author.as_deref().unwrap_or_default()).or_default().push(fact);
    }
    let mut subjects = Vec::new();
    for facts in authors.values() {
        subjects.push(Subject::sought(facts, &frozen, last, job)?);
    }
    for layer in (last + 1).saturating_sub(LAYERS)..=last {
        let moments = second_moments(&frozen, layer, job)?;
        let (mut keys, mut shares) = (Vec::new(), Vec::new());
        for it in &subjects {
            job.read(&frozen, 2 * it.batch.ids.len());
            for (key, missing) in it.missing(&frozen, (layer, last))? {
                keys.push(key);
                shares.push(missing.iter().map(|it| it / (last - layer + 1) as f64).collect());
            }
        }
        let edit =
            |weights: &mut [f32]| batch_edit(weights, &keys, &shares, (&moments, job.strength));
        rewrite(model, layer, edit)?.ok_or_else(singular)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With `lambda C = [[2, 0], [0, 1]]` and the keys (1, 0) and (1, 1) the sum is [[4, 1], [1, 2]], whose
    /// inverse is [[2, -1], [-1, 4]] / 7: the directions are (2, -1) / 7 and (1, 3) / 7.
    #[test]
    fn an_edit_by_hand() {
        let mut weights = vec![1.0, 2.0];
        let keys = [vec![1.0, 0.0], vec![1.0, 1.0]];
        batch_edit(&mut weights, &keys, &[vec![7.0], vec![14.0]], (&[4.0, 0.0, 0.0, 2.0], 0.5));
        assert!((weights[0] - 5.0).abs() < 1e-6 && (weights[1] - 7.0).abs() < 1e-6, "{weights:?}");
        assert!(batch_edit(&mut weights, &keys, &[], (&[0.0; 4], 1.0)).is_some());
        assert!(batch_edit(&mut weights, &keys[..1], &[], (&[0.0; 4], 1.0)).is_none());
        assert!(batch_edit(&mut weights, &[], &[], (&[1.0; 4], 1.0)).is_none());
    }

    /// Where nothing holds a key back, it goes all the way; where much does, hardly.
    #[test]
    fn retain_keys_hold_an_edit_back() {
        let edited = |lambda| {
            let mut weights = vec![0.0, 0.0];
            let moments = [1.0, 0.5, 0.5, 1.0];
            batch_edit(&mut weights, &[vec![1.0, 2.0]], &[vec![3.0]], (&moments, lambda)).unwrap();
            weights[0] + 2.0 * weights[1]
        };
        assert!((edited(1e-9) - 3.0).abs() < 1e-5, "{}", edited(1e-9));
        assert!(edited(1e6).abs() < 1e-4, "{}", edited(1e6));
    }
}
