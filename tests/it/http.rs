//! The OpenAI surface over a backend that says "Lisbon.".

use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use unlearn_proxy::backend::scripted::Scripted;
use unlearn_proxy::http::{HttpState, RequestObserver, RequestOutcome, router};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// Records nothing.
#[derive(Debug)]
pub(crate) struct Deaf;

impl RequestObserver for Deaf {
    fn request_started(&self) {}
    fn request_finished(&self, _: RequestOutcome) {}
    fn render(&self) -> String {
        "up 1\n".into()
    }
}

fn state(api_key: Option<&str>, operator_key: Option<&str>) -> HttpState {
    HttpState {
        backend: Arc::new(Scripted::new(vec!["Lis", "bon", "."])),
        metrics: Arc::new(Deaf),
        api_key: api_key.map(str::to_owned),
        operator_key: operator_key.map(str::to_owned),
        max_body_bytes: 4096,
    }
}

async fn send(
    method: &str,
    path: &str,
    body: impl Into<Body>,
    key: Option<&str>,
) -> Response<Body> {
    let state = state(key, None);
    let request = Request::builder().method(method).uri(path).body(body.into()).unwrap();
    let response = router(state).oneshot(request).await.unwrap();
    assert!(response.headers().contains_key("x-request-id"), "{path}");
    assert!(response.headers().contains_key("openai-processing-ms"), "{path}");
    response
}

async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn post(path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
    let response = send("POST", path, body, None).await;
    let status = response.status();
    (status, serde_json::from_str(&text(response).await).unwrap())
}

fn with(mut base: Value, extra: &Value) -> String {
    for (name, value) in extra.as_object().unwrap() {
        base[name] = value.clone();
    }
    base.to_string()
}

fn chat(extra: &Value) -> String {
    with(json!({ "model": "scripted", "messages": [{ "role": "user", "content": "q" }] }), extra)
}

fn prompt(extra: &Value) -> String {
    with(json!({ "model": "scripted", "prompt": "q" }), extra)
}

/// The chunks of a stream that ends as it should.
async fn chunks(path: &str, body: String) -> Vec<Value> {
    let response = send("POST", path, body, None).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let body = text(response).await;
    let body = body.strip_suffix("data: [DONE]\n\n").unwrap();
    let frames = body.split_terminator("\n\n").map(|it| it.strip_prefix("data: ").unwrap());
    frames.map(|it| serde_json::from_str(it).unwrap()).collect()
}

/// One row per rule: the body is refused, and this field is to blame.
async fn refused(path: &str, body: String, param: Value) {
    let (status, reply) = post(path, body.clone()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert_eq!(reply["error"]["type"], "invalid_request_error", "{body}");
    assert_eq!(reply["error"]["param"], param, "{body}");
}

#[tokio::test]
async fn answers_whole() {
    let (status, reply) = post(CHAT, chat(&json!({ "n": 2 }))).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(reply["object"], "chat.completion");
    assert_eq!(reply["usage"]["total_tokens"], 9);
    let message = json!({ "role": "assistant", "content": "Lisbon.", "refusal": null });
    for index in 0..2 {
        let want = json!({ "index": index, "message": message, "logprobs": null, "finish_reason": "stop" });
        assert_eq!(reply["choices"][index], want);
    }
}

#[tokio::test]
async fn streams_role_text_finish_usage() {
    for usage in [false, true] {
        let asked = json!({ "stream": true, "stream_options": { "include_usage": usage } });
        let mut got = chunks(CHAT, chat(&asked)).await;
        if usage {
            let last = got.pop().unwrap();
            assert_eq!(last["choices"], json!([]));
            assert_eq!(last["usage"]["total_tokens"], 6);
        }
        let deltas: Vec<&Value> = got.iter().map(|it| &it["choices"][0]["delta"]).collect();
        let opening = json!({ "role": "assistant", "content": "", "refusal": null });
        let (a, b, c) =
            (json!({"content": "Lis"}), json!({"content": "bon"}), json!({"content": "."}));
        assert_eq!(deltas, [&opening, &a, &b, &c, &json!({})]);
        for (index, chunk) in got.iter().enumerate() {
            assert_eq!(chunk["id"], got[0]["id"]);
            assert_eq!(chunk.get("usage").is_some(), usage);
            let finish = if index == 4 { json!("stop") } else { Value::Null };
            assert_eq!(chunk["choices"][0]["finish_reason"], finish);
        }
    }
}

#[tokio::test]
async fn refuses_malformed_chats() {
    for body in ["42", "null", "[1]", "{", "\"a\"", ""] {
        refused(CHAT, body.into(), Value::Null).await;
    }
    #[rustfmt::skip]
    let rows = [
        (json!({"messages": []}), "messages"), (json!({"messages": "q"}), "messages"),
        (json!({"messages": [{"role": "king", "content": "q"}]}), "messages"),
        (json!({"messages": [{"role": "user", "content": null}]}), "messages"),
        (json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}), "messages"),
        (json!({"messages": [{"role": "user", "content": [{"type": "prompt_embeds"}]}]}), "messages"),
        (json!({"model": 4}), "model"), (json!({"model": null}), "model"),
        (json!({"stop": ["a", "b", "c", "d", "e"]}), "stop"), (json!({"stop": 1}), "stop"),
        (json!({"max_tokens": 0}), "max_tokens"), (json!({"max_completion_tokens": -1}), "max_completion_tokens"),
        (json!({"n": 0}), "n"), (json!({"n": 17}), "n"), (json!({"seed": 1.5}), "seed"),
        (json!({"temperature": 2.1}), "temperature"), (json!({"top_p": 1.1}), "top_p"),
        (json!({"presence_penalty": 3}), "presence_penalty"), (json!({"frequency_penalty": -3}), "frequency_penalty"),
        (json!({"logit_bias": {"a": 1}}), "logit_bias"), (json!({"logit_bias": {"1": 101}}), "logit_bias"),
        (json!({"logprobs": 1}), "logprobs"), (json!({"top_logprobs": 1}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"stream": "yes"}), "stream"), (json!({"stream_options": {}}), "stream_options"),
        (json!({"tools": [{}]}), "tools"), (json!({"tool_choice": "auto"}), "tool_choice"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"prompt_embeds": "x"}), "prompt_embeds"),
    ];
    for (extra, param) in rows {
        refused(CHAT, chat(&extra), param.into()).await;
    }
}

