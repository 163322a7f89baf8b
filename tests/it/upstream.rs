//! `Upstream` against a real server on a free port.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use unlearn_proxy::backend::upstream::Upstream;
use unlearn_proxy::backend::{Backend, BackendError};
use unlearn_proxy::types::{
    Corruption, CorruptionFunction, Finish, Input, Message, ReplyEvent, Request, Role,
    TokenLogprob, Usage,
};

type Seen = Arc<Mutex<Vec<(String, Value)>>>;

/// A server that answers every POST with this status and these frames.
async fn server(status: u16, frames: &'static [&'static str]) -> (Upstream, Seen) {
    let seen = Seen::default();
    let record = Arc::clone(&seen);
    let answer = move |headers: HeaderMap, body: Bytes| async move {
        let key = headers["authorization"].to_str().expect("the test is set up").to_owned();
        record
            .lock()
            .expect("the test is set up")
            .push((key, serde_json::from_slice(&body).expect("the test is set up")));
        let frames = futures::stream::iter(frames.iter().copied().map(Ok::<_, std::io::Error>));
        let paced = frames.then(|it| async move {
            tokio::task::yield_now().await;
            it
        });
        let mut response = Response::new(Body::from_stream(paced));
        *response.status_mut() = StatusCode::from_u16(status).expect("the test is set up");
        response
    };
    let models = || async {
        json!({ "object": "list", "data": [{ "id": "a/b", "object": "model" },
            { "id": "c", "max_model_len": 4096 }] })
        .to_string()
        .into_response()
    };
    let app = Router::new()
        .route("/v1/chat/completions", post(answer.clone()))
        .route("/v1/completions", post(answer))
        .route("/v1/models", get(models));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("the test is set up");
    let url = format!("http://{}/v1/", listener.local_addr().expect("the test is set up"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (Upstream::new(&url, Some("sk-test".to_owned())).expect("the test is set up"), seen)
}

fn question() -> Request {
    let content = "Who?".to_owned();
    Request::new("c", Input::Chat(vec![Message { role: Role::User, content }]))
}

async fn events(upstream: &Upstream, request: Request) -> Result<Vec<ReplyEvent>, BackendError> {
    upstream.generate(request).await?.try_collect().await
}

fn text(choice: usize, text: &str) -> ReplyEvent {
    ReplyEvent::Text { choice, text: text.to_owned(), logprobs: Vec::new() }
}

#[tokio::test]
async fn a_chat_reply_arrives_event_by_event() {
    let (upstream, seen) = server(
        200,
        &[
            ": ping\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"con",
            "tent\":\"\"}}]}\r\n\r\ndata: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"B\"}},",
            "{\"index\":0,\"delta\":{\"content\":\"A\"},\"finish_reason\":null}]}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
            "data: {\"choices\":[{\"index\":1,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":2}}\n\n",
            "data: [DONE]\n\n",
        ],
    )
    .await;
    let mut request = question();
    request.n = 2;
    let got = events(&upstream, request).await.expect("the test is set up");
    let want = [
        text(1, "B"),
        text(0, "A"),
        ReplyEvent::Finished { choice: 0, finish: Finish::Stop },
        ReplyEvent::Finished { choice: 1, finish: Finish::Length },
        ReplyEvent::Done(Usage { prompt_tokens: 5, completion_tokens: 2 }),
    ];
    assert_eq!(got, want);
    let (key, body) = seen.lock().expect("the test is set up")[0].clone();
    assert_eq!(key, "Bearer sk-test");
    assert_eq!((&body["stream"], &body["n"]), (&json!(true), &json!(2)));
    assert_eq!(body["messages"], json!([{ "role": "user", "content": "Who?" }]));
    assert_eq!(body["stream_options"], json!({ "include_usage": true }));
}

