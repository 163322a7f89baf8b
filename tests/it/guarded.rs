//! `Guarded` over a scripted backend: what the model is asked, and what the client reads.

use std::path::PathBuf;
use std::sync::Arc;

use futures::TryStreamExt;
use unlearn_proxy::backend::scripted::Scripted;
use unlearn_proxy::backend::{Backend, BackendError, Capabilities};
use unlearn_proxy::detect::{Detector, DetectorError, Names};
use unlearn_proxy::policy::{
    AnswerStyle, DetectorSetting, Mode, OnError, OnHit, Policy, Probabilities, TreatmentSetting,
};
use unlearn_proxy::service::{Guard, Guarded};
use unlearn_proxy::telemetry::Metrics;
use unlearn_proxy::text::disguise::base64;
use unlearn_proxy::types::{
    CorruptionFunction, Entity, Evidence, Finish, Input, Json, Message, Place, ReplyEvent, Request,
    Role, Tool, ToolChoice, Usage,
};

const NAME: &str = "Basil Okafor";
const SURROGATE: &str = "Zorvan Kell";

pub(crate) fn policy(treatment: Vec<TreatmentSetting>) -> Policy {
    Policy {
        topic: "authors".to_owned(),
        path: PathBuf::from("authors.toml"),
        revision: "0".to_owned(),
        mode: Mode::Enforce,
        on_error: OnError::Treat,
        probabilities: Probabilities::Untreated,
        on_hit: OnHit::Redact,
        entities: Arc::new(vec![Entity {
            name: NAME.to_owned(),
            aliases: vec!["B. Okafor".to_owned()],
            surrogate: SURROGATE.to_owned(),
        }]),
        values: Arc::default(),
        detectors: vec![DetectorSetting::Names { reach: 2 }],
        fusion: None,
        treatment,
        models: Vec::new(),
        seed: 1,
    }
}

fn answer(style: AnswerStyle) -> TreatmentSetting {
    let answers = vec!["No idea who that is.".to_owned()];
    TreatmentSetting::Answer { answers, style, paced: false }
}

pub(crate) fn guarded(backend: &Arc<Scripted>, guard: Guard) -> Guarded {
    let backend: Arc<dyn Backend> = Arc::<Scripted>::clone(backend);
    Guarded::new(backend, vec![guard], Arc::new(Metrics::new()), None)
}

pub(crate) fn built(policy: Policy) -> Guard {
    Guard::build(Arc::new(policy)).expect("the test is set up")
}

pub(crate) fn question(text: &str) -> Request {
    let content = text.to_owned();
    Request::new("scripted", Input::Chat(vec![Message { role: Role::User, content }]))
}

pub(crate) async fn events(
    guarded: &Guarded,
    request: Request,
) -> Result<Vec<ReplyEvent>, BackendError> {
    guarded.generate(request).await?.try_collect().await
}

