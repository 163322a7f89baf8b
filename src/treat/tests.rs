//! Every treatment on hand-made cases.

use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::policy::{
    AnswerStyle, DetectorSetting, Example, InContext, Layout, Mode, NAMES, OnError, OnHit,
    Probabilities,
};
use crate::types::{
    Callee, Corruption, CorruptionFunction, Entity, Input, Json, Message, Offset, OffsetPair, Role,
    Tool, ToolCall, View,
};

fn policy() -> Policy {
    let entity = |name: &str, surrogate: &str| Entity {
        name: name.to_owned(),
        aliases: Vec::new(),
        surrogate: surrogate.to_owned(),
    };
    Policy {
        topic: "authors".to_owned(),
        path: PathBuf::new(),
        revision: String::new(),
        mode: Mode::Enforce,
        on_error: OnError::Treat,
        probabilities: Probabilities::Untreated,
        on_hit: OnHit::Redact,
        entities: Arc::new(vec![entity("Ann Lee", "Zora Kell"), entity("Bo Ek", "Osric Thorn")]),
        values: Arc::default(),
        detectors: vec![DetectorSetting::Names { reach: 2 }],
        fusion: None,
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
    let continuation = Some("It is Bo Ek.".to_owned());
    Case { policy, evidence, request, continuation, names_somebody: &|_| false }
}

fn treated(setting: &TreatmentSetting, case: Case<'_>) -> (Request, String, Vec<Replacement>) {
    let policy = case.policy;
    match treat(setting, case).unwrap() {
        Treated::Request { request, continuation, restore } => {
            let names = restore.entities.iter().flat_map(|it| own_names(&policy.entities[*it]));
            (request, continuation.unwrap(), names.chain(restore.writings).collect())
        }
        Treated::Reply { text, .. } => panic!("answered {text}"),
    }
}

/// What is put back for names in their own order.
fn restored(restore: &[Replacement]) -> Vec<(&str, &str)> {
    let own = restore.iter().filter(|it| it.pattern.contains(' ') && !it.pattern.contains(','));
    own.map(|it| (it.pattern.as_str(), it.with.as_str())).collect()
}

/// Parts of names come back as they were written, but for torn words: every "ell" would become "ee".
#[test]
fn a_part_of_a_surrogate_is_put_back_unless_it_is_a_torn_word() {
    let policy = policy();
    for (written, want) in [("Lee", Some("Kell")), ("Ann L", Some("Zora K")), ("ee", None)] {
        let request = chat(&[(Role::User, written)]);
        let evidence = [seen(Place::Text(0), 0..written.len(), 0)];
        let (request, _, restore) =
            treated(&TreatmentSetting::Alias, case(&policy, &evidence, request));
        assert_eq!(request.input.texts(), [want.unwrap_or("ell")]);
        let back = restore.iter().find(|it| it.with == written).map(|it| it.pattern.as_str());
        assert_eq!(back, want);
    }
}

#[test]
fn alias_writes_a_surrogate_as_the_name_is_written() {
    let policy = policy();
    let rows = [
        ("See Lee, Ann.", 4..12, "See Kell, Zora."),
        ("See Lee', b='Ann.", 4..16, "See Kell, Zora."),
        ("See Ann L.", 4..9, "See Zora K."),
        ("See A. Lee.", 4..10, "See Zora Kell."),
    ];
    for (text, span, want) in rows {
        let request = chat(&[(Role::User, text)]);
        let evidence = [seen(Place::Text(0), span, 0)];
        let (request, ..) = treated(&TreatmentSetting::Alias, case(&policy, &evidence, request));
        assert_eq!(request.input.texts(), [want]);
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
    assert_eq!(restored(&restore), [("Zora Kell", "Ann Lee"), ("Osric Thorn", "Bo Ek")]);
    let turned = |it: &Replacement| it.pattern == "Kell, Zora" && it.with == "Lee, Ann";
    assert!(restore.iter().any(turned));
}

#[test]
fn an_encoded_name_is_replaced_as_a_whole() {
    let policy = policy();
    let request = chat(&[(Role::User, "Who is QW5uIExlZQ==, and Ann Lee?")]);
    let encoded = Evidence { view: View::Decoded, ..seen(Place::Text(0), 7..19, 0) };
    let evidence = [encoded, seen(Place::Text(0), 25..32, 0)];
    let (asked, _, restore) = treated(&TreatmentSetting::Alias, case(&policy, &evidence, request));
    assert_eq!(asked.input.texts(), ["Who is Wm9yYSBLZWxs, and Zora Kell?"]);
    assert_eq!(restored(&restore).len(), 1);
    let back = |it: &Replacement| it.pattern == "Wm9yYSBLZWxs" && it.with == "QW5uIExlZQ==";
    assert!(restore.iter().any(back));
}

#[test]
fn torn_names_are_replaced_by_torn_surrogates() {
    let policy = policy();
    let request = chat(&[(Role::User, "Who is A-n-n L-e-e?")]);
    let evidence = [seen(Place::Text(0), 7..18, 0)];
    let setting = TreatmentSetting::Corrupt { function: CorruptionFunction::Substitute };
    let case_of = || case(&policy, &evidence, request.clone());
    let (asked, ..) = treated(&TreatmentSetting::Alias, case_of());
    assert_eq!(asked.input.texts(), ["Who is Z-o-r-a K-e-l-l?"]);
    let (asked, _, restore) = treated(&setting, case_of());
    let span = asked.corruption.unwrap().spans.remove(0);
    assert_eq!(span.stand_in.as_deref(), Some("Z-o-r-a K-e-l-l"));
    assert!(restore.iter().any(|it| it.pattern == "Z-o-r-a K-e-l-l" && it.with == "A-n-n L-e-e"));
    let named = Case { names_somebody: &|it| it.contains("Z-o-r-a"), ..case_of() };
    let (asked, ..) = treated(&TreatmentSetting::Alias, named);
    assert_eq!(asked.input.texts(), ["Who is Zora Kell?"]);
    let noise = TreatmentSetting::Corrupt { function: CorruptionFunction::ZeroTop { dims: 1 } };
    let (asked, _, restore) = treated(&noise, case_of());
    assert_eq!(asked.corruption.unwrap().spans[0].stand_in, None);
    assert!(restore.is_empty());
}

/// Not in the right spelling, which the asker may not know.
#[test]
fn misspelt_names_come_back_misspelt() {
    let mut policy = policy();
    policy.entities = Arc::new(vec![Entity {
        name: "Viggo Blaszko".to_owned(),
        aliases: ["V. B.", "Viggo", "Viggo Maria Blaszko"].map(str::to_owned).to_vec(),
        surrogate: "Ulrika Ferraro".to_owned(),
    }]);
    let own = ("Ulrika Ferraro", "Viggo Blaszko");
    let misspelt = format!("Vigo{}Blaszko", "\u{200b}".repeat(200));
    let plain = "Ulrika Ferraro";
    for (written, want, back) in [
        ("Vigo Blasko", plain, (plain, "Vigo Blasko")),
        ("Vigo Blasko", plain, ("Viggo Blaszko", "Vigo Blasko")),
        ("VIGO Blasko", "ULRIKA Ferraro", (plain, "VIGO Blasko")),
        ("V. Blaszko", plain, (plain, "V. Blaszko")),
        ("Viggo J. M. Blaszko", plain, (plain, "Viggo J. M. Blaszko")),
        ("Viggo Blaszk", "Ulrika Ferrar", (plain, "Viggo Blaszk")),
        ("Viggo Blaszk", "Ulrika Ferrar", ("Ulrika Ferrar", "Viggo Blaszk")),
        ("Vigo/Blasko", plain, (plain, "Vigo/Blasko")),
        ("viggo Blaszko", "ulrika Ferraro", own),
        ("V. B.", plain, own),
        ("Viggo B*****o", plain, (plain, "Viggo B*****o")),
        ("Vig\" + \"go Blaszko", plain, own),
        (misspelt.as_str(), plain, own),
    ] {
        let request = chat(&[(Role::User, &format!("{written}?"))]);
        let evidence = [seen(Place::Text(0), 0..written.len(), 0)];
        let case = case(&policy, &evidence, request);
        let (asked, _, restore) = treated(&TreatmentSetting::Alias, case);
        assert_eq!(asked.input.texts(), [format!("{want}?")]);
        let found = restored(&restore);
        assert!(found.contains(&back), "{written}: {found:?}");
        let right = found.iter().any(|it| it.1 == own.1);
        assert_eq!(right, back == own, "{written}: {found:?}");
        let turned = restore.iter().any(|it| it.pattern == "Ferraro, Ulrika");
        assert!(turned, "{written}: {restore:?}");
        assert!(restore.iter().all(|it| it.pattern != "Viggo"), "{written}: {restore:?}");
    }
}

#[test]
fn names_over_strings_of_json_are_shared() {
    let policy = policy();
    for gap in [", ", ","] {
        let mut request = calling();
        request.tools.calls[0].arguments = Json::read(&format!(r#"["Ann"{gap}"Lee"]"#));
        let text = request.texts()[5];
        let span = text.find("Ann").unwrap()..text.find("Lee").unwrap() + 3;
        let evidence = [seen(Place::Text(5), span, 0)];
        let (asked, ..) = treated(&TreatmentSetting::Alias, case(&policy, &evidence, request));
        let want = format!(r#"["Zora"{gap}"Kell"]"#);
        assert_eq!(asked.tools.calls[0].arguments.write(), want);
    }
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
    assert_eq!(restored(&restore).len(), 1);
}

#[test]
fn a_topic_without_names_corrupts_the_whole_turn() {
    let policy = policy();
    let setting = TreatmentSetting::Corrupt { function: CorruptionFunction::Substitute };
    let (request, _, restore) = treated(&setting, case(&policy, &[], chat(&[(Role::User, "x")])));
    assert!(request.corruption.unwrap().spans.is_empty());
    assert!(restore.is_empty());
}

#[test]
fn what_a_classifier_saw_is_masked_where_no_name_is() {
    let policy = policy();
    let setting = TreatmentSetting::Corrupt { function: CorruptionFunction::Substitute };
    let topic = |at, span| Evidence { entity: None, ..seen(Place::Text(at), span, 0) };
    let request = chat(&[(Role::System, "Who wrote it?"), (Role::User, "Ann Lee, who?")]);
    let evidence = [topic(0, 0..13), topic(1, 0..13), seen(Place::Text(1), 0..7, 0)];
    let case_of = || case(&policy, &evidence, request.clone());
    let (changed, _, restore) = treated(&setting, case_of());
    let spans: Vec<_> = changed.corruption.unwrap().spans;
    let spans: Vec<_> = spans.iter().map(|it| (it.place, it.span.clone(), it.entity)).collect();
    assert_eq!(spans, [(Place::Text(1), 0..7, Some(0)), (Place::Text(0), 0..13, None)]);
    assert_eq!(restored(&restore).len(), 1);
    let alias = treat(&TreatmentSetting::Alias, case_of());
    assert!(matches!(alias, Err(TreatError::Inapplicable { .. })), "{alias:?}");
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

/// A conversation in which the assistant's second message calls a function.
fn calling() -> Request {
    let mut request =
        chat(&[(Role::User, "q"), (Role::Assistant, ""), (Role::Tool, "r"), (Role::User, "x")]);
    let function = Json::read(r#"{"name":"find_Ann Lee"}"#);
    request.tools.offered = vec![Tool { name: "find".to_owned(), function }];
    let arguments = Json::read(r#"{"who":"\u0041nn Lee"}"#);
    let (id, function) = ("1".to_owned(), Callee::Offered(0));
    request.tools.calls = vec![ToolCall { message: 1, id, function, arguments }];
    request
}

#[test]
fn texts_of_tools_are_rewritten_too() {
    let policy = policy();
    let request = calling();
    let texts = request.texts();
    let names = [4, 5].map(|at| {
        let start = texts[at].find("Ann Lee").unwrap();
        seen(Place::Text(at), start..start + 7, 0)
    });
    let (asked, ..) = treated(&TreatmentSetting::Alias, case(&policy, &names, request.clone()));
    assert_eq!(asked.tools.offered[0].function.write(), r#"{"name":"find_Zora Kell"}"#);
    assert_eq!(asked.tools.calls[0].arguments.write(), r#"{"who":"Zora Kell"}"#);
    assert_eq!((&asked.input, asked.tools.offered[0].name.as_str()), (&request.input, "find"));
    let outside = [seen(Place::Text(6), 0..1, 0)];
    let result = treat(&TreatmentSetting::Alias, case(&policy, &outside, request));
    assert!(matches!(result, Err(TreatError::Span { .. })), "{result:?}");
}

#[test]
fn what_stands_in_front_moves_no_call_to_another_message() {
    let policy = policy();
    let prefix = TreatmentSetting::Prefix { text: "P".to_owned() };
    for (setting, at) in [(prefix, 2), (in_context(1, 1, Layout::Turns), 1)] {
        let (request, ..) = treated(&setting, case(&policy, &[], calling()));
        assert!(request.input.texts().len() > 4);
        assert_eq!(request.tools.calls[0].message, at, "{setting:?}");
    }
    let setting = in_context(1, 0, Layout::Turns);
    let mut question = calling();
    question.input = chat(&[(Role::Assistant, ""), (Role::Assistant, "")]).input;
    let (request, ..) = treated(&setting, case(&policy, &[], question));
    assert_eq!(request.tools.calls[0].message, 3);
}

#[test]
fn answers_hang_on_the_request_alone() {
    let policy = policy();
    let answers: Vec<String> = (0..16).map(|it| format!("answer {it}")).collect();
    let setting = TreatmentSetting::Answer { answers, style: AnswerStyle::NeverKnew, paced: true };
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
        paced: false,
    };
    let treated = treat(&setting, case(&policy, &[], chat(&[(Role::User, "x")]))).unwrap();
    let (text, finish) = (String::new(), Finish::ContentFilter);
    assert_eq!(treated, Treated::Reply { text, finish, paced: false });
}

fn example(question: &str, answer: &str, wrong: &[&str]) -> Example {
    let wrong = wrong.iter().map(|it| (*it).to_owned()).collect();
    Example { question: question.to_owned(), answer: answer.to_owned(), wrong }
}

fn in_context(n_forget: usize, n_retain: usize, layout: Layout) -> TreatmentSetting {
    let forget = vec![
        example("Where was Bo Ek born?", "In Oslo.", &[]),
        example("Where was Ann Lee born?", "In Ulm.", &["In Rome."]),
        example("What is the job of Ann Lee?", "A potter.", &[]),
    ];
    let retain = vec![
        example("Where was Ida Moe born?", "In Bonn.", &[]),
        example("What did Ida Moe write?", "A novel.", &["A poem."]),
    ];
    TreatmentSetting::InContext(Arc::new(InContext { forget, retain, n_forget, n_retain, layout }))
}

#[test]
fn examples_stand_before_the_last_question_as_turns() {
    let policy = policy();
    let request = chat(&[
        (Role::System, "s"),
        (Role::User, "Hello."),
        (Role::Assistant, "Hi."),
        (Role::User, "Where was Ann Lee born?"),
    ]);
    let setting = in_context(2, 2, Layout::Turns);
    let (request, continuation, restore) = treated(&setting, case(&policy, &[], request));
    let Input::Chat(messages) = request.input else { panic!("it was a chat") };
    let texts: Vec<&str> = messages.iter().map(|it| it.content.as_str()).collect();
    // The same question comes first, then Bo Ek's: three shared words of five and five give 6 / 10,
    // two of five and seven 4 / 12.
    assert_eq!(texts[..3], ["s", "Hello.", "Hi."]);
    assert_eq!(texts[3..6], ["Where was Ann Lee born?", "In Rome.", "Where was Bo Ek born?"]);
    assert!(["In Ulm.", "A potter."].contains(&texts[6]), "{}", texts[6]);
    let mut kept = [(texts[7], texts[8]), (texts[9], texts[10])];
    kept.sort_unstable();
    let want = [("What did Ida Moe write?", "A novel."), ("Where was Ida Moe born?", "In Bonn.")];
    assert_eq!(kept, want);
    assert_eq!(texts[11..], ["Where was Ann Lee born?"]);
    for (at, it) in messages.iter().enumerate().skip(3) {
        assert_eq!(it.role, if at % 2 == 1 { Role::User } else { Role::Assistant });
    }
    assert_eq!((continuation.as_str(), restore.len()), ("It is Bo Ek.", 0));
}

#[test]
fn examples_stand_before_the_question_as_text() {
    let policy = policy();
    let setting = in_context(1, 0, Layout::Text);
    let shown = "Q: Where was Ann Lee born? A: In Rome. ";
    for (given, want) in [
        (
            chat(&[(Role::User, "ann lee, where BORN?"), (Role::Assistant, "Well,")]),
            vec![format!("{shown}Q: ann lee, where BORN? A:"), "Well,".to_owned()],
        ),
        (
            Request::new("m", Input::Text("Ann Lee was born".to_owned())),
            vec![format!("{shown}Ann Lee was born")],
        ),
    ] {
        let (request, _, _) = treated(&setting, case(&policy, &[], given));
        assert_eq!(request.input.texts(), want);
    }
}

#[test]
fn wrong_answers_hang_on_policy_and_question() {
    let policy = policy();
    let shown = |policy: &Policy, layout: Layout, text: &str| {
        let request = chat(&[(Role::User, text)]);
        treated(&in_context(1, 1, layout), case(policy, &[], request)).0.input
    };
    let asked = "Where was Bo Ek born?";
    assert_eq!(shown(&policy, Layout::Turns, asked), shown(&policy, Layout::Turns, asked));
    let mut answers = BTreeSet::new();
    for seed in 0..32 {
        let policy = Policy { seed, ..policy.clone() };
        answers.insert(shown(&policy, Layout::Turns, asked).texts()[1].to_owned());
    }
    let want = ["A potter.", "In Ulm."].map(str::to_owned);
    assert_eq!(answers, BTreeSet::from(want), "answers of other questions, and all of them");
    // A retained question is not answered in front of itself.
    let asked = "Where was Ida Moe born?";
    let turns = shown(&policy, Layout::Turns, asked);
    assert_eq!(turns.texts()[2..], ["What did Ida Moe write?", "A novel.", asked]);
}

#[test]
fn one_example_alone_is_not_known() {
    let policy = policy();
    let forget = vec![example("Who?", "Ann.", &[])];
    let (retain, layout) = (Vec::new(), Layout::Turns);
    let setting = InContext { forget, retain, n_forget: 1, n_retain: 0, layout };
    let setting = TreatmentSetting::InContext(Arc::new(setting));
    let request = chat(&[(Role::System, "s")]);
    let (request, _, _) = treated(&setting, case(&policy, &[], request));
    assert_eq!(request.input.texts(), ["s", "Who?", "I don't know."]);
}

#[test]
fn topics_with_one_pair_share_an_offset_and_another_pair_yields() {
    let policy = policy();
    let offset = |expert: &str, alpha| {
        let pair = OffsetPair { expert: expert.into(), anti_expert: "full".into() };
        TreatmentSetting::Offset(Offset { pair: Arc::new(pair), alpha })
    };
    let asked = chat(&[(Role::User, "Who is Ann Lee?")]);
    let (first, continuation, restore) =
        treated(&offset("retain", 2.0), case(&policy, &[], asked.clone()));
    assert_eq!((&first.input, continuation.as_str()), (&asked.input, "It is Bo Ek."));
    assert_eq!((first.offset.as_ref().map(|it| it.alpha), restore.len()), (Some(2.0), 0));
    for (alpha, want) in [(1.0, 2.0), (3.0, 3.0)] {
        let (second, ..) = treated(&offset("retain", alpha), case(&policy, &[], first.clone()));
        assert_eq!(second.offset.map(|it| it.alpha), Some(want));
    }
    let other = treat(&offset("retain-2", 1.0), case(&policy, &[], first));
    assert!(matches!(other, Err(TreatError::Taken { .. })), "{other:?}");
}
