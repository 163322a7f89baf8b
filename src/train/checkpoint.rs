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
        optimiser: &mut AdamW,
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
        for ((name, var), moments) in vars.iter().zip(&mut optimiser.moments) {
            var.set(get(format!("weight.{name}"))?)?;
            moments.0 = get(format!("first.{name}"))?.to_vec1()?;
            moments.1 = get(format!("second.{name}"))?.to_vec1()?;
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
            tensors.insert(format!("weight.{name}"), var.as_tensor().clone());
            tensors.insert(format!("first.{name}"), Tensor::new(first.as_slice(), &Device::Cpu)?);
            tensors.insert(format!("second.{name}"), Tensor::new(second.as_slice(), &Device::Cpu)?);
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
        let optimiser =
            |vars: &[(String, Var)]| AdamW::new(vec![vars[0].1.clone()], AdamWSettings::default());
        let vars = var(3.0);
        let mut trained = optimiser(&vars);
        trained.moments[0] = (vec![0.5], vec![0.25]);
        checkpoint.save(&vars, &trained, &7u64).unwrap();

        let vars = var(0.0);
        let mut fresh = optimiser(&vars);
        assert!(checkpoint.load(&vars, &mut fresh, |it: &u64| *it == 8).is_err());
        assert_eq!(vars[0].1.to_vec1::<f32>().unwrap(), [0.0]);
        assert_eq!(checkpoint.load(&vars, &mut fresh, |it: &u64| *it == 7).unwrap(), Some(7));
        assert_eq!(vars[0].1.to_vec1::<f32>().unwrap(), [3.0]);
        assert_eq!(fresh.moments, trained.moments);

        checkpoint.remove().unwrap();
        assert_eq!(checkpoint.load(&vars, &mut fresh, |_: &u64| true).unwrap(), None);
    }
}