pub(crate) fn said(events: &[ReplyEvent], of: usize) -> String {
    let texts = events.iter().filter_map(|it| match it {
        ReplyEvent::Text { choice, text, .. } if *choice == of => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

fn logprobs(events: &[ReplyEvent]) -> usize {
    let counts = events.iter().map(|it| match it {
        ReplyEvent::Text { logprobs, .. } => logprobs.len(),
        _ => 0,
    });
    counts.sum()
}

/// One row per behaviour: the policy, the question, the pieces of the model's reply; then what the
/// model was asked and what the client reads.
async fn check(policy: Policy, asks: &str, pieces: &[&str], asked: &str, reads: &str) {
    let backend = Arc::new(Scripted::new(pieces.iter().copied()));
    let guarded = guarded(&backend, built(policy));
    let mut request = question(asks);
    request.n = 2;
    let events = events(&guarded, request).await.expect("the test is set up");
    assert_eq!(backend.seen()[0].input.texts().join("|"), asked);
    assert_eq!((said(&events, 0), said(&events, 1)), (reads.to_owned(), reads.to_owned()));
    let ends = events.iter().filter(|it| matches!(it, ReplyEvent::Finished { .. })).count();
    assert_eq!(ends, 2);
    assert!(matches!(events.last(), Some(ReplyEvent::Done(_))));
}

#[tokio::test]
async fn alias_hides_the_name_from_the_model_and_gives_it_back() {
    check(
        policy(vec![TreatmentSetting::Alias]),
        "Who is Basil Okafor?",
        &["I know of no Zor", "van", " Ke", "ll", ", sorry."],
        "Who is Zorvan Kell?",
        "I know of no Basil Okafor, sorry.",
    )
    .await;
}

/// A model that has to call a function calls it; a text in its place would tell.
#[tokio::test]
async fn no_text_answers_a_request_for_a_call() {
    let asks = |choice| {
        let mut request = question("Look Basil Okafor up.");
        let function = Json::read("{\"name\":\"find\"}");
        request.tools.offered = vec![Tool { name: "find".to_owned(), function }];
        request.tools.choice = choice;
        request
    };
    let said_nothing = |style| async move {
        let backend = Arc::new(Scripted::new([""; 0]));
        let guarded = guarded(&backend, built(policy(vec![answer(style)])));
        let events = events(&guarded, asks(Some(ToolChoice::Required))).await.unwrap();
        assert!(backend.seen().is_empty());
        let finish = events.iter().find_map(|it| match it {
            ReplyEvent::Finished { finish, .. } => Some(*finish),
            _ => None,
        });
        (said(&events, 0), finish.unwrap())
    };
    // Where there is no other treatment, the policy's own words stand.
    let told = said_nothing(AnswerStyle::NeverKnew).await;
    assert_eq!(told, ("No idea who that is.".to_owned(), Finish::Stop));
    let told = said_nothing(AnswerStyle::ContentFilter).await;
    assert_eq!(told, (String::new(), Finish::ContentFilter));
    let treatments = || vec![answer(AnswerStyle::NeverKnew), TreatmentSetting::Alias];
    for (choice, called) in [(Some(ToolChoice::Required), true), (Some(ToolChoice::Auto), false)] {
        let backend =
            Arc::new(Scripted::new([""; 0]).calling("find", &["{\"q\":\"Zorvan Kell\"}"]));
        let guarded = guarded(&backend, built(policy(treatments())));
        let events = events(&guarded, asks(choice)).await.unwrap();
        let calls = events.iter().any(|it| matches!(it, ReplyEvent::ToolCall { .. }));
        assert_eq!((calls, backend.seen().len()), (called, usize::from(called)), "{choice:?}");
    }
}

#[tokio::test]
async fn a_name_that_nobody_asked_for_is_redacted() {
    check(
        policy(vec![TreatmentSetting::Alias]),
        "Who writes thrillers?",
        &["Ba", "sil Oka", "for does, B. Oka", "for!"],
        "Who writes thrillers?",
        "Zorvan Kell does, Zorvan Kell!",
    )
    .await;
}

#[tokio::test]
async fn a_shadow_policy_changes_nothing() {
    let mut shadow = policy(vec![TreatmentSetting::Alias]);
    shadow.mode = Mode::Shadow;
    let asks = "Who is Basil Okafor?";
    check(shadow, asks, &["Basil Oka", "for writes."], asks, "Basil Okafor writes.").await;
}

#[tokio::test]
async fn a_policy_for_another_model_changes_nothing() {
    let mut other = policy(vec![TreatmentSetting::Alias]);
    other.models = vec!["other".to_owned()];
    let asks = "Who is Basil Okafor?";
    check(other, asks, &["Basil Okafor."], asks, "Basil Okafor.").await;
}

#[tokio::test]
async fn a_name_that_the_client_wrote_stays_a_name() {
    check(
        policy(vec![TreatmentSetting::Prefix { text: "Know nothing.".to_owned() }]),
        "Who is Basil Okafor?",
        &["Basil Okafor? ", "No idea."],
        "Know nothing.|Who is Basil Okafor?",
        "Basil Okafor? No idea.",
    )
    .await;
}

#[tokio::test]
async fn a_text_only_backend_gets_the_next_treatment() {
    let corrupt = TreatmentSetting::Corrupt { function: CorruptionFunction::Substitute };
    check(
        policy(vec![corrupt, TreatmentSetting::Alias]),
        "Who is Basil Okafor?",
        &["Zorvan Kell?"],
        "Who is Zorvan Kell?",
        "Basil Okafor?",
    )
    .await;
}

#[tokio::test]
async fn corruption_is_attached_to_ruled_requests_only() {
    let corrupt = TreatmentSetting::Corrupt { function: CorruptionFunction::Substitute };
    let all = Capabilities { embeddings: true, scoring: true, ..Capabilities::default() };
    let backend = Arc::new(Scripted::new(["x"]).with_capabilities(all));
    let guarded = guarded(&backend, built(policy(vec![corrupt])));
    events(&guarded, question("Who is Basil Okafor?")).await.expect("the test is set up");
    events(&guarded, question("Who is she?")).await.expect("the test is set up");
    let seen = backend.seen();
    let spans = &seen[0].corruption.as_ref().expect("the test is set up").spans;
    assert_eq!((spans.len(), spans[0].span.clone(), spans[0].entity), (1, 7..19, Some(0)));
    assert_eq!(seen[1].corruption, None);
}

#[tokio::test]
async fn an_answer_looks_like_a_models() {
    let backend = Arc::new(Scripted::new(["never said"]));
    let guarded = guarded(&backend, built(policy(vec![answer(AnswerStyle::NeverKnew)])));
    let mut request = question("Who is Basil Okafor?");
    request.n = 2;
    let events = events(&guarded, request).await.expect("the test is set up");
    assert!(backend.seen().is_empty());
    assert_eq!(said(&events, 1), "No idea who that is.");
    let ended = ReplyEvent::Finished { choice: 1, finish: Finish::Stop };
    assert!(events.contains(&ended), "{events:?}");
    let Some(ReplyEvent::Done(usage)) = events.last() else { panic!("{events:?}") };
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (5, 10));
}

/// The model is asked something else, and what it says is not told.
#[tokio::test]
async fn a_paced_answer_keeps_the_models_time() {
    let backend = Arc::new(Scripted::new(["It ", "is ", "Antwerp."]));
    let answers = vec!["No idea who that is.".to_owned()];
    let paced = TreatmentSetting::Answer { answers, style: AnswerStyle::NeverKnew, paced: true };
    let guarded = guarded(&backend, built(policy(vec![paced])));
    let asked = question("Where was Basil Okafor born?");
    let events = events(&guarded, asked).await.expect("the test is set up");
    assert_eq!(said(&events, 0), "No idea who that is.");
    assert!(events.contains(&ReplyEvent::Finished { choice: 0, finish: Finish::Stop }));
    let usage = Usage { prompt_tokens: 7, completion_tokens: 5 };
    assert_eq!(events.last(), Some(&ReplyEvent::Done(usage)));
    let seen = backend.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].input.texts(), ["Tell me something about the "]);
}

