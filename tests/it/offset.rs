//! The treatment `offset` over the smoke models: closed forms, batches, and what is refused.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use unlearn_proxy::backend::local::Local;
use unlearn_proxy::backend::scripted::Scripted;
use unlearn_proxy::backend::{Backend, BackendError, Capabilities};
use unlearn_proxy::engine::{Engine, EngineSettings};
use unlearn_proxy::policy::file;
use unlearn_proxy::policy::watch::Watch;
use unlearn_proxy::service::app::{AppError, load_guards, load_offsets};
use unlearn_proxy::service::reload::Reloader;
use unlearn_proxy::service::{Guard, Guarded};
use unlearn_proxy::telemetry::Metrics;
use unlearn_proxy::types::{CorruptionFunction, Offset, OffsetPair, Request, Scored};

use crate::engine::{QUESTIONS, ask, collect, corrupted, smoke};

const ANSWER: &str = "It is Lisbon.";

fn serving(model: &str, settings: EngineSettings) -> Local {
    Local::new(Engine::load(&smoke().join(model), &settings).unwrap(), "smoke")
}

fn pair(expert: &str, anti_expert: &str) -> Arc<OffsetPair> {
    let (expert, anti_expert) = (smoke().join(expert), smoke().join(anti_expert));
    Arc::new(OffsetPair { expert, anti_expert })
}

fn with(mut request: Request, pair: &Arc<OffsetPair>, alpha: f32) -> Request {
    request.offset = Some(Offset { pair: Arc::clone(pair), alpha });
    request
}

async fn scored(backend: &dyn Backend, request: Request) -> Scored {
    backend.score(request, ANSWER, true).await.unwrap()
}

/// The greatest distance of two continuations' log-probabilities, token by token.
fn distance(one: &Scored, other: &Scored) -> f32 {
    assert_eq!(one.logprobs.len(), other.logprobs.len());
    let pairs = one.logprobs.iter().zip(&other.logprobs);
    pairs.map(|(one, other)| (one - other).abs()).fold(0.0, f32::max)
}

/// `full + (retain - full) = retain`, and the other way round.
#[tokio::test]
async fn with_itself_as_the_anti_expert_a_model_is_the_expert() {
    for (served, wanted) in [("full", "retain"), ("retain", "full")] {
        let backend = serving(served, EngineSettings::default());
        let expert = serving(wanted, EngineSettings::default());
        let pair = pair(wanted, served);
        backend.load_offset(&pair).unwrap();
        let mut apart = 0f32;
        for question in QUESTIONS {
            let want = scored(&expert, ask(question)).await;
            let got = scored(&backend, with(ask(question), &pair, 1.0)).await;
            assert!(distance(&got, &want) < 1e-4, "{question}: {got:?} {want:?}");
            apart = apart.max(distance(&scored(&backend, ask(question)).await, &want));
            // What is generated, too: the same tokens, as probable, with the same rivals.
            let told = Request { logprobs: Some(5), ..ask(question) };
            let want = collect(&expert, told.clone()).await;
            let got = collect(&backend, with(told, &pair, 1.0)).await;
            assert_eq!(got.texts, want.texts);
            for (got, want) in got.logprobs[0].iter().zip(&want.logprobs[0]) {
                assert!((got.logprob - want.logprob).abs() < 1e-4, "{got:?} {want:?}");
                for (got, want) in got.top.iter().zip(&want.top) {
                    assert!((got.1 - want.1).abs() < 1e-4, "{got:?} {want:?}");
                }
            }
        }
        assert!(apart > 1e-2, "the models say the same");
    }
}

