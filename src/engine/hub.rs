//! Model folders by hub id: `owner/name` is fetched once into the Hugging Face cache. As everywhere,
//! `HF_HOME` moves the cache and `HF_ENDPOINT` names another hub.

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiError};

use super::error::EngineError;

const FILES: [&str; 3] = ["config.json", "tokenizer.json", "tokenizer_config.json"];

/// The folder itself when it exists; else the hub repository of that name, fetched if need be.
///
/// # Errors
///
/// [`EngineError::File`] when there is neither.
pub fn resolve(folder: &Path) -> Result<PathBuf, EngineError> {
    find(folder, true)
}

/// The same for somebody who reads no weights: none are fetched.
///
/// # Errors
///
/// As [`resolve`].
pub fn resolve_without_weights(folder: &Path) -> Result<PathBuf, EngineError> {
    find(folder, false)
}

fn find(folder: &Path, weights: bool) -> Result<PathBuf, EngineError> {
    if folder.is_dir() {
        return Ok(folder.to_owned());
    }
    let name = folder.to_string_lossy();
    let is_id = name.split('/').count() == 2 && !name.starts_with(['.', '/']);
    if !is_id || folder.starts_with("models") {
        return Err(EngineError::file(folder, "no such model folder (nor a hub id `owner/name`)"));
    }
    let failed = |it: ApiError| {
        EngineError::file(folder, format!("no such folder, and the hub has no such model: {it}"))
    };
    let repository = ApiBuilder::from_env().build().map_err(failed)?.model(name.to_string());
    let mut found = None;
    for file in FILES {
        found = Some(repository.get(file).map_err(failed)?);
    }
    if weights && repository.get("model.safetensors").is_err() {
        let index = repository.get("model.safetensors.index.json").map_err(failed)?;
        let text = std::fs::read_to_string(&index)
            .map_err(|it| EngineError::file(&index, it.to_string()))?;
        let index: serde_json::Value =
            serde_json::from_str(&text).map_err(|it| EngineError::file(folder, it.to_string()))?;
        let map = index["weight_map"].as_object().into_iter().flatten();
        let mut shards: Vec<&str> = map.filter_map(|it| it.1.as_str()).collect();
        shards.sort_unstable();
        shards.dedup();
        for shard in shards {
            repository.get(shard).map_err(failed)?;
        }
    }
    let parent = found.as_deref().and_then(Path::parent);
    parent
        .map(Path::to_owned)
        .ok_or_else(|| EngineError::file(folder, "the hub cache has no folder"))
}
