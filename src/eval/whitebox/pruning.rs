//! Set-difference pruning (Wei et al., arXiv:2402.05162; of models that were made to forget Łucki et al.,
//! arXiv:2409.18025): the weights that matter most for what a model says to forget questions now, and not
//! for what it says to others, are set to zero. Where forgetting sits in a few weights, the facts are back.

use candle_core::Tensor;
use serde_json::json;

use super::{Finding, Inspection, REPLY_TOKENS, Rate, accuracy};
use crate::data::{Batch, Dialogue};
use crate::engine::decoder::Decoder;
use crate::engine::ops::values_of;
use crate::eval::jobs::material::spread;
use crate::eval::metrics::MeasureError;
use crate::eval::metrics::teacher::Teacher;
use crate::eval::suite::Row;
use crate::train::lora::MATRICES;
use crate::train::named::tensors_mut;
use crate::train::unlearn::step::Pass;
use crate::train::unlearn::student::Student;

/// Shares of each matrix that count as important, to either set.
const SHARES: [f64; 3] = [0.005, 0.02, 0.05];

/// Most questions of either set.
const QUESTIONS: usize = 40;

fn is_pruned(name: &str) -> bool {
    name.split_once('.').is_some_and(|it| MATRICES.contains(&it.1))
}

/// The mean negative log-likelihood of a reply. One that was cut has no end of its own.
fn own_nll(decoder: &Decoder, tokens: (Vec<u32>, Vec<bool>)) -> candle_core::Result<Tensor> {
    let batch = Batch::of(&[tokens]);
    let said = batch.labels.len().min(REPLY_TOKENS);
    Pass::new(decoder).nll(&batch)?.narrow(0, 0, said)?.mean_all()
}

/// How much each weight of the blocks' matrices matters for what the model says to questions: the sum of
/// `|w dL/dw|` over questions (SNIP, Lee et al., arXiv:1810.02340), `L` the mean negative log-likelihood of
/// its own greedy reply. One list per matrix, in the order of `tensors_mut`.
fn importance(teacher: &Teacher, rows: &[Row]) -> Result<Vec<Vec<f32>>, MeasureError> {
    // Rows are in the order of people: the first would be of few of them.
    let rows = spread(rows, QUESTIONS);
    let questions: Vec<&str> = rows.iter().map(|it| it.question.as_str()).collect();
    let replies = teacher.replies(&questions, REPLY_TOKENS)?;
    let student = Student::new(&teacher.decoder, None, 0, is_pruned)?;
    let decoder = student.decoder()?;
    let mut scores: Vec<Vec<f32>> =
        student.vars().iter().map(|it| vec![0f32; it.1.elem_count()]).collect();
    for (question, reply) in questions.iter().zip(&replies) {
        let turns = vec![((*question).to_owned(), reply.clone())];
        let dialogue = Dialogue::Chat { system: None, turns, given: 0 };
        let tokens = dialogue.encode(&teacher.tokenizer)?;
        let grads = own_nll(&decoder, tokens)?.backward()?;
        for (scores, (_, var)) in scores.iter_mut().zip(student.vars()) {
            let Some(grad) = grads.get(var) else { continue };
            let products = values_of(&(var.as_tensor() * grad)?)?;
            scores.iter_mut().zip(products).for_each(|(sum, it)| *sum += it.abs());
        }
    }
    Ok(scores)
}

/// Which of the values are among the largest `share` of them, rounded down.
fn largest(values: &[f32], share: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|a, b| values[*b].total_cmp(&values[*a]));
    let mut out = vec![false; values.len()];
    for at in order.into_iter().take((share * values.len() as f64) as usize) {
        out[at] = true;
    }
    out
}

/// The decoder without the weights that are among the most important ones of the first set alone, and how
/// many these are.
fn pruned(
    decoder: &Decoder,
    (forget, kept): (&[Vec<f32>], &[Vec<f32>]),
    share: f64,
) -> Result<(Decoder, usize), MeasureError> {
    let mut decoder = decoder.clone();
    let mut count = 0;
    let matrices = tensors_mut(&mut decoder).into_iter().filter(|it| is_pruned(&it.0));
    for ((_, tensor), (forget, kept)) in matrices.zip(forget.iter().zip(kept)) {
        let mut values = values_of(tensor)?;
        let sets = largest(forget, share).into_iter().zip(largest(kept, share));
        for (value, (forget, kept)) in values.iter_mut().zip(sets) {
            if forget && !kept {
                *value = 0.0;
                count += 1;
            }
        }
        *tensor = Tensor::from_vec(values, tensor.shape(), tensor.device())?;
    }
    Ok((decoder, count))
}

/// What is left of a model at one share.
#[derive(Debug, Clone, Copy)]
struct Pruned {
    share: f64,
    /// Right answers to forget rows.
    forget: Rate,
    /// Right answers to kept rows.
    kept: Rate,
    /// Weights that are gone.
    weights: usize,
}

