//! The in-process engine: one decoder of the Llama family, written for serving.

pub mod decoder;
pub mod error;
pub mod kv_cache;
pub mod model_config;
pub mod ops;
pub mod rope;
pub mod sampler;
pub mod tokenizer;
pub mod weights;
