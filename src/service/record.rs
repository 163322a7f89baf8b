//! What operators learn about rulings: topics, treatments, counts, never text.

use std::error::Error;
use std::sync::Arc;

use crate::policy::{Policy, Ruling};
use crate::telemetry::audit::AuditLog;
use crate::telemetry::metrics::Metrics;

/// Writes what happened to log, metrics and audit log.
#[derive(Debug, Clone)]
pub(super) struct Recorder {
    metrics: Arc<Metrics>,
    audit: Option<Arc<AuditLog>>,
}

impl Recorder {
    pub(super) fn new(metrics: Arc<Metrics>, audit: Option<Arc<AuditLog>>) -> Self {
        Self { metrics, audit }
    }

    /// A policy ruled on a request.
    pub(super) fn ruled(&self, policy: &Policy, ruling: &Ruling) {
        let Ruling::Treat { evidence } = ruling else { return };
        let (topic, mode, evidence) = (&policy.topic, policy.mode.as_str(), evidence.len());
        tracing::info!(topic, mode, evidence, "ruled");
    }

    /// A treatment was carried out.
    pub(super) fn treated(&self, policy: &Policy, treatment: &'static str) {
        tracing::info!(topic = policy.topic, treatment, "treated");
    }

    /// A detector failed.
    pub(super) fn failed(&self, policy: &Policy, error: &(dyn Error + Send + Sync + 'static)) {
        let on_error = policy.on_error.as_str();
        tracing::error!(topic = policy.topic, on_error, error, "a detector failed");
    }

    /// A reply passed its window.
    pub(super) fn hits(&self, hits: usize) {
        if hits > 0 {
            tracing::info!(hits, "redacted a reply");
        }
    }
}
