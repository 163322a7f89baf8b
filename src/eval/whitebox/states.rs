//! Hidden states: the residual stream after every block, at the last token of a sequence.

use candle_core::{Result, Tensor};

use super::corrupted::{Corrupted, states};
use crate::engine::decoder::Decoder;
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::teacher::Teacher;
use crate::eval::suite::Row;
use crate::seed::Stream;

/// Sequences that run together.
const PACK: usize = 16;

/// The residual stream after each block at the last token of each sequence: one `[layers, hidden]`
/// tensor per sequence.
///
/// # Errors
///
/// [`candle_core::Error`] from any operation.
pub fn last_states(decoder: &Decoder, sequences: &[&[u32]]) -> Result<Vec<Tensor>> {
    let embed = |ids: &&[u32]| decoder.embed(&Tensor::new(*ids, decoder.device())?);
    let embedded = sequences.iter().map(embed).collect::<Result<Vec<_>>>()?;
    last_states_of(decoder, &embedded)
}

/// The same of embedded sequences, `[rows, hidden]` each.
///
/// # Errors
///
/// [`candle_core::Error`] from any operation.
pub fn last_states_of(decoder: &Decoder, embedded: &[Tensor]) -> Result<Vec<Tensor>> {
    let mut out = Vec::with_capacity(embedded.len());
    for pack in embedded.chunks(PACK) {
        let (mut end, mut starts, mut last) = (0, vec![0usize], Vec::new());
        for it in pack {
            end += it.dim(0)?;
            starts.push(end);
            last.push(u32::try_from(end - 1).expect("a batch has fewer than 2^32 rows"));
        }
        let last = Tensor::new(last.as_slice(), decoder.device())?;
        let mut rows = Tensor::cat(pack, 0)?;
        let mut layers = Vec::with_capacity(decoder.blocks.len());
        for block in &decoder.blocks {
            let alone = Decoder { blocks: vec![block.clone()], ..decoder.clone() };
            rows = alone.forward(rows, &starts)?;
            layers.push(rows.index_select(&last, 0)?);
        }
        let layers = Tensor::stack(&layers, 1)?;
        for at in 0..pack.len() {
            out.push(layers.get(at)?.contiguous()?);
        }
    }
    Ok(out)
}

/// Hidden states of two answers to one question, one right and one wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Of the first answer, `[hidden]`.
    pub first: Vec<f64>,
    /// Of the second.
    pub second: Vec<f64>,
    /// Whether the first is the right one.
    pub first_is_right: bool,
}

/// Pairs by layer, in the order of the rows: the right answer (paraphrased where the row has it, as the
/// wrong ones are) and a wrong one, in random order, at the last token of the answer. Rows without a
/// wrong answer are left out.
///
/// # Errors
///
/// [`MeasureError`].
pub fn pairs(
    teacher: &Teacher,
    rows: &[Row],
    seed: u64,
) -> std::result::Result<Vec<Vec<Pair>>, MeasureError> {
    pairs_through(teacher, None, rows, seed)
}

/// The same of the corrupted forward pass, where one is given.
///
/// # Errors
///
/// [`MeasureError`].
pub fn pairs_through(
    teacher: &Teacher,
    corrupted: Option<&Corrupted<'_>>,
    rows: &[Row],
    seed: u64,
) -> std::result::Result<Vec<Vec<Pair>>, MeasureError> {
    let mut stream = Stream::named(seed, "whitebox/pairs");
    let (mut sequences, mut order) = (Vec::new(), Vec::new());
    for row in rows.iter().filter(|it| !it.perturbed_answer.is_empty()) {
        let right = row.paraphrased_answer.as_ref().unwrap_or(&row.answer);
        let wrong = stream.pick(&row.perturbed_answer);
        let first_is_right = stream.chance(0.5);
        let (first, second) = if first_is_right { (right, wrong) } else { (wrong, right) };
        for answer in [first, second] {
            sequences.push(teacher.sequence(&row.question, answer)?.statement().to_vec());
        }
        order.push(first_is_right);
    }
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    let states = states(teacher, corrupted, &sequences)?;
    let mut layers: Vec<Vec<Pair>> = vec![Vec::new(); teacher.decoder.blocks.len()];
    for (states, first_is_right) in states.chunks(2).zip(order) {
        let (first, second) = (states[0].to_vec2::<f32>()?, states[1].to_vec2::<f32>()?);
        for ((layer, first), second) in layers.iter_mut().zip(&first).zip(&second) {
            let wide = |it: &[f32]| it.iter().copied().map(f64::from).collect();
            layer.push(Pair { first: wide(first), second: wide(second), first_is_right });
        }
    }
    Ok(layers)
}

