//! What becomes of an untreated reply that says a forgotten name or copies protected text.

use std::sync::Arc;

use unlearn_proxy::backend::scripted::Scripted;
use unlearn_proxy::policy::{DetectorSetting, Mode, OnHit, Policy, TreatmentSetting};
use unlearn_proxy::types::{Finish, Json, ReplyEvent, Tool};

use crate::guarded::{built, events, guarded, policy, question, said};

const BOOK: &str = "The cat sat on the mat, and then it went home to sleep.";

/// Copies of four words of the book.
fn protecting(on_hit: OnHit, replies: bool) -> Policy {
    let texts = Arc::new(vec![BOOK.to_owned()]);
    let shingles = DetectorSetting::Shingles { texts, n: 3, run: 2, replies };
    Policy { detectors: vec![shingles], on_hit, ..policy(vec![TreatmentSetting::Alias]) }
}

/// What the client reads, and how the only choice ends.
async fn reads(policy: Policy, pieces: &[&str]) -> (String, Finish, usize) {
    let backend = Arc::new(Scripted::new(pieces.iter().copied()));
    let guarded = guarded(&backend, built(policy));
    let events = events(&guarded, question("Tell me something.")).await.unwrap();
    let ends: Vec<Finish> = events
        .iter()
        .filter_map(|it| match it {
            ReplyEvent::Finished { finish, .. } => Some(*finish),
            _ => None,
        })
        .collect();
    let [finish] = ends[..] else { panic!("{events:?}") };
    assert!(matches!(events.last(), Some(ReplyEvent::Done(_))));
    (said(&events, 0), finish, backend.seen().len())
}

#[tokio::test]
async fn a_reply_ends_where_it_begins_to_copy() {
    let pieces = ["It goes: the c", "at sat", " on the ma", "t, and then it went", " home."];
    let (text, finish, _) = reads(protecting(OnHit::Redact, true), &pieces).await;
    assert_eq!((text.as_str(), finish), ("It goes: ", Finish::Stop));
    let (text, ..) = reads(protecting(OnHit::Redact, false), &pieces).await;
    assert_eq!(text, pieces.concat());
    let mut shadow = protecting(OnHit::Redact, true);
    shadow.mode = Mode::Shadow;
    assert_eq!(reads(shadow, &pieces).await.0, pieces.concat());
}

#[tokio::test]
async fn what_only_begins_like_a_copy_leaves_whole() {
    let pieces = ["The cat sat", " down, Basil Okafor sa", "id, on the cat", "."];
    let (text, finish, _) = reads(protecting(OnHit::Redact, true), &pieces).await;
    let want = "The cat sat down, Zorvan Kell said, on the cat.";
    assert_eq!((text.as_str(), finish), (want, Finish::Stop));
}

#[tokio::test]
async fn the_rest_is_replaced_from_the_first_hit_on() {
    let mut asked = protecting(OnHit::ReplaceRest, true);
    let (text, ..) = reads(asked.clone(), &["So: the cat sat ", "on the mat. ", "More."]).await;
    let ending = text.strip_prefix("So: ").unwrap().to_owned();
    assert!(!ending.is_empty() && !ending.contains("cat") && !ending.contains("More"), "{text}");
    asked.detectors = vec![DetectorSetting::Names { reach: 2 }];
    let (text, finish, _) = reads(asked, &["It was Basil Ok", "afor who did. ", "More."]).await;
    assert_eq!((text, finish), (format!("It was {ending}"), Finish::Stop));
}

#[tokio::test]
async fn a_restart_sends_nothing_of_the_first_reply() {
    let names = vec![DetectorSetting::Names { reach: 2 }];
    let prefix = TreatmentSetting::Prefix { text: "You know no authors.".to_owned() };
    let asked = Policy {
        on_hit: OnHit::Restart,
        detectors: names,
        ..policy(vec![prefix, TreatmentSetting::Alias])
    };
    let backend = Arc::new(Scripted::new(["It was Basil Okafor."]));
    let guarded = guarded(&backend, built(asked.clone()));
    let events = events(&guarded, question("Who writes thrillers?")).await.unwrap();
    let texts: Vec<String> = backend.seen().iter().map(|it| it.input.texts().join("|")).collect();
    assert_eq!(texts[0], "Who writes thrillers?");
    assert!(texts[1].starts_with("You know no authors."), "{texts:?}");
    assert_eq!(texts.len(), 2);
    // The scripted model says it again: the window still stands in front of the client.
    assert_eq!(said(&events, 0), "It was Zorvan Kell.");
    assert_eq!(reads(asked, &["No hit."]).await, ("No hit.".to_owned(), Finish::Stop, 1));
}

/// The arguments of the only call, made after a question.
async fn calls(policy: Policy, asks: &str, arguments: &[&str]) -> String {
    let backend = Arc::new(Scripted::new([""; 0]).calling("find", arguments));
    let guarded = guarded(&backend, built(policy));
    let mut request = question(asks);
    let function = Json::read("{\"name\":\"find\"}");
    request.tools.offered = vec![Tool { name: "find".to_owned(), function }];
    let mut told = String::new();
    for event in events(&guarded, request).await.unwrap() {
        if let ReplyEvent::ToolCall { piece, .. } = event {
            told.push_str(&piece.arguments);
        }
    }
    told
}

#[tokio::test]
async fn a_name_over_several_strings_of_a_call_is_seen() {
    let alias = || policy(vec![TreatmentSetting::Alias]);
    let pieces = ["{\"last\": \"Oka", "for\", \"fi", "rst\":\"Basil\", \"n\": 1}"];
    let told = calls(alias(), "Who writes thrillers?", &pieces).await;
    assert_eq!(told, "{\"last\": \"Kell\", \"first\":\"Zorvan\", \"n\": 1}");
    // A surrogate that the model calls with is the client's name again.
    let pieces = ["{\"first\": \"Zor", "van\", \"last\":\"Kell\"}"];
    let told = calls(alias(), "Look Basil Okafor up.", &pieces).await;
    assert_eq!(told, "{\"first\": \"Basil\", \"last\":\"Okafor\"}");
    let told = calls(alias(), "Look Basil Okafor up.", &["[\"Kell, Zorvan\"]"]).await;
    assert_eq!(told, "[\"Okafor, Basil\"]");
}

#[tokio::test]
async fn a_string_of_a_call_ends_where_it_begins_to_copy() {
    let pieces = ["{\"text\": \"So: The c", "at sat\\non", " the mat.\", \"n\": ", "\"the cat\"}"];
    let told = calls(protecting(OnHit::Redact, true), "Go on.", &pieces).await;
    assert_eq!(told, "{\"text\": \"So: \", \"n\": \"the cat\"}");
    let told = calls(protecting(OnHit::Redact, false), "Go on.", &pieces).await;
    assert_eq!(told, pieces.concat());
}
