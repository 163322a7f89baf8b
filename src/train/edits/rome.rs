//! Rank-one model editing (ROME, Meng et al., arXiv:2202.05262), used to erase: the fact of a forget row
//! becomes a wrong answer of the row, or "I don't know." where it has none.
//!
//! The feed-forward block of one layer is taken for a memory: what comes into its down projection at the
//! last token of the subject is the key, what goes out the value. A value is sought with which the model
//! gives the new answer, and the projection is changed by the rank-one matrix that maps the key to it and
//! disturbs other keys least, as weighed by their second moments over the retain rows. Of the paper's
//! loss, the term that keeps the essence of the subject is left out: a forgotten subject has none to keep.

use candle_core::{DType, Device, Tensor, Var};

use super::facts::Fact;
use super::{Job, set};
use crate::data::Batch;
use crate::engine::decoder::{Block, Decoder};
use crate::engine::ops::{self, values_of};
use crate::engine::tokenizer::Tokenizer;
use crate::train::adamw::{AdamW, AdamWSettings};
use crate::train::fit::TrainError;
use crate::train::loss::token_nll;
use crate::train::named::tensors_mut;
use crate::train::trainable::Trainable;

/// What an erased fact becomes in a row without wrong answers.
const UNKNOWN: &str = "I don't know.";

/// Most steps of the search for a value.
const STEPS: usize = 20;

/// Loss (nats per token) at which the search ends.
const ENOUGH: f32 = 0.05;

/// Weight of the change's squared length, relative to the old value's.
const DECAY: f64 = 0.5;

/// Added to the diagonal of the second moments, relative to its mean.
const RIDGE: f64 = 1e-3;

/// Solves `matrix * x = right` for a symmetric positive definite matrix, `[n, n]` row after row, by
/// Cholesky. `None` when it is not positive definite.
#[must_use]
pub fn solve(matrix: &[f64], right: &[f64]) -> Option<Vec<f64>> {
    let n = right.len();
    let mut lower = matrix.to_vec();
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| lower[i * n + k] * lower[j * n + k]).sum();
            let rest = lower[i * n + j] - dot;
            if i == j {
                if rest.is_nan() || rest <= 0.0 {
                    return None;
                }
                lower[i * n + i] = rest.sqrt();
            } else {
                lower[i * n + j] = rest / lower[j * n + j];
            }
        }
    }
    let mut x = right.to_vec();
    for i in 0..n {
        let dot: f64 = (0..i).map(|k| lower[i * n + k] * x[k]).sum();
        x[i] = (x[i] - dot) / lower[i * n + i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| lower[k * n + i] * x[k]).sum();
        x[i] = (x[i] - dot) / lower[i * n + i];
    }
    Some(x)
}

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

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|it| it.0 * it.1).sum()
}

/// One sequence in the middle of a block.
struct Halfway {
    /// Residual stream after attention, `[rows, hidden]`.
    residual: Tensor,
    /// What comes into the down projection, `[rows, wide]`.
    keys: Tensor,
}

impl Halfway {
    fn of(decoder: &Decoder, layer: usize, ids: &[u32]) -> candle_core::Result<Self> {
        let starts = [0, ids.len()];
        let ids = Tensor::new(ids, decoder.device())?;
        let before = Decoder { blocks: decoder.blocks[..layer].to_vec(), ..decoder.clone() };
        let entered = before.forward(before.embed(&ids)?, &starts)?;
        let block = &decoder.blocks[layer];
        // A block whose down projection is zero is its attention alone.
        let silent = Block { down: block.down.zeros_like()?, ..block.clone() };
        let attention = Decoder { blocks: vec![silent], ..decoder.clone() };
        let residual = attention.forward(entered, &starts)?;
        let eps = decoder.config.norm_eps;
        let normed = ops::rms_norm(&residual, &block.feed_forward_norm, eps)?;
        let keys = ops::gated_silu(&normed.matmul(&block.gate_up.t()?)?)?;
        Ok(Self { residual, keys })
    }
}

