//! Weights in Hugging Face layout: safetensors by memory map in, safetensors out.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::safetensors::MmapedSafetensors;
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::decoder::{Block, Decoder};
use super::error::EngineError;
use super::model_config::ModelConfig;
use super::rope::Rope;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Loads the decoder of a folder: `config.json` and `model.safetensors` or its sharded form.
///
/// # Errors
///
/// [`EngineError::File`] naming the file and the tensor that is missing or has the wrong shape.
pub fn load(folder: &Path, device: &Device, dtype: DType) -> Result<Decoder, EngineError> {
    let config = ModelConfig::read(folder)?;
    let paths = files(folder)?;
    let first = paths[0].clone();
    // SAFETY: the map is private and read-only; a file that another process rewrites while it is
    // mapped would change weights under us, which the documentation of `models/` forbids.
    #[expect(unsafe_code, reason = "safetensors are mapped, not copied")]
    let tensors = unsafe { MmapedSafetensors::multi(&paths) }
        .map_err(|it| EngineError::file(&first, it.to_string()))?;
    let source = Source { tensors, path: first, device: device.clone(), dtype };
    source.decoder(config)
}

/// The files of a folder's weights, all of which are there.
///
/// # Errors
///
/// [`EngineError::File`] naming the file that is missing or cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, EngineError> {
    let single = folder.join("model.safetensors");
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = folder.join("model.safetensors.index.json");
    let text = fs::read_to_string(&index)
        .map_err(|it| EngineError::file(&single, format!("not found, nor is its index: {it}")))?;
    let index: Index =
        serde_json::from_str(&text).map_err(|it| EngineError::file(&index, it.to_string()))?;
    let mut names: Vec<&String> = index.weight_map.values().collect();
    names.sort();
    names.dedup();
    let paths: Vec<PathBuf> = names.into_iter().map(|it| folder.join(it)).collect();
    match paths.iter().find(|it| !it.is_file()) {
        Some(missing) => Err(EngineError::file(missing, "not found")),
        None => Ok(paths),
    }
}

/// SHA-256 of the weights' files of a folder, one after the other, in lower-case hexadecimal.
///
/// # Errors
///
/// [`EngineError::File`] naming the file that is missing or cannot be read.
pub fn sha256(folder: &Path) -> Result<String, EngineError> {
    let mut hash = Sha256::new();
    for path in files(folder)? {
        fs::File::open(&path)
            .and_then(|mut file| std::io::copy(&mut file, &mut hash))
            .map_err(|it| EngineError::file(&path, it.to_string()))?;
    }
    Ok(hash.finalize().iter().map(|it| format!("{it:02x}")).collect())
}

struct Source {
    tensors: MmapedSafetensors,
    path: PathBuf,
    device: Device,
    dtype: DType,
}

impl Source {
    fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor, EngineError> {
        let tensor =
            self.tensors
                .load(name, &self.device)
                .and_then(|it| it.to_dtype(self.dtype))
                .map_err(|it| EngineError::file(&self.path, format!("tensor `{name}`: {it}")))?;
        if tensor.dims() != shape {
            let message =
                format!("tensor `{name}` is {:?}, `config.json` says {shape:?}", tensor.dims());
            return Err(EngineError::file(&self.path, message));
        }
        Ok(tensor)
    }

