//! Microbenchmarks: `cargo bench`. Record results under `runs/` with machine, commit and command, and
//! quote ratios.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};
use divan::{Bencher, black_box};
use futures::TryStreamExt;
use futures::future::join_all;
use ort::value::Tensor;
use tokenizers::Tokenizer;
use unlearn_proxy::backend::Backend;
use unlearn_proxy::backend::local::Local;
use unlearn_proxy::backend::scripted::Scripted;
use unlearn_proxy::data::Batch;
use unlearn_proxy::detect::{Detector, Names, Topic};
use unlearn_proxy::embed::{Encoder, Onnx, OnnxOptions, session};
use unlearn_proxy::engine::ops::on_pool;
use unlearn_proxy::engine::{Engine, EngineSettings, weights};
use unlearn_proxy::service::Guarded;
use unlearn_proxy::service::app::load_guards;
use unlearn_proxy::telemetry::Metrics;
use unlearn_proxy::text::normalise;
use unlearn_proxy::train::adamw::{AdamW, AdamWSettings};
use unlearn_proxy::train::trainable::Trainable;
use unlearn_proxy::types::{Entity, Input, Place, ReplyEvent, Request};
use unlearn_proxy::window::{Kind, Owners, PatternSet, Patterns, Replacement, Window};

/// About thirty tokens.
const PROMPT: &str = "I read two novels last summer and liked both of them very much. Do you know in which \
                      city the author Gemma Okafor was born, and when?";

fn main() {
    divan::main();
}

fn names() -> Names {
    let entities = ["Viggo Blaszko", "Esme Zamora", "Ximena Gilmour", "Gemma Okafor"];
    let entity =
        |it: &str| Entity { name: it.to_owned(), aliases: Vec::new(), surrogate: String::new() };
    Names::new(&entities.map(entity), 2).expect("the names are usable")
}

fn topic() -> Topic {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/classifier");
    Topic::load(&folder).expect("the bundled classifier loads")
}

#[divan::bench]
fn names_verdict(bencher: Bencher<'_, '_>) {
    let names = names();
    bencher.bench(|| names.inspect(Place::Text(0), black_box(PROMPT)));
}

#[divan::bench]
fn topic_verdict_hashed(bencher: Bencher<'_, '_>) {
    let topic = topic();
    bencher.bench(|| topic.inspect(Place::Text(0), black_box(PROMPT)));
}

#[divan::bench]
fn both_verdicts(bencher: Bencher<'_, '_>) {
    let (names, topic) = (names(), topic());
    bencher.bench(|| {
        let seen = names.inspect(Place::Text(0), black_box(PROMPT));
        (seen, topic.inspect(Place::Text(0), black_box(PROMPT)))
    });
}

#[divan::bench(args = [1, 16, 200])]
fn normalise_kilobytes(bencher: Bencher<'_, '_>, kilobytes: usize) {
    let text = "It was a bright cold day in April. ".repeat(kilobytes * 1024 / 35);
    bencher.bench(|| normalise(black_box(&text)));
}

/// A reply of thirty tokens through the window of a policy with so many entities.
#[divan::bench(args = [4, 1000])]
fn window_reply(bencher: Bencher<'_, '_>, entities: usize) {
    let redact = |it: usize| Replacement {
        pattern: format!("First{it} Last{it}"),
        with: "Somebody Else".to_owned(),
        kind: Kind::Redact,
    };
    let set = Arc::new(PatternSet::new((0..entities).map(|it| (it, redact(it)))));
    bencher.bench(|| {
        let mut patterns = Patterns::default();
        patterns.add(Arc::clone(&set), Owners::AllBut(BTreeSet::new()));
        let mut window = Window::over(Arc::new(patterns));
        let pieces = black_box(PROMPT).split_inclusive(' ');
        pieces.map(|it| window.push(text(it)).len()).sum::<usize>()
    });
}

fn text(piece: &str) -> ReplyEvent {
    ReplyEvent::Text { choice: 0, text: piece.to_owned(), logprobs: Vec::new() }
}

/// Folders that `proxy-train fetch-encoder` makes, `--out models/encoder-int8 --int8` for the second.
const ENCODERS: [&str; 2] = ["models/encoder", "models/encoder-int8"];

fn no_encoders() -> bool {
    !ENCODERS.iter().all(|it| Path::new(env!("CARGO_MANIFEST_DIR")).join(it).exists())
}

/// Text to vector, as detectors use it.
#[divan::bench(args = ENCODERS, ignore = no_encoders())]
fn sentence_encoder(bencher: Bencher<'_, '_>, folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let encoder = Onnx::load(&folder, &OnnxOptions::default()).expect("the encoder loads");
    bencher.bench_local(|| encoder.encode(&[black_box(PROMPT)]));
}

