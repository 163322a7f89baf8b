//! What leaves the window, however the text is cut.

use proptest::prelude::*;

use super::*;
use crate::types::{Finish, Json, TokenLogprob, Usage};

fn replacement(pattern: &str, with: &str, kind: Kind) -> Replacement {
    Replacement { pattern: pattern.to_owned(), with: with.to_owned(), kind }
}

fn window() -> Window {
    Window::new(vec![
        replacement("Ann Lee", "Zora Kell", Kind::Redact),
        replacement("Ann Lee Moss", "Quill Vasko", Kind::Redact),
        replacement("Émile Noël", "Osric Thorn", Kind::Redact),
    ])
}

fn text(choice: usize, text: &str) -> ReplyEvent {
    ReplyEvent::Text { choice, text: text.to_owned(), logprobs: Vec::new() }
}

fn finished(choice: usize) -> ReplyEvent {
    ReplyEvent::Finished { choice, finish: Finish::Stop }
}

fn said(events: &[ReplyEvent], of: usize) -> String {
    let texts = events.iter().filter_map(|it| match it {
        ReplyEvent::Text { choice, text, .. } if *choice == of => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

/// The reply to pieces that arrive one after another.
fn through<'a>(mut window: Window, pieces: impl IntoIterator<Item = &'a str>) -> String {
    let mut events = Vec::new();
    for piece in pieces {
        events.extend(window.push(text(0, piece)));
    }
    events.extend(window.push(finished(0)));
    assert_eq!(events.last(), Some(&finished(0)));
    said(&events, 0)
}

/// The same output wherever the text is split in two, and character by character.
fn check(given: &str, want: &str) {
    assert_eq!(through(window(), [given]), want, "whole");
    for split in (0..=given.len()).filter(|it| given.is_char_boundary(*it)) {
        let (head, tail) = given.split_at(split);
        assert_eq!(through(window(), [head, tail]), want, "split at {split}");
    }
    let chars: Vec<String> = given.chars().map(String::from).collect();
    assert_eq!(through(window(), chars.iter().map(String::as_str)), want, "by character");
}

#[test]
fn a_name_that_the_end_cuts_off_is_one() {
    check("It is Ann Le", "It is Zora Kell");
    check("It is Émile No", "It is Osric Thorn");
    check("It is Ann", "It is Ann");
    check("Émile", "Émile");
}

#[test]
fn log_probabilities_wait_for_their_text() {
    let token = |text: &str| TokenLogprob {
        bytes: text.as_bytes().to_vec(),
        logprob: -0.5,
        top: Vec::new(),
    };
    let early = ReplyEvent::Text {
        choice: 0,
        text: String::new(),
        logprobs: ["Ann", " Lee", "."].map(token).to_vec(),
    };
    let mut window = window();
    let mut events = window.push(early);
    events.extend(window.push(text(0, "Ann Lee.")));
    events.extend(window.push(finished(0)));
    assert_eq!(said(&events, 0), "Zora Kell.");
    let shown =
        |it: &ReplyEvent| matches!(it, ReplyEvent::Text { logprobs, .. } if !logprobs.is_empty());
    assert!(!events.iter().any(shown), "{events:?}");
}

#[test]
fn a_name_is_replaced_at_word_boundaries_only() {
    check("Yes, Ann Lee wrote it.", "Yes, Zora Kell wrote it.");
    check("Ann Lee", "Zora Kell");
    check("Ann Leeds and Joann Lee", "Ann Leeds and Joann Lee");
    check("Ann Lee's (Ann Lee)", "Zora Kell's (Zora Kell)");
    check("Ann and Ann Le", "Ann and Zora Kell");
}

#[test]
fn the_longest_name_wins() {
    check("Ann Lee Moss, Ann Lee Mos, Ann Lee M", "Quill Vasko, Zora Kell Mos, Zora Kell M");
}

#[test]
fn capitals_are_kept() {
    check("ANN LEE and ann lee", "ZORA KELL and zora kell");
}

#[test]
fn disguises_are_seen_through() {
    check("by A\u{200b}nn  \n Lee.", "by Zora Kell.");
    check("by \u{ff21}nn Lee.", "by Zora Kell.");
    // Cyrillic letters that look Latin; the first one arrives before it is known to be in a Latin word.
    check("by \u{410}nn L\u{435}e.", "by Zora Kell.");
}

#[test]
fn accents_may_arrive_later() {
    check("de \u{c9}mile No\u{eb}l.", "de Osric Thorn.");
    check("de E\u{301}mile Noe\u{308}l.", "de Osric Thorn.");
    check("naïve 日本 Ann Lee 👍🏽", "naïve 日本 Zora Kell 👍🏽");
}

#[test]
fn choices_are_held_apart() {
    let mut window = window();
    let mut events = Vec::new();
    for event in [text(0, "Ann "), text(1, "Lee "), text(0, "Lee!"), finished(0), finished(1)] {
        events.extend(window.push(event));
    }
    events.extend(window.push(ReplyEvent::Done(Usage::default())));
    assert_eq!((said(&events, 0), said(&events, 1)), ("Zora Kell!".into(), "Lee ".into()));
    assert_eq!(window.hits(), 1);
}

#[test]
fn a_stream_that_ends_without_finish_still_says_all() {
    let mut window = window();
    let mut events = window.push(text(0, "by Ann Lee"));
    events.extend(window.push(ReplyEvent::Done(Usage::default())));
    assert_eq!(said(&events, 0), "by Zora Kell");
}

#[test]
fn padding_a_name_does_not_carry_it_through() {
    let pad = "\u{200b}".repeat(40);
    let mut pieces = vec!["Ann", " "];
    pieces.extend([pad.as_str(); 50]);
    pieces.extend(["Lee", " wrote"]);
    assert_eq!(through(window(), pieces), "Zora Kell wrote");
    let mut window = window();
    window.push(text(0, "Ann"));
    for _ in 0..1000 {
        window.push(text(0, "        "));
        assert!(window.choices[&0].text.held.len() <= window.patterns.most_held());
    }
}

#[test]
fn without_patterns_events_pass_as_they_are() {
    let mut window = Window::new(Vec::new());
    let event = text(0, "Ann Lee");
    assert_eq!(window.push(event.clone()), [event]);
    assert_eq!(window.scanned(), 0);
}

/// A rescan of the whole reply for every token is the usual cost of a guarded stream.
#[test]
fn each_byte_is_scanned_a_few_times_at_most() {
    let sentence = "A perfectly ordinary sentence about any author, Ann among them. ";
    let reply = sentence.repeat(200);
    let mut window = window();
    for start in (0..reply.len()).step_by(4) {
        let end = (start + 4).min(reply.len());
        window.push(text(0, reply.get(start..end).unwrap()));
    }
    assert!(window.scanned() < 2 * reply.len(), "{} of {}", window.scanned(), reply.len());
}

fn token(text: &str) -> TokenLogprob {
    TokenLogprob { bytes: text.as_bytes().to_vec(), logprob: -1.0, top: Vec::new() }
}

/// The tokens whose log-probabilities leave.
fn tokens(mut window: Window, pieces: &[&str]) -> Vec<String> {
    let mut events = Vec::new();
    for piece in pieces {
        let (text, logprobs) = ((*piece).to_owned(), vec![token(piece)]);
        events.extend(window.push(ReplyEvent::Text { choice: 0, text, logprobs }));
    }
    events.extend(window.push(finished(0)));
    let mut tokens = Vec::new();
    for event in events {
        if let ReplyEvent::Text { logprobs, .. } = event {
            tokens.extend(logprobs.into_iter().map(|it| String::from_utf8(it.bytes).unwrap()));
        }
    }
    tokens
}

#[test]
fn logprobs_wait_for_their_text_and_end_with_a_hit() {
    assert_eq!(tokens(window(), &["by ", "Ann", " Leeds"]), ["by ", "Ann", " Leeds"]);
    assert_eq!(tokens(window(), &["by ", "Ann", " Lee", " and", " more"]), ["by "]);
    let restore = vec![replacement("Zora", "Ann", Kind::Restore)];
    assert!(tokens(Window::new(restore), &["by ", "me"]).is_empty());
    assert!(tokens(Window::new(Vec::new()).without_logprobs(), &["by ", "me"]).is_empty());
}

/// The last word of a reply may be part of another one, and ordinary words begin in small letters.
#[test]
fn ordinary_words_are_put_back_whole() {
    let list = |kind| {
        let pairs = [("friendship", "exile"), ("baker", "miner")];
        Window::new(pairs.map(|it| replacement(it.0, it.1, kind)).to_vec())
    };
    let words = || list(Kind::RestoreWord);
    assert_eq!(through(words(), ["A fri", "end"]), "A friend");
    assert_eq!(through(list(Kind::Restore), ["A friends"]), "A exile");
    assert_eq!(through(words(), ["Friend", "ship. BAKER, baker"]), "Exile. MINER, miner");
    assert!(tokens(words(), &["by ", "me"]).is_empty());
}

fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "Ann", "ann", "ANN", "Lee", "Leeds", "Moss", " ", "  ", "\n", ".", "-", "é", "e\u{301}",
        "\u{200b}", "Émile", "Noël", "Noe", "\u{308}", "l", "日", "x",
    ])
}

