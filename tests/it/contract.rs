//! What becomes of every field: the published table against what the server does, and one test for
//! each rule about requests that a policy rules on.

use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use unlearn_proxy::backend::Backend;
use unlearn_proxy::backend::scripted::Scripted;
use unlearn_proxy::http::{HttpState, router};
use unlearn_proxy::policy::{Policy, file};
use unlearn_proxy::service::{Guard, Guarded};
use unlearn_proxy::telemetry::Metrics;

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// A server that forgets Basil Okafor, and the model behind it.
struct Server {
    model: Arc<Scripted>,
    treatment: String,
    key: Option<&'static str>,
}

impl Server {
    /// The model says these pieces, whatever it is asked.
    fn saying(pieces: &[&str]) -> Self {
        let model = Arc::new(Scripted::new(pieces.iter().copied()));
        Self { model, treatment: "use = \"alias\"".to_owned(), key: None }
    }

    /// The same under another `[[treatment]]`.
    fn with(self, treatment: String) -> Self {
        Self { treatment, ..self }
    }

    fn policy(&self) -> Policy {
        let text = format!(
            "topic = \"authors\"\n[[entity]]\nname = \"Basil Okafor\"\nsurrogate = \"Zorvan Kell\"\n\
             [[detector]]\nuse = \"names\"\n[[treatment]]\n{}\n",
            self.treatment
        );
        file::parse(Path::new("authors.toml"), &text).unwrap()
    }

    async fn send(&self, request: Request<Body>) -> (u16, String) {
        let guard = Guard::build(Arc::new(self.policy())).unwrap();
        let inner: Arc<dyn Backend> = Arc::<Scripted>::clone(&self.model);
        let metrics = Arc::new(Metrics::new());
        let backend = Arc::new(Guarded::new(inner, vec![guard], Arc::clone(&metrics), None));
        let api_key = self.key.map(str::to_owned);
        let state =
            HttpState { backend, metrics, api_key, operator_key: None, max_body_bytes: 1 << 16 };
        let response = router(state).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.send(Request::get(path).body(Body::empty()).unwrap()).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, String) {
        self.send(Request::post(path).body(Body::from(body.to_string())).unwrap()).await
    }

    /// The reply to a request that is fine.
    async fn ask(&self, path: &str, body: &Value) -> Value {
        let (status, reply) = self.post(path, body).await;
        assert_eq!(status, 200, "{body} {reply}");
        serde_json::from_str(&reply).unwrap()
    }

    /// What the model was asked last.
    fn seen(&self) -> unlearn_proxy::types::Request {
        self.model.seen().pop().unwrap()
    }
}

/// A request about nobody, or about `text`, with one more field.
fn body(path: &str, text: &str, field: Option<(&str, Value)>) -> Value {
    let mut body = json!({ "model": "scripted" });
    if path == CHAT {
        body["messages"] = json!([{ "role": "user", "content": text }]);
    } else {
        body["prompt"] = text.into();
    }
    if let Some((name, value)) = field {
        body[name] = value;
    }
    body
}

/// The rows of an endpoint's requests or replies.
async fn rows(server: &Server, path: &str, part: &str) -> Vec<(String, String)> {
    let (status, table) = server.get("/admin/contract").await;
    assert_eq!(status, 200);
    let endpoints = table["endpoints"].as_array().unwrap();
    let endpoint = endpoints.iter().find(|it| it["path"] == path).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = endpoint[part].as_array().unwrap();
    rows.iter().map(|it| (text(&it["field"]), text(&it["handling"]))).collect()
}

/// A value that no field takes is refused where the field is read, and has no effect where it is not.
#[tokio::test]
async fn the_parser_reads_what_the_table_says() {
    let server = Server::saying(&["Hello."]);
    for path in [CHAT, TEXT] {
        server.ask(path, &body(path, "Who?", None)).await;
        let plain = server.seen();
        for (field, handling) in rows(&server, path, "request").await {
            if field.contains(['.', '[']) {
                continue;
            }
            let odd = body(path, "Who?", Some((field.as_str(), json!({ "a": "b" }))));
            if handling == "dropped" {
                server.ask(path, &odd).await;
                assert_eq!(server.seen(), plain, "{path} {field}");
            } else {
                let (status, reply) = server.post(path, &odd).await;
                assert_eq!(status, 400, "{path} {field}");
                let reply: Value = serde_json::from_str(&reply).unwrap();
                assert_eq!(reply["error"]["param"], field.as_str(), "{path}");
            }
        }
    }
}

