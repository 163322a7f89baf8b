//! The table of metrics, under their Prometheus names.
//!
//! No label holds anything that a client wrote: a label's values must be few.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::types::Usage;

/// Seconds of whole requests and of the wait for the first text.
const REQUEST_BUCKETS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Seconds of a detector: 10 µs to the 10 s that a judge may take.
const DETECTOR_BUCKETS: [f64; 16] = [
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3,
    0.5, 2.5, 10.0,
];
const REGISTERED: &str = "names and labels are constants, each registered once";

/// The metrics of one server, in a registry of their own.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    first_text_seconds: Histogram,
    rulings: IntCounterVec,
    detector_seconds: HistogramVec,
    detector_errors: IntCounterVec,
    output_hits: IntCounterVec,
    audit_lines_lost: IntCounter,
    tokens: IntCounterVec,
    in_flight: IntGauge,
    cancelled: IntCounter,
    policies: PolicyMetrics,
}

/// Which policies are in force, and how they got there.
#[derive(Debug)]
struct PolicyMetrics {
    info: IntGaugeVec,
    reloads: IntCounter,
    reload_failures: IntCounter,
    verdict_hits: IntCounter,
    verdict_misses: IntCounter,
}

impl PolicyMetrics {
    fn new(table: &Table<'_>) -> Self {
        Self {
            info: table.gauges(
                "unlearn_policy_info",
                "1 for each policy in force.",
                &["topic", "revision"],
            ),
            reloads: table.counter(
                "unlearn_policy_reloads_total",
                "Times that policies were read again and came into force.",
            ),
            reload_failures: table.counter(
                "unlearn_policy_reload_failures_total",
                "Times that policies read again were faulty, so that the former ones stayed.",
            ),
            verdict_hits: table.counter(
                "unlearn_verdict_cache_hits_total",
                "Texts that an expensive detector need not read again.",
            ),
            verdict_misses: table.counter(
                "unlearn_verdict_cache_misses_total",
                "Texts that an expensive detector had to read.",
            ),
        }
    }
}

impl Metrics {
    /// All metrics at zero.
    ///
    /// # Panics
    ///
    /// Never: names and labels are constants.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let table = Table { registry: &registry };
        Self {
            requests: table.counters(
                "unlearn_requests_total",
                "Requests answered, by status code.",
                &["endpoint", "code", "stream"],
            ),
            request_seconds: table.histograms(
                "unlearn_request_duration_seconds",
                "From the request to the end of its reply.",
                &["endpoint"],
                &REQUEST_BUCKETS,
            ),
            first_text_seconds: table.histogram(
                "unlearn_time_to_first_text_seconds",
                "From the request to the first text that left the proxy.",
                &REQUEST_BUCKETS,
            ),
            rulings: table.counters(
                "unlearn_rulings_total",
                "Requests that a policy ruled to be about its topic.",
                &["topic", "treatment", "mode"],
            ),
            detector_seconds: table.histograms(
                "unlearn_detector_seconds",
                "One detector on one request.",
                &["detector"],
                &DETECTOR_BUCKETS,
            ),
            detector_errors: table.counters(
                "unlearn_detector_errors_total",
                "Failed detectors, by what became of the request.",
                &["detector", "outcome"],
            ),
            output_hits: table.counters(
                "unlearn_output_hits_total",
                "Names and copies that the window saw in replies to untreated requests.",
                &["topic"],
            ),
            audit_lines_lost: table.counter(
                "unlearn_audit_lines_lost_total",
                "Rulings that could not be written to the audit log.",
            ),
            tokens: table.counters(
                "unlearn_tokens_total",
                "Tokens of prompts and completions.",
                &["type"],
            ),
            in_flight: table.gauge("unlearn_inflight_requests", "Requests being answered."),
            cancelled: table.counter(
                "unlearn_client_cancelled_total",
                "Requests whose client left before the reply ended.",
            ),
            policies: PolicyMetrics::new(&table),
            registry,
        }
    }

    /// A request came in.
    pub fn request_started(&self) {
        self.in_flight.inc();
    }

    /// A request that was [started](Self::request_started) has its reply, or never will.
    pub fn request_finished(
        &self,
        endpoint: &'static str,
        status: u16,
        stream: bool,
        duration: Duration,
    ) {
        self.in_flight.dec();
        let (code, stream) = (status.to_string(), if stream { "true" } else { "false" });
        self.requests.with_label_values(&[endpoint, code.as_str(), stream]).inc();
        self.request_seconds.with_label_values(&[endpoint]).observe(duration.as_secs_f64());
    }

    /// The first text of a reply left the proxy this long after its request came in.
    pub fn first_text(&self, after: Duration) {
        self.first_text_seconds.observe(after.as_secs_f64());
    }

    /// What a request cost.
    pub fn tokens(&self, usage: Usage) {
        self.tokens.with_label_values(&["prompt"]).inc_by(usage.prompt_tokens as u64);
        self.tokens.with_label_values(&["completion"]).inc_by(usage.completion_tokens as u64);
    }

    /// A client left before its reply ended.
    pub fn client_cancelled(&self) {
        self.cancelled.inc();
    }

    /// A policy ruled that a request is about its topic. `treatment` and `mode` are their names in
    /// policy files.
    pub fn ruling(&self, topic: &str, treatment: &str, mode: &str) {
        self.rulings.with_label_values(&[topic, treatment, mode]).inc();
    }

    /// A detector read one request.
    pub fn detector(&self, detector: &str, duration: Duration) {
        self.detector_seconds.with_label_values(&[detector]).observe(duration.as_secs_f64());
    }

    /// A detector failed; `outcome` is the name of the policy's `on_error`.
    pub fn detector_error(&self, detector: &str, outcome: &str) {
        self.detector_errors.with_label_values(&[detector, outcome]).inc();
    }

    /// A detector that has not failed is exported as such, because an alert on an increase does not see the
    /// first value of a series.
    pub fn detector_may_fail(&self, detector: &str, outcome: &str) {
        self.detector_errors.with_label_values(&[detector, outcome]).inc_by(0);
    }

    /// The window saw a topic in a reply.
    pub fn output_hit(&self, topic: &str) {
        self.output_hits.with_label_values(&[topic]).inc();
    }

    /// A ruling could not be written to the audit log.
    pub fn audit_line_lost(&self) {
        self.audit_lines_lost.inc();
    }

    /// The policies in force, as topic and revision; replaces what was set before.
    pub fn set_policies<'a>(&self, policies: impl IntoIterator<Item = (&'a str, &'a str)>) {
        self.policies.info.reset();
        for (topic, revision) in policies {
            self.policies.info.with_label_values(&[topic, revision]).set(1);
        }
    }

    /// Policies were read again; `taken` says whether they are in force.
    pub fn policies_reloaded(&self, taken: bool) {
        let PolicyMetrics { reloads, reload_failures, .. } = &self.policies;
        let counter = if taken { reloads } else { reload_failures };
        counter.inc();
    }

    /// An expensive detector's verdict on a text was asked for; `known` says whether it was kept.
    pub fn verdict_recalled(&self, known: bool) {
        let PolicyMetrics { verdict_hits, verdict_misses, .. } = &self.policies;
        let counter = if known { verdict_hits } else { verdict_misses };
        counter.inc();
    }

    /// Everything in the Prometheus text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes metrics and registers them.
