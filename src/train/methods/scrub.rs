//! SCRUB (Kurmanji et al., arXiv:2302.09880): epochs that drive the model away from the reference on
//! forget rows take turns with epochs that hold it on retain rows.
//!
//! Divergences are over the rows that predict a label, at temperature `temperature`. The first step
//! stands where the divergence has its minimum and no slope; weight decay moves it off.

use candle_core::Result;

use super::{Built, Entry, Loss, Method, Needs, Parameters, published};
use crate::data::Batch;
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::Step;
use crate::train::unlearn::terms::divergence;

/// The registry's line. Even epochs below `ascent` look at forget rows, all others at retain rows.
pub const ENTRY: Entry = Entry {
    name: "scrub",
    about: "epochs away from the first model on forget rows, then back to it on retain rows",
    parameters: &[
        published("temperature", 4.0),
        published("ascent", 4.0),
        published("alpha", 0.001),
        published("gamma", 1.0),
    ],
    learning_rate: 1e-5,
    epochs: 10,
    build,
};

#[derive(Debug)]
struct Scrub {
    temperature: f64,
    ascent: usize,
    alpha: f64,
    gamma: f64,
}

fn build(parameters: &Parameters, _: &ModelConfig, _: u64) -> Built {
    Ok(Box::new(Scrub {
        temperature: parameters.positive("temperature")?,
        ascent: parameters.count("ascent")?,
        alpha: parameters.number("alpha")?,
        gamma: parameters.positive("gamma")?,
    }))
}

impl Scrub {
    fn rises(&self, epoch: usize) -> bool {
        epoch < self.ascent && epoch.is_multiple_of(2)
    }
}

impl Method for Scrub {
    fn needs(&self) -> Needs {
        Needs { reference: true, ..Needs::default() }
    }

    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let from_reference = |batch: &Batch| {
            let reference = step.reference()?.logits(batch)?;
            divergence(&step.model.logits(batch)?, &reference, self.temperature)
        };
        if self.rises(step.epoch) {
            return Loss::weighted((1.0, from_reference(&step.forget.batch)?.neg()?), None);
        }
        let batch = &step.retain.batch;
        let kl = (from_reference(batch)? * self.alpha)?;
        let nll = step.model.nll(batch)?.mean_all()?;
        Ok(Loss { total: (kl + (&nll * self.gamma)?)?, forget: None, retain: Some(nll) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::unlearn::recorded::Recorded;

    #[test]
    fn agrees_with_torch() {
        let recorded = Recorded::read();
        let kl = |rows: &crate::train::unlearn::recorded::Side| {
            divergence(&rows.logits, &rows.reference, 4.0).unwrap()
        };
        recorded.check("scrub_forget", &kl(&recorded.forget).neg().unwrap());
        let retain = &recorded.retain;
        let loss = ((kl(retain) * 0.001).unwrap() + retain.mean()).unwrap();
        recorded.check("scrub_retain", &loss);
    }

    #[test]
    fn rises_in_the_even_ones_of_the_first_four_epochs() {
        let scrub = Scrub { temperature: 4.0, ascent: 4, alpha: 0.001, gamma: 1.0 };
        let rises: Vec<usize> = (0..10).filter(|it| scrub.rises(*it)).collect();
        assert_eq!(rises, [0, 2]);
    }
}
