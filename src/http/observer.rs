//! What the HTTP layer tells about requests, without knowing who listens.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::types::{ReplyEvent, Usage};

/// Hears of every request for a reply. Called on the request path: implementations only count.
pub trait RequestObserver: Debug + Send + Sync {
    /// A request arrived.
    fn request_started(&self);

    /// The same request ended: answered, refused, failed, or dropped by its client.
    fn request_finished(&self, outcome: RequestOutcome);

    /// All metrics in the Prometheus text format.
    fn render(&self) -> String;
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestOutcome {
    /// One of a closed set of names: `chat`, `completions`, `models`, `other`.
    pub endpoint: &'static str,
    /// The HTTP status. A stream that failed after its headers reports the status it would have
    /// had; a request whose client left before any status reports 499.
    pub status: u16,
    /// Whether the reply was streamed.
    pub stream: bool,
    /// From the request's headers to its end.
    pub duration: Duration,
    /// From the request's headers to the first text, or piece of a call, of any choice.
    pub time_to_first_text: Option<Duration>,
    /// Tokens; zero when the request ended before its backend reported them.
    pub usage: Usage,
    /// Whether the client left before the end.
    pub cancelled: bool,
}

/// A request under way. Reports exactly once: by [`Ticket::finish`], or as cancelled when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    observer: Arc<dyn RequestObserver>,
    started: Instant,
    outcome: RequestOutcome,
    reported: bool,
}

impl Ticket {
    pub(super) fn start(observer: Arc<dyn RequestObserver>, endpoint: &'static str) -> Self {
        observer.request_started();
        let outcome = RequestOutcome {
            endpoint,
            status: 499,
            stream: false,
            duration: Duration::ZERO,
            time_to_first_text: None,
            usage: Usage::default(),
            cancelled: true,
        };
        Self { observer, started: Instant::now(), outcome, reported: false }
    }

    /// The reply is streamed and its headers are on their way.
    pub(super) fn streaming(&mut self) {
        self.outcome.stream = true;
        self.outcome.status = 200;
    }

    /// Notes the first text or call and the usage.
    pub(super) fn note(&mut self, event: &ReplyEvent) {
        match event {
            ReplyEvent::Text { text, .. } => {
                if !text.is_empty() && self.outcome.time_to_first_text.is_none() {
                    self.outcome.time_to_first_text = Some(self.started.elapsed());
                }
            }
            ReplyEvent::ToolCall { .. } => {
                self.outcome.time_to_first_text.get_or_insert_with(|| self.started.elapsed());
            }
            ReplyEvent::Finished { .. } => {}
            ReplyEvent::Done(usage) => self.outcome.usage = *usage,
        }
    }

    pub(super) fn finish(&mut self, status: u16) {
        self.outcome.status = status;
        self.outcome.cancelled = false;
        self.report();
    }

    fn report(&mut self) {
        if !self.reported {
            self.reported = true;
            self.outcome.duration = self.started.elapsed();
            self.observer.request_finished(self.outcome.clone());
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.report();
    }
}