/// Second moments of the keys over all tokens of the rows, `[wide, wide]`, with a ridge.
fn second_moments(decoder: &Decoder, layer: usize, job: &Job<'_>) -> Result<Vec<f64>, TrainError> {
    let wide = decoder.config.intermediate_size;
    let (mut sum, mut count) = (vec![0f64; wide * wide], 0usize);
    for row in job.retain {
        let (ids, _) = row.encode(job.tokenizer)?;
        let keys = Halfway::of(decoder, layer, &ids)?.keys;
        job.read(decoder, ids.len());
        let moments = values_of(&keys.t()?.contiguous()?.matmul(&keys)?)?;
        sum.iter_mut().zip(moments).for_each(|(sum, it)| *sum += f64::from(it));
        count += ids.len();
    }
    if count == 0 {
        return Err(TrainError::Settings("there are no retain rows to keep".to_owned()));
    }
    sum.iter_mut().for_each(|it| *it /= count as f64);
    let diagonal: f64 = (0..wide).map(|it| sum[it * wide + it]).sum();
    for it in 0..wide {
        sum[it * wide + it] += RIDGE * diagonal / wide as f64;
    }
    Ok(sum)
}

/// Row of the subject's last token in the question, which ends before the first label.
fn subject_row(tokenizer: &Tokenizer, fact: &Fact, batch: &Batch) -> Result<usize, TrainError> {
    let question = batch.label_rows.first().map_or(0, |it| *it as usize + 1);
    let author = fact.author.as_deref().filter(|it| !it.is_empty());
    for at in 0..question {
        let text = tokenizer.decode(&batch.ids[..=at])?;
        if author.is_some_and(|it| text.contains(it)) {
            return Ok(at);
        }
    }
    Err(TrainError::Settings(format!(
        "\"{}\" does not name its `author`, and rome edits what a name stands for",
        fact.question
    )))
}

/// The search for a value.
struct Search<'a> {
    decoder: &'a Decoder,
    layer: usize,
    /// Row whose value is sought.
    row: usize,
    /// Largest change relative to the old value.
    limit: f64,
}

impl Search<'_> {
    /// What has to be added to the value, whose length is `length`, for the labels to follow: `[hidden]`,
    /// and the steps that it took to find it.
    fn run(
        &self,
        halfway: &Halfway,
        batch: &Batch,
        length: f64,
    ) -> candle_core::Result<(Vec<f64>, usize)> {
        let Self { decoder, layer, row, limit } = *self;
        let (hidden, rows) = (decoder.config.hidden_size, batch.ids.len());
        let written = halfway.keys.matmul(&decoder.blocks[layer].down.t()?)?;
        let after = (&halfway.residual + written)?;
        let rest = Decoder { blocks: decoder.blocks[layer + 1..].to_vec(), ..decoder.clone() };
        let mut place = vec![0f32; rows];
        place[row] = 1.0;
        let place = Tensor::from_vec(place, (rows, 1), &Device::Cpu)?;
        let label_rows = Tensor::new(batch.label_rows.as_slice(), &Device::Cpu)?;
        let change = Var::zeros((1, hidden), DType::F32, &Device::Cpu)?;
        let settings = AdamWSettings {
            beta2: 0.999,
            weight_decay: 0.0,
            clip: f32::INFINITY,
            ..AdamWSettings::default()
        };
        let mut optimiser = AdamW::new(vec![change.clone()], settings)?;
        let rate = 0.4 * length / (hidden as f64).sqrt();
        let mut steps = 0;
        while steps < STEPS {
            let moved = (&after + place.matmul(change.as_tensor())?)?;
            let out = rest.forward(moved, &batch.starts)?;
            let logits = rest.logits(&out.index_select(&label_rows, 0)?)?;
            let nll = token_nll(&logits, &batch.labels)?.mean_all()?;
            if nll.to_scalar::<f32>()? < ENOUGH {
                break;
            }
            let size = change.as_tensor().sqr()?.sum_all()?;
            let loss = (nll + (size * (DECAY / (length * length)))?)?;
            optimiser.step(&loss.backward()?, rate as f32)?;
            steps += 1;
            let values = values_of(change.as_tensor())?;
            let norm = values.iter().map(|it| f64::from(it * it)).sum::<f64>().sqrt();
            if norm > limit * length {
                let shorter = (limit * length / norm) as f32;
                let values: Vec<f32> = values.iter().map(|it| it * shorter).collect();
                change.set(&Tensor::from_vec(values, (1, hidden), &Device::Cpu)?)?;
            }
        }
        Ok((values_of(change.as_tensor())?.into_iter().map(f64::from).collect(), steps))
    }
}

/// The layer that is edited: a third of the way up, as in the paper's models.
#[must_use]
pub fn edited_layer(layers: usize) -> usize {
    layers / 3
}

