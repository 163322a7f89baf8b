//! Calls of tools through the proxy over real sockets: in front of it a client, behind it a model's
//! server that says what it is told.

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use axum::routing::post;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use unlearn_proxy::backend::Backend;
use unlearn_proxy::backend::local::Local;
use unlearn_proxy::backend::upstream::Upstream;
use unlearn_proxy::engine::{Engine, EngineSettings};
use unlearn_proxy::http::{HttpState, serve};
use unlearn_proxy::policy::file;
use unlearn_proxy::service::{Guard, Guarded};
use unlearn_proxy::telemetry::Metrics;

use crate::engine::smoke;

const POLICY: &str = "topic = \"authors\"\n\
    [[entity]]\nname = \"Basil Okafor\"\nsurrogate = \"Zorvan Kell\"\n\
    [[detector]]\nuse = \"names\"\n[[treatment]]\nuse = \"alias\"\n";

/// The proxy, and the bodies that the model's server got.
struct Proxy {
    url: String,
    seen: Arc<Mutex<Vec<Value>>>,
}

/// The proxy in front of a model that forgets Basil Okafor.
async fn guarded(model: Arc<dyn Backend>) -> String {
    let policy = file::parse(Path::new("authors.toml"), POLICY).unwrap();
    let guard = Guard::build(Arc::new(policy)).unwrap();
    let metrics = Arc::new(Metrics::new());
    let backend = Arc::new(Guarded::new(model, vec![guard], Arc::clone(&metrics), None));
    let state =
        HttpState { backend, metrics, api_key: None, operator_key: None, max_body_bytes: 1 << 16 };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/chat/completions", listener.local_addr().unwrap());
    tokio::spawn(serve(listener, state, std::future::pending()));
    url
}