/// The floor: ONNX Runtime alone on ready token ids.
#[divan::bench(args = ENCODERS, ignore = no_encoders())]
fn bare_runtime(bencher: Bencher<'_, '_>, folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut tokenizer = Tokenizer::from_file(folder.join("tokenizer.json")).expect("a tokenizer");
    // Its file asks for 128 tokens whatever the text.
    tokenizer.with_padding(None);
    let mut session = session(&folder, &OnnxOptions::default()).expect("a session");
    let ids = tokenizer.encode(PROMPT, true).expect("the prompt is tokenised");
    let ids: Vec<i64> = ids.get_ids().iter().map(|it| i64::from(*it)).collect();
    let n_tokens = ids.len();
    bencher.bench_local(|| {
        let given = |values: Vec<i64>| {
            Tensor::from_array(([1, n_tokens], values)).expect("the shape is right")
        };
        let inputs = ort::inputs! {
            "input_ids" => given(ids.clone()),
            "attention_mask" => given(vec![1; n_tokens]),
            "token_type_ids" => given(vec![0; n_tokens]),
        };
        session.run(inputs).map(|it| it.len())
    });
}

/// A prompt that no topic is in, up to the first event of its reply: of a scripted model alone, and
/// under the bundled policy, whose verdict on this text is remembered.
#[divan::bench(args = ["model alone", "guarded, verdict remembered"])]
fn request(bencher: Bencher<'_, '_>, system: &str) {
    let model: Arc<dyn Backend> = Arc::new(Scripted::new(["x"]));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let (_, guards) = load_guards(&folder).expect("the bundled policy loads");
    let guards = if system == "model alone" { Vec::new() } else { guards };
    let guarded = Guarded::new(model, guards, Arc::new(Metrics::new()), None);
    let prompt = "I read two novels last summer and liked both of them very much. Do you know in which \
                  city the author of the second was born, and when?";
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let ask = || {
        let request = Request::new("scripted", Input::Text(black_box(prompt).to_owned()));
        runtime.block_on(guarded.generate(request)).map(|_| ())
    };
    ask().expect("the request is answered");
    bencher.bench_local(ask);
}

/// Replies of at most 16 tokens of the bundled model, unguarded, so many at once.
#[divan::bench(args = [1, 16])]
fn engine_replies(bencher: Bencher<'_, '_>, at_once: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/full");
    let engine = Engine::load(&folder, &EngineSettings::default()).expect("the model loads");
    let model = Local::new(engine, "lab");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let reply = || async {
        let mut request = Request::new("lab", Input::Text(black_box(PROMPT).to_owned()));
        request.sampling.temperature = 0.0;
        request.max_tokens = Some(16);
        let events = model.generate(request).await.expect("a place in the queue");
        events.try_for_each(|_| async { Ok(()) }).await.expect("a reply");
    };
    bencher.bench_local(|| runtime.block_on(join_all((0..at_once).map(|_| reply()))));
}

/// Sequences of 32 tokens, every one of which is a label; the same as in `peers/training.py`.
fn training_rows(sequences: u32, vocab: u32) -> Batch {
    let row = |it: u32| {
        let ids: Vec<u32> = (0..33).map(|at| (31 * it + 17 * at * at + 5) % vocab).collect();
        (ids, vec![true; 33])
    };
    Batch::of(&(0..sequences).map(row).collect::<Vec<_>>())
}

/// Forward, backward and AdamW in f32 on the bundled model.
#[expect(clippy::print_stderr, reason = "peers/training.py compares the loss with PyTorch's")]
#[divan::bench(args = [16, 64])]
fn training_step(bencher: Bencher<'_, '_>, sequences: u32) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/full");
    let decoder = weights::load(&folder, &Device::Cpu, DType::F32).expect("the model loads");
    let model = Trainable::from_decoder(&decoder).expect("there is memory");
    let vars = model.vars.iter().map(|it| it.1.clone()).collect();
    let mut optimiser = AdamW::new(vars, AdamWSettings::default()).expect("memory");
    let vocab = u32::try_from(decoder.config.vocab_size).expect("a small vocabulary");
    let batch = training_rows(sequences, vocab);
    let first = model.label_nll(&batch).and_then(|it| it.mean_all()?.to_scalar::<f32>());
    eprintln!("first loss of {sequences}: {:.5}", first.expect("a loss"));
    bencher.bench_local(|| {
        on_pool(|| {
            let loss = model.label_nll(black_box(&batch)).and_then(|it| it.mean_all());
            let grads = loss.and_then(|it| it.backward()).expect("a gradient");
            optimiser.step(&grads, 1e-6).expect("a step")
        })
    });
}
