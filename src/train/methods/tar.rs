//! Tamper-resistant safeguards (Tamirisa et al., arXiv:2408.00761): the model is to know as little after
//! somebody has finetuned it on the topic as before.
//!
//! An adversary finetunes a copy of the model on one half of a step's forget rows; on the other half the
//! model is to be as undecided as can be, before the attack and after each step of it. The gradients that
//! the copies get count as the model's own (first-order meta-learning, the paper's equation 1). With
//! adapters or located matrices the adversary moves only what the run trains; a step of one forget row
//! has it on both sides.
//!
//! What differs from the published code: that starts from a model that was made to forget by other means,
//! and has no term before the attack; it weighs the steps of an attack, the later ones more, and looks at
//! every fourth; each of these steps has rows of its own, a third of the attacks begin on retained text,
//! and one of three learning rates is drawn; entropy is over all tokens; and it keeps retained hidden
//! states beside retained text. Its weight of 4 is therefore not quite ours.

use candle_core::{D, Result, Tensor};

use super::{Built, Entry, Loss, Method, Parameters, published};
use crate::data::Batch;
use crate::engine::model_config::ModelConfig;
use crate::train::adamw::{AdamW, AdamWSettings};
use crate::train::unlearn::step::{Pass, Step};
use crate::train::unlearn::terms::log_softmax;

/// The registry's line. `steps` and `rate` are the adversary's, of the published rates the middle one;
/// the published run has 750 steps, not passes.
pub const ENTRY: Entry = Entry {
    name: "tar",
    about: "undecided even after finetuning on the topic, by attacks that are made while training",
    parameters: &[
        published("steps", 64.0),
        published("rate", 2e-5),
        published("tamper", 4.0),
        published("retain", 1.0),
    ],
    learning_rate: 2e-5,
    epochs: 10,
    build,
};

#[derive(Debug)]
struct Tar {
    steps: usize,
    rate: f64,
    tamper: f64,
    retain: f64,
}

fn build(parameters: &Parameters, _: &ModelConfig, _: u64) -> Built {
    Ok(Box::new(Tar {
        steps: parameters.count("steps")?,
        rate: parameters.positive("rate")?,
        tamper: parameters.positive("tamper")?,
        retain: parameters.number("retain")?,
    }))
}

/// The mean of `sum p log p` over rows of logits `[rows, vocab]`, in nats: least, `-ln vocab`, where all
/// tokens are alike.
///
/// # Errors
///
/// [`candle_core::Error`] when memory runs out.
pub fn negative_entropy(logits: &Tensor) -> Result<Tensor> {
    let logs = log_softmax(logits)?;
    (logs.exp()? * logs)?.sum(D::Minus1)?.mean_all()
}

impl Tar {
    /// The mean of [`negative_entropy`] on `asked` before and after each step of finetuning on `taught`.
    /// Its gradient is the mean of the gradients of the attacked copies.
    fn tampered(&self, model: &Pass<'_>, taught: &Batch, asked: &Batch) -> Result<Tensor> {
        let (attacked, pairs) = model.copied()?;
        let settings = AdamWSettings { beta2: 0.999, ..AdamWSettings::default() };
        let vars = pairs.iter().map(|it| it.1.clone()).collect();
        let mut optimiser = AdamW::new(vars, settings)?;
        let share = 1.0 / (self.steps + 1) as f64;
        let mut gradients: Vec<Option<Tensor>> = vec![None; pairs.len()];
        let mut mean = 0.0;
        for step in 0..=self.steps {
            if step > 0 {
                let pass = model.beside(&attacked);
                let loss = pass.nll(taught)?.mean_all()?;
                optimiser.step(&loss.backward()?, self.rate as f32)?;
                model.charge(pass.tokens());
            }
            let pass = model.beside(&attacked);
            let loss = negative_entropy(&pass.logits(asked)?)?;
            model.charge(pass.tokens());
            mean += share * f64::from(loss.to_scalar::<f32>()?);
            let grads = loss.backward()?;
            for (sum, (_, var)) in gradients.iter_mut().zip(&pairs) {
                let Some(grad) = grads.get(var) else { continue };
                let grad = (grad * share)?.detach();
                *sum = Some(if let Some(sum) = sum.take() { (sum + grad)? } else { grad });
            }
        }
        // Linear in the weights, so that their gradient is the mean; its value is put right.
        let mut loss = Tensor::zeros((), attacked.dtype(), attacked.device())?;
        for (gradient, (weight, _)) in gradients.iter().zip(&pairs) {
            let Some(gradient) = gradient else { continue };
            loss = (loss + (weight * gradient)?.sum_all()?)?;
        }
        let value = f64::from(loss.to_scalar::<f32>()?);
        loss + (mean - value)
    }
}

