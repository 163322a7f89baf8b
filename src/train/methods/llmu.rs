//! LLMU (Yao et al., arXiv:2310.10683): ascent on the forget answers, descent on answers to other
//! questions in their place, and the reference's distributions on retain rows.
//!
//! Losses are averaged over the labels of a row, then over rows, as in the authors' code. Theirs
//! minimises the cross-entropy against the reference, which differs from the divergence here by a
//! constant.

use candle_core::{Result, Tensor};

use super::{Answers, Built, Entry, Loss, Method, Needs, Parameters, published};
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::{Rows, Step};
use crate::train::unlearn::terms::{divergence, sequence_means};

/// The registry's line. `limit` stops the run when the forget rows' loss is above it.
pub const ENTRY: Entry = Entry {
    name: "llmu",
    about: "ascent on forget answers, descent on random ones, retain distributions kept",
    parameters: &[
        published("bad", 0.5),
        published("random", 1.0),
        published("normal", 1.0),
        published("answers", 5.0),
        published("limit", 100.0),
    ],
    learning_rate: 2e-6,
    epochs: 5,
    build,
};

#[derive(Debug)]
struct Llmu {
    bad: f64,
    random: f64,
    normal: f64,
    answers: usize,
    limit: f64,
}

fn build(parameters: &Parameters, _: &ModelConfig, _: u64) -> Built {
    Ok(Box::new(Llmu {
        bad: parameters.positive("bad")?,
        random: parameters.positive("random")?,
        normal: parameters.positive("normal")?,
        answers: parameters.count("answers")?.max(1),
        limit: parameters.positive("limit")?,
    }))
}

impl Llmu {
    /// From the mean losses of sequences of forget and random answers, and the divergence on retain
    /// rows.
    fn total(&self, bad: &Tensor, random: &Tensor, normal: &Tensor) -> Result<Loss> {
        let forget = bad.mean_all()?.neg()?;
        let held = ((random.mean_all()? * self.random)? + (normal * self.normal)?)?;
        Loss::weighted((self.bad, forget), Some((1.0, held)))
    }
}

impl Method for Llmu {
    fn needs(&self) -> Needs {
        let answers = Some((Answers::Retained, self.answers));
        Needs { answers, reference: true, ..Needs::default() }
    }

    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let means =
            |rows: &Rows| sequence_means(&step.model.nll(&rows.batch)?, &rows.batch.label_counts);
        let retain = &step.retain.batch;
        let reference = step.reference()?.all_logits(retain)?;
        let normal = divergence(&step.model.all_logits(retain)?, &reference, 1.0)?;
        self.total(&means(step.forget)?, &means(step.answers)?, &normal)
    }

    fn done(&self, forget: f32) -> bool {
        f64::from(forget.abs()) > self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::unlearn::recorded::Recorded;

    const LLMU: Llmu = Llmu { bad: 0.5, random: 1.0, normal: 1.0, answers: 5, limit: 100.0 };

    #[test]
    fn agrees_with_torch() {
        let recorded = Recorded::read();
        let kl = divergence(&recorded.retain.logits, &recorded.retain.reference, 1.0).unwrap();
        let loss = LLMU.total(&recorded.forget.means(), &recorded.answers.means(), &kl).unwrap();
        recorded.check("llmu", &loss.total);
    }

    #[test]
    fn stops_at_its_limit() {
        assert!(LLMU.done(-100.5));
        assert!(!LLMU.done(-99.5));
    }
}