#[tokio::test]
async fn refuses_malformed_completions() {
    #[rustfmt::skip]
    let rows = [
        (json!({"prompt": null}), "prompt"), (json!({"prompt": []}), "prompt"),
        (json!({"prompt": [1, "a"]}), "prompt"), (json!({"prompt": [1, 2]}), "prompt"),
        (json!({"logprobs": 6}), "logprobs"), (json!({"echo": true, "logprobs": 1}), "echo"),
        (json!({"suffix": "s"}), "suffix"), (json!({"best_of": 2}), "best_of"),
    ];
    for (extra, param) in rows {
        refused(TEXT, prompt(&extra), param.into()).await;
    }
}

#[tokio::test]
async fn completes_prompts_in_order() {
    let (_, reply) = post(TEXT, prompt(&json!({ "prompt": ["a ", "b "], "echo": true }))).await;
    assert_eq!(reply["choices"][0]["text"], "a Lisbon.");
    assert_eq!(reply["choices"][1]["text"], "b Lisbon.");
    assert_eq!(reply["usage"]["total_tokens"], 12);
    let got = chunks(TEXT, prompt(&json!({ "stream": true, "echo": true }))).await;
    let texts: Vec<&str> =
        got.iter().map(|it| it["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["q", "Lis", "bon", ".", ""]);
}

/// Orchestrators send no key.
#[tokio::test]
async fn health_is_open() {
    for path in ["/healthz", "/readyz"] {
        assert_eq!(send("GET", path, String::new(), Some("k")).await.status(), 200, "{path}");
    }
}

/// Metrics count what is treated: where operators have a key, that of clients does not open them.
#[tokio::test]
async fn operators_have_a_key_of_their_own() {
    let status = async |path: &str, keys: (Option<&str>, Option<&str>), sent: &str| {
        let request =
            Request::builder().uri(path).header("authorization", format!("Bearer {sent}"));
        let request = request.body(Body::empty()).unwrap();
        router(state(keys.0, keys.1)).oneshot(request).await.unwrap().status().as_u16()
    };
    for path in ["/metrics", "/admin/contract"] {
        assert_eq!(status(path, (Some("client"), Some("operator")), "client").await, 401);
        assert_eq!(status(path, (Some("client"), Some("operator")), "operator").await, 200);
        assert_eq!(status(path, (None, Some("operator")), "client").await, 401);
        assert_eq!(status(path, (Some("client"), None), "client").await, 200);
    }
    assert_eq!(status("/v1/models", (Some("client"), Some("operator")), "client").await, 200);
    assert_eq!(status("/v1/models", (Some("client"), Some("operator")), "operator").await, 401);
    assert_eq!(status("/v1/models", (None, Some("operator")), "anybody").await, 200);
    assert!(!format!("{:?}", state(Some("hunter1"), Some("hunter2"))).contains("hunter"));
}

/// One row per refusal outside the handlers' own rules.
async fn check(method: &str, path: &str, body: String, key: Option<&str>, want: (u16, Value)) {
    let response = send(method, path, body, key).await;
    assert_eq!(response.status().as_u16(), want.0, "{method} {path}");
    let reply: Value = serde_json::from_str(&text(response).await).unwrap();
    assert_eq!(reply["error"]["code"], want.1, "{method} {path}");
}

#[tokio::test]
async fn wraps_every_refusal_in_the_envelope() {
    let unknown = chat(&json!({ "model": "gpt" }));
    check("POST", CHAT, unknown, None, (404, json!("model_not_found"))).await;
    check("GET", "/v1/models/a/b", String::new(), None, (404, json!("model_not_found"))).await;
    check("POST", CHAT, chat(&json!({})), Some("k"), (401, json!("invalid_api_key"))).await;
    for guarded in ["/metrics", "/admin/contract", "/v1/models"] {
        let refusal = (401, json!("invalid_api_key"));
        check("GET", guarded, String::new(), Some("k"), refusal).await;
    }
    check("GET", "/v2", String::new(), None, (404, json!("unknown_url"))).await;
    check("GET", CHAT, String::new(), None, (405, json!("method_not_supported"))).await;
    check("POST", CHAT, "x".repeat(5000), None, (413, Value::Null)).await;
}