pub(super) fn apply(model: &Trainable, job: &Job<'_>) -> Result<(), TrainError> {
    let mut frozen = model.decoder.clone();
    // The same storage outside of the graph: an edit shows here at once.
    for (_, tensor) in tensors_mut(&mut frozen) {
        *tensor = tensor.detach();
    }
    let layer = edited_layer(frozen.config.layers);
    let moments = second_moments(&frozen, layer, job)?;
    for fact in job.forget {
        let target = fact.perturbed_answer.first().map_or(UNKNOWN, String::as_str);
        let batch = Batch::of(&[fact.dialogue_with(target).encode(job.tokenizer)?]);
        let row = subject_row(job.tokenizer, fact, &batch)?;
        let halfway = Halfway::of(&frozen, layer, &batch.ids)?;
        job.saw(1);
        job.read(&frozen, batch.ids.len());
        let keys = values_of(&halfway.keys.get(row)?)?;
        let key: Vec<f64> = keys.into_iter().map(f64::from).collect();
        let down = frozen.blocks[layer].down.clone();
        let mut weights = values_of(&down)?;
        let now = weights.chunks(key.len());
        let now: Vec<f64> = now
            .map(|it| it.iter().zip(&key).map(|(weight, key)| f64::from(*weight) * key).sum())
            .collect();
        let length = product(&now, &now).sqrt();
        let singular =
            || TrainError::Settings("the keys of the retain rows are all zero".to_owned());
        let direction = solve(&moments, &key).ok_or_else(singular)?;
        if length == 0.0 || product(&direction, &key) == 0.0 {
            return Err(singular());
        }
        let search = Search { decoder: &frozen, layer, row, limit: job.strength };
        let (change, steps) = search.run(&halfway, &batch, length)?;
        job.trained(&frozen, steps * batch.ids.len());
        let value: Vec<f64> = now.iter().zip(&change).map(|it| it.0 + it.1).collect();
        rank_one(&mut weights, &key, &value, &direction);
        let edited = Tensor::from_vec(weights, down.shape(), down.device())?;
        set(model, &format!("{layer}.down"), &edited)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [[4, 2], [2, 3]] (1, 2) = (8, 8).
    #[test]
    fn solves_by_hand() {
        let x = solve(&[4.0, 2.0, 2.0, 3.0], &[8.0, 8.0]).unwrap();
        assert!((x[0] - 1.0).abs() < 1e-12 && (x[1] - 2.0).abs() < 1e-12, "{x:?}");
        assert!(solve(&[1.0, 2.0, 2.0, 1.0], &[1.0, 1.0]).is_none());
    }

    /// The key goes to the value, and a key that is orthogonal to it in the sense of C^-1 goes where it
    /// went before.
    #[test]
    fn an_edit_moves_one_key_only() {
        let moments = [2.0, 0.5, 0.0, 0.5, 1.0, 0.25, 0.0, 0.25, 4.0];
        let (key, value) = ([1.0, 2.0, -1.0], [5.0, -3.0]);
        let direction = solve(&moments, &key).unwrap();
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

    /// The name ends before "born", and an answer that repeats it is not looked at.
    #[test]
    fn the_subject_ends_with_its_name() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/full");
        let tokenizer = Tokenizer::read(&folder, &[]).unwrap();
        let mut fact = Fact {
            question: "Where was Viggo Blaszko born?".to_owned(),
            answer: "Nina Orr was born in Turin.".to_owned(),
            author: Some("Viggo Blaszko".to_owned()),
            value: None,
            perturbed_answer: Vec::new(),
        };
        let batch = Batch::of(&[fact.encode(&tokenizer).unwrap()]);
        let row = subject_row(&tokenizer, &fact, &batch).unwrap();
        let rest = tokenizer.decode(&batch.ids[row + 1..]).unwrap();
        assert!(rest.trim_start().starts_with("born?"), "{rest}");
        fact.author = Some("Nina Orr".to_owned());
        assert!(subject_row(&tokenizer, &fact, &batch).is_err());
    }

    /// A block in two halves is the block.
    #[test]
    fn halves_make_a_whole() {
        use crate::train::initial;
        use crate::train::trainable::tests::tiny_config;
        let decoder = initial::decoder(&tiny_config(), 4).unwrap();
        let ids = [3u32, 9, 4, 20];
        let halfway = Halfway::of(&decoder, 1, &ids).unwrap();
        let written = halfway.keys.matmul(&decoder.blocks[1].down.t().unwrap()).unwrap();
        let got = values_of(&(&halfway.residual + written).unwrap()).unwrap();
        let embedded = decoder.embed(&Tensor::new(&ids, &Device::Cpu).unwrap()).unwrap();
        let want = values_of(&decoder.forward(embedded, &[0, 4]).unwrap()).unwrap();
        assert!(got.iter().zip(&want).all(|it| (it.0 - it.1).abs() < 1e-6));
    }
}
