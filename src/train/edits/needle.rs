//! Noise on one concept vector (Hong et al., arXiv:2406.11614): the baseline that shows how little a
//! change of one column does.

use candle_core::Tensor;

use super::Job;
use super::columns::{columns, first_tokens, top_k};
use super::set;
use crate::engine::ops::values_of;
use crate::seed::Stream;
use crate::train::fit::TrainError;
use crate::train::trainable::Trainable;

/// Adds N(0, (relative * r)^2) to the values of one column of a row-major `[rows, columns]` matrix,
/// where r is the root mean square of that column.
pub fn add_noise(
    matrix: &mut [f32],
    columns: usize,
    column: usize,
    relative: f64,
    stream: &mut Stream,
) {
    let own = || matrix.iter().skip(column).step_by(columns).map(|it| f64::from(*it));
    let size = (own().map(|it| it * it).sum::<f64>() / own().count().max(1) as f64).sqrt();
    for value in matrix.iter_mut().skip(column).step_by(columns) {
        *value += (relative * size * stream.normal()) as f32;
    }
}

pub(super) fn apply(model: &Trainable, job: &Job<'_>) -> Result<(), TrainError> {
    let values = job.forget.iter().filter_map(|it| it.value.as_deref());
    let topic = first_tokens(job.tokenizer, values)?;
    if topic.is_empty() {
        let message = "no forget row marks its `value`, so that no column can be found";
        return Err(TrainError::Settings(message.to_owned()));
    }
    let decoder = &model.decoder;
    let found = columns(decoder, &topic, top_k(decoder.config.vocab_size))?;
    let sizes = &decoder.config;
    // Every column is read through the head.
    let columns = (sizes.layers * sizes.intermediate_size) as f64;
    job.computed(2.0 * columns * (sizes.hidden_size * sizes.vocab_size) as f64);
    job.saw(job.forget.len());
    let Some(best) = found.first() else {
        return Err(TrainError::Settings("the model has no blocks".to_owned()));
    };
    let down = &decoder.blocks[best.layer].down;
    let mut matrix = values_of(down)?;
    let mut stream = Stream::named(job.seed, "edits/needle");
    let width = decoder.config.intermediate_size;
    add_noise(&mut matrix, width, best.number, job.strength, &mut stream);
    let noisy = Tensor::from_vec(matrix, down.shape(), down.device())?;
    set(model, &format!("{}.down", best.layer), &noisy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 4,000 rows of columns 1, 2 and 3: only the second moves, by a deviation of 0.5 * 2.
    #[test]
    fn one_column_moves_by_its_own_size() {
        let mut matrix: Vec<f32> = (0..4000).flat_map(|_| [1.0, 2.0, 3.0]).collect();
        add_noise(&mut matrix, 3, 1, 0.5, &mut Stream::new(3));
        assert!(matrix.iter().step_by(3).all(|it| *it == 1.0));
        assert!(matrix.iter().skip(2).step_by(3).all(|it| *it == 3.0));
        let moved = matrix.iter().skip(1).step_by(3).map(|it| f64::from(it - 2.0).powi(2));
        let deviation = (moved.sum::<f64>() / 4000.0).sqrt();
        // Four standard errors of a deviation of 1: 4 / sqrt(8000).
        assert!((deviation - 1.0).abs() < 0.045, "{deviation}");
    }
}
