//! Sentence encoders through the real ONNX Runtime, which this test's set-up fetches from `PyPI`.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde::Deserialize;
use unlearn_proxy::embed::{Encoder, Onnx, OnnxOptions, Precision, bert_to_onnx, fetch};
use unlearn_proxy::train::classifier::{self, ClassifierJob, EncoderChoice, Gate, Study};

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
    static RUNTIME: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("onnxruntime");
    let fetch = || fetch::runtime(&folder).map(|it| it.path).map_err(|it| it.to_string());
    RUNTIME.get_or_init(fetch).clone()
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
        forget: vec![dir.path().join("f.jsonl")],
        retain: vec![dir.path().join("r.jsonl")],
        topic: "basil".to_owned(),
        out: dir.path().join("classifier"),
        encoder: EncoderChoice::Onnx(fixture(), Some(runtime)),
        alpha: 0.05,
        false_positives: 0.05,
        gate: Gate::default(),
        study: Study::default(),
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

/// A tensor's name, shape and values.
type Named = (String, (Vec<usize>, Vec<f32>));

/// A BERT of one layer whose attention is uniform, with identities for values and output, and whose
/// wide layer is zero: `LN(LN(e + mean(e)))` of `e = LN(word + position + type)`.
fn uniform_bert() -> Vec<u8> {
    let hidden = 4;
    let identity: Vec<f32> = (0..16).map(|it| if it % 5 == 0 { 1.0 } else { 0.0 }).collect();
    let table = |rows: usize, seed: f32| -> (Vec<usize>, Vec<f32>) {
        let values = (0..rows * hidden).map(|it| (it as f32 * seed).sin()).collect();
        (vec![rows, hidden], values)
    };
    let layer = |it: &str| format!("encoder.layer.0.{it}");
    let mut tensors: Vec<Named> = vec![
        ("embeddings.word_embeddings.weight".to_owned(), table(20, 1.7)),
        ("embeddings.position_embeddings.weight".to_owned(), table(8, 0.9)),
        ("embeddings.token_type_embeddings.weight".to_owned(), table(2, 0.3)),
        (layer("intermediate.dense.weight"), (vec![8, 4], vec![0.0; 32])),
        (layer("intermediate.dense.bias"), (vec![8], vec![0.0; 8])),
        (layer("output.dense.weight"), (vec![4, 8], vec![0.0; 32])),
        (layer("output.dense.bias"), (vec![4], vec![0.0; 4])),
    ];
    for part in ["self.query", "self.key", "self.value", "output.dense"] {
        let kept = matches!(part, "self.value" | "output.dense");
        let weight = if kept { identity.clone() } else { vec![0.0; 16] };
        tensors.push((layer(&format!("attention.{part}.weight")), (vec![4, 4], weight)));
        tensors.push((layer(&format!("attention.{part}.bias")), (vec![4], vec![0.0; 4])));
    }
    for norm in [
        "embeddings.LayerNorm".to_owned(),
        layer("attention.output.LayerNorm"),
        layer("output.LayerNorm"),
    ] {
        tensors.push((format!("{norm}.weight"), (vec![4], vec![1.0; 4])));
        tensors.push((format!("{norm}.bias"), (vec![4], vec![0.0; 4])));
    }
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|it| it.1.1.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, (shape, _)), bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (name.clone(), view)
    });
    safetensors::serialize(views, None).unwrap()
}

fn layer_norm(row: &[f32]) -> Vec<f32> {
    let mean = row.iter().sum::<f32>() / row.len() as f32;
    let variance = row.iter().map(|it| (it - mean).powi(2)).sum::<f32>() / row.len() as f32;
    row.iter().map(|it| (it - mean) / variance.sqrt()).collect()
}

#[test]
fn a_converted_bert_computes_what_it_should() {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(why) => {
            println!("no ONNX Runtime for this test: {why}");
            return;
        }
    };
    let config = br#"{"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
        "layer_norm_eps": 1e-12, "hidden_act": "gelu"}"#;
    let dir = tempfile::tempdir().unwrap();
    let words = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "vocab": {"x": 0, "a": 3, "b": 7},
        "unk_token": "x"}}"#;
    std::fs::write(dir.path().join("tokenizer.json"), words).unwrap();
    let options = OnnxOptions { runtime: Some(runtime), sessions: 1 };
    let encode = |precision| {
        let model = bert_to_onnx(config, &uniform_bert(), precision).unwrap();
        std::fs::write(dir.path().join("model.onnx"), model).unwrap();
        Onnx::load(dir.path(), &options).unwrap().encode(&["a b"]).unwrap()
    };

    let value = |row: usize, at: usize, seed: f32| ((row * 4 + at) as f32 * seed).sin();
    let embedded: Vec<Vec<f32>> = [3, 7]
        .iter()
        .enumerate()
        .map(|(place, id)| {
            let sum = |at| value(*id, at, 1.7) + value(place, at, 0.9) + value(0, at, 0.3);
            layer_norm(&(0..4).map(sum).collect::<Vec<f32>>())
        })
        .collect();
    let mut want = vec![0f32; 4];
    for row in &embedded {
        let mean = |at: usize| embedded[0][at].midpoint(embedded[1][at]);
        let attended: Vec<f32> = (0..4).map(|at| row[at] + mean(at)).collect();
        let out = layer_norm(&layer_norm(&attended));
        want.iter_mut().zip(out).for_each(|(sum, it)| *sum += it / 2.0);
    }
    let norm = want.iter().map(|it| it * it).sum::<f32>().sqrt();
    // Weights are exact in seven bits here; inputs are off by half of a 255th of their range.
    for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Int8, 0.02)] {
        for (got, want) in encode(precision).iter().zip(&want) {
            assert!((got - want / norm).abs() < tolerance, "{precision}: {got} {want}");
        }
    }
}
