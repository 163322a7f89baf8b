//! The folder of a model that was changed: the run's record, what goes with any model, the weights.

use std::fs;
use std::path::Path;

use candle_core::DType;
use serde::Serialize;

use super::fit::TrainError;
use crate::engine::decoder::Decoder;
use crate::engine::weights;

/// What stays the same when weights change.
const COMPANIONS: [&str; 5] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "generation_config.json",
];

/// Where a model came from, and where the changed one goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChangedModel<'a> {
    /// The folder of the first model.
    pub(super) from: &'a Path,
    /// The folder of the new one.
    pub(super) out: &'a Path,
}

impl ChangedModel<'_> {
    /// Whether there is room: a folder that already holds a model is left alone.
    pub(super) fn vacant(self) -> Result<(), TrainError> {
        let result = self.out.join("model.safetensors");
        if result.exists() {
            let message = format!("{} exists; choose another `--out`", result.display());
            return Err(TrainError::Settings(message));
        }
        Ok(())
    }

    /// Writes all of it, weights in f32. The record comes before them: what has a model has its record.
    pub(super) fn write(
        self,
        decoder: &Decoder,
        record_file: &str,
        record: &impl Serialize,
    ) -> Result<(), TrainError> {
        let failed = |path: &Path, it: std::io::Error| TrainError::Checkpoint {
            path: path.to_owned(),
            message: it.to_string(),
        };
        fs::create_dir_all(self.out).map_err(|it| failed(self.out, it))?;
        for name in COMPANIONS {
            let (from, to) = (self.from.join(name), self.out.join(name));
            if from.exists() {
                fs::copy(&from, &to).map_err(|it| failed(&to, it))?;
            }
        }
        let path = self.out.join(record_file);
        let text = serde_json::to_string_pretty(record).expect("a record is JSON") + "\n";
        fs::write(&path, text).map_err(|it| failed(&path, it))?;
        Ok(weights::save(decoder, self.out, DType::F32)?)
    }
}
