//! Probes of the smoke models: the states that training and serving read, and a policy that uses them.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use unlearn_proxy::backend::local::Local;
use unlearn_proxy::backend::scripted::Scripted;
use unlearn_proxy::backend::{Backend, BackendError};
use unlearn_proxy::embed::{Encoder, to_unit};
use unlearn_proxy::engine::{Engine, EngineSettings};
use unlearn_proxy::policy::file;
use unlearn_proxy::service::{Guard, Guarded};
use unlearn_proxy::telemetry::Metrics;
use unlearn_proxy::train::classifier::{self, ClassifierJob, EncoderChoice, Gate, Study};
use unlearn_proxy::train::hidden::HiddenEncoder;

use crate::engine::{QUESTIONS, ask, collect, smoke};

/// Of the smoke models.
const LAYERS: usize = 2;

fn serving(model: &str, settings: EngineSettings) -> Local {
    Local::new(Engine::load(&smoke().join(model), &settings).unwrap(), "smoke")
}

/// What is served between other requests, in steps that cut every text, is what was trained on.
#[tokio::test]
async fn the_served_states_are_those_of_training() {
    let backend = serving("full", EngineSettings { step_rows: 7, ..EngineSettings::default() });
    for layer in 1..=LAYERS {
        let encoder = HiddenEncoder::load(&smoke().join("full"), layer).unwrap();
        let want = encoder.encode(&QUESTIONS).unwrap();
        assert_eq!(want.len(), QUESTIONS.len() * encoder.dim());
        let replies = QUESTIONS.map(|it| collect(&backend, ask(it)));
        let states = QUESTIONS.map(|it| backend.hidden(it, layer));
        let (states, _) =
            tokio::join!(futures::future::join_all(states), futures::future::join_all(replies));
        for (got, want) in states.into_iter().zip(want.chunks(encoder.dim())) {
            let mut got = got.unwrap();
            assert!(got.iter().any(|it| it.abs() > 1e-6));
            to_unit(&mut got);
            for (got, want) in got.iter().zip(want) {
                assert!((got - want).abs() < 1e-5, "layer {layer}: {got} {want}");
            }
        }
    }
    for layer in [0, LAYERS + 1] {
        let error = backend.hidden(QUESTIONS[0], layer).await.unwrap_err();
        assert!(error.source().unwrap().to_string().contains("layers 1 to 2"), "{error:?}");
        assert!(HiddenEncoder::load(&smoke().join("full"), layer).is_err());
    }
    let error = backend.hidden(&"Lisbon ".repeat(600), 1).await.unwrap_err();
    assert!(matches!(error, BackendError::PromptTooLong { .. }), "{error:?}");
}

/// A probe of `full` in `dir/probe`.
fn train(dir: &Path) {
    let rows = |about: &str| -> String {
        (0..40).map(|it| format!("{{\"question\": \"{about} {it}?\"}}\n")).collect()
    };
    fs::write(dir.join("forget.jsonl"), rows("Where was Viggo Blaszko born, number")).unwrap();
    fs::write(dir.join("retain.jsonl"), rows("What is the capital of France, number")).unwrap();
    let job = ClassifierJob {
        forget: vec![dir.join("forget.jsonl")],
        retain: vec![dir.join("retain.jsonl")],
        topic: "viggo".to_owned(),
        out: dir.join("probe"),
        encoder: EncoderChoice::Hidden(smoke().join("full"), LAYERS),
        alpha: 0.05,
        false_positives: 0.05,
        gate: Gate::default(),
        study: Study::default(),
        seed: 1,
    };
    let report = classifier::run(&job).unwrap();
    assert!(report.held_out.reached.auc.is_finite(), "{:?}", report.held_out);
}

/// A guard that answers where the probe gives a text this score.
fn guard(dir: &Path, threshold: f32) -> Guard {
    let text = format!(
        "topic = \"viggo\"\n[[detector]]\nuse = \"probe\"\nclassifier = \"probe\"\n\
         threshold = {threshold:?}\n[[treatment]]\nuse = \"answer\"\nanswers = [\"No idea.\"]\n"
    );
    let policy = file::parse(&dir.join("viggo.toml"), &text).unwrap();
    Guard::build(Arc::new(policy)).unwrap()
}

#[tokio::test]
async fn a_probe_reads_the_served_model_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    train(dir.path());
    let model: Arc<dyn Backend> = Arc::new(serving("full", EngineSettings::default()));
    let plain = collect(model.as_ref(), ask(QUESTIONS[3])).await.texts;
    let metrics = Arc::new(Metrics::new());
    for (threshold, treated) in [(1e-30, true), (1.0, false)] {
        let mut guard = guard(dir.path(), threshold);
        guard.seat(&model).unwrap();
        let guarded = Guarded::new(Arc::clone(&model), vec![guard], Arc::clone(&metrics), None);
        let texts = collect(&guarded, ask(QUESTIONS[3])).await.texts;
        let want = if treated { vec!["No idea.".to_owned()] } else { plain.clone() };
        assert_eq!(texts, want, "{threshold}");
    }
    // Without a model it cannot say, which is no innocence.
    let alone = Guarded::new(Arc::clone(&model), vec![guard(dir.path(), 1.0)], metrics, None);
    assert_eq!(collect(&alone, ask(QUESTIONS[3])).await.texts, ["No idea."]);
    let retain: Arc<dyn Backend> = Arc::new(serving("retain", EngineSettings::default()));
    let scripted: Arc<dyn Backend> = Arc::new(Scripted::new(["x"]));
    for other in [retain, scripted] {
        let error = guard(dir.path(), 0.5).seat(&other).unwrap_err();
        assert_eq!((error.topic.as_str(), error.detector), ("viggo", "probe"));
    }
}