#[tokio::test]
async fn chat_logprobs_keep_exact_bytes() {
    let (upstream, _) = server(
        200,
        &[
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"é\"},\"logprobs\":{\"content\":",
            "[{\"token\":\"?\",\"logprob\":-0.5,\"bytes\":[195,169],\"top_logprobs\":",
            "[{\"token\":\"e\",\"logprob\":-1.5,\"bytes\":null}]}]},\"finish_reason\":\"stop\"}]}\n\n",
            "data: [DONE]\n\n",
        ],
    )
    .await;
    let mut request = question();
    request.logprobs = Some(1);
    let got = events(&upstream, request).await.expect("the test is set up");
    let top = vec![(b"e".to_vec(), -1.5)];
    let logprobs = vec![TokenLogprob { bytes: vec![195, 169], logprob: -0.5, top }];
    assert_eq!(got[0], ReplyEvent::Text { choice: 0, text: "é".to_owned(), logprobs });
}

#[tokio::test]
async fn text_goes_to_the_legacy_endpoint() {
    let (upstream, seen) = server(
        200,
        &[
            "data: {\"choices\":[{\"index\":0,\"text\":\" end\",\"finish_reason\":\"stop\"}]}\n\n",
            "data: [DONE]\n\n",
        ],
    )
    .await;
    let got = events(&upstream, Request::new("c", Input::Text("The".to_owned())))
        .await
        .expect("the test is set up");
    assert_eq!(got[0], text(0, " end"));
    assert_eq!(seen.lock().expect("the test is set up")[0].1["prompt"], "The");
}

#[tokio::test]
async fn a_reply_cut_off_is_an_error_at_its_end() {
    let (upstream, _) =
        server(200, &["data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"A\"}}]}\n\n"])
            .await;
    let mut stream = upstream.generate(question()).await.expect("the test is set up");
    assert_eq!(
        stream.next().await.expect("the test is set up").expect("the test is set up"),
        text(0, "A")
    );
    assert!(matches!(stream.next().await, Some(Err(BackendError::Upstream { .. }))));
    assert!(stream.next().await.is_none());
}

/// One row per refusal: status and body of the server, and what the caller is told.
async fn check(status: u16, body: &'static [&'static str], told: fn(&BackendError) -> bool) {
    let (upstream, _) = server(status, body).await;
    let error = events(&upstream, question()).await.expect_err("the server refused");
    assert!(told(&error), "{status}: {error:?}");
}

#[tokio::test]
async fn refusals_keep_their_meaning() {
    check(429, &[], |it| matches!(it, BackendError::Overloaded { .. })).await;
    check(404, &["{}"], |it| matches!(it, BackendError::UnknownModel { model } if model == "c"))
        .await;
    check(
        400,
        &["{\"error\":{\"message\":\"This model's maximum context length is 10 tokens. However, \
           you requested 12\",\"code\":\"context_length_exceeded\"}}"],
        |it| matches!(it, BackendError::PromptTooLong { tokens: 12, limit: 10 }),
    )
    .await;
    check(
        400,
        &["{\"error\":{\"message\":\"Basil Okafor is no top_p\",\"param\":\"top_p\",\"code\":400}}"],
        |it| {
            let BackendError::Invalid { message, param } = it else { return false };
            *param == Some("top_p") && message.contains("`top_p`") && !message.contains("Basil")
        },
    )
    .await;
    check(503, &["busy"], |it| matches!(it, BackendError::Upstream { status: Some(503), .. }))
        .await;
}

#[tokio::test]
async fn corruption_is_refused_before_anything_is_sent() {
    let (upstream, seen) = server(200, &[]).await;
    let mut request = question();
    request.corruption = Some(Corruption {
        function: CorruptionFunction::Substitute,
        spans: Vec::new(),
        entities: Arc::default(),
        seed: 0,
    });
    let error = events(&upstream, request).await.expect_err("the server refused");
    assert!(matches!(error, BackendError::Unsupported { .. }), "{error:?}");
    assert!(seen.lock().expect("the test is set up").is_empty());
}

#[tokio::test]
async fn models_are_listed_and_a_dead_server_is_not_ready() {
    let (upstream, _) = server(200, &[]).await;
    let models = upstream.models().await.expect("the test is set up");
    let ids: Vec<&str> = models.iter().map(|it| it.id.as_str()).collect();
    assert_eq!((ids, models[1].context_length), (vec!["a/b", "c"], Some(4096)));
    assert!(upstream.ready().await);
    let free = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("the test is set up")
        .local_addr()
        .expect("the test is set up");
    assert!(
        !Upstream::new(&format!("http://{free}/v1"), None)
            .expect("the test is set up")
            .ready()
            .await
    );
}
