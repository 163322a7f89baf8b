//! Every treatment on hand-made cases.

use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::policy::{AnswerStyle, DetectorSetting, Mode, NAMES, OnError};
use crate::types::{Corruption, CorruptionFunction, Entity, Input, Message, Role, View};

fn policy() -> Policy {
    let entity = |name: &str, surrogate: &str| Entity {
        name: name.to_owned(),
        surrogate: surrogate.to_owned(),
    };
    Policy {
        topic: "authors".to_owned(),
        path: PathBuf::new(),
        revision: String::new(),
        mode: Mode::Enforce,
        on_error: OnError::Treat,
        entities: Arc::new(vec![entity("Ann Lee", "Zora Kell"), entity("Bo Ek", "Osric Thorn")]),
        aliases: vec![Vec::new(), Vec::new()],
        detectors: vec![DetectorSetting::Names],
        treatment: vec![TreatmentSetting::Alias],
        models: Vec::new(),
        seed: 7,
    }
}

fn seen(place: Place, span: Range<usize>, entity: usize) -> Evidence {
    Evidence { detector: NAMES, score: 1.0, place, span, view: View::Raw, entity: Some(entity) }
}

fn chat(contents: &[(Role, &str)]) -> Request {
    let message = |(role, it): &(Role, &str)| Message { role: *role, content: (*it).to_owned() };
    Request::new("m", Input::Chat(contents.iter().map(message).collect()))
}

fn case<'a>(policy: &'a Policy, evidence: &'a [Evidence], request: Request) -> Case<'a> {
    Case { policy, evidence, request, continuation: Some("It is Bo Ek.".to_owned()) }
}

fn treated(setting: &TreatmentSetting, case: Case<'_>) -> (Request, String, Vec<Replacement>) {
    match treat(setting, case).unwrap() {
        Treated::Request { request, continuation, restore } => {
            (request, continuation.unwrap(), restore)
        }
        Treated::Reply { text, .. } => panic!("answered {text}"),
    }
}

#[test]
fn alias_replaces_names_back_to_front() {
    let policy = policy();
    let request = chat(&[(Role::User, "Ann Lee or Bo Ek or Ann Lee?")]);
    let evidence = [
        seen(Place::Text(0), 20..27, 0),
        seen(Place::Text(0), 0..7, 0),
        seen(Place::Text(0), 0..3, 0),
        seen(Place::Text(0), 11..16, 1),
        seen(Place::Continuation, 6..11, 1),
    ];
    let (request, continuation, restore) =
        treated(&TreatmentSetting::Alias, case(&policy, &evidence, request));
    assert_eq!(request.input.texts(), ["Zora Kell or Osric Thorn or Zora Kell?"]);
    assert_eq!(continuation, "It is Osric Thorn.");
    assert_eq!(restore.len(), 2);
    assert_eq!((restore[0].pattern.as_str(), restore[0].with.as_str()), ("Zora Kell", "Ann Lee"));
}

#[test]
fn alias_without_a_name_yields_to_the_next_treatment() {
    let policy = policy();
    let result = treat(&TreatmentSetting::Alias, case(&policy, &[], chat(&[(Role::User, "x")])));
    assert!(matches!(result, Err(TreatError::Inapplicable { .. })), "{result:?}");
}

#[test]
fn evidence_outside_its_text_is_an_error() {
    let policy = policy();
    for (place, span) in [(Place::Text(0), 0..9), (Place::Text(3), 0..1), (Place::Text(0), 1..2)] {
        let evidence = [seen(place, span, 0)];
        let request = chat(&[(Role::User, "é")]);
        let result = treat(&TreatmentSetting::Alias, case(&policy, &evidence, request));
        assert!(matches!(result, Err(TreatError::Span { .. })), "{result:?}");
    }
}

#[test]
fn corruption_travels_with_the_request() {
    let policy = policy();
    let evidence = [seen(Place::Continuation, 6..11, 1)];
    let setting = TreatmentSetting::Corrupt { function: CorruptionFunction::Substitute };
    let request = chat(&[(Role::User, "Who?")]);
    let (request, continuation, restore) = treated(&setting, case(&policy, &evidence, request));
    let Corruption { spans, seed, entities, .. } = request.corruption.unwrap();
    assert_eq!((spans.len(), spans[0].entity, seed), (1, Some(1), 7));
    assert_eq!((entities.len(), continuation.as_str()), (2, "It is Bo Ek."));
    assert_eq!(restore.len(), 1);
}

#[test]
fn a_topic_without_names_corrupts_the_whole_turn() {
    let policy = policy();
    let setting = TreatmentSetting::Corrupt { function: CorruptionFunction::Substitute };
    let (request, _, restore) = treated(&setting, case(&policy, &[], chat(&[(Role::User, "x")])));
    assert!(request.corruption.unwrap().spans.is_empty());
    assert_eq!(restore.len(), 2);
}

#[test]
fn two_topics_share_one_corruption() {
    let policy = policy();
    let setting = TreatmentSetting::Corrupt { function: CorruptionFunction::ZeroTop { dims: 1 } };
    let evidence = [seen(Place::Text(0), 0..7, 0)];
    let request = chat(&[(Role::User, "Ann Lee")]);
    let (once, _, _) = treated(&setting, case(&policy, &evidence, request));
    let (twice, _, restore) = treated(&setting, case(&policy, &evidence, once));
    let corruption = twice.corruption.unwrap();
    let entities: Vec<_> = corruption.spans.iter().map(|it| it.entity).collect();
    assert_eq!((entities, corruption.entities.len()), (vec![Some(0), Some(2)], 4));
    assert!(restore.is_empty());
}

#[test]
fn the_prefix_comes_before_all_else() {
    let policy = policy();
    let setting = TreatmentSetting::Prefix { text: "P".to_owned() };
    for (given, want) in [
        (chat(&[(Role::User, "x")]), vec!["P", "x"]),
        (chat(&[(Role::System, "s"), (Role::User, "x")]), vec!["P\n\ns", "x"]),
        (Request::new("m", Input::Text("x".to_owned())), vec!["P\n\nx"]),
    ] {
        let (request, _, _) = treated(&setting, case(&policy, &[], given));
        assert_eq!(request.input.texts(), want);
    }
}

#[test]
fn answers_hang_on_the_request_alone() {
    let policy = policy();
    let answers: Vec<String> = (0..16).map(|it| format!("answer {it}")).collect();
    let setting = TreatmentSetting::Answer { answers, style: AnswerStyle::NeverKnew };
    let answer =
        |text: &str| treat(&setting, case(&policy, &[], chat(&[(Role::User, text)]))).unwrap();
    assert_eq!(answer("a"), answer("a"));
    let different = ["b", "c", "d", "e", "f"].iter().any(|it| answer(it) != answer("a"));
    assert!(different);
}

#[test]
fn a_content_filter_says_nothing() {
    let policy = policy();
    let setting = TreatmentSetting::Answer {
        answers: vec!["no".to_owned()],
        style: AnswerStyle::ContentFilter,
    };
    let treated = treat(&setting, case(&policy, &[], chat(&[(Role::User, "x")]))).unwrap();
    assert_eq!(treated, Treated::Reply { text: String::new(), finish: Finish::ContentFilter });
}
