//! What leaves the window, however the text is cut.

use proptest::prelude::*;

use super::*;
use crate::types::{Finish, TokenLogprob, Usage};

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
        assert!(window.choices[&0].held.len() <= window.patterns.most_held());
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