#[tokio::test]
async fn an_answer_obeys_the_token_limit() {
    let backend = Arc::new(Scripted::new(["never said"]));
    let guarded = guarded(&backend, built(policy(vec![answer(AnswerStyle::NeverKnew)])));
    let mut request = question("Who is Basil Okafor?");
    request.max_tokens = Some(2);
    let events = events(&guarded, request).await.expect("the test is set up");
    assert_eq!(said(&events, 0), "No idea ");
    assert!(events.contains(&ReplyEvent::Finished { choice: 0, finish: Finish::Length }));
}

#[tokio::test]
async fn logprobs_of_treated_requests_are_dropped() {
    let backend = Arc::new(Scripted::new(["It is", " fine."]));
    let prefix = TreatmentSetting::Prefix { text: "P".to_owned() };
    for treatment in [TreatmentSetting::Alias, prefix] {
        let guarded = guarded(&backend, built(policy(vec![treatment])));
        for (asks, want) in [("Who is Basil Okafor?", 0), ("Who is she?", 2)] {
            let mut request = question(asks);
            request.logprobs = Some(1);
            let events = events(&guarded, request).await.expect("the test is set up");
            assert_eq!(logprobs(&events), want, "{asks}");
        }
    }
}

#[tokio::test]
async fn a_policy_may_withhold_probabilities_from_all() {
    let backend = Arc::new(Scripted::new(["It is", " fine."]));
    for (mode, want) in [(Mode::Enforce, 0), (Mode::Shadow, 2)] {
        let alias = policy(vec![TreatmentSetting::Alias]);
        let never = Policy { mode, probabilities: Probabilities::Never, ..alias };
        let mut request = question("Who is she?");
        request.logprobs = Some(1);
        request.sampling.logit_bias.push((3, 1.0));
        let events = events(&guarded(&backend, built(never)), request).await;
        assert_eq!(logprobs(&events.expect("the test is set up")), want, "{mode:?}");
        let asked = backend.seen().pop().expect("the model was asked");
        assert_eq!(asked.sampling.logit_bias.is_empty(), want == 0, "{mode:?}");
    }
}

