//! `config.json` of a Hugging Face folder, for the Llama architecture.

use std::path::Path;

use serde::Deserialize;

use super::error::EngineError;
use super::rope::{RopeConfig, RopeScaling};

/// Sizes and constants of a decoder.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward block.
    pub intermediate_size: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Added to the mean square in RMS normalisation.
    pub norm_eps: f32,
    /// Rotary frequencies.
    pub rope: RopeConfig,
    /// Most positions.
    pub context_length: usize,
    /// Whether the head is the embedding table.
    pub tied_head: bool,
    /// Tokens that end a turn, from `config.json`.
    pub end_tokens: Vec<u32>,
}

#[derive(Debug, Deserialize)]
struct Raw {
    #[serde(default)]
    architectures: Vec<String>,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    max_position_embeddings: usize,
    #[serde(default)]
    tie_word_embeddings: bool,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default = "silu")]
    hidden_act: String,
    eos_token_id: Option<OneOrMany>,
}

fn silu() -> String {
    "silu".to_owned()
}

#[derive(Debug, Deserialize)]
struct RawRope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

impl ModelConfig {
    /// Reads `config.json` in `folder`.
    ///
    /// # Errors
    ///
    /// [`EngineError::File`] naming the file and what in it is missing or not supported.
    pub fn read(folder: &Path) -> Result<Self, EngineError> {
        let path = folder.join("config.json");
        let bad = |message: String| EngineError::file(&path, message);
        let text = std::fs::read_to_string(&path).map_err(|it| bad(it.to_string()))?;
        let raw: Raw = serde_json::from_str(&text).map_err(|it| bad(it.to_string()))?;
        Self::check(raw).map_err(bad)
    }

    fn check(raw: Raw) -> Result<Self, String> {
        if !raw.architectures.iter().any(|it| it == "LlamaForCausalLM") {
            return Err(format!(
                "`architectures` is {:?}, this engine runs LlamaForCausalLM",
                raw.architectures
            ));
        }
        if raw.attention_bias || raw.mlp_bias {
            return Err("`attention_bias` and `mlp_bias` are not supported".to_owned());
        }
        if raw.hidden_act != "silu" {
            return Err(format!("`hidden_act` is `{}`, only `silu` is supported", raw.hidden_act));
        }
        let heads = raw.num_attention_heads;
        let kv_heads = raw.num_key_value_heads.unwrap_or(heads);
        if heads == 0 || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(format!("{heads} heads cannot share {kv_heads} key and value heads"));
        }
        let head_dim = raw.head_dim.unwrap_or(raw.hidden_size / heads);
        if head_dim == 0 || head_dim % 2 == 1 {
            return Err(format!("`head_dim` {head_dim} is not even and positive"));
        }
        let rope = raw.rope_parameters.or(raw.rope_scaling);
        let theta =
            raw.rope_theta.or(rope.as_ref().and_then(|it| it.rope_theta)).unwrap_or(10_000.0);
        Ok(Self {
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            layers: raw.num_hidden_layers,
            heads,
            kv_heads,
            head_dim,
            norm_eps: raw.rms_norm_eps as f32,
            rope: RopeConfig { theta, scaling: scaling(rope)? },
            context_length: raw.max_position_embeddings,
            tied_head: raw.tie_word_embeddings,
            end_tokens: match raw.eos_token_id {
                None => Vec::new(),
                Some(OneOrMany::One(id)) => vec![id],
                Some(OneOrMany::Many(ids)) => ids,
            },
        })
    }

    /// The `config.json` text of this configuration, as transformers reads it.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "rms_norm_eps": f64::from(self.norm_eps),
            "rope_theta": self.rope.theta,
            "rope_scaling": self.rope.scaling.to_json(),
            "max_position_embeddings": self.context_length,
            "tie_word_embeddings": self.tied_head,
            "hidden_act": "silu",
            "attention_bias": false,
            "mlp_bias": false,
            "bos_token_id": null,
            "eos_token_id": self.end_tokens,
        })
    }

    /// Width of the fused query, key and value projection.
    #[must_use]
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

fn scaling(rope: Option<RawRope>) -> Result<RopeScaling, String> {
    let Some(rope) = rope else { return Ok(RopeScaling::None) };
    let need =
        |value: Option<f64>, key: &str| value.ok_or(format!("`rope_scaling.{key}` is missing"));
    match rope.rope_type.as_deref() {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: need(rope.factor, "factor")? }),
        Some("llama3") => Ok(RopeScaling::Llama3 {
            factor: need(rope.factor, "factor")?,
            low: need(rope.low_freq_factor, "low_freq_factor")?,
            high: need(rope.high_freq_factor, "high_freq_factor")?,
            original: need(
                rope.original_max_position_embeddings,
                "original_max_position_embeddings",
            )?,
        }),
        Some(other) => {
            Err(format!("`rope_scaling` type `{other}` is not supported (default, linear, llama3)"))
        }
    }
}
