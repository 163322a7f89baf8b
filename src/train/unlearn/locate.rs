//! Where a model keeps what it is to forget: the weight matrices that a run trains, chosen by attribution
//! before it.
//!
//! Localisation-informed unlearning (Guo et al., arXiv:2410.12949) finetunes only the components that were
//! found to hold the facts. A component here is a weight matrix of a block. Its attribution is what
//! removing it would take from the log-odds of a row's answer, to first order: the sum of weight times
//! gradient (Molchanov et al., arXiv:1906.10771). Of a matrix that writes into the residual stream that is
//! attribution patching with nothing in its output's place. Log-odds do not saturate as the loss does,
//! whose gradient vanishes where a model is sure.

use std::str::FromStr;

use candle_core::{D, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::rows::{Material, Tokens};
use super::step::Pass;
use super::terms::others;
use crate::data::Batch;
use crate::engine::decoder::Decoder;
use crate::engine::ops::values_of;
use crate::train::fit::TrainError;
use crate::train::loss::token_nll;
use crate::train::trainable::Trainable;

/// Which matrices are looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// All matrices of all blocks.
    #[default]
    All,
    /// Queries, keys and values, and attention output.
    Attention,
    /// Both matrices of the feed-forward blocks, where facts are looked up (Meng et al., arXiv:2202.05262).
    FeedForward,
}

/// The matrices of a block, as [`named`](crate::train::named) calls them.
const MATRICES: [&str; 4] = ["qkv", "output", "gate_up", "down"];

impl Part {
    fn has(self, weight: &str) -> bool {
        let Some((_, matrix)) = weight.split_once('.') else { return false };
        match matrix {
            "qkv" | "output" => self != Self::FeedForward,
            "gate_up" | "down" => self != Self::Attention,
            _ => false,
        }
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "attention" => Ok(Self::Attention),
            "feed_forward" => Ok(Self::FeedForward),
            other => Err(format!("`{other}` is not all, attention or feed_forward")),
        }
    }
}

/// How many matrices to train, out of which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locate {
    /// The number of matrices, at least 1.
    pub matrices: usize,
    /// What they are chosen out of; everything unless it is named.
    #[serde(default)]
    pub part: Part,
}

/// What a matrix does for the answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attribution {
    /// Its name, as in [`named`](crate::train::named).
    pub weight: String,
    /// Mean size over forget rows, in nats.
    pub forget: f64,
    /// The same over retain rows.
    pub retain: f64,
}

impl Attribution {
    /// What it does for forget rows, beside what it does for retain rows.
    fn contrast(&self) -> f64 {
        self.forget / self.retain.max(f64::MIN_POSITIVE)
    }
}

impl Locate {
    /// Fails when a model of so many blocks has not so many matrices of which `trains` is true.
    ///
    /// # Errors
    ///
    /// A sentence with the numbers.
    pub fn check(
        self,
        layers: usize,
        trains: impl Fn(&str) -> bool,
    ) -> std::result::Result<(), String> {
        let of = |layer: usize| MATRICES.map(|it| format!("{layer}.{it}"));
        let all = (0..layers).flat_map(of).filter(|it| self.part.has(it) && trains(it)).count();
        if (1..=all).contains(&self.matrices) {
            return Ok(());
        }
        Err(format!(
            "{} matrices are to be located; the method trains {all} of that part of the model",
            self.matrices
        ))
    }
}

/// The largest contrasts, at most `count`, the largest first.
fn ranked(mut all: Vec<Attribution>, count: usize) -> Vec<Attribution> {
    all.sort_by(|a, b| b.contrast().total_cmp(&a.contrast()));
    all.truncate(count);
    all
}

/// The sum over the batch's labels of the log-odds of being said: `log(p / (1 - p))`, a scalar.
fn log_odds(model: &Decoder, batch: &Batch) -> Result<Tensor> {
    let logits = Pass::new(model).logits(batch)?;
    let label = (logits.log_sum_exp(D::Minus1)? - token_nll(&logits, &batch.labels)?)?;
    (label - others(&logits, &batch.labels)?)?.sum_all()
}

/// The mean size of the sum of weight times gradient of every variable, over rows.
fn attributions(model: &Trainable, rows: &[&Tokens]) -> Result<Vec<f64>> {
    let mut sums = vec![0f64; model.vars.len()];
    for row in rows {
        let batch = Batch::of(std::slice::from_ref(*row));
        let grads = log_odds(&model.decoder, &batch)?.backward()?;
        for (sum, (_, var)) in sums.iter_mut().zip(&model.vars) {
            let Some(grad) = grads.get(var) else { continue };
            let products = values_of(&(var.as_tensor() * grad)?)?;
            *sum += products.iter().map(|it| f64::from(*it)).sum::<f64>().abs();
        }
    }
    Ok(sums.iter().map(|it| it / rows.len().max(1) as f64).collect())
}

