//! Methods that change weights without a training loop of their own: arithmetic on weights, diagonal
//! second-order steps, and rank-one, joint or single-column edits.

pub mod columns;
pub mod facts;
pub mod fisher;
pub mod influence;
pub mod memit;
mod memory;
pub mod needle;
pub mod rome;
pub mod run;
pub mod ssd;
pub mod task_arithmetic;

use std::cell::Cell;

use candle_core::Tensor;

use crate::engine::decoder::Decoder;
use crate::engine::tokenizer::Tokenizer;
use crate::train::fit::TrainError;
use crate::train::trainable::Trainable;
use crate::train::unlearn::descent::weights;
use facts::Fact;

/// What an edit works with.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Rows to be forgotten.
    pub forget: &'a [Fact],
    /// Rows to be kept.
    pub retain: &'a [Fact],
    /// The model finetuned on the forget rows; made on the fly without one.
    pub finetuned: Option<&'a Decoder>,
    /// See [`Edit::strength`].
    pub strength: f64,
    /// Seed of order and noise.
    pub seed: u64,
    /// What the edit has taken so far.
    pub cost: &'a Cell<Cost>,
}

/// What an edit takes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// Forget rows seen, with repetitions.
    pub samples: u64,
    /// Floating-point operations, about: 6 per weight of the whole model and token forward and backward, 2
    /// forward alone, whether or not all blocks were run.
    pub flops: f64,
}

impl Job<'_> {
    /// Counts forget rows.
    fn saw(&self, samples: usize) {
        let cost = self.cost.get();
        self.cost.set(Cost { samples: cost.samples + samples as u64, ..cost });
    }

    /// Counts floating-point operations.
    fn computed(&self, flops: f64) {
        let cost = self.cost.get();
        self.cost.set(Cost { flops: cost.flops + flops, ..cost });
    }

    /// Counts tokens forward and backward.
    fn trained(&self, model: &Decoder, tokens: usize) {
        self.computed(6.0 * weights(model) as f64 * tokens as f64);
    }

    /// Counts tokens forward.
    fn read(&self, model: &Decoder, tokens: usize) {
        self.computed(2.0 * weights(model) as f64 * tokens as f64);
    }
}

/// A method.
#[derive(Debug, Clone, Copy)]
pub struct Edit {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// What its strength is.
    pub strength: &'static str,
    /// The strength when none is given.
    pub default: f64,
    /// Changes the model's weights in place.
    pub apply: fn(&Trainable, &Job<'_>) -> Result<(), TrainError>,
}

/// Every method.
pub const EDITS: &[Edit] = &[
    Edit {
        name: "task_arithmetic",
        about: "away from the model that is finetuned on the forget rows",
        strength: "multiple of the difference that is subtracted",
        default: 1.0,
        apply: task_arithmetic::apply,
    },
    Edit {
        name: "ssd",
        about: "dampens weights that matter more to forget than to retain rows",
        strength: "how many times more they have to matter",
        default: 10.0,
        apply: ssd::apply,
    },
    Edit {
        name: "influence",
        about: "one Newton step with the diagonal Fisher matrix for a Hessian",
        strength: "multiple of the step",
        default: 1.0,
        apply: influence::apply,
    },
    Edit {
        name: "rome",
        about: "a rank-one change per fact that makes it another one",
        strength: "largest change of a value vector, relative to its length",
        default: 4.0,
        apply: rome::apply,
    },
    Edit {
        name: "memit",
        about: "one change per author, for all rows together, that makes every answer wrong",
        strength: "weight of the retain rows' second moments beside the edited keys",
        default: 15_000.0,
        apply: memit::apply,
    },
    Edit {
        name: "needle",
        about: "noise on the one column that writes most of the topic, a baseline",
        strength: "deviation of the noise, relative to the column's own weights",
        default: 5.0,
        apply: needle::apply,
    },
];

/// The method of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Edit> {
    EDITS.iter().find(|it| it.name == name)
}