    fn block(&self, config: &ModelConfig, layer: usize) -> Result<Block, EngineError> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let get = |name: &str, shape: &[usize]| {
            self.get(&format!("model.layers.{layer}.{name}.weight"), shape)
        };
        let qkv = [
            get("self_attn.q_proj", &[q, hidden])?,
            get("self_attn.k_proj", &[kv, hidden])?,
            get("self_attn.v_proj", &[kv, hidden])?,
        ];
        let gate_up =
            [get("mlp.gate_proj", &[wide, hidden])?, get("mlp.up_proj", &[wide, hidden])?];
        Ok(Block {
            attention_norm: get("input_layernorm", &[hidden])?,
            qkv: Tensor::cat(&qkv, 0)?,
            output: get("self_attn.o_proj", &[hidden, q])?,
            feed_forward_norm: get("post_attention_layernorm", &[hidden])?,
            gate_up: Tensor::cat(&gate_up, 0)?,
            down: get("mlp.down_proj", &[hidden, wide])?,
        })
    }

    fn decoder(&self, config: ModelConfig) -> Result<Decoder, EngineError> {
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let head = match config.tied_head {
            true => None,
            false => Some(self.get("lm_head.weight", &[vocab, hidden])?),
        };
        Ok(Decoder {
            embedding: self.get("model.embed_tokens.weight", &[vocab, hidden])?,
            blocks: (0..config.layers)
                .map(|it| self.block(&config, it))
                .collect::<Result<_, _>>()?,
            norm: self.get("model.norm.weight", &[hidden])?,
            head,
            rope: Rope::new(&config.rope, config.head_dim, config.context_length),
            config,
        })
    }
}

/// The decoder's tensors under their Hugging Face names.
///
/// # Errors
///
/// [`EngineError::Tensor`] when memory runs out.
pub fn named(decoder: &Decoder) -> Result<BTreeMap<String, Tensor>, EngineError> {
    let config = &decoder.config;
    let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let wide = config.intermediate_size;
    let mut out = BTreeMap::new();
    out.insert("model.embed_tokens.weight".to_owned(), decoder.embedding.clone());
    out.insert("model.norm.weight".to_owned(), decoder.norm.clone());
    if let Some(head) = &decoder.head {
        out.insert("lm_head.weight".to_owned(), head.clone());
    }
    for (layer, block) in decoder.blocks.iter().enumerate() {
        let mut put = |name: &str, tensor: Tensor| {
            out.insert(format!("model.layers.{layer}.{name}.weight"), tensor);
        };
        put("input_layernorm", block.attention_norm.clone());
        put("self_attn.q_proj", block.qkv.narrow(0, 0, q)?);
        put("self_attn.k_proj", block.qkv.narrow(0, q, kv)?);
        put("self_attn.v_proj", block.qkv.narrow(0, q + kv, kv)?);
        put("self_attn.o_proj", block.output.clone());
        put("post_attention_layernorm", block.feed_forward_norm.clone());
        put("mlp.gate_proj", block.gate_up.narrow(0, 0, wide)?);
        put("mlp.up_proj", block.gate_up.narrow(0, wide, wide)?);
        put("mlp.down_proj", block.down.clone());
    }
    Ok(out)
}

/// Writes `config.json` and `model.safetensors` in `dtype` into `folder`, each by rename.
///
/// # Errors
///
/// [`EngineError::File`] when the folder cannot be written.
pub fn save(decoder: &Decoder, folder: &Path, dtype: DType) -> Result<(), EngineError> {
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    for (name, tensor) in named(decoder)? {
        tensors.insert(name, tensor.to_dtype(dtype)?.to_device(&Device::Cpu)?.contiguous()?);
    }
    let path = folder.join("model.safetensors");
    let partial = folder.join("model.safetensors.partial");
    let failed = |it: &dyn std::fmt::Display| EngineError::file(&path, it.to_string());
    fs::create_dir_all(folder).map_err(|it| failed(&it))?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = safetensors::serialize(&tensors, Some(metadata)).map_err(|it| failed(&it))?;
    fs::write(&partial, bytes).map_err(|it| failed(&it))?;
    fs::rename(&partial, &path).map_err(|it| failed(&it))?;
    let mut config = decoder.config.to_json();
    config["torch_dtype"] = match dtype {
        DType::F16 => "float16",
        DType::BF16 => "bfloat16",
        _ => "float32",
    }
    .into();
    let config = serde_json::to_string_pretty(&config).expect("a configuration is JSON");
    let path = folder.join("config.json");
    fs::write(&path, config + "\n").map_err(|it| EngineError::file(&path, it.to_string()))
}
