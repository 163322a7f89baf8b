//! Every refusal and failure as the OpenAI error envelope; the one table of statuses.

use std::error::Error;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::backend::BackendError;

/// What clients read of a 5xx; the cause is in the log under the request's id.
const GENERIC: &str = "the server had an error while processing your request";

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";
const RATE: &str = "rate_limit_error";

/// A status and the envelope that goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<&'static str>,
    param: Option<&'static str>,
    message: String,
}

impl ApiError {
    /// A 400 that names the offending field.
    pub(super) fn invalid(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::refused(StatusCode::BAD_REQUEST, message) }
    }

    /// A client's fault that no field is to blame for.
    pub(super) fn refused(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, kind: INVALID, code: None, param: None, message: message.into() }
    }

    pub(super) fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// The table. `prompt` is the field that holds this endpoint's prompt: it is to blame for a
    /// prompt that is too long.
    pub(super) fn from_backend(error: &BackendError, prompt: &'static str) -> Self {
        use StatusCode as S;
        let said = || error.to_string();
        let (status, kind, code, param, message) = match error {
            BackendError::Overloaded { .. } => {
                (S::TOO_MANY_REQUESTS, RATE, Some("rate_limit_exceeded"), None, said())
            }
            BackendError::PromptTooLong { .. } => {
                (S::BAD_REQUEST, INVALID, Some("context_length_exceeded"), Some(prompt), said())
            }
            BackendError::UnknownModel { .. } => {
                (S::NOT_FOUND, INVALID, Some("model_not_found"), Some("model"), said())
            }
            BackendError::Invalid { param, .. } => (S::BAD_REQUEST, INVALID, None, *param, said()),
            BackendError::Unsupported { .. } => {
                (S::BAD_REQUEST, INVALID, Some("unsupported"), None, said())
            }
            BackendError::NoTools => {
                (S::BAD_REQUEST, INVALID, Some("unsupported"), Some("tools"), said())
            }
            BackendError::GuardFailed { .. } | BackendError::Engine { .. } => {
                (S::INTERNAL_SERVER_ERROR, SERVER, Some("internal_error"), None, GENERIC.into())
            }
            BackendError::Upstream { status: Some(429), .. } => {
                let message = "the model's server is overloaded; try again later".into();
                (S::TOO_MANY_REQUESTS, RATE, Some("rate_limit_exceeded"), None, message)
            }
            BackendError::Upstream { .. } => {
                (S::BAD_GATEWAY, SERVER, Some("upstream_failed"), None, GENERIC.into())
            }
        };
        Self { status, kind, code, param, message }
    }

    /// [`ApiError::from_backend`], with the chain of causes in the log when the fault is ours.
    pub(super) fn logged(error: &BackendError, prompt: &'static str, request_id: &str) -> Self {
        let answer = Self::from_backend(error, prompt);
        if answer.status.is_server_error() {
            let error = chain(error);
            tracing::error!(request_id, error, "request failed");
        }
        answer
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// `{"error": {..}}`, as a body or as the last event of a stream.
    pub(super) fn body(&self) -> Value {
        json!({ "error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// An error and its causes on one line.
fn chain(error: &BackendError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed() -> Box<dyn Error + Send + Sync> {
        "a secret path".into()
    }

    #[test]
    fn gives_every_backend_error_its_status_code_and_param() {
        let invalid = BackendError::Invalid { message: "odd".into(), param: Some("seed") };
        let upstream =
            |status| BackendError::Upstream { host: "h".into(), status, source: boxed() };
        #[rustfmt::skip]
        let rows = [
            (BackendError::Overloaded { queued: 3 }, 429, Some("rate_limit_exceeded"), None),
            (BackendError::PromptTooLong { tokens: 9, limit: 8 }, 400, Some("context_length_exceeded"), Some("messages")),
            (BackendError::UnknownModel { model: "m".into() }, 404, Some("model_not_found"), Some("model")),
            (invalid, 400, None, Some("seed")),
            (BackendError::Unsupported { what: "scoring" }, 400, Some("unsupported"), None),
            (BackendError::NoTools, 400, Some("unsupported"), Some("tools")),
            (BackendError::GuardFailed { source: boxed() }, 500, Some("internal_error"), None),
            (BackendError::Engine { source: boxed() }, 500, Some("internal_error"), None),
            (upstream(Some(429)), 429, Some("rate_limit_exceeded"), None),
            (upstream(Some(500)), 502, Some("upstream_failed"), None),
            (upstream(None), 502, Some("upstream_failed"), None),
        ];
        for (error, status, code, param) in rows {
            let answer = ApiError::from_backend(&error, "messages");
            assert_eq!(answer.status.as_u16(), status, "{error:?}");
            assert_eq!((answer.code, answer.param), (code, param), "{error:?}");
            assert!(!answer.message.contains("secret"), "{error:?}");
        }
    }

    #[test]
    fn says_how_long_a_prompt_may_be() {
        let error = BackendError::PromptTooLong { tokens: 9, limit: 8 };
        let body = ApiError::from_backend(&error, "prompt").body();
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains("maximum context length is 8 tokens"), "{message}");
        assert_eq!(body["error"]["param"], "prompt");
    }

    #[test]
    fn asks_an_overloading_client_to_wait() {
        let error = BackendError::Overloaded { queued: 3 };
        let response = ApiError::from_backend(&error, "messages").into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn logs_the_whole_chain() {
        assert_eq!(
            chain(&BackendError::Engine { source: boxed() }),
            "the engine failed: a secret path"
        );
    }
}
