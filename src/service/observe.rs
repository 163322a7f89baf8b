//! HTTP's view of a request, written into the metrics.

use crate::http::{RequestObserver, RequestOutcome};
use crate::telemetry::Metrics;

impl RequestObserver for Metrics {
    fn request_started(&self) {
        Self::request_started(self);
    }

    fn request_finished(&self, outcome: RequestOutcome) {
        let RequestOutcome { endpoint, status, stream, duration, .. } = outcome;
        Self::request_finished(self, endpoint, status, stream, duration);
        if let Some(after) = outcome.time_to_first_text {
            self.first_text(after);
        }
        self.tokens(outcome.usage);
        if outcome.cancelled {
            self.client_cancelled();
        }
    }

    fn render(&self) -> String {
        Self::render(self)
    }
}
