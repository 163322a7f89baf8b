//! Rows of text to packed batches of tokens.

mod batch;
pub mod formats;
mod rows;

pub use batch::Batch;
pub use rows::{DataError, Dialogue, read_dialogues};
