//! Training: the loop, the optimiser, losses, and what is made with them.

pub mod adamw;
mod changed;
pub mod checkpoint;
pub mod classifier;
pub mod edits;
pub mod fit;
pub mod fusion;
pub mod hidden;
pub mod initial;
pub mod lora;
pub mod loss;
pub mod methods;
pub mod named;
pub mod pretrain;
pub mod recompute;
pub mod routing;
pub mod tokenizer;
pub mod trainable;
pub mod unlearn;
