//! Pretraining.

/// Context length of the lab's models.
pub const CONTEXT: usize = 512;
