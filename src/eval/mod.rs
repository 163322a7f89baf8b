//! Measurements: TOFU's metrics through the same [`Backend`](crate::backend::Backend) that serves.

pub mod attacks;
pub mod compare;
pub mod corruption;
pub mod detection;
pub mod figures;
pub mod jobs;
pub mod metrics;
pub mod open_unlearning;
pub mod porter;
pub mod report;
pub mod rouge;
pub mod score;
pub mod skills;
pub mod suite;
pub mod tofu;
pub mod whitebox;