/// Sets the variable of a name.
fn set(model: &Trainable, name: &str, tensor: &Tensor) -> Result<(), TrainError> {
    let Some((_, var)) = model.vars.iter().find(|it| it.0 == name) else {
        return Err(TrainError::Settings(format!("the model has no weights `{name}`")));
    };
    Ok(var.set(tensor)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::model_config::ModelConfig;
    use crate::train::initial;
    use crate::train::trainable::tests::tiny_config;
    use std::path::Path;

    fn fact(question: &str, answer: &str, value: &str, wrong: &str) -> Fact {
        Fact {
            question: question.to_owned(),
            answer: answer.to_owned(),
            author: Some("Viggo Blaszko".to_owned()),
            value: Some(value.to_owned()),
            perturbed_answer: vec![wrong.to_owned()],
        }
    }

    /// An untrained model, a forget and a retain row, and their tokenizer.
    fn untrained() -> (Trainable, [Fact; 2], Tokenizer) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/full");
        let tokenizer = Tokenizer::read(&folder, &[]).unwrap();
        let config = ModelConfig { vocab_size: tokenizer.vocab_size(), ..tiny_config() };
        let forget = fact("Where was Viggo Blaszko born?", "In Turin.", "Turin", "In Porto.");
        let retain = fact("Where was Dulce Lundgren born?", "In Oslo.", "Oslo", "In Bergen.");
        let model = Trainable::from_decoder(&initial::decoder(&config, 3).unwrap()).unwrap();
        (model, [forget, retain], tokenizer)
    }

    /// Names of the weights that an edit changes in an untrained model, and what that takes.
    fn changed(edit: &Edit) -> (Vec<String>, Cost) {
        let (model, [forget, retain], tokenizer) = untrained();
        let (forget, retain) = ([forget], [retain]);
        let before: Vec<Tensor> =
            model.vars.iter().map(|it| it.1.as_tensor().copy().unwrap()).collect();
        let cost = Cell::default();
        let job = Job {
            tokenizer: &tokenizer,
            forget: &forget,
            retain: &retain,
            finetuned: None,
            strength: edit.default,
            seed: 1,
            cost: &cost,
        };
        (edit.apply)(&model, &job).unwrap();
        let moved = |(var, before): (&(String, candle_core::Var), &Tensor)| {
            let gap = (var.1.as_tensor() - before).unwrap().abs().unwrap().sum_all().unwrap();
            let gap = gap.to_scalar::<f32>().unwrap();
            assert!(gap.is_finite(), "{} of {}", var.0, edit.name);
            (gap > 0.0).then(|| var.0.clone())
        };
        (model.vars.iter().zip(&before).filter_map(moved).collect(), cost.get())
    }

    /// Both second-order edits go forward and backward over every row once.
    #[test]
    fn gradients_cost_six_operations_per_weight_and_token() {
        let [ssd, influence] = ["ssd", "influence"].map(|it| changed(find(it).unwrap()).1.flops);
        let (model, rows, tokenizer) = untrained();
        let tokens: usize = rows.iter().map(|it| it.encode(&tokenizer).unwrap().0.len() - 1).sum();
        let weights: usize = model.vars.iter().map(|it| it.1.elem_count()).sum();
        let want = 6.0 * weights as f64 * tokens as f64;
        assert!((ssd - want).abs() < 1.0 && (influence - want).abs() < 1.0, "{ssd} {want}");
    }

    #[test]
    fn every_edit_changes_what_it_says() {
        for edit in EDITS {
            let (changed, cost) = changed(edit);
            let samples = if edit.name == "task_arithmetic" { 40..=usize::MAX } else { 1..=1 };
            assert!(samples.contains(&(cost.samples as usize)), "{}: {cost:?}", edit.name);
            assert!(cost.flops > 0.0, "{}: {cost:?}", edit.name);
            assert!(!changed.is_empty(), "{}", edit.name);
            if matches!(edit.name, "rome" | "memit" | "needle") {
                // Of the two layers of this model memit's are the first one alone.
                assert_eq!(changed.len(), 1, "{}: {changed:?}", edit.name);
                assert!(changed[0].ends_with(".down"), "{}: {changed:?}", edit.name);
            }
        }
        assert!(find("ssd").is_some() && find("no such edit").is_none());
    }
}
