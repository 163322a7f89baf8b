//! What operators see: metrics, the audit log, and log lines.
//!
//! User text appears in none of them. Hashes, spans, scores and topics do.

mod audit;
mod metrics;

use tracing_subscriber::EnvFilter;

pub use audit::{AuditLog, AuditRecord};
pub use metrics::Metrics;

/// Sends log lines to standard error, as JSON or for people. `RUST_LOG` chooses what is logged; the
/// default is `info`, of ONNX Runtime warnings. A second call changes nothing.
pub fn init_tracing(json: bool) {
    let wanted = crate::config::process_environment("RUST_LOG").filter(|it| !it.is_empty());
    let filter = EnvFilter::new(wanted.as_deref().unwrap_or("info,ort=warn"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = if json { lines.json().try_init() } else { lines.try_init() };
    if set.is_err() {
        tracing::debug!("log lines have a destination already");
    }
}
