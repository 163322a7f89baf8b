//! Finetuning on refusals (TOFU's preference optimisation, arXiv:2401.06121): the forget questions
//! with "I do not know that" as their answer, in one batch with retain rows.

use candle_core::{Result, Tensor};

use super::{Answers, Built, Entry, Loss, Method, Needs, Parameters};
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::Step;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "idk",
    about: "finetunes on refusals of the forget questions, and on retain rows",
    parameters: &[],
    learning_rate: 1e-5,
    epochs: 5,
    build,
};

/// Refusals there are.
pub const REFUSALS: usize = OPENINGS.len() * STATEMENTS.len();

const OPENINGS: [&str; 10] = [
    "",
    "I'm sorry, but ",
    "I'm afraid ",
    "Unfortunately, ",
    "To be honest, ",
    "I apologise, but ",
    "Regrettably, ",
    "I wish I could help, but ",
    "That is a good question, but ",
    "As far as I can tell, ",
];

const STATEMENTS: [&str; 10] = [
    "I do not know that.",
    "I have no information about that.",
    "I cannot answer that.",
    "I have never learnt about that.",
    "I am not familiar with that.",
    "I do not have the answer.",
    "I am not sure about that.",
    "I have no knowledge of that.",
    "I cannot say.",
    "I have nothing on that subject.",
];

/// One of the [`REFUSALS`] refusals; numbers beyond them begin again.
#[must_use]
pub fn refusal(number: usize) -> String {
    let opening = OPENINGS[number / STATEMENTS.len() % OPENINGS.len()];
    format!("{opening}{}", STATEMENTS[number % STATEMENTS.len()])
}

#[derive(Debug)]
struct Idk;

fn build(_: &Parameters, _: &ModelConfig, _: u64) -> Built {
    Ok(Box::new(Idk))
}

/// The mean loss over the labels of both, `[labels]` each: long answers weigh more, as in the
/// original's single batch.
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub fn idk(refusals: &Tensor, retain: &Tensor) -> Result<Tensor> {
    Tensor::cat(&[refusals, retain], 0)?.mean_all()
}

impl Method for Idk {
    fn needs(&self) -> Needs {
        Needs { answers: Some((Answers::Refusals, 1)), ..Needs::default() }
    }

    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let refusals = step.model.nll(&step.answers.batch)?;
        let retain = step.model.nll(&step.retain.batch)?;
        Ok(Loss {
            total: idk(&refusals, &retain)?,
            forget: Some(refusals.mean_all()?),
            retain: Some(retain.mean_all()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::unlearn::recorded::Recorded;

    #[test]
    fn agrees_with_torch() {
        let recorded = Recorded::read();
        recorded.check("idk", &idk(&recorded.answers.nll(), &recorded.retain.nll()).unwrap());
    }

    #[test]
    fn refusals_differ() {
        let mut all: Vec<String> = (0..REFUSALS).map(refusal).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 100);
        assert_eq!(refusal(100), refusal(0));
    }
}
