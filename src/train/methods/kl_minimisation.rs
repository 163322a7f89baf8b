//! KL minimisation (Maini et al., arXiv:2401.06121): ascent on the forget rows, while retain rows
//! keep the reference's distributions.
//!
//! The divergence is averaged over all rows of the batch, prompts included, as in TOFU's code; that
//! code counts padding too, of which packed batches have none.

use candle_core::Result;

use super::gradient_ascent::ascent;
use super::{Built, Entry, Loss, Method, Needs, Parameters, published};
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::Step;
use crate::train::unlearn::terms::divergence;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "kl_minimisation",
    about: "raises the loss on forget rows, keeps the distributions on retain rows",
    parameters: &[published("forget", 1.0), published("kl", 1.0)],
    learning_rate: 1e-5,
    epochs: 5,
    build,
};

#[derive(Debug)]
struct KlMinimisation {
    forget: f64,
    kl: f64,
}

fn build(parameters: &Parameters, _: &ModelConfig, _: u64) -> Built {
    let (forget, kl) = (parameters.positive("forget")?, parameters.positive("kl")?);
    Ok(Box::new(KlMinimisation { forget, kl }))
}

impl Method for KlMinimisation {
    fn needs(&self) -> Needs {
        Needs { reference: true, ..Needs::default() }
    }

    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let forget = ascent(&step.model.nll(&step.forget.batch)?)?;
        let retain = &step.retain.batch;
        let reference = step.reference()?.all_logits(retain)?;
        let kl = divergence(&step.model.all_logits(retain)?, &reference, 1.0)?;
        Loss::weighted((self.forget, forget), Some((self.kl, kl)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::unlearn::recorded::Recorded;

    #[test]
    fn agrees_with_torch() {
        let recorded = Recorded::read();
        let forget = ascent(&recorded.forget.nll()).unwrap();
        let kl = divergence(&recorded.retain.logits, &recorded.retain.reference, 1.0).unwrap();
        let loss = Loss::weighted((1.0, forget), Some((1.0, kl))).unwrap();
        recorded.check("kl_minimisation", &loss.total);
    }
}
