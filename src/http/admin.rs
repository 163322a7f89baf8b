//! Probes, metrics, the list of models, and answers for what is not served.

use std::future::{Ready, ready};
use std::sync::{Arc, OnceLock};

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use super::error::ApiError;
use super::gate::{RequestId, unix_seconds};
use super::{HttpState, contract as fields};
use crate::backend::{BackendError, ModelCard};

/// Answers as long as the process does.
pub(super) fn healthz() -> Ready<&'static str> {
    ready("ok")
}

/// Answers 503 while requests would not be answered.
pub(super) async fn readyz(State(state): State<Arc<HttpState>>) -> (StatusCode, &'static str) {
    if state.backend.ready().await {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    }
}

pub(super) fn metrics(State(state): State<Arc<HttpState>>) -> Ready<Response> {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ready(([(header::CONTENT_TYPE, kind)], state.metrics.render()).into_response())
}

/// What becomes of every field of requests and replies.
pub(super) fn contract() -> Ready<Json<Value>> {
    ready(Json(fields::table()))
}

pub(super) async fn models(
    State(state): State<Arc<HttpState>>,
    Extension(id): Extension<RequestId>,
) -> Result<Json<Value>, ApiError> {
    let cards = cards(&state, &id).await?;
    let data: Vec<Value> = cards.iter().map(model_object).collect();
    Ok(Json(json!({ "object": "list", "data": data })))
}

/// Ids may contain slashes.
pub(super) async fn model(
    State(state): State<Arc<HttpState>>,
    Extension(id): Extension<RequestId>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let wanted = path.map(|Path(it)| it).unwrap_or_default();
    let cards = cards(&state, &id).await?;
    match cards.iter().find(|it| it.id == wanted) {
        Some(card) => Ok(Json(model_object(card))),
        None => {
            let error = BackendError::UnknownModel { model: wanted };
            Err(ApiError::from_backend(&error, "model"))
        }
    }
}

pub(super) fn unknown_route(Parts { method, uri, .. }: Parts) -> Ready<ApiError> {
    let message = format!("Invalid URL ({method} {})", uri.path());
    ready(ApiError::refused(StatusCode::NOT_FOUND, message).with_code("unknown_url"))
}

pub(super) fn wrong_method(Parts { method, uri, .. }: Parts) -> Ready<ApiError> {
    let message = format!("Not allowed to {method} on {}", uri.path());
    let error = ApiError::refused(StatusCode::METHOD_NOT_ALLOWED, message);
    ready(error.with_code("method_not_supported"))
}

async fn cards(state: &HttpState, id: &RequestId) -> Result<Vec<ModelCard>, ApiError> {
    state.backend.models().await.map_err(|error| ApiError::logged(&error, "model", &id.0))
}

fn model_object(card: &ModelCard) -> Value {
    /// The same for all models and answers: clients compare it.
    static CREATED: OnceLock<u64> = OnceLock::new();
    let mut object = json!({
        "id": card.id,
        "object": "model",
        "created": *CREATED.get_or_init(unix_seconds),
        "owned_by": "unlearn-proxy",
    });
    if let Some(limit) = card.context_length {
        // vLLM's name for it, which evaluation tools read.
        object["max_model_len"] = limit.into();
    }
    object
}
