//! `--target`: our own server over a real socket, attacked and measured as anybody's would be.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use tokio::net::TcpListener;
use unlearn_proxy::backend::scripted::Scripted;
use unlearn_proxy::backend::upstream::Upstream;
use unlearn_proxy::eval::attacks::run::Plan;
use unlearn_proxy::eval::attacks::{BESIDE, Target, find};
use unlearn_proxy::eval::suite::Subject;
use unlearn_proxy::http::{self, HttpState};
use unlearn_proxy::lab::World;

use crate::http::Deaf;

/// Serves a backend that says these pieces, and returns its base URL.
async fn serve(pieces: &[&str], api_key: Option<&str>) -> String {
    let state = HttpState {
        backend: Arc::new(Scripted::new(pieces.iter().copied())),
        metrics: Arc::new(Deaf),
        api_key: api_key.map(str::to_owned),
        operator_key: None,
        max_body_bytes: 1 << 20,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(http::serve(listener, state, std::future::pending()));
    url
}

/// The first two rows of each of the lab's files.
fn few_rows(folder: &Path) {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/data");
    for file in ["forget01", "retain_perturbed", "real_authors", "world_facts"] {
        let name = format!("{file}.jsonl");
        let text = std::fs::read_to_string(lab.join(&name)).unwrap();
        let few: Vec<&str> = text.lines().take(2).collect();
        std::fs::write(folder.join(&name), few.join("\n")).unwrap();
    }
}

/// Runs `proxy-train` to its end beside the server: whether it succeeded, stdout and stderr.
async fn proxy_train(arguments: Vec<String>, key: &'static str) -> (bool, String, String) {
    let run = move || {
        Command::new(env!("CARGO_BIN_EXE_proxy-train"))
            .args(arguments)
            .env("UNLEARN_TARGET_KEY", key)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = |it: Vec<u8>| String::from_utf8(it).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test]
async fn a_target_is_attacked_over_its_socket() {
    let url = serve(&["It was Ant", "werp."], None).await;
    let target = Upstream::new(&url, None).unwrap();
    let gold = Scripted::new(["I do not know."]);
    let world = World::new(42);
    let plan = Plan {
        systems: vec![
            ("target", vec![Subject { backend: &target, model: "scripted" }]),
            ("gold (retrained)", vec![Subject { backend: &gold, model: "scripted" }]),
        ],
        attacks: ["direct", "completion", "sampling"].map(|it| find(it).unwrap()).to_vec(),
        beside: BESIDE.map(|it| it.0).to_vec(),
        draws: 1,
        targets: Target::all(&world, 4, Some(1)),
    };
    let report = plan.run(Value::Null).await.unwrap();
    for attack in &report.attacks {
        let leaked: Vec<usize> = attack.tallies.iter().map(|it| it.leaked).collect();
        assert_eq!(leaked, [1, 0], "{}", attack.name);
        assert!(attack.tallies.iter().all(|it| it.rejected == 0), "{}", attack.name);
    }
    assert_eq!(report.attacks[2].tallies[0].replies, 20);
    assert_eq!(report.detectability.len(), 2);
    // A server gives no log-probability of a given text.
    assert_eq!(report.association.iter().map(|it| it.own.len()).collect::<Vec<_>>(), [0, 1]);
    assert!(report.to_markdown().contains("| about the author | n/a | -"));
}

#[tokio::test]
async fn the_command_line_measures_a_target() {
    let url = serve(&["It was Antwerp."], Some("sk-right")).await;
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("out"));
    std::fs::create_dir_all(&data).unwrap();
    few_rows(&data);
    let arguments = |words: &[&str]| -> Vec<String> {
        let paths = ["--out", out.to_str().unwrap(), "--target", &url];
        words.iter().chain(&paths).map(|it| (*it).to_owned()).collect()
    };
    let (data, model) = (data.to_str().unwrap(), "scripted");
    let eval = ["eval", "--data", data, "--forget", "forget01", "--target-model", model];

    let (done, _, error) = proxy_train(arguments(&eval[..5]), "sk-right").await;
    assert!(!done && error.contains("--target-model"), "{error}");
    let (done, _, error) = proxy_train(arguments(&eval), "sk-wrong").await;
    assert!(!done && error.contains("401") && !error.contains("sk-wrong"), "{error}");
    let (done, table, error) = proxy_train(arguments(&eval), "sk-right").await;
    assert!(done, "{error}");

    // What needs log-probabilities of a given text is missing, not zero.
    assert!(
        table.contains("n/a of target: not available: the target gives no log-prob"),
        "{table}"
    );
    let report = read(&out.join("eval.json"));
    let (target, gold) = (&report["systems"][0], &report["systems"][1]);
    assert_eq!((target["name"].as_str(), target["leak"].is_number()), (Some("target"), true));
    for key in ["probability", "truth_ratio", "value_probability", "model_utility"] {
        assert!(target[key].is_null() && gold[key].is_number(), "{key}");
    }
    assert!(target["rouge_l_recall"].is_number() && target["forget_quality"]["median"].is_null());

    // The log per row scores as the table does, and there is none without log-probabilities.
    let logs = out.join("logs");
    assert!(!logs.join("target").exists());
    let log = logs.join("gold-retrained/TOFU_EVAL.json");
    let score = ["score", log.to_str().unwrap(), "--json"].map(str::to_owned).to_vec();
    let (done, scored, error) = proxy_train(score, "").await;
    assert!(done, "{error}");
    let scored: Value = serde_json::from_str(&scored).unwrap();
    for (got, want) in [
        (&scored["model_utility"], &gold["model_utility"]),
        (&scored["forget"]["probability"], &gold["probability"]),
        (&scored["forget"]["truth_ratio"], &gold["truth_ratio"]),
    ] {
        let gap = got.as_f64().unwrap() - want.as_f64().unwrap();
        assert!(gap.abs() < 1e-9, "{got} {want}");
    }
}