struct Table<'a> {
    registry: &'a Registry,
}

impl Table<'_> {
    fn add<C: prometheus::core::Collector + Clone + 'static>(
        &self,
        made: prometheus::Result<C>,
    ) -> C {
        let metric = made.expect(REGISTERED);
        self.registry.register(Box::new(metric.clone())).expect(REGISTERED);
        metric
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(options))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.add(HistogramVec::new(options, labels))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Metrics in which everything has happened once or twice.
    fn recorded() -> Metrics {
        let metrics = Metrics::new();
        metrics.request_started();
        metrics.request_started();
        metrics.request_finished("chat", 200, true, Duration::from_millis(20));
        metrics.first_text(Duration::from_millis(5));
        metrics.tokens(Usage { prompt_tokens: 7, completion_tokens: 3 });
        metrics.client_cancelled();
        metrics.ruling("authors", "corrupt", "enforce");
        metrics.detector("names", Duration::from_micros(20));
        metrics.detector_error("topic", "treat");
        metrics.detector_may_fail("topic", "treat");
        metrics.detector_may_fail("names", "pass");
        metrics.output_hit("authors");
        metrics.audit_line_lost();
        metrics.set_policies([("authors", "0123")]);
        metrics.policies_reloaded(true);
        metrics.policies_reloaded(false);
        metrics.verdict_recalled(true);
        metrics.verdict_recalled(false);
        metrics
    }

    #[test]
    fn what_was_recorded_is_rendered() {
        let text = recorded().render();
        for line in [
            "unlearn_requests_total{code=\"200\",endpoint=\"chat\",stream=\"true\"} 1",
            "unlearn_request_duration_seconds_count{endpoint=\"chat\"} 1",
            "unlearn_time_to_first_text_seconds_bucket{le=\"0.005\"} 1",
            "unlearn_rulings_total{mode=\"enforce\",topic=\"authors\",treatment=\"corrupt\"} 1",
            "unlearn_detector_seconds_bucket{detector=\"names\",le=\"0.000025\"} 1",
            "unlearn_detector_errors_total{detector=\"topic\",outcome=\"treat\"} 1",
            "unlearn_detector_errors_total{detector=\"names\",outcome=\"pass\"} 0",
            "unlearn_output_hits_total{topic=\"authors\"} 1",
            "unlearn_audit_lines_lost_total 1",
            "unlearn_tokens_total{type=\"prompt\"} 7",
            "unlearn_tokens_total{type=\"completion\"} 3",
            "unlearn_inflight_requests 1",
            "unlearn_client_cancelled_total 1",
            "unlearn_policy_info{revision=\"0123\",topic=\"authors\"} 1",
            "unlearn_policy_reloads_total 1",
            "unlearn_policy_reload_failures_total 1",
            "unlearn_verdict_cache_hits_total 1",
            "unlearn_verdict_cache_misses_total 1",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
        }
    }

    /// What dashboards and alerts ask for under `deploy`.
    #[test]
    fn dashboard_and_alerts_name_metrics_that_exist() {
        let exported: Vec<String> =
            recorded().registry.gather().iter().map(|it| it.name().to_owned()).collect();
        for file in ["grafana.json", "alerts.yml"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file);
            let text = std::fs::read_to_string(path).unwrap();
            let words = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
            let asked: Vec<&str> = words.filter(|it| it.starts_with("unlearn_")).collect();
            assert!(asked.len() > 5, "{file}");
            for name in asked {
                let family = name.strip_suffix("_bucket").unwrap_or(name);
                assert!(exported.iter().any(|it| it == family), "{name} of {file}");
            }
        }
    }

    #[test]
    fn a_reload_forgets_the_former_revision() {
        let metrics = Metrics::new();
        metrics.set_policies([("authors", "old")]);
        metrics.set_policies([("authors", "new")]);
        let text = metrics.render();
        assert!(text.contains("revision=\"new\"") && !text.contains("revision=\"old\""), "{text}");
    }
}