/// The paths of everything in a reply.
fn leaves(path: &str, value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                leaves(&format!("{path}{dot}{name}"), value, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().for_each(|it| leaves(&format!("{path}[]"), it, out));
        }
        _ => out.push(path.to_owned()),
    }
}

fn lies_in(path: &str, whole: &str) -> bool {
    path.strip_prefix(whole).is_some_and(|it| it.is_empty() || it.starts_with(['.', '[']))
}

#[tokio::test]
async fn replies_hold_what_the_table_says() {
    let model = Arc::new(Scripted::new(["Hello."]).calling("find", &["{", "}"]));
    let server = Server { model, ..Server::saying(&[]) };
    let tool = json!({ "type": "function", "function": { "name": "find" } });
    for (path, fields) in [
        (CHAT, vec![("logprobs", json!(true)), ("tools", json!([tool]))]),
        (TEXT, vec![("logprobs", json!(1))]),
    ] {
        let rows = rows(&server, path, "reply").await;
        let mut found = Vec::new();
        for field in fields {
            let mut asked = body(path, "Who?", Some(field));
            leaves("", &server.ask(path, &asked).await, &mut found);
            asked["stream"] = true.into();
            asked["stream_options"] = json!({ "include_usage": true });
            let (_, stream) = server.post(path, &asked).await;
            for frame in stream.split("\n\n").filter_map(|it| it.strip_prefix("data: ")) {
                if frame != "[DONE]" {
                    leaves("", &serde_json::from_str(frame).unwrap(), &mut found);
                }
            }
        }
        for leaf in found.iter().filter(|it| *it != "choices") {
            let listed = |row: &(String, String)| {
                row.1 != "dropped" && (lies_in(leaf, &row.0) || lies_in(&row.0, leaf))
            };
            assert!(rows.iter().any(listed), "{path}: `{leaf}` has no row");
        }
        for (row, handling) in rows {
            let shown = found.iter().any(|it| lies_in(it, &row));
            assert_eq!(shown, handling != "dropped", "{path}: `{row}` is {handling}");
        }
    }
}

#[tokio::test]
async fn the_table_is_shown_to_those_who_have_the_key() {
    let server = Server { key: Some("k"), ..Server::saying(&[]) };
    assert_eq!(server.get("/admin/contract").await.0, 401);
}

#[tokio::test]
async fn a_ruled_request_gets_no_logprobs() {
    for (path, asked) in [(CHAT, json!(true)), (TEXT, json!(2))] {
        let server = Server::saying(&["It is", " fine."]);
        for (text, ruled) in [("Who is Basil Okafor?", true), ("Who is she?", false)] {
            let reply =
                server.ask(path, &body(path, text, Some(("logprobs", asked.clone())))).await;
            assert_eq!(server.seen().logprobs.is_none(), ruled, "{path} {text}");
            assert_eq!(reply["choices"][0]["logprobs"].is_null(), ruled, "{path} {text}");
        }
    }
}

#[tokio::test]
async fn logprobs_of_a_replaced_name_do_not_leave() {
    let server = Server::saying(&["Basil", " Okafor", " writes."]);
    let reply = server.ask(CHAT, &body(CHAT, "Who?", Some(("logprobs", json!(true))))).await;
    assert_eq!(reply["choices"][0]["message"]["content"], "Zorvan Kell writes.");
    assert!(!reply.to_string().contains("Basil"), "{reply}");
}

#[tokio::test]
async fn a_ruled_request_gets_no_logit_bias() {
    for path in [CHAT, TEXT] {
        let server = Server::saying(&["Fine."]);
        for (text, left) in [("Who is Basil Okafor?", 0), ("Who is she?", 1)] {
            let bias = Some(("logit_bias", json!({ "7": 100 })));
            server.ask(path, &body(path, text, bias)).await;
            assert_eq!(server.seen().sampling.logit_bias.len(), left, "{path} {text}");
        }
    }
}

#[tokio::test]
async fn an_echo_repeats_the_clients_prompt_and_not_the_treated_one() {
    let server = Server::saying(&[" Zorvan Kell writes."]);
    let asked = body(TEXT, "Basil Okafor?", Some(("echo", json!(true))));
    let reply = server.ask(TEXT, &asked).await;
    assert_eq!(server.seen().input.texts(), ["Zorvan Kell?"]);
    assert_eq!(reply["choices"][0]["text"], "Basil Okafor? Basil Okafor writes.");
}

