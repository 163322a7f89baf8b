//! A model fetched by its hub id, by the finished binary, from a server that answers as a hub does.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, extract};

const POLICY: &str = "topic = \"authors\"\n[[entity]]\nname = \"Basil Okafor\"\n\
                      [[detector]]\nuse = \"names\"\n[[treatment]]\nuse = \"prefix\"\n";

/// A file of the bundled model, or the part of it that is asked for.
async fn file(extract::Path(name): extract::Path<String>, headers: HeaderMap) -> Response {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/full").join(&name);
    let Ok(bytes) = std::fs::read(path) else { return StatusCode::NOT_FOUND.into_response() };
    let range = headers.get("range").map_or("bytes=0-", |it| it.to_str().unwrap());
    let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let from: usize = from.parse().unwrap();
    let to = to.parse().map_or(bytes.len(), |it: usize| it + 1);
    let headers = [
        ("etag", format!("\"{name}-1\"")),
        ("x-repo-commit", "0123456789abcdef".to_owned()),
        ("content-range", format!("bytes {from}-{}/{}", to - 1, bytes.len())),
    ];
    (StatusCode::PARTIAL_CONTENT, headers, bytes[from..to].to_vec()).into_response()
}

async fn hub() -> String {
    let app = Router::new().route("/owner/lab/resolve/main/{name}", get(file));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// Starts the server with this model: its ready line, or its last words and the exit code.
fn start(model: &str, hub: &str, home: &Path) -> Result<String, (Option<i32>, String)> {
    let policies = home.join("policies");
    std::fs::create_dir_all(&policies).unwrap();
    std::fs::write(policies.join("one.toml"), POLICY).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_unlearn-proxy"));
    command.args(["--listen", "127.0.0.1:0", "--model", model, "--policies"]).arg(policies);
    command.env("HF_ENDPOINT", hub).env("HF_HOME", home.join("hub"));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if !line.is_empty() {
        child.kill().unwrap();
        child.wait().unwrap();
        return Ok(line);
    }
    let output = child.wait_with_output().unwrap();
    Err((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Whether a folder has a file of this name, however deep.
fn holds(folder: &Path, name: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|it| {
        let path = it.unwrap().path();
        path.file_name().is_some_and(|it| it == name) || path.is_dir() && holds(&path, name)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_fetched_by_its_id_and_only_once() {
    let home = tempfile::tempdir().unwrap();
    let url = hub().await;
    let ready = start("owner/lab", &url, home.path()).unwrap();
    assert!(ready.contains("http://127.0.0.1:"), "{ready}");

    // Whoever only checks policies needs no weights.
    let elsewhere = home.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab");
    let offset = format!(
        "{}[[treatment]]\nuse = \"offset\"\nexpert = {:?}\nanti_expert = {:?}\n",
        POLICY.replace("authors", "others"),
        lab.join("full"),
        lab.join("retain")
    );
    let policy = home.path().join("policies/offset.toml");
    std::fs::write(&policy, offset).unwrap();
    let check = Command::new(env!("CARGO_BIN_EXE_unlearn-proxy"))
        .args(["check", "--model", "owner/lab", "--policies"])
        .arg(home.path().join("policies"))
        .env("HF_ENDPOINT", &url)
        .env("HF_HOME", &elsewhere)
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    assert!(holds(&elsewhere, "config.json") && !holds(&elsewhere, "model.safetensors"));
    assert!(holds(home.path(), "model.safetensors"));
    std::fs::remove_file(policy).unwrap();

    // The second time no hub is needed.
    let nowhere = "http://127.0.0.1:9";
    start("owner/lab", nowhere, home.path()).unwrap();

    for (model, hub) in [("owner/other", url.as_str()), ("another/lab", nowhere)] {
        let (code, text) = start(model, hub, home.path()).unwrap_err();
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(model) && !text.contains("panicked"), "{text}");
    }
}
