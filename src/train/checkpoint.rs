//! Checkpoints of a training run: weights, moments and a state in one file, replaced by rename.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor, Var};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::adamw::AdamW;
use super::fit::TrainError;

/// The checkpoint of a folder. It holds named f32 variables, their two moments, and a state.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    folder: PathBuf,
}

impl Checkpoint {
    /// The checkpoint in `folder`, which need not exist yet.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("state.safetensors")
    }

    /// Puts weights and moments in place and returns the state; `None` without a checkpoint. The
    /// optimiser's count of steps is the caller's to set.
    ///
    /// # Errors
    ///
    /// [`TrainError::Checkpoint`] when the file is damaged or its state is not `ours`.
    pub fn load<S: DeserializeOwned>(
        &self,
        vars: &[(String, Var)],
        optimiser: &AdamW,
        ours: impl FnOnce(&S) -> bool,
    ) -> Result<Option<S>, TrainError> {
        let path = self.path();
        if !path.exists() {
            return Ok(None);
        }
        let bad = |message: String| TrainError::Checkpoint { path: path.clone(), message };
        let bytes = fs::read(&path).map_err(|it| bad(it.to_string()))?;
        let (_, metadata) =
            safetensors::SafeTensors::read_metadata(&bytes).map_err(|it| bad(it.to_string()))?;
        let text = metadata.metadata().as_ref().and_then(|it| it.get("state")).cloned();
        let state: S =
            serde_json::from_str(&text.unwrap_or_default()).map_err(|it| bad(it.to_string()))?;
        if !ours(&state) {
            return Err(bad(
                "belongs to another run; remove it or choose another `--out`".to_owned()
            ));
        }
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
        let get = |name: String| tensors.get(&name).ok_or_else(|| bad(format!("lacks `{name}`")));
        for ((name, var), moments) in vars.iter().zip(&optimiser.moments) {
            let parts = [("weight", var), ("first", &moments.0), ("second", &moments.1)];
            for (part, var) in parts {
                let value = get(format!("{part}.{name}"))?.reshape(var.shape())?;
                var.set(&value.to_device(var.device())?)?;
            }
        }
        Ok(Some(state))
    }

    /// Replaces the checkpoint; killed in between, the one before is still there.
    ///
    /// # Errors
    ///
    /// [`TrainError::Checkpoint`] when the folder cannot be written.
    pub fn save<S: Serialize>(
        &self,
        vars: &[(String, Var)],
        optimiser: &AdamW,
        state: &S,
    ) -> Result<(), TrainError> {
        let path = self.path();
        let bad = |message: String| TrainError::Checkpoint { path: path.clone(), message };
        let mut tensors: HashMap<String, Tensor> = HashMap::new();
        for ((name, var), (first, second)) in vars.iter().zip(&optimiser.moments) {
            for (part, var) in [("weight", var), ("first", first), ("second", second)] {
                tensors.insert(format!("{part}.{name}"), var.as_tensor().clone());
            }
        }
        let state = serde_json::to_string(state).map_err(|it| bad(it.to_string()))?;
        let metadata = HashMap::from([("state".to_owned(), state)]);
        let partial = self.folder.join("state.partial");
        fs::create_dir_all(&self.folder).map_err(|it| bad(it.to_string()))?;
        safetensors::serialize_to_file(&tensors, Some(metadata), &partial)
            .map_err(|it| bad(it.to_string()))?;
        fs::rename(&partial, &path).map_err(|it| bad(it.to_string()))
    }

    /// Removes the checkpoint of a run whose result is written.
    ///
    /// # Errors
    ///
    /// [`TrainError::Checkpoint`] when the folder cannot be removed.
    pub fn remove(&self) -> Result<(), TrainError> {
        if !self.folder.exists() {
            return Ok(());
        }
        fs::remove_dir_all(&self.folder).map_err(|it| TrainError::Checkpoint {
            path: self.folder.clone(),
            message: it.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::adamw::AdamWSettings;

    #[test]
    fn comes_back_whole_and_only_to_its_own_run() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::new(&folder.path().join("work"));
        let var = |value: f32| vec![("w".to_owned(), Var::new(&[value], &Device::Cpu).unwrap())];
        let optimiser = |vars: &[(String, Var)]| {
            AdamW::new(vec![vars[0].1.clone()], AdamWSettings::default()).unwrap()
        };
        let vars = var(3.0);
        let trained = optimiser(&vars);
        let moments = |it: &AdamW| {
            [&it.moments[0].0, &it.moments[0].1].map(|it| it.to_vec1::<f32>().unwrap())
        };
        for (var, value) in [(&trained.moments[0].0, 0.5f32), (&trained.moments[0].1, 0.25)] {
            var.set(&Tensor::new(&[value], &Device::Cpu).unwrap()).unwrap();
        }
        checkpoint.save(&vars, &trained, &7u64).unwrap();

        let vars = var(0.0);
        let fresh = optimiser(&vars);
        assert!(checkpoint.load(&vars, &fresh, |it: &u64| *it == 8).is_err());
        assert_eq!(vars[0].1.to_vec1::<f32>().unwrap(), [0.0]);
        assert_eq!(checkpoint.load(&vars, &fresh, |it: &u64| *it == 7).unwrap(), Some(7));
        assert_eq!(vars[0].1.to_vec1::<f32>().unwrap(), [3.0]);
        assert_eq!(moments(&fresh), [[0.5], [0.25]]);

        checkpoint.remove().unwrap();
        assert_eq!(checkpoint.load(&vars, &fresh, |_: &u64| true).unwrap(), None);
    }
}
