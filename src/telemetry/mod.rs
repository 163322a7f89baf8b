//! What operators see: metrics, the audit log, and log lines.
//!
//! User text appears in none of them. Hashes, spans, scores and topics do.

mod audit;
mod metrics;

use tracing_subscriber::EnvFilter;

pub use audit::{AuditLog, AuditRecord};
pub use metrics::Metrics;

/// What a server logs: also every ruling.
pub const SERVER_LOG: &str = "info,ort=warn";
/// What an offline job logs: not the thousands of rulings that it provokes itself.
pub const JOB_LOG: &str = "info,ort=warn,unlearn_proxy::service::record=warn";

/// Sends log lines to standard error, as JSON or for people. `RUST_LOG` chooses what is logged, else
/// `default`. A second call changes nothing.
pub fn init_tracing(json: bool, default: &str) {
    let wanted = crate::config::process_environment("RUST_LOG").filter(|it| !it.is_empty());
    let filter = EnvFilter::new(wanted.as_deref().unwrap_or(default));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = if json { lines.json().try_init() } else { lines.try_init() };
    if set.is_err() {
        tracing::debug!("log lines have a destination already");
    }
}
