//! Rows of text to packed batches of tokens; questions of other sets; figures.

mod batch;
pub mod figure;
pub mod formats;
mod questions;
mod rows;

pub use batch::Batch;
pub use questions::{Wordings, read_questions};
pub use rows::{DataError, Dialogue, read_dialogues};
