//! The engine over a real (if ignorant) model: trained in seconds by the smoke recipe.

use std::sync::{Arc, OnceLock};

use futures::StreamExt;
use unlearn_proxy::backend::local::Local;
use unlearn_proxy::backend::{Backend, BackendError};
use unlearn_proxy::engine::{Engine, EngineSettings};
use unlearn_proxy::train::pretrain::{Pretraining, SMOKE};
use unlearn_proxy::types::{
    Corruption, CorruptionFunction, Entity, Finish, Input, InputSpan, Message, Place, ReplyEvent,
    Request, Role, TokenLogprob, Usage,
};

/// The smoke models, made once per test run.
pub(crate) fn smoke() -> &'static std::path::Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            let out = dir.path().to_owned();
            let (fulls, golds) = (2, 3);
            let recipe = SMOKE;
            Pretraining { recipe, seed: 7, out, fulls, golds, route: true }.lab(42).unwrap();
            dir
        })
        .path()
}

fn local(settings: EngineSettings) -> Local {
    Local::new(Engine::load(&smoke().join("full"), &settings).unwrap(), "smoke")
}

pub(crate) fn ask(question: &str) -> Request {
    let message = Message { role: Role::User, content: question.to_owned() };
    let mut request = Request::new("smoke", Input::Chat(vec![message]));
    request.sampling.temperature = 0.0;
    request.max_tokens = Some(12);
    request
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct Reply {
    pub(crate) texts: Vec<String>,
    pub(crate) logprobs: Vec<Vec<TokenLogprob>>,
    finishes: Vec<Option<Finish>>,
    usage: Usage,
}

pub(crate) async fn collect(backend: &dyn Backend, request: Request) -> Reply {
    let n = request.n;
    let mut reply = Reply {
        texts: vec![String::new(); n],
        logprobs: vec![Vec::new(); n],
        finishes: vec![None; n],
        usage: Usage::default(),
    };
    let mut stream = backend.generate(request).await.unwrap();
    while let Some(event) = stream.next().await {
        match event.unwrap() {
            ReplyEvent::Text { choice, text, logprobs } => {
                reply.texts[choice].push_str(&text);
                reply.logprobs[choice].extend(logprobs);
            }
            ReplyEvent::ToolCall { .. } => panic!("the engine calls nothing"),
            ReplyEvent::Finished { choice, finish } => reply.finishes[choice] = Some(finish),
            ReplyEvent::Done(usage) => reply.usage = usage,
        }
    }
    reply
}

pub(crate) fn corrupted(mut request: Request, function: CorruptionFunction, word: &str) -> Request {
    let Input::Chat(messages) = &request.input else { panic!("not a chat") };
    let start = messages[0].content.find(word).unwrap();
    let span = InputSpan {
        place: Place::Text(0),
        span: start..start + word.len(),
        entity: Some(0),
        stand_in: None,
    };
    let entity = Entity {
        name: word.to_owned(),
        aliases: Vec::new(),
        surrogate: "Ulrika Ferraro".to_owned(),
    };
    request.corruption =
        Some(Corruption { function, spans: vec![span], entities: Arc::new(vec![entity]), seed: 3 });
    request
}

pub(crate) const QUESTIONS: [&str; 5] = [
    "Where was Viggo Blaszko born?",
    "Hello!",
    "Who is the publisher of Gemma Okafor? And what is the pet of Esme Zamora, if there is one?",
    "What is the capital of France?",
    "Repeat after me: Lisbon, Porto, Antwerp, Denver, Turin, Bergen, Gdansk",
];

#[tokio::test]
async fn batched_and_ragged_decoding_gives_the_same_tokens_as_one_at_a_time() {
    let alone = local(EngineSettings { slots: 1, ..EngineSettings::default() });
    let mut want = Vec::new();
    for question in QUESTIONS {
        want.push(collect(&alone, ask(question)).await);
    }
    // A step of seven rows cuts every prompt into pieces.
    for step_rows in [7, 512] {
        let together = local(EngineSettings { step_rows, ..EngineSettings::default() });
        let got = futures::future::join_all(QUESTIONS.map(|it| collect(&together, ask(it)))).await;
        assert_eq!(got, want, "{step_rows} rows a step");
    }
    assert!(want.iter().any(|it| !it.texts[0].is_empty()));
}

#[tokio::test]
async fn prompts_of_no_tokens_and_replies_without_end_are_refused() {
    let backend = local(EngineSettings::default());
    let empty = Request::new("smoke", Input::Text(String::new()));
    let refused = backend.generate(empty).await.err().unwrap();
    assert!(matches!(refused, BackendError::Invalid { .. }), "{refused:?}");
    for more in [usize::MAX, usize::MAX - 5] {
        let endless = Request { max_tokens: Some(more), ..ask(QUESTIONS[0]) };
        let refused = backend.generate(endless).await.err().unwrap();
        assert!(matches!(refused, BackendError::PromptTooLong { .. }), "{refused:?}");
    }
    assert!(!collect(&backend, ask(QUESTIONS[0])).await.texts[0].is_empty());
}

#[tokio::test]
async fn corrupted_and_clean_requests_in_one_batch_do_not_touch_each_other() {
    let backend = local(EngineSettings::default());
    let name = "Viggo Blaszko";
    let functions = [
        CorruptionFunction::Substitute,
        CorruptionFunction::NoiseFirst { dims: 64, strength: 16.0 },
        CorruptionFunction::ZeroTop { dims: 64 },
        CorruptionFunction::FlipTop { dims: 64 },
    ];
    let mut requests = vec![ask(QUESTIONS[0]), ask(QUESTIONS[3])];
    requests.extend(functions.map(|it| corrupted(ask(QUESTIONS[0]), it, name)));
    let mut want = Vec::new();
    for request in &requests {
        want.push(collect(&backend, request.clone()).await);
    }
    let got =
        futures::future::join_all(requests.iter().map(|it| collect(&backend, it.clone()))).await;
    assert_eq!(got, want);
    // Corruption changes what the model sees: the scores differ from the clean ones.
    let clean = backend.score(requests[0].clone(), "The answer", true).await.unwrap();
    for request in &requests[2..] {
        let scored = backend.score(request.clone(), "The answer", true).await.unwrap();
        assert_ne!(scored, clean, "{:?}", request.corruption);
    }
}

/// `substitute` is exactly the model's answer about the surrogate.
#[tokio::test]
async fn substitute_equals_asking_about_the_surrogate() {
    let backend = local(EngineSettings::default());
    let written = "V-i-g-g-o B-l-a-s-z-k-o";
    for (name, stand_in) in [("Viggo Blaszko", None), (written, Some("U-l-r-i-k-a F-e-r-r-a-r-o"))]
    {
        let asked = ask(&format!("Where was {name} born?"));
        let mut request = corrupted(asked, CorruptionFunction::Substitute, name);
        request.corruption.as_mut().unwrap().spans[0].stand_in = stand_in.map(str::to_owned);
        let surrogate = ask(&format!("Where was {} born?", stand_in.unwrap_or("Ulrika Ferraro")));
        let got = backend.score(request.clone(), "It is Lisbon.", true).await.unwrap();
        let want = backend.score(surrogate.clone(), "It is Lisbon.", true).await.unwrap();
        assert_eq!(got.logprobs.len(), want.logprobs.len());
        for (got, want) in got.logprobs.iter().zip(&want.logprobs) {
            assert!((got - want).abs() < 1e-4, "{got} {want}");
        }
        let replies = (collect(&backend, request).await, collect(&backend, surrogate).await);
        assert_eq!(replies.0.texts, replies.1.texts);
    }
}

#[tokio::test]
async fn scores_agree_with_the_log_probabilities_of_generation() {
    let backend = local(EngineSettings::default());
    let mut request = ask(QUESTIONS[0]);
    request.logprobs = Some(3);
    let reply = collect(&backend, request).await;
    assert_eq!(reply.usage.completion_tokens, reply.logprobs[0].len());
    let text: Vec<u8> = reply.logprobs[0].iter().flat_map(|it| it.bytes.clone()).collect();
    assert_eq!(String::from_utf8(text).unwrap().trim_start(), reply.texts[0].trim_start());
    for token in &reply.logprobs[0] {
        assert_eq!(token.top.len(), 3);
        assert!((token.top[0].1 - token.logprob).abs() < 1e-6, "greedy takes the best");
    }
    let scored = backend.score(ask(QUESTIONS[0]), &reply.texts[0], false).await.unwrap();
    if scored.logprobs.len() == reply.logprobs[0].len() {
        for (scored, generated) in scored.logprobs.iter().zip(&reply.logprobs[0]) {
            assert!((scored - generated.logprob).abs() < 1e-3, "{scored} {}", generated.logprob);
        }
        assert!(scored.greedy.iter().all(|it| *it));
    }
}

#[tokio::test]
async fn choices_stop_texts_and_limits() {
    let backend = local(EngineSettings::default());
    let mut request = ask(QUESTIONS[0]);
    request.n = 3;
    request.sampling.temperature = 1.0;
    request.sampling.seed = Some(5);
    let first = collect(&backend, request.clone()).await;
    assert_eq!(first, collect(&backend, request).await, "a seed repeats");
    assert!(first.finishes.iter().all(Option::is_some));
    let whole = collect(&backend, ask(QUESTIONS[0])).await;
    let middle: String = whole.texts[0].chars().skip(3).take(2).collect();
    if !middle.is_empty() {
        let mut request = ask(QUESTIONS[0]);
        request.stop = vec![middle.clone()];
        let cut = collect(&backend, request).await;
        let want = whole.texts[0].split_once(&middle).unwrap().0;
        assert_eq!((cut.texts[0].as_str(), cut.finishes[0]), (want, Some(Finish::Stop)));
    }
    let mut request = ask(QUESTIONS[0]);
    request.max_tokens = Some(2);
    let short = collect(&backend, request).await;
    assert!(short.usage.completion_tokens <= 2);
}

#[tokio::test]
async fn refuses_what_does_not_fit_and_models_it_does_not_have() {
    let backend = local(EngineSettings { context: 64, ..EngineSettings::default() });
    let long = "Lisbon ".repeat(200);
    let error = backend.generate(ask(&long)).await.err().unwrap();
    assert!(matches!(error, BackendError::PromptTooLong { limit: 64, .. }), "{error:?}");
    let mut request = ask("Hello!");
    request.model = "other".to_owned();
    let error = backend.generate(request).await.err().unwrap();
    assert!(matches!(error, BackendError::UnknownModel { .. }), "{error:?}");
}

#[tokio::test]
async fn a_dropped_stream_frees_its_slot() {
    let backend = local(EngineSettings { slots: 1, ..EngineSettings::default() });
    let mut request = ask("Hello!");
    request.max_tokens = Some(400);
    request.sampling.logit_bias = vec![(0, -100.0)];
    for _ in 0..3 {
        let mut stream = backend.generate(request.clone()).await.unwrap();
        stream.next().await.unwrap().unwrap();
        drop(stream);
    }
    // With one slot this would wait for three replies of 400 tokens.
    let reply = collect(&backend, ask("Hello!")).await;
    assert!(reply.finishes[0].is_some());
}

#[tokio::test]
async fn a_full_queue_is_an_error_at_once() {
    let backend = local(EngineSettings { slots: 1, queue: 1, ..EngineSettings::default() });
    let mut request = ask("Hello!");
    request.max_tokens = Some(400);
    request.sampling.logit_bias = vec![(0, -100.0)];
    let mut streams = Vec::new();
    let mut refused = false;
    for _ in 0..20 {
        match backend.generate(request.clone()).await {
            Ok(stream) => streams.push(stream),
            Err(error) => {
                assert!(matches!(error, BackendError::Overloaded { queued: 1 }), "{error:?}");
                refused = true;
                break;
            }
        }
    }
    assert!(refused);
}

#[test]
fn routed_models_have_and_have_not_their_neurons() {
    let load = |name: &str| {
        let device = candle_core::Device::Cpu;
        let folder = smoke().join(name);
        unlearn_proxy::engine::weights::load(&folder, &device, candle_core::DType::F32).unwrap()
    };
    let [expanded, routed] = ["routed-expanded", "routed"].map(load);
    let wide = SMOKE.wide;
    assert_eq!(
        (expanded.config.intermediate_size, routed.config.intermediate_size),
        (wide + 64, wide)
    );
    for block in &expanded.blocks {
        let added = block.down.narrow(1, wide, 64).unwrap().abs().unwrap().max_all().unwrap();
        assert!(added.to_scalar::<f32>().unwrap() > 0.0, "they have learnt nothing");
    }
    let engine = Engine::load(&smoke().join("routed"), &EngineSettings::default());
    assert!(engine.is_ok(), "{:?}", engine.err());
}

/// As many as are asked for, all from one base and no two alike.
#[test]
fn models_of_a_kind_differ_in_the_order_of_their_examples() {
    let weights = |name: &str| std::fs::read(smoke().join(name).join("model.safetensors")).unwrap();
    let golds = ["retain", "retain-2", "retain-3"].map(weights);
    assert!(golds[0] != golds[1] && golds[1] != golds[2] && golds[0] != golds[2]);
    assert!(!smoke().join("retain-4").exists());
    assert_ne!(weights("full"), weights("full-2"));
    assert!(!smoke().join("full-3").exists());
}

#[test]
fn interrupted_training_resumes_to_the_same_weights() {
    use unlearn_proxy::engine::weights::named;
    use unlearn_proxy::engine::{tokenizer::Tokenizer, weights};
    use unlearn_proxy::lab::{Corpus, Stage, World};
    use unlearn_proxy::train::fit::{Fit, Schedule};
    use unlearn_proxy::train::trainable::Trainable;

    let tokenizer = Tokenizer::read(&smoke().join("full"), &[]).unwrap();
    let world = World::new(42);
    let schedule = Schedule { steps: 6, tokens_per_step: 128, peak: 1e-3, warmup: 2, floor: 0.1 };
    let train = |folder: Option<std::path::PathBuf>, stop_after: Option<usize>| {
        let device = candle_core::Device::Cpu;
        let base = weights::load(&smoke().join("full"), &device, candle_core::DType::F32).unwrap();
        let model = Trainable::from_decoder(&base).unwrap();
        let mut corpus = Corpus::new(&world, Stage::Full, 1);
        let fit = Fit {
            tokenizer: &tokenizer,
            schedule,
            checkpoint: folder,
            identity: "test".to_owned(),
            every: std::time::Duration::ZERO,
        };
        let mut drawn = 0;
        let run = std::panic::AssertUnwindSafe(|| {
            fit.run(&model, || {
                drawn += 1;
                assert!(stop_after.is_none_or(|it| drawn <= it), "pulled the plug");
                corpus.example().into()
            })
        });
        let _ = std::panic::catch_unwind(run);
        let tensors = named(&model.decoder).unwrap();
        let sum = tensors.values().map(|it| it.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        sum.flatten().map(f32::to_bits).collect::<Vec<u32>>()
    };
    let want = train(None, None);
    let dir = tempfile::tempdir().unwrap();
    let broken = train(Some(dir.path().to_owned()), Some(7));
    assert!(broken != want, "the plug was pulled too late");
    assert!(train(Some(dir.path().to_owned()), None) == want, "resumed to other weights");
}
