//! What losses are made of, over packed rows. All of it is differentiable and numerically stable.

use candle_core::{D, Result, Tensor};

/// Sums over each sequence: `values` is `[labels]` in the batch's order, `counts` are the labels of
/// each sequence ([`Batch::label_counts`](crate::data::Batch)); the result is `[sequences]`.
///
/// # Errors
///
/// [`candle_core::Error`] when the counts do not add up to the values.
pub fn sequence_sums(values: &Tensor, counts: &[usize]) -> Result<Tensor> {
    if counts.iter().sum::<usize>() != values.dims1()? {
        candle_core::bail!("{} values for sequences of {counts:?}", values.dims1()?);
    }
    let sequences: Vec<u32> =
        (0u32..).zip(counts).flat_map(|(at, count)| std::iter::repeat_n(at, *count)).collect();
    let sequences = Tensor::new(sequences, values.device())?;
    Tensor::zeros(counts.len(), values.dtype(), values.device())?.index_add(&sequences, values, 0)
}

/// Means over each sequence, as [`sequence_sums`].
///
/// # Errors
///
/// [`candle_core::Error`] when the counts do not add up to the values.
pub fn sequence_means(values: &Tensor, counts: &[usize]) -> Result<Tensor> {
    let counted: Vec<f32> = counts.iter().map(|it| *it as f32).collect();
    sequence_sums(values, counts)? / Tensor::new(counted, values.device())?
}

/// `ln(1 / (1 + exp(-x)))`, element by element. The two kinks that it is put together from cancel
/// at 0, where losses against a reference start, so that the gradient is right there too.
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub fn log_sigmoid(x: &Tensor) -> Result<Tensor> {
    let minus = x.neg()?;
    let tail = (minus.abs()?.neg()?.exp()? + 1.0)?.log()?;
    (minus.relu()? + tail)?.neg()
}

/// Log-probabilities of rows of logits, `[rows, vocab]` in and out.
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    candle_nn::ops::log_softmax(logits, D::Minus1)
}

/// The divergence `KL(reference || model)` of rows of logits, in nats: summed over the vocabulary,
/// averaged over the rows. Both are divided by `temperature`, and the result multiplied by its
/// square (Hinton et al., arXiv:1503.02531). The gradient goes to `logits`.
///
/// # Errors
///
/// [`candle_core::Error`] when the shapes differ.
pub fn divergence(logits: &Tensor, reference: &Tensor, temperature: f64) -> Result<Tensor> {
    let model = log_softmax(&(logits / temperature)?)?;
    let reference = log_softmax(&(reference.detach() / temperature)?)?;
    let rows = (reference.exp()? * (reference - model)?)?.sum(D::Minus1)?;
    rows.mean_all()? * temperature.powi(2)
}

/// Cross-entropy of rows of logits against the distributions of `targets`, which are logits too and
/// get no gradient: a scalar, averaged over the rows.
///
/// # Errors
///
/// [`candle_core::Error`] when the shapes differ.
pub fn soft_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    let targets = candle_nn::ops::softmax(&targets.detach(), D::Minus1)?;
    (targets * log_softmax(logits)?)?.sum(D::Minus1)?.mean_all()?.neg()
}

/// The logarithm of what all but the label of each row add up to, `log sum exp`: `logits` is `[labels,
/// vocab]`, the result `[labels]`. Less than all logits' it is `log(1 - p)` of the label.
///
/// # Errors
///
/// [`candle_core::Error`] when `labels` is not one id per row.
pub fn others(logits: &Tensor, labels: &[u32]) -> Result<Tensor> {
    let (rows, vocab) = logits.dims2()?;
    let mut label = vec![0f32; rows * vocab];
    for (row, id) in label.chunks_mut(vocab).zip(labels) {
        row[*id as usize] = -1e9;
    }
    let label = Tensor::from_vec(label, (rows, vocab), logits.device())?;
    (logits + label)?.log_sum_exp(D::Minus1)
}

/// Logits with `by` added to that of each row's label. No gradient passes.
///
/// # Errors
///
/// [`candle_core::Error`] when `labels` is not one id per row.
pub fn shift_labels(logits: &Tensor, labels: &[u32], by: f32) -> Result<Tensor> {
    let ids = Tensor::new(labels, logits.device())?.unsqueeze(1)?;
    let by = Tensor::full(by, ids.dims(), logits.device())?;
    logits.detach().contiguous()?.scatter_add(&ids, &by, 1)
}

/// The mean of `weight * -nll` over the labels, where the weight is a function of the label's
/// probability and gets no gradient: gradient ascent that looks at some tokens more than at others.
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub fn weighted_ascent(nll: &Tensor, weight: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let probability = nll.detach().neg()?.exp()?;
    (weight(&probability)? * nll)?.mean_all()?.neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::{finite, values_of};
    use crate::seed::Stream;
    use candle_core::{DType, Device, Var};

    #[test]
    fn sums_and_means_are_those_of_each_sequence() {
        let values = Tensor::new(&[1f32, 2.0, 4.0, 8.0, 16.0], &Device::Cpu).unwrap();
        let sums = sequence_sums(&values, &[2, 0, 3]).unwrap();
        assert_eq!(values_of(&sums).unwrap(), [3.0, 0.0, 28.0]);
        let means = sequence_means(&values, &[1, 4]).unwrap();
        assert_eq!(values_of(&means).unwrap(), [1.0, 7.5]);
        assert!(sequence_sums(&values, &[2, 2]).is_err());
        finite::check(&[values], |it| sequence_means(&it[0], &[2, 3]));
    }

    /// ln(1/2) with slope 1/2 at 0, `x` far below it, 0 far above.
    #[test]
    fn log_sigmoid_is_right_at_its_kinks_and_in_its_tails() {
        let x = Var::new(&[0f32, -100.0, 100.0, 1.0], &Device::Cpu).unwrap();
        let y = log_sigmoid(&x).unwrap();
        let grads = y.sum_all().unwrap().backward().unwrap();
        let near = |got: &Tensor, want: [f64; 4]| {
            for (got, want) in values_of(got).unwrap().into_iter().zip(want) {
                assert!((f64::from(got) - want).abs() < 1e-5, "{got} {want}");
            }
        };
        let sigmoid = 1.0 / (1.0 + (-1f64).exp());
        near(&y, [0.5f64.ln(), -100.0, 0.0, sigmoid.ln()]);
        near(grads.get(&x).unwrap(), [0.5, 1.0, 0.0, 1.0 - sigmoid]);
    }

    #[test]
    fn a_model_does_not_diverge_from_itself() {
        let mut stream = Stream::new(3);
        let logits = finite::random(&mut stream, &[3, 7]);
        let zero = divergence(&logits, &logits, 2.0).unwrap().to_scalar::<f32>().unwrap();
        assert!(zero.abs() < 1e-6, "{zero}");
        let reference = finite::random(&mut stream, &[3, 7]);
        finite::check(&[logits], |it| divergence(&it[0], &reference, 2.0));
    }

    #[test]
    fn only_the_label_is_shifted() {
        let logits = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let shifted = shift_labels(&logits, &[2, 0], -5.0).unwrap();
        assert_eq!(values_of(&shifted).unwrap(), [0.0, 0.0, -5.0, -5.0, 0.0, 0.0]);
    }
}