fn attacked(teacher: &Teacher, it: &Inspection<'_>) -> Result<Vec<Pruned>, MeasureError> {
    let (of_forget, of_kept) = (importance(teacher, it.forget)?, importance(teacher, it.retain)?);
    let at = |share| {
        let (decoder, weights) = pruned(&teacher.decoder, (&of_forget, &of_kept), share)?;
        let model = teacher.with(decoder);
        let (forget, kept) = (accuracy(&model, it.forget)?, accuracy(&model, it.retain)?);
        Ok(Pruned { share, forget, kept, weights })
    };
    SHARES.into_iter().map(at).collect()
}

/// One finding per share. The attack reads no answer, so all forget rows are asked about.
///
/// # Errors
///
/// [`MeasureError::Rows`] without retain rows.
pub fn run(it: &Inspection<'_>) -> Result<Vec<Finding>, MeasureError> {
    if it.retain.is_empty() {
        return Err(MeasureError::Rows("pruning needs retain rows to spare".to_owned()));
    }
    let gold = it.once(it.gold, "pruning", || attacked(it.gold, it))?;
    let finding = |(model, gold): (Pruned, Pruned)| Finding {
        setting: format!("{:.1} % of each matrix", 100.0 * model.share),
        budget: format!("{} questions", it.forget.len().min(QUESTIONS)),
        of_guard: false,
        model: model.forget,
        gold: gold.forget,
        detail: json!({ "weights": model.weights, "retain": model.kept }),
    };
    Ok(attacked(it.model, it)?.into_iter().zip(gold).map(finding).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::observed::tests::row;
    use crate::eval::metrics::teacher::tests::untrained;

    #[test]
    fn the_largest_by_hand() {
        assert_eq!(largest(&[3.0, 1.0, 4.0, 2.0], 0.5), [true, false, true, false]);
        assert_eq!(largest(&[3.0, 1.0, 4.0], 0.5), [false, false, true]);
        assert_eq!(largest(&[], 0.5), Vec::<bool>::new());
    }

    /// Of four weights the first matters to both sets, the second to the first alone.
    #[test]
    fn only_the_difference_of_the_sets_goes() {
        let decoder = untrained(2).decoder;
        let size = |name: &str| {
            let mut decoder = decoder.clone();
            tensors_mut(&mut decoder).iter().find(|it| it.0 == name).unwrap().1.elem_count()
        };
        let names: Vec<String> = {
            let mut decoder = decoder.clone();
            let names = tensors_mut(&mut decoder).into_iter().map(|it| it.0);
            names.filter(|it| is_pruned(it)).collect()
        };
        assert_eq!(names.len(), MATRICES.len() * decoder.blocks.len());
        let score = |first: &[usize]| -> Vec<Vec<f32>> {
            let of = |name: &String| {
                let mut scores = vec![0f32; size(name)];
                first.iter().for_each(|at| scores[*at] = 1.0);
                scores
            };
            names.iter().map(of).collect()
        };
        let least = names.iter().map(|it| size(it)).min().unwrap();
        let share = 2.0 / least as f64;
        let (forget, kept) = (score(&[0, 1]), score(&[0, 2]));
        let (after, count) = pruned(&decoder, (&forget, &kept), share).unwrap();
        let smallest = names.iter().filter(|it| size(it) == least).count();
        assert!(count >= smallest, "{count}");
        let (old, new) = (
            values_of(&decoder.blocks[0].output).unwrap(),
            values_of(&after.blocks[0].output).unwrap(),
        );
        assert_eq!((new[0], new[1], new[2]), (old[0], 0.0, old[2]));
        assert_eq!(values_of(&after.embedding).unwrap(), values_of(&decoder.embedding).unwrap());
    }

    /// `|w dL/dw|`, of one question by a difference of losses.
    #[test]
    fn importance_is_how_much_a_weight_takes_along() {
        let teacher = untrained(6);
        let rows = [row("Where was she born?", "In Turin.", "Turin", &[])];
        let scores = importance(&teacher, &rows).unwrap();
        let reply = teacher.replies(&[rows[0].question.as_str()], REPLY_TOKENS).unwrap().remove(0);
        let (at, want) = (scores[1].iter().enumerate())
            .max_by(|a, b| a.1.total_cmp(b.1))
            .map(|(at, it)| (at, f64::from(*it)))
            .unwrap();
        let loss = |factor: f32| {
            let mut decoder = teacher.decoder.clone();
            let output = &mut decoder.blocks[0].output;
            let mut values = values_of(output).unwrap();
            values[at] *= factor;
            *output = Tensor::from_vec(values, output.shape(), output.device()).unwrap();
            let turns = vec![(rows[0].question.clone(), reply.clone())];
            let dialogue = Dialogue::Chat { system: None, turns, given: 0 };
            let tokens = dialogue.encode(&teacher.tokenizer).unwrap();
            let nll = own_nll(&decoder, tokens).unwrap();
            f64::from(nll.to_scalar::<f32>().unwrap())
        };
        let got = (loss(1.5) - loss(0.5)).abs();
        assert!((got - want).abs() < 0.1 * want + 1e-5, "{got} {want}");
    }
}