impl Method for Tar {
    fn loss(&self, step: &Step<'_>) -> Result<Loss> {
        let batch = &step.forget.batch;
        let alone = batch.label_counts.len() < 2;
        let (taught, asked) =
            (batch.only(|it| alone || it % 2 == 0), batch.only(|it| alone || it % 2 == 1));
        let forget = self.tampered(&step.model, &taught, &asked)?;
        Loss::weighted((self.tamper, forget), step.retain_nll(self.retain)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::values_of;
    use crate::train::initial;
    use crate::train::trainable::Trainable;
    use crate::train::trainable::tests::tiny_config;
    use crate::train::unlearn::step::Rows;
    use candle_core::{DType, Device};

    #[test]
    fn entropy_by_hand() {
        let logits = Tensor::new(&[[0f32, 3f32.ln()], [1.0, 1.0]], &Device::Cpu).unwrap();
        let got = negative_entropy(&logits).unwrap().to_scalar::<f32>().unwrap();
        let first = 0.75 * 0.75f32.ln() + 0.25 * 0.25f32.ln();
        assert!((got - (first - 2f32.ln()) / 2.0).abs() < 1e-6, "{got}");
    }

    fn halves() -> (Batch, Batch) {
        let taught = Batch::of(&[(vec![3, 4, 5, 6], vec![false, false, true, true])]);
        (taught, Batch::of(&[(vec![7, 8, 9], vec![false, true, true])]))
    }

    /// Loss and gradients by weight of the attacks of a method on a model.
    fn attacked(model: &Trainable, tar: &Tar) -> (f32, Vec<Vec<f32>>) {
        let (taught, asked) = halves();
        let loss = tar.tampered(&Pass::new(&model.decoder), &taught, &asked).unwrap();
        (loss.to_scalar().unwrap(), gradients(model, &loss))
    }

    fn gradients(model: &Trainable, loss: &Tensor) -> Vec<Vec<f32>> {
        let grads = loss.backward().unwrap();
        model.vars.iter().map(|it| values_of(grads.get(&it.1).unwrap()).unwrap()).collect()
    }

    /// The adversary learns the even sequences, and the odd ones are asked.
    #[test]
    fn the_loss_weighs_its_parts() {
        let model = Trainable::from_decoder(&initial::decoder(&tiny_config(), 3).unwrap()).unwrap();
        let sequences = [
            (vec![3, 4, 5, 6], vec![false, false, true, true]),
            (vec![7, 8, 9], vec![false, true, true]),
        ];
        let rows = |it: &[(Vec<u32>, Vec<bool>)]| Rows { batch: Batch::of(it), ..Rows::default() };
        let step = Step {
            model: Pass::new(&model.decoder),
            reference: None,
            epoch: 0,
            carried: 0.0,
            forget: &rows(&sequences),
            answers: &Rows::default(),
            retain: &rows(&sequences[..1]),
        };
        let tar = Tar { steps: 2, rate: 0.01, tamper: 3.0, retain: 0.5 };
        let loss = tar.loss(&step).unwrap().total.to_scalar::<f32>().unwrap();
        let (tampered, _) = attacked(&model, &tar);
        let retain = step.model.nll(&step.retain.batch).unwrap().mean_all().unwrap();
        let want = 3.0 * tampered + 0.5 * retain.to_scalar::<f32>().unwrap();
        assert!((loss - want).abs() < 1e-5, "{loss} {want}");
    }

    /// In mixed precision too, what is asked after a step of the attack is another model.
    #[test]
    fn rounded_attacks_move() {
        let model = Trainable::from_decoder(&initial::decoder(&tiny_config(), 3).unwrap()).unwrap();
        let (taught, asked) = halves();
        let loss = |steps, dtype| {
            let tar = Tar { steps, rate: 0.01, tamper: 1.0, retain: 0.0 };
            let pass = Pass::in_dtype(&model.decoder, dtype);
            let loss = tar.tampered(&pass, &taught, &asked).unwrap();
            assert!(pass.tokens() > 0);
            loss.to_scalar::<f32>().unwrap()
        };
        let moved = |dtype| loss(2, dtype) - loss(0, dtype);
        let (want, got) = (moved(DType::F32), moved(DType::BF16));
        assert!((got - want).abs() < 0.5 * want.abs(), "{got} {want}");
    }

    /// One attack by hand: the mean of the gradients here and where one step of AdamW leads, while the
    /// model itself stays where it is.
    #[test]
    fn the_gradient_is_the_mean_over_the_attack() {
        let model = Trainable::from_decoder(&initial::decoder(&tiny_config(), 3).unwrap()).unwrap();
        let (taught, asked) = halves();
        let asked_loss = |model: &Trainable| {
            negative_entropy(&Pass::new(&model.decoder).logits(&asked).unwrap()).unwrap()
        };
        let value = |it: &Tensor| it.to_scalar::<f32>().unwrap();
        let tar = |steps| Tar { steps, rate: 0.01, tamper: 1.0, retain: 0.0 };
        let here = asked_loss(&model);
        let (before, unattacked) = attacked(&model, &tar(0));
        assert!((before - value(&here)).abs() < 1e-6);
        assert_eq!(unattacked.len(), model.vars.len());
        let here_gradients = gradients(&model, &here);
        let near = |got: &[Vec<f32>], want: &[Vec<f32>]| {
            for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
                assert!((got - want).abs() < 1e-6, "{got} {want}");
            }
        };
        near(&unattacked, &here_gradients);

        let (loss, both) = attacked(&model, &tar(1));
        near(&attacked(&model, &tar(0)).1, &here_gradients);
        let settings = AdamWSettings { beta2: 0.999, ..AdamWSettings::default() };
        let vars = model.vars.iter().map(|it| it.1.clone()).collect();
        let taught = model.label_nll(&taught).unwrap().mean_all().unwrap();
        AdamW::new(vars, settings).unwrap().step(&taught.backward().unwrap(), 0.01).unwrap();
        let there = asked_loss(&model);
        assert!((loss - f32::midpoint(before, value(&there))).abs() < 1e-6);
        let mean: Vec<Vec<f32>> = here_gradients
            .iter()
            .zip(gradients(&model, &there))
            .map(|(a, b)| a.iter().zip(b).map(|(a, b)| f32::midpoint(*a, b)).collect())
            .collect();
        near(&both, &mean);
        assert!(both.concat() != unattacked.concat());
    }
}
