//! The OpenAI surface: `/v1/chat/completions`, `/v1/completions`, `/v1/models`, probes, metrics, and
//! the contract that says what becomes of every field.
//!
//! Only this module knows status codes, OpenAI JSON and axum. It sees a [`Backend`], guarded or not,
//! and never looks at what a treatment did. Bodies are read as plain JSON values and checked field by
//! field, so that every malformed request is a 400 in the OpenAI envelope and names its field.
//!
//! Dropping a response, streamed or not, drops the [`ReplyStream`](crate::backend::ReplyStream) behind
//! it, which cancels the work.

mod admin;
mod chat;
mod completions;
mod contract;
mod error;
mod gate;
mod observer;
mod openai;
mod sse;
mod tools;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

use crate::backend::Backend;

pub use observer::{RequestObserver, RequestOutcome};

/// What the handlers share.
pub struct HttpState {
    /// Answers the requests.
    pub backend: Arc<dyn Backend>,
    /// Told of every request; renders `/metrics`.
    pub metrics: Arc<dyn RequestObserver>,
    /// When set, everything but health asks for it as a bearer token.
    pub api_key: Option<String>,
    /// When set, metrics and `/admin` ask for this one instead.
    pub operator_key: Option<String>,
    /// Larger request bodies are refused with 413.
    pub max_body_bytes: usize,
}

impl fmt::Debug for HttpState {
    /// Leaves the keys out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpState")
            .field("backend", &self.backend)
            .field("metrics", &self.metrics)
            .field("api_key", &self.api_key.as_ref().map(|_| "set"))
            .field("operator_key", &self.operator_key.as_ref().map(|_| "set"))
            .field("max_body_bytes", &self.max_body_bytes)
            .finish()
    }
}

/// All routes over one backend. Clients that write a trailing slash are served too.
pub fn router(state: HttpState) -> Router {
    let state = Arc::new(state);
    Router::new()
        .route("/v1/chat/completions", post(chat::handle))
        .route("/v1/chat/completions/", post(chat::handle))
        .route("/v1/completions", post(completions::handle))
        .route("/v1/completions/", post(completions::handle))
        .route("/v1/models", get(admin::models))
        .route("/v1/models/{*id}", get(admin::model))
        .route("/healthz", get(admin::healthz))
        .route("/readyz", get(admin::readyz))
        .route("/metrics", get(admin::metrics))
        .route("/admin/contract", get(admin::contract))
        .fallback(admin::unknown_route)
        .method_not_allowed_fallback(admin::wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), gate::pass))
        .with_state(state)
}

/// Serves until `shutdown` resolves, then finishes the requests that are under way.
///
/// # Errors
///
/// When the listener fails for good.
pub async fn serve(
    listener: TcpListener,
    state: HttpState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    // Without it, Nagle's algorithm holds back small stream frames.
    let listener = listener.tap_io(|tcp| {
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY");
        }
    });
    axum::serve(listener, router(state)).with_graceful_shutdown(shutdown).await
}
