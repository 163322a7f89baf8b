//! First and second moments of the gradients of single sequences. The second is the diagonal of the
//! empirical Fisher matrix.

use candle_core::{Result, Tensor};

use super::facts::Fact;
use crate::data::Batch;
use crate::engine::ops::values_of;
use crate::engine::tokenizer::Tokenizer;
use crate::train::fit::TrainError;
use crate::train::trainable::Trainable;

/// Moments over sequences, one tensor per variable of the model and of its shape.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Mean gradient.
    pub mean: Vec<Tensor>,
    /// Mean of the squared gradients.
    pub square: Vec<Tensor>,
    /// Input tokens that it took, forward and backward.
    pub tokens: usize,
}

/// Moments of the gradients of each row's negative log-likelihood, summed over its labels, in nats.
///
/// # Errors
///
/// [`TrainError::Settings`] without rows, and any error of encoding or of a tensor operation.
pub fn moments(
    model: &Trainable,
    tokenizer: &Tokenizer,
    rows: &[Fact],
) -> std::result::Result<Moments, TrainError> {
    if rows.is_empty() {
        return Err(TrainError::Settings("there are no rows to take gradients of".to_owned()));
    }
    let zeros = || model.vars.iter().map(|it| it.1.zeros_like()).collect::<Result<Vec<_>>>();
    let (mut mean, mut square) = (zeros()?, zeros()?);
    let share = 1.0 / rows.len() as f64;
    let mut tokens = 0;
    for row in rows {
        let batch = Batch::of(&[row.encode(tokenizer)?]);
        tokens += batch.ids.len();
        let grads = model.label_nll(&batch)?.sum_all()?.backward()?;
        for (at, (name, var)) in model.vars.iter().enumerate() {
            let grad = grads.get(var).ok_or_else(|| {
                TrainError::Settings(format!("the weights `{name}` have no gradient"))
            })?;
            mean[at] = (&mean[at] + (grad * share)?)?;
            square[at] = (&square[at] + (grad.sqr()? * share)?)?;
        }
    }
    Ok(Moments { mean, square, tokens })
}

/// A tensor of the same shape as three others, made element by element.
pub(super) fn combined(tensors: [&Tensor; 3], f: impl Fn(f32, f32, f32) -> f32) -> Result<Tensor> {
    let [a, b, c] = tensors;
    let (left, middle, right) = (values_of(a)?, values_of(b)?, values_of(c)?);
    let out: Vec<f32> = left.iter().zip(middle).zip(right).map(|((a, b), c)| f(*a, b, c)).collect();
    Tensor::from_vec(out, a.shape(), a.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model_config::ModelConfig;
    use crate::train::initial;
    use crate::train::trainable::tests::tiny_config;
    use std::path::Path;

    /// Of one row, the second moment is the square of the first; of a row twice, both stay.
    #[test]
    fn moments_of_one_row() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/full");
        let tokenizer = Tokenizer::read(&folder, &[]).unwrap();
        let config = ModelConfig { vocab_size: tokenizer.vocab_size(), ..tiny_config() };
        let model = Trainable::from_decoder(&initial::decoder(&config, 3).unwrap()).unwrap();
        let row = Fact {
            question: "Where was she born?".to_owned(),
            answer: "In Turin.".to_owned(),
            author: None,
            value: None,
            perturbed_answer: Vec::new(),
        };
        let once = moments(&model, &tokenizer, std::slice::from_ref(&row)).unwrap();
        let twice = moments(&model, &tokenizer, &[row.clone(), row]).unwrap();
        for at in 0..model.vars.len() {
            let first = values_of(&once.mean[at]).unwrap();
            let second = values_of(&once.square[at]).unwrap();
            let again = values_of(&twice.square[at]).unwrap();
            for ((first, second), again) in first.iter().zip(&second).zip(again) {
                assert!((first * first - second).abs() <= 1e-5 * second.abs());
                assert!((second - again).abs() <= 1e-5 * second.abs());
            }
        }
        assert!(moments(&model, &tokenizer, &[]).is_err());
    }
}
