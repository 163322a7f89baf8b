//! Negative preference optimisation (Zhang et al., arXiv:2404.05868): the forget answers as the
//! dispreferred side of a preference, whose pull fades as they become unlikely.

use candle_core::{Result, Tensor};

use super::{Built, Entry, Loss, Method, Needs, Parameters, published};
use crate::engine::model_config::ModelConfig;
use crate::train::unlearn::step::Step;
use crate::train::unlearn::terms::{divergence, log_sigmoid, sequence_sums};

/// The registry's line. `retain` weighs the loss on retain rows (NPO-RT), `kl` the divergence from
/// the reference on them (NPO-KL).
pub const ENTRY: Entry = Entry {
    name: "npo",
    about: "forget answers as dispreferred against the first model; kl=1 retain=0 is its KL variant",
    parameters: &[
        published("beta", 0.1),
        published("forget", 1.0),
        published("retain", 1.0),
        published("kl", 0.0),
    ],
    learning_rate: 1e-5,
    epochs: 10,
    build,
};

#[derive(Debug)]
struct Npo {
    beta: f64,
    forget: f64,
    retain: f64,
    kl: f64,
}

fn build(parameters: &Parameters, _: &ModelConfig, _: u64) -> Built {
    Ok(Box::new(Npo {
        beta: parameters.positive("beta")?,
        forget: parameters.positive("forget")?,
        retain: parameters.number("retain")?,
        kl: parameters.number("kl")?,
    }))
}

/// `-2 / beta * mean log sigmoid(beta * (nll - reference))` over sequences. Both are summed over the
/// labels of a sequence: `[sequences]`, in nats.
///
/// # Errors
///
/// [`candle_core::Error`] when the shapes differ.
pub fn npo(nll_sums: &Tensor, reference_sums: &Tensor, beta: f64) -> Result<Tensor> {
    let margin = ((nll_sums - reference_sums)? * beta)?;
    log_sigmoid(&margin)?.mean_all()? * (-2.0 / beta)
}

impl Method for Npo {
    fn needs(&self) -> Needs {
        Needs { reference_nll: true, reference: self.kl != 0.0, ..Needs::default() }
    }

    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let batch = &step.forget.batch;
        let sums = sequence_sums(&step.model.nll(batch)?, &batch.label_counts)?;
        let forget = npo(&sums, &step.forget.reference_nll(&step.model)?, self.beta)?;
        let mut loss = Loss::weighted((self.forget, forget), step.retain_nll(self.retain)?)?;
        if self.kl != 0.0 {
            let retain = &step.retain.batch;
            let reference = step.reference()?.all_logits(retain)?;
            let kl = divergence(&step.model.all_logits(retain)?, &reference, 1.0)?;
            loss.total = (loss.total + (&kl * self.kl)?)?;
            loss.retain = loss.retain.or(Some(kl));
        }
        Ok(loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::unlearn::recorded::Recorded;
    use candle_core::Device;

    #[test]
    fn agrees_with_torch() {
        let recorded = Recorded::read();
        let (sums, reference) = (recorded.forget.sums(), recorded.forget.reference_sums());
        let forget = npo(&sums, &reference, 0.1).unwrap();
        let loss = Loss::weighted((1.0, forget), Some((1.0, recorded.retain.mean()))).unwrap();
        recorded.check("npo", &loss.total);
        recorded.check("npo_strong", &npo(&sums, &reference, 2.0).unwrap());
    }

    /// With the model equal to its reference the ratio is 1, so the loss is 2 ln 2 / beta.
    #[test]
    fn starts_at_two_log_two_over_beta() {
        let sums = Tensor::new(&[3f32, 40.0], &Device::Cpu).unwrap();
        for beta in [0.1, 1.0, 5.0] {
            let got = f64::from(npo(&sums, &sums, beta).unwrap().to_scalar::<f32>().unwrap());
            let want = 2.0 * 2f64.ln() / beta;
            assert!((got - want).abs() < 1e-5 * want, "beta {beta}: {got} vs {want}");
        }
    }
}
