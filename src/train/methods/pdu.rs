//! PDU, primal-dual unlearning (Entesari et al., arXiv:2506.05314): the logits of forget labels are
//! flattened, under the constraint that the loss on retain rows stays below `eps`; the constraint's
//! price rises while it is broken.

use candle_core::{D, Result, Tensor};

use super::{Built, Entry, Loss, Method, Parameters, open, published};
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::Step;

/// The registry's line. `eps` is the retain loss that is allowed, in nats, and has to be set: a
/// little above what the model has before. `alpha` is the first price, which changes by
/// `rate * (loss - eps)` a step once `warmup` epochs are over.
pub const ENTRY: Entry = Entry {
    name: "pdu",
    about: "flattens the logits of forget labels, the retain loss kept below eps",
    parameters: &[
        open("eps"),
        published("alpha", 50.0),
        published("rate", 1.0),
        published("warmup", 5.0),
        published("forget", 1.0),
    ],
    learning_rate: 1e-5,
    epochs: 10,
    build,
};

#[derive(Debug)]
struct Pdu {
    eps: f64,
    alpha: f64,
    rate: f64,
    warmup: usize,
    forget: f64,
}

fn build(parameters: &Parameters, _: &ModelConfig, _: u64) -> Built {
    Ok(Box::new(Pdu {
        eps: parameters.number("eps")?,
        alpha: parameters.positive("alpha")?,
        rate: parameters.number("rate")?,
        warmup: parameters.count("warmup")?,
        forget: parameters.positive("forget")?,
    }))
}

/// `(largest logit - mean logit)^2`, averaged over rows: `[labels, vocab]` in, a scalar out.
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub fn peak(logits: &Tensor) -> Result<Tensor> {
    (logits.max(D::Minus1)? - logits.mean(D::Minus1)?)?.sqr()?.mean_all()
}

impl Pdu {
    fn total(&self, forget: Tensor, retain: Tensor, price: f32) -> Result<Loss> {
        let broken_by = (&retain - self.eps)?;
        let total = ((&forget * self.forget)? + (broken_by * f64::from(price))?)?;
        Ok(Loss { total, forget: Some(forget), retain: Some(retain) })
    }
}

impl Method for Pdu {
    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let forget = peak(&step.model.logits(&step.forget.batch)?)?;
        let retain = step.model.nll(&step.retain.batch)?.mean_all()?;
        self.total(forget, retain, step.carried)
    }

    fn start(&self) -> f32 {
        self.alpha as f32
    }

    fn carry(&self, carried: f32, epoch: usize, retain: f32) -> f32 {
        if epoch < self.warmup {
            return carried;
        }
        let broken_by = f64::from(retain) - self.eps;
        (f64::from(carried) + self.rate * broken_by).max(0.0) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::unlearn::recorded::Recorded;

    const PDU: Pdu = Pdu { eps: 0.3, alpha: 50.0, rate: 2.0, warmup: 5, forget: 1.0 };

    #[test]
    fn agrees_with_torch() {
        let recorded = Recorded::read();
        let forget = peak(&recorded.forget.logits).unwrap();
        let loss = PDU.total(forget, recorded.retain.mean(), PDU.start()).unwrap();
        recorded.check("pdu", &loss.total);
    }

    #[test]
    fn the_price_rises_while_the_constraint_is_broken() {
        assert!((PDU.carry(50.0, 4, 9.0) - 50.0).abs() < 1e-6, "in the warm-up");
        assert!((PDU.carry(50.0, 5, 1.3) - 52.0).abs() < 1e-4);
        assert!((PDU.carry(0.5, 5, 0.0) - 0.0).abs() < 1e-6, "never negative");
    }
}
