//! What operators learn about rulings: topics, treatments, counts, never text.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::policy::Policy;
use crate::telemetry::{AuditLog, AuditRecord, Metrics};
use crate::types::{Evidence, Place};

/// Writes what happened to log, metrics and audit log.
#[derive(Debug, Clone)]
pub(super) struct Recorder {
    metrics: Arc<Metrics>,
    audit: Option<Arc<AuditLog>>,
}

/// A ruling, as operators are told of it.
pub(super) struct Verdict<'a> {
    pub(super) policy: &'a Policy,
    pub(super) texts: &'a [(Place, String)],
    /// Empty when a detector failed.
    pub(super) evidence: &'a [Evidence],
    /// When the first detector started.
    pub(super) since: Instant,
}

impl Recorder {
    pub(super) fn new(metrics: Arc<Metrics>, audit: Option<Arc<AuditLog>>) -> Self {
        Self { metrics, audit }
    }

    /// A policy treated a request, or would have.
    pub(super) fn treated(&self, verdict: &Verdict<'_>, treatment: &'static str) {
        let Verdict { policy, texts, evidence, since } = verdict;
        let (topic, mode) = (policy.topic.as_str(), policy.mode.as_str());
        tracing::info!(topic, mode, treatment, "ruled");
        self.metrics.ruling(topic, treatment, mode);
        let Some(audit) = &self.audit else { return };
        let evidence = evidence.first();
        let place = evidence.map(|it| it.place);
        let text = texts.iter().find(|it| Some(it.0) == place).or(texts.last());
        let written = audit.write(&AuditRecord {
            text: text.map_or("", |it| it.1.as_str()),
            topic,
            revision: &policy.revision,
            evidence,
            treatment,
            mode,
            duration: since.elapsed(),
        });
        if let Err(error) = written {
            tracing::error!(%error, "the audit log cannot be written");
            self.metrics.audit_line_lost();
        }
    }

    /// A detector's verdict was asked for in the cache.
    pub(super) fn recalled(&self, known: bool) {
        self.metrics.verdict_recalled(known);
    }

    /// A detector read a request.
    pub(super) fn detector(&self, detector: &str, duration: Duration) {
        self.metrics.detector(detector, duration);
    }

    /// A detector failed.
    pub(super) fn failed(&self, policy: &Policy, error: &(dyn Error + Send + Sync + 'static)) {
        let on_error = policy.on_error.as_str();
        let error: &(dyn Error + 'static) = error;
        tracing::error!(topic = policy.topic, on_error, error, "a detector failed");
        self.metrics.detector_error(&detectors(policy), on_error);
    }

    /// A policy comes into force.
    pub(super) fn in_force(&self, policy: &Policy) {
        self.metrics.detector_may_fail(&detectors(policy), policy.on_error.as_str());
    }

    /// The window redacted an untreated reply. One window serves all topics, so that the label
    /// names those that it watched for.
    pub(super) fn hits(&self, topics: &str, hits: usize) {
        for _ in 0..hits {
            self.metrics.output_hit(topics);
        }
    }
}

/// The label of a policy's detectors.
fn detectors(policy: &Policy) -> String {
    policy.detectors.iter().map(|it| it.name()).collect::<Vec<_>>().join("+")
}
