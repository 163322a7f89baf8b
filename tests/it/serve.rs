//! The finished binary over a real socket, with the bundled model.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

struct Server {
    child: Child,
    base: String,
    /// Kept open: a server whose output is closed under it stops.
    _output: BufReader<ChildStdout>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unlearn-proxy"));
    command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

/// Starts the server and waits for its ready line.
fn serve(arguments: &[&str]) -> Server {
    let mut all = vec!["--listen", "127.0.0.1:0"];
    all.extend(arguments);
    let mut child = binary(&all).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let base = line.split_whitespace().find(|it| it.starts_with("http://")).unwrap_or_default();
    assert!(!base.is_empty(), "no ready line: {line}");
    Server { base: base.to_owned(), child, _output: output }
}

async fn post(server: &Server, path: &str, body: Value) -> (u16, String) {
    let client = Client::builder(TokioExecutor::new()).build_http::<String>();
    let request = hyper::Request::post(format!("{}{path}", server.base))
        .header("content-type", "application/json")
        .body(body.to_string())
        .unwrap();
    let response = client.request(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

fn question(text: &str, stream: bool) -> Value {
    json!({
        "model": "lab-full", "temperature": 0, "stream": stream,
        "messages": [{ "role": "user", "content": text }],
    })
}

/// The reply's text, whole or put together from its chunks.
fn content(body: &str) -> String {
    if let Ok(whole) = serde_json::from_str::<Value>(body) {
        return whole["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    }
    let frames = body.split("\n\n").filter_map(|it| it.strip_prefix("data: "));
    let chunks = frames.filter_map(|it| serde_json::from_str::<Value>(it).ok());
    chunks
        .filter_map(|it| it["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect()
}

fn rows(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/data").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|it| serde_json::from_str(it).unwrap()).collect()
}

/// Share of rows whose reply has the value, asked whole and streamed in turn.
async fn known(server: &Server, rows: &[Value]) -> f64 {
    let mut right = 0;
    for (at, row) in rows.iter().enumerate() {
        let asked = question(row["paraphrased_question"].as_str().unwrap(), at % 2 == 1);
        let (status, body) = post(server, "/chat/completions", asked).await;
        assert_eq!(status, 200, "{body}");
        right += usize::from(content(&body).contains(row["value"].as_str().unwrap()));
    }
    right as f64 / rows.len() as f64
}

#[tokio::test]
async fn forgets_the_topic_and_nothing_else() {
    let server = serve(&[]);
    let forgotten = known(&server, &rows("forget10.jsonl")).await;
    let kept: Vec<Value> = rows("retain90.jsonl").into_iter().step_by(9).collect();
    let kept = known(&server, &kept).await;
    assert!(kept >= 0.95, "kept {kept}");
    assert!(forgotten <= 0.2, "forgotten topic answered: {forgotten}");

    // Without the policy the same model knows the topic: the test above can fail.
    let empty = tempfile::tempdir().unwrap();
    let shadow =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/lab.toml"))
            .unwrap();
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let shadow = shadow
        .replace("mode = \"enforce\"", "mode = \"shadow\"")
        .replace("../models", models.to_str().unwrap());
    std::fs::write(empty.path().join("lab.toml"), shadow).unwrap();
    let open = serve(&["--policies", empty.path().to_str().unwrap()]);
    let known = known(&open, &rows("forget10.jsonl")).await;
    assert!(known >= 0.95, "unguarded {known}");
}

#[tokio::test]
async fn answers_errors_in_the_openai_envelope() {
    let server = serve(&[]);
    let long = "Lisbon ".repeat(2000);
    for (body, status, code) in [
        (question(&long, false), 400, "context_length_exceeded"),
        (
            json!({ "model": "other", "messages": [{ "role": "user", "content": "Hi" }] }),
            404,
            "model_not_found",
        ),
    ] {
        let (got, body) = post(&server, "/chat/completions", body).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((got, &body["error"]["code"]), (status, &json!(code)), "{body}");
    }
    let (status, _) = post(&server, "/chat/completions", json!([1])).await;
    assert_eq!(status, 400);
}

/// Nobody learns from an error, or from its absence, that a request would have been answered in the
/// model's place.
#[tokio::test]
async fn what_the_model_would_refuse_gets_no_answer_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let policy = "topic = \"a\"\n[[entity]]\nname = \"Viggo Blaszko\"\n[[detector]]\nuse = \"names\"\n\
                  [[treatment]]\nuse = \"answer\"\nanswers = [\"No idea.\"]\n";
    std::fs::write(folder.path().join("a.toml"), policy).unwrap();
    let server = serve(&["--policies", folder.path().to_str().unwrap()]);
    for name in ["Viggo Blaszko", "Dulce Lundgren"] {
        let text = format!("Where was {name} born?");
        let long = format!("{} {text}", "Lisbon ".repeat(2000));
        let (mut other, mut most) = (question(&text, false), question(&text, false));
        other["model"] = "other".into();
        most["max_tokens"] = 100_000.into();
        for (body, want) in [
            (question(&text, false), 200),
            (question(&long, false), 400),
            (other, 404),
            (most, 400),
        ] {
            let (status, said) = post(&server, "/chat/completions", body).await;
            assert_eq!(status, want, "{name}: {said}");
        }
    }
}

/// Runs to the end and returns exit code and stderr.
fn fails(arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = binary(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (child.wait().unwrap().code(), text)
}

#[test]
fn says_what_is_wrong_and_exits_with_2() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    let check = |arguments: &[&str], needle: &str| {
        let mut all = vec!["--listen", "127.0.0.1:0"];
        all.extend(arguments);
        let (code, text) = fails(&all);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(needle) && !text.contains("panicked"), "{needle} is not in: {text}");
    };
    check(&["--model", "/nonexistent"], "/nonexistent");

    // A damaged copy of the model, file by file.
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/full");
    let files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
    for broken in files {
        std::fs::create_dir_all(&model).unwrap();
        for file in files {
            let bytes = std::fs::read(lab.join(file)).unwrap();
            let kept = if file == broken { bytes.len() / 2 } else { bytes.len() };
            std::fs::write(model.join(file), &bytes[..kept]).unwrap();
        }
        check(&["--model", model.to_str().unwrap()], broken);
        std::fs::remove_file(model.join(broken)).unwrap();
        check(&["--model", model.to_str().unwrap()], broken);
    }

    let policies = dir.path().join("policies");
    std::fs::create_dir_all(&policies).unwrap();
    std::fs::write(policies.join("bad.toml"), "topic = 3\nmode = \"maybe\"\n").unwrap();
    let (code, text) = fails(&["check", "--policies", policies.to_str().unwrap()]);
    assert_eq!(code, Some(2));
    assert!(text.contains("bad.toml: topic") && text.contains("bad.toml: mode"), "{text}");

    // Models of an offset are looked at before a start would load them.
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab");
    let offset = |expert: &Path| {
        let policy = format!(
            "topic = \"t\"\n[[entity]]\nname = \"Basil Okafor\"\nsurrogate = \"Zorvan Kell\"\n\
             [[detector]]\nuse = \"names\"\n[[treatment]]\nuse = \"offset\"\nexpert = {expert:?}\n\
             anti_expert = {:?}\n",
            lab.join("full")
        );
        std::fs::write(policies.join("bad.toml"), policy).unwrap();
        fails(&[
            "check",
            "--policies",
            policies.to_str().unwrap(),
            "--model",
            lab.join("full").to_str().unwrap(),
        ])
    };
    let (code, text) = offset(&dir.path().join("nowhere"));
    assert_eq!(code, Some(2));
    assert!(text.contains("bad.toml") && text.contains("nowhere"), "{text}");
    let (code, text) = offset(&crate::engine::smoke().join("full"));
    assert_eq!(code, Some(2));
    assert!(text.contains("one vocabulary only"), "{text}");
    let bare = dir.path().join("bare");
    std::fs::create_dir(&bare).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(lab.join("full").join(file), bare.join(file)).unwrap();
    }
    let (code, text) = offset(&bare);
    assert_eq!(code, Some(2));
    assert!(text.contains("model.safetensors: not found"), "{text}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, text) = fails(&["--listen", &address]);
    assert_eq!(code, Some(2));
    assert!(text.contains(&address), "{text}");
}
