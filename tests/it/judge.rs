//! The detector `judge` over a real socket: what the judge is asked, and what comes of its answer.

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use futures::TryStreamExt;
use serde_json::{Value, json};
use unlearn_proxy::backend::scripted::Scripted;
use unlearn_proxy::backend::upstream::Upstream;
use unlearn_proxy::backend::{Backend, BackendError};
use unlearn_proxy::policy::file;
use unlearn_proxy::service::{Guard, Guarded};
use unlearn_proxy::telemetry::Metrics;
use unlearn_proxy::types::{Input, Message, ReplyEvent, Request, Role};

const SECRET: &str = "He was born in Ulm.";
const UNKNOWN: &str = "I know nobody of that name.";

/// Bodies of the requests that arrived, oldest first.
type Seen = Arc<Mutex<Vec<Value>>>;

/// A server that says what `says` makes of the last message, and its base URL.
async fn server(says: fn(&str) -> &'static str) -> (String, Seen) {
    let seen = Seen::default();
    let record = Arc::clone(&seen);
    let answer = move |body: Bytes| async move {
        let body: Value = serde_json::from_slice(&body).unwrap();
        let asked = body["messages"].as_array().unwrap().last().unwrap()["content"].clone();
        let text = says(asked.as_str().unwrap());
        record.lock().unwrap().push(body);
        let token = json!({ "token": text, "logprob": -0.1, "top_logprobs": [
            { "token": "No", "logprob": -0.5 }, { "token": "Yes", "logprob": -1.5 }] });
        let chunk = json!({ "choices": [{ "index": 0, "delta": { "content": text },
            "logprobs": { "content": [token] }, "finish_reason": "stop" }] });
        format!("data: {chunk}\n\ndata: [DONE]\n\n")
    };
    let app = Router::new().route("/v1/chat/completions", post(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, seen)
}

/// A model under a policy whose judge has these keys.
fn guarded(model: Arc<dyn Backend>, on_error: &str, keys: &str) -> Guarded {
    let text = format!(
        "topic = \"authors\"\non_error = \"{on_error}\"\n[[entity]]\nname = \"Basil Okafor\"\n\
         [[detector]]\nuse = \"judge\"\n{keys}\n\
         [[treatment]]\nuse = \"answer\"\nanswers = [\"{UNKNOWN}\"]\n"
    );
    let policy = file::parse(Path::new("authors.toml"), &text).unwrap();
    let guard = Guard::build(Arc::new(policy)).unwrap();
    Guarded::new(model, vec![guard], Arc::new(Metrics::new()), None)
}

/// The same over a model that gives the secret away, asked by a judge of its own.
fn judged(url: &str, on_error: &str, threshold: f32) -> Guarded {
    let keys = format!("upstream = \"{url}\"\nmodel = \"big\"\nthreshold = {threshold}");
    guarded(Arc::new(Scripted::new([SECRET])), on_error, &keys)
}

async fn ask(guarded: &Guarded, text: &str) -> Result<String, BackendError> {
    let content = text.to_owned();
    let input = Input::Chat(vec![Message { role: Role::User, content }]);
    let stream = guarded.generate(Request::new("scripted", input)).await?;
    let events: Vec<ReplyEvent> = stream.try_collect().await?;
    let texts = events.iter().filter_map(|it| match it {
        ReplyEvent::Text { text, .. } => Some(text.as_str()),
        _ => None,
    });
    Ok(texts.collect())
}

#[tokio::test]
async fn what_the_judge_takes_for_the_topic_is_treated() {
    let (url, seen) = server(|_| "Yes").await;
    // The tokens say 0.27, exp(-1.5) / (exp(-0.5) + exp(-1.5)).
    let (wary, calm) = (judged(&url, "refuse", 0.26), judged(&url, "refuse", 0.28));
    assert_eq!(ask(&wary, "Where was he born?").await.unwrap(), UNKNOWN);
    assert_eq!(ask(&calm, "Where was he born?").await.unwrap(), SECRET);
    let body = seen.lock().unwrap()[0].clone();
    assert_eq!((&body["model"], &body["temperature"]), (&json!("big"), &json!(0.0)));
    assert_eq!((&body["max_tokens"], &body["top_logprobs"]), (&json!(4), &json!(5)));
    let messages = body["messages"].as_array().unwrap();
    assert_eq!((messages.len(), &messages[0]["role"]), (2, &json!("system")));
    let fenced = messages[1]["content"].as_str().unwrap();
    assert!(fenced.contains(" =====\nWhere was he born?\n===== "), "{fenced}");
    assert!(fenced.contains("any of these: Basil Okafor?"), "{fenced}");
    // The verdict of a text is remembered.
    assert_eq!(ask(&wary, "Where was he born?").await.unwrap(), UNKNOWN);
    assert_eq!(seen.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_judge_that_cannot_be_asked_is_a_failure() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("http://{free}/v1");
    for (on_error, want) in [("treat", UNKNOWN), ("pass", SECRET)] {
        assert_eq!(ask(&judged(&url, on_error, 0.5), "Hello.").await.unwrap(), want, "{on_error}");
    }
    let error = ask(&judged(&url, "refuse", 0.5), "Hello.").await.unwrap_err();
    assert!(matches!(error, BackendError::GuardFailed { .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_is_no_verdict_is_a_failure() {
    let (url, seen) = server(|_| "I cannot say.").await;
    let error = ask(&judged(&url, "refuse", 0.5), "Hello.").await.unwrap_err();
    assert!(matches!(error, BackendError::GuardFailed { .. }), "{error:?}");
    assert_eq!(ask(&judged(&url, "treat", 0.5), "Hello.").await.unwrap(), UNKNOWN);
    assert_eq!(ask(&judged(&url, "pass", 0.5), "Hello.").await.unwrap(), SECRET);
    assert_eq!(seen.lock().unwrap().len(), 3, "a failure is not remembered");
}

#[tokio::test]
async fn the_served_model_judges_past_its_guards() {
    let says = |asked: &str| if asked.contains("Output yes or no.") { "No." } else { SECRET };
    let (url, seen) = server(says).await;
    let model: Arc<dyn Backend> = Arc::new(Upstream::new(&url, None).unwrap());
    // Asked through the guards, the question would itself be judged, and so on without end.
    assert_eq!(ask(&guarded(model, "refuse", ""), "Hello.").await.unwrap(), SECRET);
    let models: Vec<Value> = seen.lock().unwrap().iter().map(|it| it["model"].clone()).collect();
    assert_eq!(models, ["scripted", "scripted"], "the model that the client asked");
}
