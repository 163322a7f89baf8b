//! The feed-forward block of a layer as a memory, which is how ROME and MEMIT see it: what comes into its down
//! projection is a key, what goes out is added to the residual stream as its value.

use candle_core::{DType, Device, Tensor, Var};

use super::facts::Fact;
use super::{Job, set};
use crate::data::Batch;
use crate::engine::decoder::Decoder;
use crate::engine::ops::values_of;
use crate::engine::tokenizer::Tokenizer;
use crate::train::adamw::{AdamW, AdamWSettings};
use crate::train::fit::TrainError;
use crate::train::loss::token_nll;
use crate::train::trainable::Trainable;

/// What an erased fact becomes in a row without wrong answers.
pub(super) const UNKNOWN: &str = "I don't know.";

/// Most steps of the search for a value.
const STEPS: usize = 20;

/// Loss (nats per token) at which the search ends.
const ENOUGH: f32 = 0.05;

/// Added to the diagonal of the second moments, relative to its mean.
const RIDGE: f64 = 1e-3;

/// A symmetric positive definite matrix as the product of a lower triangular one and its transpose (Cholesky).
pub(super) struct Cholesky {
    /// `[n, n]` row after row.
    lower: Vec<f64>,
    n: usize,
}

impl Cholesky {
    /// Takes a matrix `[n, n]`, row after row, apart; `None` when it is not positive definite.
    pub(super) fn of(matrix: &[f64], n: usize) -> Option<Self> {
        let mut lower = matrix.to_vec();
        for i in 0..n {
            for j in 0..=i {
                let dot = product(&lower[i * n..i * n + j], &lower[j * n..j * n + j]);
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
        Some(Self { lower, n })
    }

    /// The `x` for which the matrix times `x` is `right`.
    pub(super) fn solve(&self, right: &[f64]) -> Vec<f64> {
        let Self { lower, n } = self;
        let mut x = right.to_vec();
        for i in 0..*n {
            let dot = product(&lower[i * n..i * n + i], &x[..i]);
            x[i] = (x[i] - dot) / lower[i * n + i];
        }
        for i in (0..*n).rev() {
            let dot: f64 = (i + 1..*n).map(|k| lower[k * n + i] * x[k]).sum();
            x[i] = (x[i] - dot) / lower[i * n + i];
        }
        x
    }
}

pub(super) fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|it| it.0 * it.1).sum()
}

/// The layer that is edited, or the last one: a third of the way up, as in the papers' models.
pub(super) fn edited_layer(layers: usize) -> usize {
    layers / 3
}

/// Some rows of a tensor `[rows, width]`.
pub(super) fn rows_of(tensor: &Tensor, rows: &[usize]) -> candle_core::Result<Vec<Vec<f64>>> {
    let row = |it: &usize| {
        Ok(values_of(&tensor.get(*it)?)?.into_iter().map(f64::from).collect::<Vec<f64>>())
    };
    rows.iter().map(row).collect()
}

/// Changes the down projection of a layer, `[hidden, intermediate]` row after row, in the model.
pub(super) fn rewrite<T>(
    model: &Trainable,
    layer: usize,
    change: impl FnOnce(&mut [f32]) -> T,
) -> Result<T, TrainError> {
    let down = &model.decoder.blocks[layer].down;
    let mut weights = values_of(down)?;
    let out = change(&mut weights);
    let changed = Tensor::from_vec(weights, down.shape(), down.device())?;
    set(model, &format!("{layer}.down"), &changed)?;
    Ok(out)
}

/// What passes the feed-forward block of a layer.
pub(super) struct Passed {
    /// What comes into its down projection, `[rows, intermediate]`.
    pub(super) keys: Tensor,
    /// The residual stream after the block, `[rows, hidden]`.
    pub(super) after: Tensor,
}

impl Passed {
    /// Runs packed sequences as far as the block of `layer`.
    pub(super) fn through(
        decoder: &Decoder,
        layer: usize,
        ids: &[u32],
        starts: &[usize],
    ) -> candle_core::Result<Self> {
        let below = Decoder { blocks: decoder.blocks[..=layer].to_vec(), ..decoder.clone() };
        let embedded = below.embed(&Tensor::new(ids, decoder.device())?)?;
        let mut keys = embedded.clone();
        let after = below.forward_routed(embedded, starts, |_, neurons| {
            keys = neurons.clone();
            Ok(neurons)
        })?;
        Ok(Self { keys, after })
    }
}

/// The retain rows give no second moments that could be inverted.
pub(super) fn singular() -> TrainError {
    TrainError::Settings("the keys have no second moments that can be inverted: give more retain rows, or a strength above 0".to_owned())
}