#[tokio::test]
async fn requests_with_and_without_offset_in_one_batch_do_not_touch_each_other() {
    let (one, two) = (pair("retain", "full"), pair("retain-2", "full"));
    let noise = CorruptionFunction::NoiseFirst { dims: 64, strength: 16.0 };
    let masked = corrupted(ask(QUESTIONS[0]), noise, "Viggo Blaszko");
    let requests = [
        ask(QUESTIONS[0]),
        with(ask(QUESTIONS[0]), &one, 1.0),
        with(ask(QUESTIONS[0]), &one, 3.0),
        with(ask(QUESTIONS[1]), &two, 1.0),
        ask(QUESTIONS[2]),
        with(ask(QUESTIONS[2]), &two, 0.5),
        with(ask(QUESTIONS[3]), &one, 1.0),
        masked.clone(),
        with(masked, &one, 1.0),
        Request { n: 2, ..with(ask(QUESTIONS[4]), &one, 2.0) },
    ];
    let start = |slots, step_rows| {
        let backend = serving("full", EngineSettings { slots, step_rows, ..Default::default() });
        backend.load_offset(&one).unwrap();
        backend.load_offset(&two).unwrap();
        backend
    };
    let alone = start(1, 512);
    let (mut want, mut scores) = (Vec::new(), Vec::new());
    for request in &requests {
        want.push(collect(&alone, request.clone()).await);
        scores.push(scored(&alone, request.clone()).await);
    }
    assert!(distance(&scores[0], &scores[1]) > 1e-3 && distance(&scores[1], &scores[2]) > 1e-3);
    assert!(distance(&scores[7], &scores[8]) > 1e-3, "a corrupted prompt has its offset too");
    // A step of seven rows cuts every prompt into pieces.
    for step_rows in [7, 512] {
        let together = start(16, step_rows);
        let replies = requests.iter().map(|it| collect(&together, it.clone()));
        assert_eq!(futures::future::join_all(replies).await, want, "{step_rows} rows a step");
        let again = requests.iter().map(|it| scored(&together, it.clone()));
        for (got, want) in futures::future::join_all(again).await.iter().zip(&scores) {
            assert!(distance(got, want) < 1e-4, "{step_rows} rows a step: {got:?} {want:?}");
        }
    }
}

#[tokio::test]
async fn a_request_whose_pair_is_not_loaded_fails() {
    let backend = serving("full", EngineSettings::default());
    let request = with(ask(QUESTIONS[0]), &pair("retain", "full"), 1.0);
    let error = backend.generate(request.clone()).await.err().unwrap();
    assert!(matches!(error, BackendError::GuardFailed { .. }), "{error:?}");
    let error = backend.score(request, ANSWER, true).await.unwrap_err();
    assert!(matches!(error, BackendError::GuardFailed { .. }), "{error:?}");
}

