//! The model in training: chosen weights as variables, or adapters beside frozen weights.

use candle_core::{Result, Var};

use crate::engine::decoder::Decoder;
use crate::train::lora::{Lora, LoraSettings};
use crate::train::named::tensors_mut;

/// A decoder that starts equal to another one and does not share its storage.
#[derive(Debug)]
pub enum Student {
    /// Weights themselves are trained.
    Dense {
        /// Shares storage with `vars`; what is not trained is shared with the original.
        decoder: Decoder,
        /// The trained weights by name.
        vars: Vec<(String, Var)>,
    },
    /// Low-rank adapters are trained.
    LowRank(Lora),
}

impl Student {
    /// A student of `decoder` that trains the weights that `trains` names, or adapters on those of
    /// them that take one.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when memory runs out or nothing is left to train.
    pub fn new(
        decoder: &Decoder,
        lora: Option<LoraSettings>,
        seed: u64,
        trains: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let student = if let Some(settings) = lora {
            Self::LowRank(Lora::new(decoder, settings, seed, trains)?)
        } else {
            Self::dense(decoder, trains)?
        };
        if student.vars().is_empty() {
            candle_core::bail!("there is no weight to train");
        }
        Ok(student)
    }

    fn dense(decoder: &Decoder, trains: impl Fn(&str) -> bool) -> Result<Self> {
        let mut decoder = decoder.clone();
        let mut vars = Vec::new();
        for (name, tensor) in tensors_mut(&mut decoder) {
            if trains(&name) {
                let var = Var::from_tensor(&tensor.contiguous()?.copy()?)?;
                *tensor = var.as_tensor().clone();
                vars.push((name, var));
            }
        }
        Ok(Self::Dense { decoder, vars })
    }

    /// What is trained, by name.
    #[must_use]
    pub fn vars(&self) -> &[(String, Var)] {
        match self {
            Self::Dense { vars, .. } => vars,
            Self::LowRank(lora) => &lora.vars,
        }
    }

    /// The decoder as it is now, differentiable with respect to the variables.
    ///
    /// # Errors
    ///
    /// [`candle_core::Error`] when memory runs out.
    pub fn decoder(&self) -> Result<Decoder> {
        match self {
            Self::Dense { decoder, .. } => Ok(decoder.clone()),
            Self::LowRank(lora) => lora.merged(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::values_of;
    use crate::train::initial;
    use crate::train::trainable::tests::tiny_config;

    #[test]
    fn only_what_is_named_is_a_variable_and_the_original_stays() {
        let original = initial::decoder(&tiny_config(), 3).unwrap();
        let before = values_of(&original.blocks[1].down).unwrap();
        let student = Student::new(&original, None, 1, |it| it == "1.down").unwrap();
        let [(name, var)] = student.vars() else { panic!("one variable") };
        assert_eq!(name, "1.down");
        var.set(&var.zeros_like().unwrap()).unwrap();
        let decoder = student.decoder().unwrap();
        assert!(values_of(&decoder.blocks[1].down).unwrap().iter().all(|it| *it == 0.0));
        assert_eq!(values_of(&original.blocks[1].down).unwrap(), before);
        assert!(!decoder.embedding.is_variable());
    }

    #[test]
    fn nothing_to_train_is_an_error() {
        let original = initial::decoder(&tiny_config(), 3).unwrap();
        assert!(Student::new(&original, None, 1, |_| false).is_err());
        let lora = Some(LoraSettings { rank: 2, alpha: 4.0 });
        assert!(Student::new(&original, lora, 1, |it| it == "norm").is_err());
    }
}
