//! Relabelling (as in Graves et al., arXiv:2010.10981, for language models): the forget questions
//! with wrong answers, beside retain rows.

use candle_core::Result;

use super::{Answers, Built, Entry, Loss, Method, Needs, Parameters, published};
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::Step;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "relabelling",
    about: "finetunes on the rows' `perturbed_answer`, and on retain rows",
    parameters: &[published("forget", 1.0), published("retain", 1.0)],
    learning_rate: 1e-5,
    epochs: 5,
    build,
};

#[derive(Debug)]
struct Relabelling {
    forget: f64,
    retain: f64,
}

fn build(parameters: &Parameters, _: &ModelConfig, _: u64) -> Built {
    let (forget, retain) = (parameters.positive("forget")?, parameters.number("retain")?);
    Ok(Box::new(Relabelling { forget, retain }))
}

impl Method for Relabelling {
    fn needs(&self) -> Needs {
        Needs { answers: Some((Answers::Wrong, 1)), ..Needs::default() }
    }

    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let wrong = step.model.nll(&step.answers.batch)?.mean_all()?;
        Loss::weighted((self.forget, wrong), step.retain_nll(self.retain)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::unlearn::recorded::Recorded;

    #[test]
    fn agrees_with_torch() {
        let recorded = Recorded::read();
        let (wrong, retain) = (recorded.answers.mean(), recorded.retain.mean());
        let loss = Loss::weighted((1.0, wrong), Some((1.0, retain))).unwrap();
        recorded.check("relabelling", &loss.total);
    }
}