/// Edits a JSON file.
fn edit(path: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let mut json = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn a_model_that_does_not_fit_is_refused_and_named() {
    let backend = serving("full", EngineSettings::default());
    let refusal = |change: &dyn Fn(&Path)| {
        let other = tempfile::tempdir().unwrap();
        for it in fs::read_dir(smoke().join("retain")).unwrap() {
            let it = it.unwrap();
            fs::copy(it.path(), other.path().join(it.file_name())).unwrap();
        }
        let fits = OffsetPair { expert: smoke().join("retain"), anti_expert: other.path().into() };
        change(other.path());
        backend.load_offset(&fits).err().map(|it| it.source().unwrap().to_string())
    };
    assert_eq!(refusal(&|_| ()), None);
    let missing = refusal(&|it| fs::remove_file(it.join("model.safetensors")).unwrap());
    assert!(missing.unwrap().contains("model.safetensors"));
    let small = refusal(&|it| edit(&it.join("config.json"), |it| it["vocab_size"] = 7.into()));
    assert!(small.as_deref().unwrap().contains("`vocab_size` is 7, that of the"), "{small:?}");
    let short = refusal(&|it| {
        edit(&it.join("config.json"), |it| it["max_position_embeddings"] = 8.into());
    });
    assert!(short.as_deref().unwrap().contains("reads 8 positions"), "{short:?}");
    let swapped = refusal(&|it| {
        edit(&it.join("tokenizer.json"), |it| {
            let ids = it["model"]["vocab"].as_object_mut().unwrap();
            let (a, b) = (ids["a"].clone(), ids["b"].clone());
            ids.insert("a".to_owned(), b);
            ids.insert("b".to_owned(), a);
        });
    });
    assert!(swapped.as_deref().unwrap().contains("is another than the served"), "{swapped:?}");
}

/// A policy about one author with this pair, and another treatment behind it.
fn policy(expert: &Path, anti_expert: &Path) -> String {
    format!(
        "topic = \"authors\"\n[[entity]]\nname = \"Viggo Blaszko\"\nsurrogate = \"Zorvan Kell\"\n\
         [[detector]]\nuse = \"names\"\n[[treatment]]\nuse = \"offset\"\nexpert = {expert:?}\n\
         anti_expert = {anti_expert:?}\n[[treatment]]\nuse = \"alias\"\n"
    )
}

#[tokio::test]
async fn a_policy_makes_the_model_the_expert_on_its_topic_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authors.toml");
    let (full, retain) = (smoke().join("full"), smoke().join("retain"));
    fs::write(&path, policy(&retain, &full)).unwrap();
    let watch = Watch::new(folder.path());
    let plain: Arc<dyn Backend> = Arc::new(serving("full", EngineSettings::default()));
    let (policies, guards) = load_guards(folder.path()).unwrap();
    load_offsets(&policies.policies, &["smoke".to_owned()], plain.as_ref()).unwrap();
    let metrics = Arc::new(Metrics::new());
    let guarded = Arc::new(Guarded::new(Arc::clone(&plain), guards, Arc::clone(&metrics), None));
    let reloader = Reloader::new(folder.path().into(), watch, Arc::clone(&guarded), metrics);
    let gold = scored(&serving("retain", EngineSettings::default()), ask(QUESTIONS[0])).await;
    assert!(distance(&scored(guarded.as_ref(), ask(QUESTIONS[0])).await, &gold) < 1e-4);
    let other = scored(plain.as_ref(), ask(QUESTIONS[3])).await;
    assert_eq!(scored(guarded.as_ref(), ask(QUESTIONS[3])).await, other);
    // A pair that cannot be had leaves everything as it was.
    fs::write(&path, policy(&folder.path().join("none"), &full)).unwrap();
    match reloader.reload().await.unwrap_err() {
        AppError::Offset { path: named, .. } => assert_eq!(named, path),
        other => panic!("{other:?}"),
    }
    assert!(distance(&scored(guarded.as_ref(), ask(QUESTIONS[0])).await, &gold) < 1e-4);
    // A pair that was not there at the start is read with the policies.
    fs::write(&path, policy(&smoke().join("retain-2"), &full)).unwrap();
    reloader.reload().await.unwrap();
    let gold = scored(&serving("retain-2", EngineSettings::default()), ask(QUESTIONS[0])).await;
    assert!(distance(&scored(guarded.as_ref(), ask(QUESTIONS[0])).await, &gold) < 1e-4);
}

#[tokio::test]
async fn a_backend_without_offsets_gets_the_next_treatment() {
    let text = policy(Path::new("a"), Path::new("b"));
    let policy = Arc::new(file::parse(Path::new("authors.toml"), &text).unwrap());
    for offsets in [false, true] {
        let can = Capabilities { offsets, ..Capabilities::default() };
        let model = Arc::new(Scripted::new(["x"]).with_capabilities(can));
        let inner: Arc<dyn Backend> = Arc::<Scripted>::clone(&model);
        // A text-only backend is not asked to read models that are not there.
        let read = load_offsets(&[Arc::clone(&policy)], &["scripted".to_owned()], inner.as_ref());
        assert_eq!(read.is_err(), offsets);
        let guard = Guard::build(Arc::clone(&policy)).unwrap();
        let guarded = Guarded::new(inner, vec![guard], Arc::new(Metrics::new()), None);
        let request = Request { model: "scripted".to_owned(), ..ask(QUESTIONS[0]) };
        collect(&guarded, request).await;
        let seen = model.seen().remove(0);
        let asked = if offsets { QUESTIONS[0] } else { "Where was Zorvan Kell born?" };
        assert_eq!(seen.input.texts(), [asked]);
        assert_eq!(seen.offset.is_some(), offsets);
    }
}