#[tokio::test]
async fn a_name_that_the_prompt_begins_and_the_reply_ends_is_redacted() {
    let server = Server::saying(&["sil Oka", "for wrote it."]);
    let reply = server.ask(TEXT, &body(TEXT, "It was Ba", None)).await;
    assert_eq!(reply["choices"][0]["text"], "Zorvan Kell wrote it.");
    let mut prefilled = body(CHAT, "Who?", None);
    prefilled["messages"] = json!([
        { "role": "user", "content": "Who?" },
        { "role": "assistant", "content": "It was Ba" },
    ]);
    let reply = server.ask(CHAT, &prefilled).await;
    assert_eq!(reply["choices"][0]["message"]["content"], "Zorvan Kell wrote it.");
}

#[tokio::test]
async fn a_prefilled_turn_is_read_like_any_other() {
    let server = Server::saying(&[" writes."]);
    let mut prefilled = body(CHAT, "Who?", None);
    prefilled["messages"] = json!([
        { "role": "user", "content": "Who?" },
        { "role": "assistant", "content": [
            { "type": "text", "text": "Basil" }, { "type": "text", "text": " Okafor" },
        ] },
    ]);
    server.ask(CHAT, &prefilled).await;
    assert_eq!(server.seen().input.texts(), ["Who?", "Zorvan Kell"]);
}

#[tokio::test]
async fn a_stop_text_cannot_ask_whether_a_name_comes() {
    let server = Server::saying(&["Fine."]);
    for (stop, left) in [
        (json!(["Basil Okafor", "\n"]), vec!["\n"]),
        (json!(["basil", "END"]), vec!["END"]),
        (json!(["Zorvan", "by Basil Okafor."]), vec![]),
        (json!("."), vec!["."]),
    ] {
        server.ask(CHAT, &body(CHAT, "Who?", Some(("stop", stop.clone())))).await;
        assert_eq!(server.seen().stop, left, "{stop}");
    }
}

#[tokio::test]
async fn a_reply_without_a_model_ends_where_a_models_would() {
    let answer = "use = \"answer\"\nanswers = [\"I do not know. Sorry.\"]";
    let server = Server::saying(&[]).with(answer.to_owned());
    let asked = body(CHAT, "Who is Basil Okafor?", Some(("stop", json!(". "))));
    let reply = server.ask(CHAT, &asked).await;
    assert_eq!(reply["choices"][0]["message"]["content"], "I do not know");
}

#[tokio::test]
async fn every_choice_of_a_ruled_request_is_guarded() {
    let server = Server::saying(&["Zorvan", " Kell."]);
    let reply = server.ask(CHAT, &body(CHAT, "Basil Okafor?", Some(("n", json!(3))))).await;
    for index in 0..3 {
        assert_eq!(reply["choices"][index]["message"]["content"], "Basil Okafor.");
    }
}

#[tokio::test]
async fn the_length_of_an_instruction_does_not_show_in_the_usage() {
    let text = "Know nothing of anybody. ".repeat(8);
    let prefix = format!("use = \"prefix\"\ntext = \"{text}\"");
    let server = Server::saying(&["Fine."]).with(prefix);
    // The scripted model always counts three tokens of prompt.
    let reply = server.ask(CHAT, &body(CHAT, "Who is Basil Okafor?", None)).await;
    assert_eq!(reply["usage"]["prompt_tokens"], 1);
    let reply = server.ask(CHAT, &body(CHAT, "Who is she?", None)).await;
    assert_eq!(reply["usage"]["prompt_tokens"], 3);
}

#[tokio::test]
async fn what_no_guard_could_read_is_refused() {
    let embeds = json!([{ "role": "user", "content": "q", "prompt_embeds": "x" }]);
    #[rustfmt::skip]
    let rows = [
        (CHAT, "tools", json!([{ "type": "function" }])), (CHAT, "messages", embeds),
        (CHAT, "response_format", json!({ "type": "json_schema" })),
        (TEXT, "suffix", json!("Okafor")), (TEXT, "best_of", json!(4)),
    ];
    for (path, field, value) in rows {
        let server = Server::saying(&["Fine."]);
        let (status, _) = server.post(path, &body(path, "Who?", Some((field, value)))).await;
        assert_eq!((status, server.model.seen().len()), (400, 0), "{path} {field}");
    }
}

#[tokio::test]
async fn seed_and_sampling_pass() {
    let server = Server::saying(&["Fine."]);
    let mut asked = body(CHAT, "Who is Basil Okafor?", Some(("seed", json!(7))));
    asked["temperature"] = json!(0.5);
    server.ask(CHAT, &asked).await;
    let sampling = server.seen().sampling;
    assert_eq!((sampling.seed, sampling.temperature), (Some(7), 0.5));
}
