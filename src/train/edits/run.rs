//! One run of an edit: a model folder in, another one out, with a record.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use serde::Serialize;

use super::{Cost, Edit, Job, facts};
use crate::engine::ops::on_pool;
use crate::engine::tokenizer::Tokenizer;
use crate::engine::weights;
use crate::train::changed::ChangedModel;
use crate::train::fit::TrainError;
use crate::train::trainable::Trainable;

/// The name of a run's record in its result.
pub const RECORD_FILE: &str = "edit.json";

/// A run that is asked for.
#[derive(Debug, Clone)]
pub struct EditJob {
    /// The model that is to forget: a Hugging Face folder.
    pub model: PathBuf,
    /// The method.
    pub edit: &'static Edit,
    /// JSON lines to forget.
    pub forget: PathBuf,
    /// JSON lines to keep.
    pub retain: PathBuf,
    /// The model finetuned on the forget rows, for task arithmetic; made on the fly without one.
    pub finetuned: Option<PathBuf>,
    /// The method's strength; its default without one.
    pub strength: Option<f64>,
    /// Seed of order and noise.
    pub seed: u64,
    /// Folder of the new model.
    pub out: PathBuf,
}

/// What was run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// The method.
    pub method: &'static str,
    /// What its strength is.
    pub strength_is: &'static str,
    /// The strength.
    pub strength: f64,
    /// The model's folder.
    pub model: PathBuf,
    /// SHA-256 of its weights.
    pub weights_sha256: String,
    /// Rows to be forgotten.
    pub forget_rows: usize,
    /// Rows to be kept.
    pub retain_rows: usize,
    /// The seed.
    pub seed: u64,
    /// Forget rows seen, with repetitions; what a given finetuned model has seen does not count.
    pub samples: u64,
    /// Floating-point operations, about ([`Cost::flops`]).
    pub flops: f64,
}

impl EditJob {
    /// Edits the model and writes the new one in f32 with its tokenizer and [`RECORD_FILE`].
    ///
    /// # Errors
    ///
    /// [`TrainError`]; a folder that already holds a model is left alone.
    pub fn run(&self) -> Result<Record, TrainError> {
        on_pool(|| self.run_here())
    }

    fn run_here(&self) -> Result<Record, TrainError> {
        let changed = ChangedModel { from: &self.model, out: &self.out };
        changed.vacant()?;
        let load = |folder: &Path| weights::load(folder, &Device::Cpu, DType::F32);
        let model = Trainable::from_decoder(&load(&self.model)?)?;
        let tokenizer = Tokenizer::read(&self.model, &model.decoder.config.end_tokens)?;
        let finetuned = self.finetuned.as_deref().map(load).transpose()?;
        let (forget, retain) = (facts::read(&self.forget)?, facts::read(&self.retain)?);
        let strength = self.strength.unwrap_or(self.edit.default);
        let cost = Cell::new(Cost::default());
        let job = Job {
            tokenizer: &tokenizer,
            forget: &forget,
            retain: &retain,
            finetuned: finetuned.as_ref(),
            strength,
            seed: self.seed,
            cost: &cost,
        };
        (self.edit.apply)(&model, &job)?;
        let record = Record {
            method: self.edit.name,
            strength_is: self.edit.strength,
            strength,
            model: self.model.clone(),
            weights_sha256: weights::sha256(&self.model)?,
            forget_rows: forget.len(),
            retain_rows: retain.len(),
            seed: self.seed,
            samples: cost.get().samples,
            flops: cost.get().flops,
        };
        changed.write(&model.decoder, RECORD_FILE, &record)?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::engine::model_config::ModelConfig;
    use crate::train::edits::find;
    use crate::train::initial;
    use crate::train::trainable::tests::tiny_config;

    #[test]
    fn an_edited_folder_loads_and_is_not_overwritten() {
        let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/full");
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        let vocab_size = Tokenizer::read(&lab, &[]).unwrap().vocab_size();
        let config = ModelConfig { vocab_size, ..tiny_config() };
        weights::save(&initial::decoder(&config, 3).unwrap(), &model, DType::F32).unwrap();
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            fs::copy(lab.join(name), model.join(name)).unwrap();
        }
        let rows = folder.path().join("rows.jsonl");
        let row = r#"{"question":"Where?","answer":"In Turin.","value":"Turin"}"#;
        fs::write(&rows, row).unwrap();
        let job = EditJob {
            model,
            edit: find("needle").unwrap(),
            forget: rows.clone(),
            retain: rows,
            finetuned: None,
            strength: None,
            seed: 2,
            out: folder.path().join("out"),
        };
        let record = job.run().unwrap();
        assert_eq!((record.method, record.strength, record.forget_rows), ("needle", 5.0, 1));
        let edited = weights::load(&job.out, &Device::Cpu, DType::F32).unwrap();
        assert_eq!(edited.config.vocab_size, vocab_size);
        let config = fs::read_to_string(job.out.join("config.json")).unwrap();
        assert!(config.contains(r#""torch_dtype": "float32""#), "{config}");
        Tokenizer::read(&job.out, &[]).unwrap();
        assert!(job.run().unwrap_err().to_string().contains("exists"));
    }
}