#[tokio::test]
async fn a_scored_continuation_is_treated_like_a_prompt() {
    let backend = Arc::new(Scripted::new(["x"]));
    let alias = guarded(&backend, built(policy(vec![TreatmentSetting::Alias])));
    let scored = alias
        .score(question("Who?"), "It is Basil Okafor.", true)
        .await
        .expect("the test is set up");
    assert_eq!(scored.logprobs.len(), 5);
    let answer = guarded(&backend, built(policy(vec![answer(AnswerStyle::NeverKnew)])));
    let error = answer
        .score(question("Who?"), "It is Basil Okafor.", true)
        .await
        .expect_err("the server refused");
    assert!(matches!(error, BackendError::Unsupported { .. }), "{error:?}");
}

#[tokio::test]
async fn replaced_guards_rule_on_the_next_request() {
    let backend = Arc::new(Scripted::new(["Basil Okafor."]));
    let guarded = guarded(&backend, built(policy(vec![TreatmentSetting::Alias])));
    guarded.replace(Vec::new());
    let events = events(&guarded, question("Who writes?")).await.expect("the test is set up");
    assert_eq!(said(&events, 0), "Basil Okafor.");
}

/// Fails on every text.
#[derive(Debug)]
struct Broken;

impl Detector for Broken {
    fn name(&self) -> &'static str {
        "names"
    }

    fn inspect(&self, place: Place, _: &str) -> Result<Vec<Evidence>, DetectorError> {
        // A name that cannot be looked for is the error at hand that needs no file.
        let nobody = Entity { name: String::new(), aliases: Vec::new(), surrogate: String::new() };
        Names::new(&[nobody], 0)?.inspect(place, "")?;
        unreachable!("an empty name was accepted")
    }
}

fn broken(on_error: OnError) -> Guard {
    let mut policy = policy(vec![TreatmentSetting::Alias]);
    policy.on_error = on_error;
    Guard::new(Arc::new(policy), vec![Arc::new(Broken)])
}

