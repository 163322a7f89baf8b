//! Training: the loop, the optimiser, losses, and what is made with them.

pub mod adamw;
pub mod classifier;
pub mod fit;
pub mod initial;
pub mod loss;
pub mod pretrain;
pub mod tokenizer;
pub mod trainable;