/// The matrices that do most for forget rows beside what they do for retain rows (of which as many are
/// looked at, evenly spread), the largest contrast first, out of those of which `trains` is true; and the
/// input tokens that it took, forward and backward. The contrast may be below 1.
///
/// # Errors
///
/// [`TrainError::Settings`] when there are not so many, and any error of a tensor operation.
pub fn locate(
    decoder: &Decoder,
    settings: Locate,
    material: &Material,
    trains: impl Fn(&str) -> bool,
) -> std::result::Result<(Vec<Attribution>, u64), TrainError> {
    settings.check(decoder.blocks.len(), &trains).map_err(TrainError::Settings)?;
    let model = Trainable::from_decoder(decoder)?;
    let forget: Vec<&Tokens> = material.forget.iter().collect();
    let count = forget.len().min(material.retain.len());
    let every = |it| &material.retain[it * material.retain.len() / count.max(1)];
    let retain: Vec<&Tokens> = (0..count).map(every).collect();
    let tokens = forget.iter().chain(&retain).map(|it| it.0.len() as u64 - 1).sum();
    let (forget, retain) = (attributions(&model, &forget)?, attributions(&model, &retain)?);
    let names = model.vars.iter().map(|it| it.0.clone());
    let all = names.zip(forget.into_iter().zip(retain));
    let all = all
        .filter(|it| settings.part.has(&it.0) && trains(&it.0))
        .map(|(weight, (forget, retain))| Attribution { weight, forget, retain });
    Ok((ranked(all.collect(), settings.matrices), tokens))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::initial;
    use crate::train::trainable::tests::tiny_config;

    fn rows(first: u32) -> Vec<Tokens> {
        vec![(vec![first, 4, 5], vec![false, false, true]), (vec![first, 8], vec![false, true])]
    }

    /// Against probabilities: `log(p / (1 - p))` of both labels.
    #[test]
    fn log_odds_are_those_of_the_probabilities() {
        let decoder = initial::decoder(&tiny_config(), 3).unwrap();
        let batch = Batch::of(&[(vec![3, 4, 5, 6], vec![false, false, true, true])]);
        let logits = Pass::new(&decoder).logits(&batch).unwrap();
        let rows = logits.to_vec2::<f32>().unwrap();
        let odds = |(row, label): (&Vec<f32>, &u32)| {
            let all: f64 = row.iter().map(|it| f64::from(*it).exp()).sum();
            let p = f64::from(row[*label as usize]).exp() / all;
            (p / (1.0 - p)).ln()
        };
        let want: f64 = rows.iter().zip(&batch.labels).map(odds).sum();
        let got = f64::from(log_odds(&decoder, &batch).unwrap().to_scalar::<f32>().unwrap());
        assert!((got - want).abs() < 1e-5, "{got} {want}");
    }

    /// The sum of weight times gradient is the derivative by a factor in front of the matrix.
    #[test]
    fn attribution_is_the_change_when_a_matrix_fades() {
        let decoder = initial::decoder(&tiny_config(), 3).unwrap();
        let model = Trainable::from_decoder(&decoder).unwrap();
        let row = &rows(3)[..1];
        let got = attributions(&model, &row.iter().collect::<Vec<_>>()).unwrap();
        let batch = Batch::of(row);
        for (at, (name, var)) in model.vars.iter().enumerate() {
            if !Part::All.has(name) {
                continue;
            }
            let weight = var.as_tensor().copy().unwrap();
            let odds = |factor: f64| {
                var.set(&(&weight * factor).unwrap()).unwrap();
                let odds = log_odds(&model.decoder, &batch).unwrap();
                f64::from(odds.to_scalar::<f32>().unwrap())
            };
            let slope = (odds(1.05) - odds(0.95)) / 0.1;
            var.set(&weight).unwrap();
            let near = 2e-5 + 0.02 * got[at];
            assert!((slope.abs() - got[at]).abs() < near, "{name}: {slope} {got:?}");
        }
    }

    /// 3 / 1, 1 / 0.5, 4 / 4.
    #[test]
    fn contrast_counts_and_not_size() {
        let of = |weight: &str, forget, retain| Attribution {
            weight: weight.to_owned(),
            forget,
            retain,
        };
        let all = vec![of("0.qkv", 4.0, 4.0), of("0.down", 1.0, 0.5), of("1.down", 3.0, 1.0)];
        let names: Vec<String> = ranked(all, 2).into_iter().map(|it| it.weight).collect();
        assert_eq!(names, ["1.down", "0.down"]);
    }

    #[test]
    fn matrices_are_chosen_out_of_a_part_that_the_method_trains() {
        let decoder = initial::decoder(&tiny_config(), 3).unwrap();
        let material = Material { forget: rows(3), retain: rows(9), ..Material::default() };
        let of = |matrices, part, trains: fn(&str) -> bool| {
            locate(&decoder, Locate { matrices, part }, &material, trains)
        };
        let (all, tokens) = of(8, Part::All, |_| true).unwrap();
        assert!(all.iter().all(|it| it.forget > 0.0 && it.retain > 0.0), "{all:?}");
        assert_eq!(tokens, 2 * (2 + 1), "two sequences of each, without their last tokens");
        assert_eq!(of(3, Part::All, |_| true).unwrap().0, all[..3]);
        let (feed, _) = of(2, Part::FeedForward, |_| true).unwrap();
        let same = all.iter().filter(|it| Part::FeedForward.has(&it.weight)).take(2);
        assert!(feed.iter().eq(same), "{feed:?}");
        let (one, _) = of(1, Part::All, |it| it == "1.down").unwrap();
        assert_eq!(one[0].weight, "1.down");
        let error = of(1, Part::Attention, |it| it == "1.down").unwrap_err().to_string();
        assert!(error.contains("trains 0 of that part"), "{error}");
        assert!("mlp".parse::<Part>().is_err() && "all".parse() == Ok(Part::All));
    }
}