/// Two halves of the pairs, the same whatever the model: (to learn from, to test on).
#[must_use]
pub fn split(pairs: &[Pair], seed: u64) -> (Vec<Pair>, Vec<Pair>) {
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    Stream::named(seed, "whitebox/split").shuffle(&mut order);
    let (learnt, tested) = order.split_at(pairs.len() / 2);
    let of = |it: &[usize]| it.iter().map(|at| pairs[*at].clone()).collect();
    (of(learnt), of(tested))
}

/// Mean and standard deviation of every element; a deviation of 0 is taken for 1.
#[must_use]
pub fn moments<'a>(states: impl Iterator<Item = &'a Vec<f64>> + Clone) -> (Vec<f64>, Vec<f64>) {
    let width = states.clone().next().map_or(0, Vec::len);
    let (mut mean, mut deviation) = (vec![0.0; width], vec![0.0; width]);
    let count = states.clone().count() as f64;
    for state in states.clone() {
        mean.iter_mut().zip(state).for_each(|(mean, it)| *mean += it / count);
    }
    for state in states {
        let parts = deviation.iter_mut().zip(state.iter().zip(&mean));
        parts.for_each(|(sum, (it, mean))| *sum += (it - mean).powi(2) / count);
    }
    for it in &mut deviation {
        *it = if *it > 0.0 { it.sqrt() } else { 1.0 };
    }
    (mean, deviation)
}

/// `(state - mean) / deviation`, element by element.
#[must_use]
pub fn standardised(state: &[f64], (mean, deviation): &(Vec<f64>, Vec<f64>)) -> Vec<f64> {
    let parts = state.iter().zip(mean.iter().zip(deviation));
    parts.map(|(it, (mean, deviation))| (it - mean) / deviation).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::values_of;
    use crate::eval::metrics::observed::tests::row;
    use crate::eval::metrics::teacher::tests::untrained;

    /// Block after block gives what all blocks give together.
    #[test]
    fn the_last_layer_is_the_decoders() {
        let decoder = untrained(2).decoder;
        let sequences: [&[u32]; 2] = [&[5, 9, 300], &[7, 8]];
        let states = last_states(&decoder, &sequences).unwrap();
        for (sequence, states) in sequences.iter().zip(&states) {
            assert_eq!(states.dims(), [2, 16]);
            let ids = Tensor::new(*sequence, decoder.device()).unwrap();
            let all = decoder.forward(decoder.embed(&ids).unwrap(), &[0, sequence.len()]).unwrap();
            let want = values_of(&all.get(sequence.len() - 1).unwrap()).unwrap();
            let got = values_of(&states.get(1).unwrap()).unwrap();
            assert!(got.iter().zip(&want).all(|it| (it.0 - it.1).abs() < 1e-5));
        }
    }

    #[test]
    fn pairs_are_the_same_for_every_model() {
        let rows = [
            row("Where?", "In Turin.", "Turin", &["In Porto."]),
            row("Who?", "A baker.", "baker", &[]),
            row("When?", "In May.", "May", &["In June."]),
        ];
        let (one, other) = (pairs(&untrained(1), &rows, 9), pairs(&untrained(2), &rows, 9));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!((one.len(), one[0].len()), (2, 2));
        let order = |it: &[Pair]| it.iter().map(|it| it.first_is_right).collect::<Vec<_>>();
        assert_eq!(order(&one[0]), order(&other[1]));
        assert_ne!(one[0][0].first, one[0][0].second);
        let (learnt, tested) = split(&one[0], 9);
        assert_eq!((learnt.len(), tested.len()), (1, 1));
        assert_ne!(learnt, tested);
    }

    #[test]
    fn moments_by_hand() {
        let states = [vec![1.0, 5.0], vec![3.0, 5.0]];
        let found = moments(states.iter());
        assert_eq!(found, (vec![2.0, 5.0], vec![1.0, 1.0]));
        assert_eq!(standardised(&[4.0, 6.0], &found), [2.0, 1.0]);
    }
}
