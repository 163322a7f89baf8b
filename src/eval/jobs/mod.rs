//! Job files: every method under the same metrics and attacks, beside gold.
//!
//! [`file`] reads a job, [`grid`] expands its sweeps into points, [`measure`] and [`open`] measure a
//! point, [`result`] keeps it, [`summary`] brings seeds together, [`phenomena`] asks the points for
//! what the literature reports, and [`report`] writes all of it down. What has to be trained or
//! guarded first is made by the binary, which joins training, serving and evaluation.

pub mod cost;
pub mod file;
pub mod grid;
pub mod hashes;
pub mod intervals;
pub mod material;
pub mod measure;
pub mod open;
pub mod phenomena;
pub mod report;
pub mod result;
pub mod summary;