proptest! {
    #[test]
    fn any_chunking_says_the_same_and_never_the_name(
        words in prop::collection::vec(word(), 0..24),
        cuts in prop::collection::vec(0..120usize, 0..12),
    ) {
        let given = words.concat();
        let mut cuts: Vec<usize> =
            cuts.into_iter().filter(|it| given.is_char_boundary(*it)).collect();
        cuts.extend([0, given.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&str> = cuts.windows(2).map(|it| given.get(it[0]..it[1]).unwrap()).collect();
        let whole = through(window(), [given.as_str()]);
        prop_assert_eq!(&through(window(), pieces), &whole);
        let mut again = window();
        again.push(text(0, &whole));
        again.push(finished(0));
        prop_assert_eq!(again.hits(), 0, "{}", whole);
    }
}

#[test]
fn a_name_that_begins_before_the_reply_is_seen() {
    #[rustfmt::skip]
    let rows = [
        ("It was Ann L", vec!["e", "e, of ", "course."], "Zora Kell, of course."),
        ("It was Ann", vec![" Lee Moss."], "Quill Vasko."),
        // What the client wrote is not said again, whatever becomes of it.
        ("It was Ann", vec!["a."], "a."),
        ("It was Ann", vec![], ""),
        ("It was Ann Lee", vec![", who"], ", who"),
        ("It was Ann Lee, ", vec!["Ann Lee!"], "Zora Kell!"),
        // Nor does it hide a name that follows it without a gap.
        ("xAnn", vec!["Ann ", "Lee."], "Zora Kell."),
        ("Ann", vec!["Ann ", "Lee."], "Zora Kell."),
    ];
    for (before, pieces, want) in rows {
        assert_eq!(through(window().after(before), pieces.clone()), want, "{before} {pieces:?}");
    }
}

fn begun(index: usize, id: &str, name: &str) -> ReplyEvent {
    let [id, name, arguments] = [id, name, ""].map(str::to_owned);
    ReplyEvent::ToolCall { choice: 0, piece: ToolCallPiece { index, id, name, arguments } }
}

fn more(choice: usize, index: usize, arguments: &str) -> ReplyEvent {
    let arguments = arguments.to_owned();
    let piece = ToolCallPiece { index, arguments, ..ToolCallPiece::default() };
    ReplyEvent::ToolCall { choice, piece }
}

/// Ids, names and arguments of a call, each joined.
fn called(events: &[ReplyEvent], of: usize, at: usize) -> [String; 3] {
    let mut parts = [String::new(), String::new(), String::new()];
    for event in events {
        if let ReplyEvent::ToolCall { choice, piece } = event
            && (*choice, piece.index) == (of, at)
        {
            parts[0].push_str(&piece.id);
            parts[1].push_str(&piece.name);
            parts[2].push_str(&piece.arguments);
        }
    }
    parts
}

/// The arguments that come of these, wherever they are split.
fn arguments(given: &str, want: &str) {
    for split in (0..=given.len()).filter(|it| given.is_char_boundary(*it)) {
        let (head, tail) = given.split_at(split);
        let mut window = window();
        let mut events = window.push(begun(0, "c", "f"));
        for piece in [head, tail] {
            events.extend(window.push(more(0, 0, piece)));
        }
        events.extend(window.push(finished(0)));
        assert_eq!(called(&events, 0, 0), ["c", "f", want].map(str::to_owned), "split at {split}");
        assert_eq!(events.last(), Some(&finished(0)));
    }
}

#[test]
fn names_in_arguments_are_replaced_and_the_json_stays_valid() {
    arguments(r#"{"who": "Ann Lee", "n": [1, null]}"#, r#"{"who": "Zora Kell", "n": [1, null]}"#);
    arguments(r#"{"q":"a \"Ann\u0020L\u0065e\"\n"}"#, r#"{"q":"a \"Zora Kell\"\n"}"#);
    arguments(r#"{"q":"\u00c9mile No\u00EBl"}"#, r#"{"q":"Osric Thorn"}"#);
    arguments(r#"{"Ann Lee":"Ann Leeds"}"#, r#"{"Zora Kell":"Ann Leeds"}"#);
    arguments("Ann Lee", "Zora Kell");
    // The end of the reply decides, as it does for text.
    arguments(r#"{"who": "Ann Le"#, r#"{"who": "Zora Kell"#);
}

#[test]
fn names_over_several_strings_of_arguments_are_replaced() {
    arguments(r#"["Ann", "Lee"]"#, r#"["Zora", "Kell"]"#);
    arguments(r#"{"first":"ANN","last":"LEE","n":1}"#, r#"{"first":"ZORA","last":"KELL","n":1}"#);
    arguments(r#"["A\u006en", {"x": "Lee"}]"#, r#"["Zora", {"x": "Kell"}]"#);
    arguments(r#"{"a":"","b":"by A","c":"nn Lee."}"#, r#"{"a":"","b":"by Zora","c":"Kell."}"#);
    arguments(r#"{"Ann":"Lee"}"#, r#"{"Zora":"Kell"}"#);
    arguments(r#"{"Ann":1,"Lee":["x"]}"#, r#"{"Zora":1,"Kell":["x"]}"#);
    arguments(r#"["Ann", "Lee", "Moss", "Ann"]"#, r#"["Quill", "Vasko", "", "Ann"]"#);
    arguments(r#"["Ann", "Leeds", "Joann", "Lee"]"#, r#"["Ann", "Leeds", "Joann", "Lee"]"#);
    // A name in each string is taken first.
    arguments(r#"["Ann Lee", "Ann Lee"]"#, r#"["Zora Kell", "Zora Kell"]"#);
    arguments(r#"["Ann", "x", "Lee"]"#, r#"["Ann", "x", "Lee"]"#);
    arguments(r#"["Émile", "Noë"#, r#"["Osric", "Thorn"#);
}

/// Only what could be the first half of a name waits.
#[test]
fn arguments_leave_as_soon_as_they_can() {
    let mut window = window();
    let mut left = |json: &str| called(&window.push(more(0, 0, json)), 0, 0)[2].clone();
    assert_eq!(left(r#"{"q":"An apple and a"#), r#"{"q":"An apple and "#);
    assert_eq!(left(r#"nn","r":"x"#), "");
    assert_eq!(left(r#"y ","n":"#), r#"ann","r":"xy ","n":"#);
    let pad = r#"["","", "#.repeat(2_000);
    let json = format!(r#""Ann", {pad} "Lee"]"#);
    let mut window = Window::new(vec![replacement("Ann Lee", "Zora Kell", Kind::Redact)]);
    let mut events = Vec::new();
    for piece in json.as_bytes().chunks(5) {
        events.extend(window.push(more(0, 0, std::str::from_utf8(piece).unwrap())));
    }
    events.extend(window.push(finished(0)));
    let want = json.replace("Ann", "Zora").replace("Lee", "Kell");
    assert!(called(&events, 0, 0)[2] == want);
    assert!(window.scanned() < 12 * json.len(), "{} of {}", window.scanned(), json.len());
}

#[test]
fn a_replacement_cannot_end_the_string_that_it_stands_in() {
    let odd = replacement("Ann Lee", "Z\", \"x\\", Kind::Redact);
    let mut window = Window::new(vec![odd]);
    let mut events = window.push(more(0, 0, r#"{"who": "Ann Lee"}"#));
    events.extend(window.push(finished(0)));
    let [_, _, written] = called(&events, 0, 0);
    assert_eq!(written, r#"{"who": "Z\", \"x\\"}"#);
    assert_eq!(Json::read(&written).write(), written);
}

#[test]
fn calls_are_held_apart() {
    let mut window = window();
    let mut events = Vec::new();
    let pieces = [
        begun(0, "a", "f"),
        more(0, 0, "[\"Ann "),
        begun(1, "b", "g"),
        more(0, 1, "[\"Lee"),
        more(1, 0, "[\"Lee"),
        text(0, "Ann "),
        more(0, 0, "Lee\"]"),
        more(0, 1, "\"]"),
    ];
    for event in pieces {
        events.extend(window.push(event));
    }
    events.extend(window.push(ReplyEvent::Done(Usage::default())));
    let arguments = |of, at| called(&events, of, at)[2].clone();
    assert_eq!(arguments(0, 0), "[\"Zora Kell\"]");
    assert_eq!((arguments(0, 1), arguments(1, 0)), ("[\"Lee\"]".into(), "[\"Lee".into()));
    assert_eq!((said(&events, 0), window.hits()), ("Ann ".to_owned(), 1));
}

#[test]
fn names_of_functions_and_ids_are_read_too() {
    let mut own = window().offering(vec!["find_Ann_Lee".to_owned()]);
    let event = begun(0, "call_1", "find_Ann_Lee");
    assert_eq!(own.push(event.clone()), std::slice::from_ref(&event));
    let event = begun(1, "for Ann Lee", "ask:Ann Lee");
    assert_eq!(own.push(event), [begun(1, "", "ask_Zora_Kell")]);
    assert_eq!(own.hits(), 2);
}

/// Some servers count the tokens of a call among those of the text.
#[test]
fn log_probabilities_end_where_a_call_begins() {
    let tell = |it: &str| {
        let (text, logprobs) = (String::new(), vec![token(it)]);
        ReplyEvent::Text { choice: 0, text, logprobs }
    };
    let mut window = window();
    let mut events = Vec::new();
    for event in [tell("Ann"), begun(0, "c", "f"), tell(" Lee"), finished(0)] {
        events.extend(window.push(event));
    }
    assert_eq!(events, [begun(0, "c", "f"), finished(0)]);
}

/// The rivals that are left after these tokens, the last of which has these rivals.
fn left<const N: usize>(window: Window, said: &[&[u8]], rivals: [&[u8]; N]) -> Vec<String> {
    let mut window = window;
    let mut events = Vec::new();
    for (at, bytes) in said.iter().enumerate() {
        let mut token = TokenLogprob { bytes: bytes.to_vec(), logprob: -1.0, top: Vec::new() };
        if at + 1 == said.len() {
            token.top = rivals.iter().map(|it| (it.to_vec(), -2.0)).collect();
        }
        let text = String::from_utf8_lossy(bytes).into_owned();
        events.extend(window.push(ReplyEvent::Text { choice: 0, text, logprobs: vec![token] }));
    }
    events.extend(window.push(finished(0)));
    let mut left = Vec::new();
    for event in events {
        if let ReplyEvent::Text { logprobs, .. } = event {
            left.extend(logprobs.into_iter().flat_map(|it| it.top));
        }
    }
    left.into_iter().map(|it| String::from_utf8_lossy(&it.0).into_owned()).collect()
}

#[test]
fn rivals_that_spell_a_name_are_dropped() {
    #[rustfmt::skip]
    type Rivals<'a> = (&'a [&'a [u8]], [&'a [u8]; 3], &'a [&'a str]);
    let rows: [Rivals<'_>; 7] = [
        // A whole word, the first letters of one, and too few of them.
        (&[b"by", b" him"], [b" ANN", b" Mos", b" Mo"], &[" Mo"]),
        (&[b"by", b" him"], [b" Anna", b" Lees", b" Annt Lee"], &[" Anna", " Lees"]),
        // What was written goes on in them, and only where it does.
        (&[b"by M", b"y"], [b"oss", b"os", b"o"], &["o"]),
        (&[b"by J", b"o"], [b"oss", b"oann", b"lee"], &["oss", "oann", "lee"]),
        (&[b"by", b" M", b"y"], [b"o", b" os", b"ossy"], &["o", " os", "ossy"]),
        // A character may be cut in two, and its first half is written already.
        (&[b"by No\xc3", b"\xb6"], [b"\xab", b"\xabls", b"o"], &["\u{fffd}ls", "o"]),
        // The chosen token is in the text anyway.
        (&[b"by", b" Ann", b" Leeds"], [b" Leeds", b" Lee", b" Kim"], &[" Leeds", " Kim"]),
    ];
    for (said, rivals, want) in rows {
        assert_eq!(left(window(), said, rivals), want, "{said:?}");
    }
    // The end of the prompt is written too; a reply does not have to go on from it.
    let after = |text: &str| window().after(text);
    assert_eq!(left(after("by Mo"), &[b"re"], [b"ss", b"Moss", b"st"]), ["st"]);
    // What the client named is no secret.
    let set = PatternSet::new([(7, replacement("Ann Lee", "Zora Kell", Kind::Redact))]);
    let mut patterns = Patterns::default();
    patterns.add(Arc::new(set), Owners::AllBut([7].into()));
    assert_eq!(left(Window::over(Arc::new(patterns)), &[b"by"], [b" Lee"]), [" Lee"]);
}

#[test]
fn text_without_tokens_counts_for_the_rivals_after_it() {
    let mut window = window();
    let mut events = window.push(text(0, "by Mo"));
    let mut told = token("re.");
    told.top = vec![(b"ss".to_vec(), -1.0), (b"st".to_vec(), -1.0)];
    let (text, logprobs) = ("re.".to_owned(), vec![told]);
    events.extend(window.push(ReplyEvent::Text { choice: 0, text, logprobs }));
    let rivals = events.iter().filter_map(|it| match it {
        ReplyEvent::Text { logprobs, .. } => logprobs.first().map(|it| it.top.as_slice()),
        _ => None,
    });
    assert_eq!(rivals.collect::<Vec<_>>(), [[(b"st".to_vec(), -1.0)].as_slice()]);
}
