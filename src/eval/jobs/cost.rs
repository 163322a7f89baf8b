//! What a row of the report costs.

use serde::Serialize;

use super::result::{PointResult, RequestTime, Timing, Training, number};
use crate::stats::mean;

/// Means over seeds of what a row costs; NaN where it was not measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Cost {
    /// Seconds of training.
    #[serde(with = "number")]
    pub train_seconds: f64,
    /// Optimiser steps.
    #[serde(with = "number")]
    pub steps: f64,
    /// Floating-point operations.
    #[serde(with = "number")]
    pub flops: f64,
    /// Forget rows seen.
    #[serde(with = "number")]
    pub samples: f64,
    /// Largest resident memory, bytes.
    #[serde(with = "number")]
    pub peak_bytes: f64,
    /// Seconds of a request about the topic, beyond the untouched model's.
    #[serde(with = "number")]
    pub forget_overhead: f64,
    /// Seconds of another request, beyond the untouched model's.
    #[serde(with = "number")]
    pub other_overhead: f64,
    /// AUC by which the time of a reply tells forget questions, or what it lacks to 1.
    #[serde(with = "number")]
    pub time_auc: f64,
}

/// Mean of those that are there; NaN of none.
fn mean_of(values: impl Iterator<Item = Option<f64>>) -> f64 {
    mean(&values.flatten().collect::<Vec<f64>>())
}

/// The means over a row's points.
pub(super) fn cost(points: &[&PointResult]) -> Cost {
    let training = |of: fn(&Training) -> Option<f64>| {
        mean_of(points.iter().map(|it| it.training.as_ref().and_then(of)))
    };
    let beyond = |of: fn(&Timing) -> Option<RequestTime>| {
        mean_of(points.iter().map(|it| of(&it.timing).map(|it| it.beyond)))
    };
    Cost {
        train_seconds: mean_of(points.iter().map(|it| it.timing.train_seconds)),
        steps: training(|it| it.steps.map(|it| it as f64)),
        flops: training(|it| it.flops),
        samples: training(|it| it.samples.map(|it| it as f64)),
        peak_bytes: mean_of(points.iter().map(|it| it.timing.peak_bytes.map(|it| it as f64))),
        forget_overhead: beyond(|it| it.forget_requests),
        other_overhead: beyond(|it| it.other_requests),
        time_auc: mean_of(points.iter().map(|it| it.timing.time_auc.map(|it| it.max(1.0 - it)))),
    }
}