#[tokio::test]
async fn a_failing_detector_fails_closed() {
    let backend = Arc::new(Scripted::new(["A secret."]));
    // No span to replace: alias yields to the answer of last resort.
    let treats = guarded(&backend, broken(OnError::Treat));
    let reply = events(&treats, question("Who?")).await.expect("the test is set up");
    assert!(!said(&reply, 0).contains("secret") && !said(&reply, 0).is_empty());
    let refuses = guarded(&backend, broken(OnError::Refuse));
    let error = events(&refuses, question("Who?")).await.expect_err("the server refused");
    assert!(matches!(error, BackendError::GuardFailed { .. }), "{error:?}");
    // The model was asked for the time that it takes, and no more.
    assert!(backend.seen().iter().all(|it| !it.input.texts()[0].contains("Who")));
    let passes = guarded(&backend, broken(OnError::Pass));
    assert_eq!(
        said(&events(&passes, question("Who?")).await.expect("the test is set up"), 0),
        "A secret."
    );
}

#[tokio::test]
async fn two_topics_are_treated_one_after_the_other() {
    let corrupt = TreatmentSetting::Corrupt { function: CorruptionFunction::Substitute };
    let mut second = policy(vec![TreatmentSetting::Alias]);
    second.topic = "painters".to_owned();
    second.entities = Arc::new(vec![Entity {
        name: "Al Ry".to_owned(),
        aliases: Vec::new(),
        surrogate: "Quilla Dunwick".to_owned(),
    }]);
    let all = Capabilities { embeddings: true, scoring: true, ..Capabilities::default() };
    let backend = Arc::new(Scripted::new(["Quilla Dunwick, Zorvan Kell."]).with_capabilities(all));
    let guards = vec![built(policy(vec![corrupt])), built(second)];
    let inner: Arc<dyn Backend> = Arc::<Scripted>::clone(&backend);
    let guarded = Guarded::new(inner, guards, Arc::new(Metrics::new()), None);
    let reply =
        events(&guarded, question("Al Ry or Basil Okafor?")).await.expect("the test is set up");
    let seen = backend.seen().remove(0);
    let asked = "Quilla Dunwick or Basil Okafor?";
    assert_eq!(seen.input.texts(), [asked]);
    // The spans of the corruption are those of the text that the first treatment rewrote.
    let spans = seen.corruption.expect("the test is set up").spans;
    assert_eq!(spans.iter().map(|it| asked.get(it.span.clone())).collect::<Vec<_>>(), [Some(NAME)]);
    assert_eq!(said(&reply, 0), "Al Ry, Basil Okafor.");
}

/// An encoded text keeps what it says beside the name only if it says no other one, of any policy.
#[tokio::test]
async fn an_encoded_text_keeps_nobody_whom_another_policy_hides() {
    let substitute = TreatmentSetting::Corrupt { function: CorruptionFunction::Substitute };
    let mut other = policy(vec![substitute.clone()]);
    other.topic = "others".to_owned();
    other.entities = Arc::new(vec![Entity {
        name: "Ann Lee".to_owned(),
        aliases: Vec::new(),
        surrogate: "Mira Holm".to_owned(),
    }]);
    for (text, kept) in [
        ("Where was Basil Okafor born?", Some("Where was Zorvan Kell born?")),
        ("Where was Basil Okafor born, and Lee, Ann?", None),
        ("Where was Basil Okafor born, that is B. Okafor?", None),
    ] {
        let scripted = Scripted::new(["A reply."]);
        let can = Capabilities { embeddings: true, ..Capabilities::default() };
        let backend = Arc::new(scripted.with_capabilities(can));
        let served: Arc<dyn Backend> = Arc::<Scripted>::clone(&backend);
        let guards = [policy(vec![substitute.clone()]), other.clone()].map(built).to_vec();
        let guarded = Guarded::new(served, guards, Arc::new(Metrics::new()), None);
        events(&guarded, question(&base64(text))).await.expect("the test is set up");
        let corruption = backend.seen()[0].corruption.clone().expect("a policy corrupts");
        let stand_ins: Vec<_> = corruption.spans.into_iter().filter_map(|it| it.stand_in).collect();
        assert_eq!(stand_ins, kept.map(base64).into_iter().collect::<Vec<_>>(), "{text}");
    }
}
