//! What every request passes: an id, the key, and the limit on its body.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tracing::Instrument;

use super::HttpState;
use super::error::ApiError;
use super::observer::Ticket;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROCESSING_MS: HeaderName = HeaderName::from_static("openai-processing-ms");

/// The id under which a request is logged, and which its client reads in `x-request-id`.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) Arc<str>);

/// The outermost layer: refuses strangers, and puts the id on every response, errors included.
pub(super) async fn pass(
    State(state): State<Arc<HttpState>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = fresh_id("req_");
    request.extensions_mut().insert(RequestId(id.as_str().into()));
    let mut response = match authorise(&state, &request) {
        Ok(()) => {
            let span = tracing::info_span!("request", request_id = %id);
            next.run(request).instrument(span).await
        }
        Err(error) => {
            let metrics = Arc::clone(&state.metrics);
            Ticket::start(metrics, endpoint(request.uri().path())).finish(error.status().as_u16());
            error.into_response()
        }
    };
    let id = HeaderValue::from_str(&id).expect("an id is ASCII");
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    // A header value takes every integer up to u64.
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    headers.insert(PROCESSING_MS, HeaderValue::from(millis));
    response
}

/// Health stays open: orchestrators send no key. Metrics say which topics there are and count what is
/// treated, so that on a quiet server a client could see that it was: operators may have a key of their own.
fn authorise(state: &HttpState, request: &Request) -> Result<(), ApiError> {
    let path = request.uri().path();
    if ["/healthz", "/readyz"].contains(&path) {
        return Ok(());
    }
    let operators = path == "/metrics" || path.starts_with("/admin/");
    let of_operators = state.operator_key.as_ref().filter(|_| operators);
    let Some(key) = of_operators.or(state.api_key.as_ref()) else { return Ok(()) };
    let message = match bearer(request.headers()) {
        Some(token) if same(token.as_bytes(), key.as_bytes()) => return Ok(()),
        Some(_) => "the API key you provided is not valid",
        None => {
            "You didn't provide an API key. Send it in the Authorization header: \
             `Authorization: Bearer YOUR_KEY`"
        }
    };
    Err(ApiError::refused(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key"))
}

/// Tells clients apart by the key that they send, for as long as this process runs; 0 without one.
pub(super) fn tenant(headers: &HeaderMap) -> u64 {
    static HASHER: OnceLock<RandomState> = OnceLock::new();
    bearer(headers).map_or(0, |it| HASHER.get_or_init(RandomState::new).hash_one(it))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Takes the same time wherever two keys of one length differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |sum, (x, y)| sum | (x ^ y)) == 0
}

/// A closed set, because it becomes a metric label.
fn endpoint(path: &str) -> &'static str {
    match path.trim_end_matches('/') {
        "/v1/chat/completions" => "chat",
        "/v1/completions" => "completions",
        path if path.starts_with("/v1/models") => "models",
        _ => "other",
    }
}

/// The whole body of a request.
pub(super) async fn read_body(request: Request, max_bytes: usize) -> Result<Bytes, ApiError> {
    match Limited::new(request.into_body(), max_bytes).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request body is larger than {max_bytes} bytes"),
        )),
        Err(_) => Err(ApiError::refused(StatusCode::BAD_REQUEST, "the request body broke off")),
    }
}

/// An id that no other request of this process has, nor, but for bad luck, one of another process.
pub(super) fn fresh_id(prefix: &str) -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    static START: OnceLock<u64> = OnceLock::new();
    let start = *START.get_or_init(|| {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_nanos());
        // The low 64 bits: the high ones do not change for centuries.
        crate::seed::derive(nanos as u64, &std::process::id().to_le_bytes())
    });
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{:016x}", crate::seed::derive(start, &count.to_le_bytes()))
}

/// Seconds since 1970, as OpenAI's `created` counts them.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs())
}
