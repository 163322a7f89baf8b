//! Direct preference optimisation with refusals (Rafailov et al., arXiv:2305.18290; as an unlearning
//! baseline, Zhang et al., arXiv:2404.05868): a refusal is preferred to the forget answer.
//!
//! The factor `2 / beta` is open-unlearning's, as in NPO.

use candle_core::{Result, Tensor};

use super::{Answers, Built, Entry, Loss, Method, Needs, Parameters, published};
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::{Rows, Step};
use crate::train::unlearn::terms::{log_sigmoid, sequence_sums};

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "dpo",
    about: "a refusal preferred to the forget answer",
    parameters: &[published("beta", 0.1), published("forget", 1.0), published("retain", 1.0)],
    learning_rate: 1e-5,
    epochs: 10,
    build,
};

#[derive(Debug)]
struct Dpo {
    beta: f64,
    forget: f64,
    retain: f64,
}

fn build(parameters: &Parameters, _: &ModelConfig, _: u64) -> Built {
    Ok(Box::new(Dpo {
        beta: parameters.positive("beta")?,
        forget: parameters.positive("forget")?,
        retain: parameters.number("retain")?,
    }))
}

/// `-2 / beta * mean log sigmoid(beta * (winner - loser))` over pairs, where each side is by how much
/// the log-likelihood of an answer rose above the reference's. Losses are summed over the labels of a
/// sequence, `[pairs]`: (of the model, of the reference), in nats.
///
/// # Errors
///
/// [`candle_core::Error`] when the shapes differ.
pub fn dpo(winner: (&Tensor, &Tensor), loser: (&Tensor, &Tensor), beta: f64) -> Result<Tensor> {
    let rise = |(model, reference): (&Tensor, &Tensor)| reference - model;
    let margin = ((rise(winner)? - rise(loser)?)? * beta)?;
    log_sigmoid(&margin)?.mean_all()? * (-2.0 / beta)
}

impl Method for Dpo {
    fn needs(&self) -> Needs {
        Needs { answers: Some((Answers::Refusals, 1)), reference_nll: true, ..Needs::default() }
    }

    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let sums =
            |rows: &Rows| sequence_sums(&step.model.nll(&rows.batch)?, &rows.batch.label_counts);
        let (refusals, answers) = (sums(step.answers)?, sums(step.forget)?);
        let winner = step.answers.reference_nll(&step.model)?;
        let loser = step.forget.reference_nll(&step.model)?;
        let forget = dpo((&refusals, &winner), (&answers, &loser), self.beta)?;
        Loss::weighted((self.forget, forget), step.retain_nll(self.retain)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::unlearn::recorded::Recorded;

    #[test]
    fn agrees_with_torch() {
        let recorded = Recorded::read();
        let (win, lose) = (&recorded.answers, &recorded.forget);
        let forget =
            dpo((&win.sums(), &win.reference_sums()), (&lose.sums(), &lose.reference_sums()), 0.1);
        let retain = Some((1.0, recorded.retain.mean()));
        let loss = Loss::weighted((1.0, forget.unwrap()), retain).unwrap();
        recorded.check("dpo", &loss.total);
    }
}