impl Proxy {
    /// In front of a server that answers everything with these bytes, one frame each.
    async fn over(kind: &'static str, frames: Vec<String>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::<Value>::new()));
        let record = Arc::clone(&seen);
        let answer = move |body: Bytes| {
            record.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            let frames = frames.clone().into_iter().map(Ok::<_, std::io::Error>);
            let body = Body::from_stream(futures::stream::iter(frames));
            let response = Response::builder().header(CONTENT_TYPE, kind).body(body).unwrap();
            std::future::ready(response)
        };
        let app = Router::new().route("/v1/chat/completions", post(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let model = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let upstream = Upstream::new(&model, None).unwrap();
        Self { url: guarded(Arc::new(upstream)).await, seen }
    }

    /// In front of a server that streams these entries of `choices`, one chunk each.
    async fn streaming(entries: &[Value]) -> Self {
        let chunks = entries.iter().map(|it| format!("data: {}\n\n", json!({ "choices": [it] })));
        let frames = chunks.chain(["data: [DONE]\n\n".to_owned()]).collect();
        Self::over("text/event-stream", frames).await
    }

    /// What the server was asked last.
    fn asked(&self) -> Value {
        self.seen.lock().unwrap().last().unwrap().clone()
    }

    async fn ask(&self, body: &Value) -> Reply {
        let (status, text) = send(&self.url, body).await;
        assert_eq!(status, 200, "{text}");
        Reply::read(&text)
    }
}

async fn send(url: &str, body: &Value) -> (u16, String) {
    let client = Client::builder(TokioExecutor::new()).build_http::<String>();
    let request = hyper::Request::post(url).body(body.to_string()).unwrap();
    let response = client.request(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

/// A reply as an SDK puts it together.
#[derive(Debug, Default)]
struct Reply {
    /// As it came.
    raw: String,
    /// Choice, index, id, name and arguments of each call.
    calls: Vec<(u64, u64, String, String, String)>,
    content: String,
    finishes: Vec<String>,
}

impl Reply {
    fn read(raw: &str) -> Self {
        let mut reply = Self { raw: raw.to_owned(), ..Self::default() };
        if let Ok(whole) = serde_json::from_str::<Value>(raw) {
            for choice in whole["choices"].as_array().unwrap() {
                reply.add(choice, &choice["message"]);
            }
            return reply;
        }
        let frames = raw.split_terminator("\n\n").map(|it| it.strip_prefix("data: ").unwrap());
        let frames: Vec<&str> = frames.collect();
        assert_eq!(frames.last(), Some(&"[DONE]"));
        for frame in &frames[..frames.len() - 1] {
            let chunk: Value = serde_json::from_str(frame).unwrap();
            for choice in chunk["choices"].as_array().unwrap() {
                reply.add(choice, &choice["delta"]);
            }
        }
        reply
    }

    /// Adds a message, or a further delta.
    fn add(&mut self, choice: &Value, said: &Value) {
        let text = |it: &Value| it.as_str().unwrap_or_default().to_owned();
        let of = choice["index"].as_u64().unwrap();
        self.content.push_str(&text(&said["content"]));
        for (at, call) in said["tool_calls"].as_array().into_iter().flatten().enumerate() {
            let index = call["index"].as_u64().unwrap_or(at as u64);
            let arguments = call["function"]["arguments"].as_str().unwrap();
            let begun = self.calls.iter_mut().find(|it| (it.0, it.1) == (of, index));
            if let Some(begun) = begun {
                assert_eq!(
                    call.get("id").or(call.get("type")).or(call["function"].get("name")),
                    None
                );
                begun.4.push_str(arguments);
                continue;
            }
            assert_eq!(call["type"], "function", "{call}");
            let [id, name] = [&call["id"], &call["function"]["name"]].map(text);
            assert!(!id.is_empty() && !name.is_empty(), "{call}");
            self.calls.push((of, index, id, name, arguments.to_owned()));
        }
        self.finishes.extend(choice["finish_reason"].as_str().map(str::to_owned));
    }

    /// Nothing of the name is left, however it is written.
    #[track_caller]
    fn is_clean(&self) {
        let told = format!("{}{:?}{}", self.raw, self.calls, self.content).to_lowercase();
        for part in ["basil", "okafor", "\\u00"] {
            assert!(!told.contains(part), "{part}: {told}");
        }
    }
}

/// An entry of `choices` with a piece of a call.
fn piece(choice: usize, call: Value) -> Value {
    json!({ "index": choice, "delta": { "tool_calls": [call] }, "finish_reason": null })
}

fn more(choice: usize, index: usize, arguments: &str) -> Value {
    piece(choice, json!({ "index": index, "function": { "arguments": arguments } }))
}

fn begin(choice: usize, index: usize, name: &str) -> Value {
    let function = json!({ "name": name, "arguments": "" });
    let id = format!("call_{choice}_{index}");
    piece(choice, json!({ "index": index, "id": id, "type": "function", "function": function }))
}

fn end(choice: usize) -> Value {
    json!({ "index": choice, "delta": {}, "finish_reason": "tool_calls" })
}

fn function(name: &str) -> Value {
    let parameters = json!({ "type": "object", "properties": { "who": { "type": "string" } } });
    let function = json!({ "name": name, "description": "Finds.", "parameters": parameters });
    json!({ "type": "function", "function": function })
}

/// A question with a function on offer.
fn question(text: &str, stream: bool) -> Value {
    json!({
        "model": "m", "stream": stream, "messages": [{ "role": "user", "content": text }],
        "tools": [function("find")],
    })
}

#[tokio::test]
async fn arguments_do_not_leak_a_name_that_nobody_asked_for() {
    let proxy = Proxy::streaming(&[
        begin(0, 0, "find"),
        more(0, 0, "{\"who\": \"Ba"),
        more(0, 0, "sil Oka"),
        more(0, 0, "for\", \"also\": \"B\\u0061sil\\u00"),
        more(0, 0, "20O\\u006Bafor\"}"),
        end(0),
    ])
    .await;
    for stream in [false, true] {
        let reply = proxy.ask(&question("Who writes thrillers?", stream)).await;
        reply.is_clean();
        let arguments = r#"{"who": "Zorvan Kell", "also": "Zorvan Kell"}"#.to_owned();
        let call = (0, 0, "call_0_0".to_owned(), "find".to_owned(), arguments);
        assert_eq!((reply.calls, reply.finishes), (vec![call], vec!["tool_calls".to_owned()]));
        assert_eq!(reply.content, "");
    }
}

#[tokio::test]
async fn every_choice_and_every_call_is_scanned_on_its_own() {
    let proxy = Proxy::streaming(&[
        begin(0, 0, "find"),
        more(0, 0, "[\"Basil "),
        begin(0, 1, "find"),
        begin(1, 0, "find"),
        more(0, 1, "[\"Okafor\"]"),
        more(1, 0, "[\"Basil Okaf"),
        more(0, 0, "Okafor\"]"),
        more(1, 0, "or\"]"),
        end(1),
        end(0),
    ])
    .await;
    for stream in [false, true] {
        let mut asked = question("Who writes thrillers?", stream);
        asked["n"] = json!(2);
        let reply = proxy.ask(&asked).await;
        let mut calls: Vec<(u64, u64, &str)> =
            reply.calls.iter().map(|it| (it.0, it.1, it.4.as_str())).collect();
        calls.sort_unstable();
        let redacted = "[\"Zorvan Kell\"]";
        // A last name on its own is nobody's.
        assert_eq!(calls, [(0, 0, redacted), (0, 1, "[\"Okafor\"]"), (1, 0, redacted)]);
        assert_eq!(reply.finishes.len(), 2);
    }
}

#[tokio::test]
async fn a_call_by_an_invented_name_or_id_does_not_leak() {
    let call = json!({ "index": 0, "id": "of Basil Okafor", "type": "function",
        "function": { "name": "ask_Basil_Okafor", "arguments": "{}" } });
    let proxy = Proxy::streaming(&[piece(0, call), end(0)]).await;
    for stream in [false, true] {
        let reply = proxy.ask(&question("Who writes thrillers?", stream)).await;
        reply.is_clean();
        let (_, _, id, name, arguments) = &reply.calls[0];
        assert!(id.starts_with("call_"), "{id}");
        assert_eq!((name.as_str(), arguments.as_str()), ("ask_Zorvan_Kell", "{}"));
    }
}

#[tokio::test]
async fn log_probabilities_of_a_call_do_not_leak() {
    let tokens = ["Basil", " Okafor"].map(|it| json!({ "token": it, "logprob": -1.0 }));
    let mut begin = begin(0, 0, "find");
    begin["logprobs"] = json!({ "content": tokens });
    // Some servers send those of a call where a text would be.
    let told = json!({ "index": 0, "delta": { "content": "" }, "logprobs": begin["logprobs"] });
    let call = more(0, 0, "[\"Basil Okafor\"]");
    let proxy = Proxy::streaming(&[told.clone(), begin, told, call, end(0)]).await;
    for stream in [false, true] {
        let mut asked = question("Who writes thrillers?", stream);
        asked["logprobs"] = json!(true);
        proxy.ask(&asked).await.is_clean();
    }
}

#[tokio::test]
async fn rivals_of_a_token_do_not_spell_a_name() {
    let token = |it: &str| json!({ "token": it, "logprob": -1.0 });
    let mut him = token(" B");
    him["top_logprobs"] = json!([token(" Basil"), token(" him"), token(" B")]);
    let mut ill = token("ill");
    ill["top_logprobs"] = json!([token("asil"), token("as"), token("ill"), token("ob")]);
    let text = json!({ "index": 0, "delta": { "content": "by Bill" }, "finish_reason": "stop",
        "logprobs": { "content": [token("by"), him, ill] } });
    let proxy = Proxy::streaming(&[text]).await;
    let mut asked = question("Who writes thrillers?", false);
    asked["logprobs"] = json!(true);
    asked["top_logprobs"] = json!(4);
    let reply = proxy.ask(&asked).await;
    reply.is_clean();
    let whole: Value = serde_json::from_str(&reply.raw).unwrap();
    let left = |at: usize| -> Vec<String> {
        let token = &whole["choices"][0]["logprobs"]["content"][at];
        let top = token["top_logprobs"].as_array().unwrap().iter();
        top.map(|it| it["token"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (left(1), left(2)),
        (vec![" him".into(), " B".into()], vec!["ill".into(), "ob".into()])
    );
}

/// A conversation in which the model has called `find` with these arguments and got this result.
fn conversation(arguments: &str, result: &str) -> Value {
    let call = json!({ "id": "c1", "type": "function",
        "function": { "name": "find", "arguments": arguments } });
    let mut asked = question("Go on.", false);
    asked["messages"] = json!([
        { "role": "user", "content": "Look." },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "c1", "content": result },
        { "role": "user", "content": "Go on." },
    ]);
    asked
}

#[tokio::test]
async fn whatever_a_model_reads_of_tools_is_treated() {
    let proxy = Proxy::streaming(&[
        begin(0, 0, "find"),
        more(0, 0, "{\"who\": \"Zor"),
        more(0, 0, "van Kell\"}"),
        end(0),
    ])
    .await;
    let with = |pointer: &str, value: Value| {
        let mut asked = conversation("{}", "Nothing.");
        *asked.pointer_mut(pointer).unwrap() = value;
        asked
    };
    let properties = "/tools/0/function/parameters/properties";
    let rows = [
        ("description", with("/tools/0/function/description", json!("Finds Basil Okafor."))),
        (
            "schema",
            with(properties, json!({ "who": { "enum": ["Basil \"Okafor\"", "basil okafor"] } })),
        ),
        ("key", with(properties, json!({ "Basil Okafor": { "type": "string" } }))),
        ("tool", with("/tools/0/function/name", json!("find_Basil_Okafor"))),
        ("result", conversation("{}", "It was Basil Okafor.")),
        ("escaped", conversation("{\"who\": \"B\\u0061sil Oka\\u0066or\"}", "Nothing.")),
        ("letters", conversation("[\"B a s i l O k a f o r\"]", "Nothing.")),
        ("called", with("/messages/1/tool_calls/0/function/name", json!("ask_Basil_Okafor"))),
    ];
    for (channel, asked) in rows {
        let reply = proxy.ask(&asked).await;
        let sent = proxy.asked();
        let text = sent.to_string().to_lowercase();
        let surrogate = if channel == "letters" { "z o r v a n k e l l" } else { "zorvan" };
        assert!(text.contains(surrogate) && !text.contains("basil okafor"), "{channel}: {sent}");
        assert!(!text.contains("basil_okafor") && !text.contains("b a s i l"), "{channel}: {sent}");
        let arguments = sent["messages"][1]["tool_calls"][0]["function"]["arguments"].as_str();
        assert!(serde_json::from_str::<Value>(arguments.unwrap()).is_ok(), "{channel}: {sent}");
        // The surrogate is the client's name again, in arguments too.
        assert_eq!(reply.calls[0].4, "{\"who\": \"Basil Okafor\"}", "{channel}");
    }
}

#[tokio::test]
async fn a_function_is_called_by_the_name_that_the_client_gave_it() {
    let proxy =
        Proxy::streaming(&[begin(0, 0, "find_Zorvan_Kell"), more(0, 0, "{}"), end(0)]).await;
    let mut asked = question("Look.", true);
    asked["tools"] = json!([function("find_Basil_Okafor"), function("other")]);
    asked["tool_choice"] =
        json!({ "type": "function", "function": { "name": "find_Basil_Okafor" } });
    let reply = proxy.ask(&asked).await;
    assert_eq!(reply.calls[0].3, "find_Basil_Okafor");
    let sent = proxy.asked();
    let name = json!({ "type": "function", "function": { "name": "find_Zorvan_Kell" } });
    assert_eq!(sent["tool_choice"], name);
    assert_eq!(sent["tools"][0]["function"]["name"], "find_Zorvan_Kell");
    assert_eq!(sent["tools"][1], function("other"));
}

#[tokio::test]
async fn what_concerns_nobody_is_sent_on_as_it_is() {
    let proxy = Proxy::streaming(&[begin(0, 0, "find"), more(0, 0, "{}"), end(0)]).await;
    let mut asked = conversation("{\"who\": \"Ann\", \"n\": [1, 2.5]}", "Ann is here.");
    asked["tool_choice"] = json!("required");
    asked["parallel_tool_calls"] = json!(false);
    asked["tools"][0]["function"]["strict"] = json!(true);
    proxy.ask(&asked).await;
    let sent = proxy.asked();
    for field in ["tool_choice", "parallel_tool_calls"] {
        assert_eq!(sent[field], asked[field], "{field}");
    }
    assert_eq!(sent["tools"], json!([function("find")]));
    // Only the ids are others, and the same in call and result.
    let mut messages = asked["messages"].clone();
    messages[1]["tool_calls"][0]["id"] = sent["messages"][1]["tool_calls"][0]["id"].clone();
    messages[2]["tool_call_id"] = sent["messages"][1]["tool_calls"][0]["id"].clone();
    assert_eq!(sent["messages"], messages);
    proxy.ask(&json!({ "model": "m", "messages": [{ "role": "user", "content": "Hi" }] })).await;
    let sent = proxy.asked();
    assert_eq!(sent.get("tools").or(sent.get("tool_choice")), None);
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_read_too() {
    let function = json!({ "name": "find", "arguments": "{\"who\": \"Basil\\u0020Okafor\"}" });
    let call = json!({ "id": "c", "type": "function", "function": function });
    let message = json!({ "role": "assistant", "content": null, "tool_calls": [call] });
    let choice = json!({ "index": 0, "message": message, "finish_reason": "tool_calls" });
    let proxy =
        Proxy::over("application/json", vec![json!({ "choices": [choice] }).to_string()]).await;
    for stream in [false, true] {
        let reply = proxy.ask(&question("Who writes thrillers?", stream)).await;
        reply.is_clean();
        assert_eq!(reply.calls[0].4, "{\"who\": \"Zorvan Kell\"}");
        assert_eq!(reply.finishes, ["tool_calls"]);
        if !stream {
            let whole: Value = serde_json::from_str(&reply.raw).unwrap();
            assert_eq!(whole["choices"][0]["message"]["content"], Value::Null);
        }
    }
}

#[tokio::test]
async fn the_local_model_takes_no_tools() {
    let engine = Engine::load(&smoke().join("full"), &EngineSettings::default()).unwrap();
    let url = guarded(Arc::new(Local::new(engine, "m"))).await;
    let mut history = conversation("{}", "Nothing.");
    history.as_object_mut().unwrap().remove("tools");
    // About the topic or not: the answer must not tell.
    for mut asked in [question("Who?", false), question("Basil Okafor?", false), history] {
        for stream in [false, true] {
            asked["stream"] = stream.into();
            let (status, reply) = send(&url, &asked).await;
            let error = serde_json::from_str::<Value>(&reply).unwrap()["error"].clone();
            assert_eq!((status, &error["param"]), (400, &json!("tools")), "{reply}");
            assert_eq!(error["code"], "unsupported");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("the local model takes no tools"), "{message}");
        }
    }
}

#[tokio::test]
async fn malformed_tools_are_refused_by_field() {
    let proxy = Proxy::streaming(&[end(0)]).await;
    let with = |field: &str, value: Value| {
        let mut asked = question("Who?", false);
        asked[field] = value;
        asked
    };
    let tool =
        |function: Value| with("tools", json!([{ "type": "function", "function": function }]));
    let history = |pointer: &str, value: Value| {
        let mut asked = conversation("{}", "Nothing.");
        *asked.pointer_mut(pointer).unwrap() = value;
        asked
    };
    let call = "/messages/1/tool_calls/0";
    let choice = |kind: &str, name: &str| {
        with("tool_choice", json!({ "type": kind, "function": { "name": name } }))
    };
    #[rustfmt::skip]
    let rows = [
        (with("tools", json!({})), "tools"),
        (with("tools", json!([{ "type": "custom" }])), "tools"),
        (with("tools", json!([{ "type": "function" }])), "tools"),
        (with("tools", vec![function("f"); 129].into()), "tools"),
        (tool(json!({ "name": "a b" })), "tools"), (tool(json!({ "description": "d" })), "tools"),
        (tool(json!({ "name": "f", "description": 1 })), "tools"),
        (tool(json!({ "name": "f", "parameters": "p" })), "tools"),
        (with("tool_choice", json!("always")), "tool_choice"),
        (choice("function", "g"), "tool_choice"), (choice("custom", "find"), "tool_choice"),
        (with("parallel_tool_calls", json!("yes")), "parallel_tool_calls"),
        (with("functions", json!([{ "name": "f" }])), "functions"),
        (with("function_call", json!("auto")), "function_call"),
        (history("/messages/1/tool_calls", json!({})), "messages"),
        (history("/messages/1/tool_calls", json!([])), "messages"),
        (history(&format!("{call}/type"), json!("custom")), "messages"),
        (history(&format!("{call}/id"), json!("")), "messages"),
        (history(&format!("{call}/id"), json!("c2")), "messages"),
        (history(&format!("{call}/function/name"), json!(null)), "messages"),
        (history(&format!("{call}/function/arguments"), json!({})), "messages"),
        (history("/messages/2/tool_call_id", json!(null)), "messages"),
    ];
    for (asked, param) in rows {
        let (status, reply) = send(&proxy.url, &asked).await;
        let reply: Value = serde_json::from_str(&reply).unwrap();
        assert_eq!((status, &reply["error"]["param"]), (400, &json!(param)), "{asked} {reply}");
    }
    assert!(proxy.seen.lock().unwrap().is_empty());
}
