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
    /// How many times more it does for forget than for retain rows.
    fn contrast(&self) -> f64 {
        self.forget / self.retain.max(f64::MIN_POSITIVE)
    }
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

/// The matrices that do more for forget rows than for retain rows (of which as many are looked at,
/// evenly spread), those with the largest contrast first.
///
/// # Errors
///
/// [`TrainError::Settings`] when there are not so many, and any error of a tensor operation.
pub fn locate(
    decoder: &Decoder,
    settings: Locate,
    material: &Material,
) -> std::result::Result<Vec<Attribution>, TrainError> {
    let model = Trainable::from_decoder(decoder)?;
    let forget: Vec<&Tokens> = material.forget.iter().collect();
    let count = forget.len().min(material.retain.len());
    let every = |it| &material.retain[it * material.retain.len() / count.max(1)];
    let retain: Vec<&Tokens> = (0..count).map(every).collect();
    let (forget, retain) = (attributions(&model, &forget)?, attributions(&model, &retain)?);
    let names = model.vars.iter().map(|it| it.0.clone());
    let all = names.zip(forget.into_iter().zip(retain));
    let mut found: Vec<Attribution> = all
        .filter(|it| settings.part.has(&it.0))
        .map(|(weight, (forget, retain))| Attribution { weight, forget, retain })
        .collect();
    if settings.matrices == 0 || settings.matrices > found.len() {
        return Err(TrainError::Settings(format!(
            "{} matrices are to be located; the model has 1 to {} of that kind",
            settings.matrices,
            found.len()
        )));
    }
    found.sort_by(|a, b| b.contrast().total_cmp(&a.contrast()));
    found.truncate(settings.matrices);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::initial;
    use crate::train::trainable::tests::tiny_config;
    use candle_core::Device;

    fn rows(first: u32) -> Vec<Tokens> {
        vec![(vec![first, 4, 5], vec![false, false, true]), (vec![first, 8], vec![false, true])]
    }

    /// Of a linear model it is exact: logits are linear in the head, and so are log-odds of two tokens.
    #[test]
    fn attribution_of_the_log_odds_of_two_tokens() {
        let logits = Tensor::new(&[[1f32, 3.0], [2.0, 0.5]], &Device::Cpu).unwrap();
        let label = (logits.log_sum_exp(D::Minus1).unwrap() - token_nll(&logits, &[1, 1]).unwrap())
            .unwrap();
        let odds = (label - others(&logits, &[1, 1]).unwrap()).unwrap();
        for (got, want) in values_of(&odds).unwrap().iter().zip([2.0, -1.5]) {
            assert!((got - want).abs() < 1e-6, "{odds}");
        }
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
            assert!(
                (slope.abs() - got[at]).abs() < 1e-3 + 0.02 * got[at],
                "{name}: {slope} {got:?}"
            );
        }
    }

    #[test]
    fn the_largest_contrasts_of_a_part_are_chosen() {
        let decoder = initial::decoder(&tiny_config(), 3).unwrap();
        let material = Material { forget: rows(3), retain: rows(9), ..Material::default() };
        let of = |matrices, part| locate(&decoder, Locate { matrices, part }, &material);
        let all = of(8, Part::All).unwrap();
        assert!(all.windows(2).all(|it| it[0].contrast() >= it[1].contrast()));
        assert!(all.iter().all(|it| it.forget > 0.0 && it.retain > 0.0), "{all:?}");
        assert_eq!(of(3, Part::All).unwrap(), all[..3]);
        let feed: Vec<_> = of(2, Part::FeedForward).unwrap();
        let same = all.iter().filter(|it| Part::FeedForward.has(&it.weight)).take(2);
        assert!(feed.iter().eq(same), "{feed:?}");
        assert!(of(5, Part::Attention).unwrap_err().to_string().contains("1 to 4"));
        assert!("mlp".parse::<Part>().is_err() && "all".parse() == Ok(Part::All));
    }
}