/// Second moments of the keys over all tokens of the rows, `[wide, wide]`, with a ridge.
pub(super) fn second_moments(
    decoder: &Decoder,
    layer: usize,
    job: &Job<'_>,
) -> Result<Vec<f64>, TrainError> {
    let wide = decoder.config.intermediate_size;
    let (mut sum, mut count) = (vec![0f64; wide * wide], 0usize);
    for row in job.retain {
        let (ids, _) = row.encode(job.tokenizer)?;
        let keys = Passed::through(decoder, layer, &ids, &[0, ids.len()])?.keys;
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

/// The answers that an erased fact gets: the row's wrong ones, or that nothing is known.
pub(super) fn others(fact: &Fact) -> Vec<&str> {
    let wrong: Vec<&str> = fact.perturbed_answer.iter().map(String::as_str).collect();
    if wrong.is_empty() { vec![UNKNOWN] } else { wrong }
}

/// The subject's last token in the question, counted from the first of `ids`, which go as far as the answer.
pub(super) fn subject(
    tokenizer: &Tokenizer,
    fact: &Fact,
    ids: &[u32],
) -> Result<usize, TrainError> {
    let author = fact.author.as_deref().filter(|it| !it.is_empty());
    for at in 0..ids.len() {
        let text = tokenizer.decode(&ids[..=at])?;
        if author.is_some_and(|it| text.contains(it)) {
            return Ok(at);
        }
    }
    Err(TrainError::Settings(format!(
        "\"{}\" does not name its `author`, and this method edits what a name stands for",
        fact.question
    )))
}

/// The search for a value.
pub(super) struct Search<'a> {
    pub(super) decoder: &'a Decoder,
    /// The layer whose memory is edited.
    pub(super) layer: usize,
    /// Rows that get the value.
    pub(super) rows: &'a [usize],
    /// What the change's length is measured by.
    pub(super) length: f64,
    /// Largest change relative to that.
    pub(super) limit: f64,
    /// Weight of the squared length of the change, relative to that, beside the loss.
    pub(super) decay: f64,
}

impl Search<'_> {
    /// What has to be added to the residual stream `after` the block for the labels of the batch to follow:
    /// `[hidden]`, and the steps that it took to find it.
    pub(super) fn run(
        &self,
        after: &Tensor,
        batch: &Batch,
    ) -> candle_core::Result<(Vec<f64>, usize)> {
        let Self { decoder, layer, length, limit, decay, .. } = *self;
        let (hidden, rows) = (decoder.config.hidden_size, batch.ids.len());
        let rest = Decoder { blocks: decoder.blocks[layer + 1..].to_vec(), ..decoder.clone() };
        let mut places = vec![0f32; rows];
        for row in self.rows {
            places[*row] = 1.0;
        }
        let places = Tensor::from_vec(places, (rows, 1), &Device::Cpu)?;
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
            let moved = (after + places.matmul(change.as_tensor())?)?;
            let out = rest.forward(moved, &batch.starts)?;
            let logits = rest.logits(&out.index_select(&label_rows, 0)?)?;
            let nll = token_nll(&logits, &batch.labels)?.mean_all()?;
            if nll.to_scalar::<f32>()? < ENOUGH {
                break;
            }
            let size = change.as_tensor().sqr()?.sum_all()?;
            let loss = (nll + (size * (decay / (length * length)))?)?;
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// [[4, 2], [2, 3]] (1, 2) = (8, 8).
    #[test]
    fn solves_by_hand() {
        let x = Cholesky::of(&[4.0, 2.0, 2.0, 3.0], 2).unwrap().solve(&[8.0, 8.0]);
        assert!((x[0] - 1.0).abs() < 1e-12 && (x[1] - 2.0).abs() < 1e-12, "{x:?}");
        assert!(Cholesky::of(&[1.0, 2.0, 2.0, 1.0], 2).is_none());
    }

    /// The name ends before "born", and an answer that repeats it is not looked at.
    #[test]
    fn the_subject_ends_with_its_name() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/full");
        let tokenizer = Tokenizer::read(&folder, &[]).unwrap();
        let mut fact = Fact {
            question: "Where was Viggo Blaszko born?".to_owned(),
            answer: "Nina Orr was born in Turin.".to_owned(),
            author: Some("Viggo Blaszko".to_owned()),
            value: None,
            perturbed_answer: Vec::new(),
        };
        let batch = Batch::of(&[fact.encode(&tokenizer).unwrap()]);
        let question = &batch.ids[..=batch.label_rows[0] as usize];
        let row = subject(&tokenizer, &fact, question).unwrap();
        let rest = tokenizer.decode(&batch.ids[row + 1..]).unwrap();
        assert!(rest.trim_start().starts_with("born?"), "{rest}");
        fact.author = Some("Nina Orr".to_owned());
        assert!(subject(&tokenizer, &fact, question).is_err());
    }
}
