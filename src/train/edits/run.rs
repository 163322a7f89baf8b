//! One run of an edit: a model folder in, another one out, with a record.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use serde::Serialize;

use super::{Edit, Job, facts};
use crate::engine::tokenizer::Tokenizer;
use crate::engine::weights;
use crate::train::fit::TrainError;
use crate::train::trainable::Trainable;
use crate::train::unlearn::COMPANIONS;

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
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> TrainError {
    let path = path.to_owned();
    move |it| TrainError::Checkpoint { path: path.clone(), message: it.to_string() }
}

impl EditJob {
    /// Edits the model and writes the new one in f32 with its tokenizer and [`RECORD_FILE`].
    ///
    /// # Errors
    ///
    /// [`TrainError`]; a folder that already holds a model is left alone.
    pub fn run(&self) -> Result<Record, TrainError> {
        let result = self.out.join("model.safetensors");
        if result.exists() {
            let message = format!("{} exists; choose another `--out`", result.display());
            return Err(TrainError::Settings(message));
        }
        let load = |folder: &Path| weights::load(folder, &Device::Cpu, DType::F32);
        let model = Trainable::from_decoder(&load(&self.model)?)?;
        let tokenizer = Tokenizer::read(&self.model, &model.decoder.config.end_tokens)?;
        let finetuned = self.finetuned.as_deref().map(load).transpose()?;
        let (forget, retain) = (facts::read(&self.forget)?, facts::read(&self.retain)?);
        let strength = self.strength.unwrap_or(self.edit.default);
        let job = Job {
            tokenizer: &tokenizer,
            forget: &forget,
            retain: &retain,
            finetuned: finetuned.as_ref(),
            strength,
            seed: self.seed,
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
        };
        self.write(&model, &record)?;
        Ok(record)
    }

    /// The record before the weights: what has a model has its record.
    fn write(&self, model: &Trainable, record: &Record) -> Result<(), TrainError> {
        fs::create_dir_all(&self.out).map_err(failed(&self.out))?;
        for name in COMPANIONS {
            let (from, to) = (self.model.join(name), self.out.join(name));
            if from.exists() {
                fs::copy(&from, &to).map_err(failed(&to))?;
            }
        }
        let path = self.out.join(RECORD_FILE);
        let text = serde_json::to_string_pretty(record).expect("a record is JSON") + "\n";
        fs::write(&path, text).map_err(failed(&path))?;
        Ok(weights::save(&model.decoder, &self.out, DType::F32)?)
    }
}

#[cfg(test)]
mod tests {
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
        Tokenizer::read(&job.out, &[]).unwrap();
        assert!(job.run().unwrap_err().to_string().contains("exists"));
    }
}
