//! JSON text as a reader sees it, whole or piece by piece.
//!
//! A letter may be written in JSON as itself or as an escape. Here every escape in a string is undone
//! once, so that none hides a name, and what is put into a string cannot end it. JSON that is itself
//! written into a string keeps its own escapes.

use std::ops::Range;

/// Stands for the quotation marks around a string, so that those in it are ordinary characters. A
/// noncharacter of Unicode; text that holds it gets U+FFFD in its place.
pub const QUOTE: char = '\u{FDD0}';

/// JSON text with the escapes in its strings undone. It may be rewritten in place; what stands in a
/// string is escaped on the way out. Malformed JSON stays malformed, apart from escapes that no string
/// may have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Json(String);

impl Json {
    /// Reads JSON text.
    #[must_use]
    pub fn read(json: &str) -> Self {
        Self(JsonReader::default().push(json))
    }

    /// The text that detectors read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Puts a text in place of some bytes of [`Json::text`]. What is valid stays valid: of the strings
    /// that the bytes touch the marks stay, and what stood outside of strings becomes one. Bytes over
    /// several strings give each of them with a letter its share (see [`shares`]); keys between values
    /// stay.
    ///
    /// # Panics
    ///
    /// When the bytes do not lie in the text, or not on character boundaries.
    pub fn replace(&mut self, span: Range<usize>, with: &str) {
        let (before, rest) = self.0.split_at(span.start);
        let (old, after) = rest.split_at(span.len());
        let begins_inside = before.matches(QUOTE).count() % 2 == 1;
        let mut parts: Vec<&str> = old.split(QUOTE).collect();
        let strings = || (usize::from(!begins_inside)..parts.len()).step_by(2);
        let is_key = |at: usize| {
            let beyond = || after.split_once(QUOTE).map(|it| it.1);
            let next = parts.get(at + 1).copied().or_else(beyond);
            next.is_some_and(|it| it.trim_start().starts_with(':'))
        };
        let (first, last) = (strings().next(), strings().next_back());
        let over_keys = first.is_some_and(is_key);
        let mut takers: Vec<usize> = strings()
            .filter(|it| parts[*it].contains(char::is_alphanumeric))
            .filter(|it| Some(*it) == last || over_keys || !is_key(*it))
            .collect();
        if takers.is_empty() {
            takers.extend(first);
        }
        let shares = shares(with, takers.len());
        for (taker, share) in takers.iter().zip(&shares) {
            parts[*taker] = share;
        }
        let new = if takers.is_empty() {
            format!("{QUOTE}{with}{QUOTE}")
        } else {
            parts.join(QUOTE.encode_utf8(&mut [0; 4]))
        };
        self.0 = format!("{before}{new}{after}");
    }

    /// JSON text again.
    #[must_use]
    pub fn write(&self) -> String {
        JsonWriter::default().push(&self.0)
    }
}

/// A name's words over so many places, without commas: one for each, the last gets the rest.
#[must_use]
pub fn shares(name: &str, places: usize) -> Vec<String> {
    let mut words = name.split_whitespace().map(|it| it.trim_end_matches(','));
    let mut shares: Vec<String> =
        (1..places).map(|_| words.next().unwrap_or_default().to_owned()).collect();
    match places {
        0 => {}
        1 => shares.push(name.to_owned()),
        _ => shares.push(words.collect::<Vec<_>>().join(" ")),
    }
    shares
}

/// Undoes escapes in JSON text that arrives in pieces, wherever it is cut.
#[derive(Debug, Default)]
pub struct JsonReader {
    state: State,
    /// The first half of a character that is written as two escapes.
    high: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Outside,
    Inside,
    /// After a backslash.
    Escape,
    /// After `\u`, with what its digits say so far.
    Code {
        digits: u32,
        value: u32,
    },
}

impl JsonReader {
    /// The text of a further piece. An escape that is not complete waits for the next.
    pub fn push(&mut self, json: &str) -> String {
        let mut out = String::with_capacity(json.len());
        for c in json.chars() {
            self.step(c, &mut out);
        }
        out
    }

    fn step(&mut self, c: char, out: &mut String) {
        self.state = match self.state {
            State::Outside if c == '"' => {
                out.push(QUOTE);
                State::Inside
            }
            State::Outside => {
                out.push(plain(c));
                State::Outside
            }
            State::Inside if c == '\\' => State::Escape,
            State::Inside => {
                self.end_pair(out);
                if c == '"' {
                    out.push(QUOTE);
                    State::Outside
                } else {
                    out.push(plain(c));
                    State::Inside
                }
            }
            State::Escape if c == 'u' => State::Code { digits: 0, value: 0 },
            State::Escape => {
                self.end_pair(out);
                out.push(plain(unescaped(c)));
                State::Inside
            }
            State::Code { digits, value } => {
                let Some(digit) = c.to_digit(16) else {
                    // Four digits were due; this character is none of them.
                    self.end_pair(out);
                    out.push(char::REPLACEMENT_CHARACTER);
                    self.state = State::Inside;
                    return self.step(c, out);
                };
                let (digits, value) = (digits + 1, 16 * value + digit);
                if digits == 4 {
                    self.unit(value, out);
                    State::Inside
                } else {
                    State::Code { digits, value }
                }
            }
        };
    }

    /// Takes a unit of UTF-16.
    fn unit(&mut self, unit: u32, out: &mut String) {
        let low = (0xDC00..0xE000).contains(&unit);
        let code = match self.high {
            Some(high) if low => {
                self.high = None;
                0x10000 + ((high - 0xD800) << 10) + (unit - 0xDC00)
            }
            _ => unit,
        };
        self.end_pair(out);
        if (0xD800..0xDC00).contains(&code) {
            self.high = Some(code);
        } else {
            // Half a character is none.
            out.push(char::from_u32(code).map_or(char::REPLACEMENT_CHARACTER, plain));
        }
    }

    /// The second half of a character did not come.
    fn end_pair(&mut self, out: &mut String) {
        if self.high.take().is_some() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

fn plain(c: char) -> char {
    if c == QUOTE { char::REPLACEMENT_CHARACTER } else { c }
}

/// What a backslash and a character stand for. One that no string may escape stands for itself.
fn unescaped(c: char) -> char {
    match c {
        'b' => '\u{8}',
        'f' => '\u{C}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        other => other,
    }
}

/// Writes what a [`JsonReader`] read, or what became of it, as JSON again.
#[derive(Debug, Default)]
pub struct JsonWriter {
    inside: bool,
}

impl JsonWriter {
    /// JSON of a further piece.
    pub fn push(&mut self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                QUOTE => {
                    self.inside = !self.inside;
                    out.push('"');
                }
                _ if !self.inside => out.push(c),
                '"' | '\\' => out.extend(['\\', c]),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                _ if c < ' ' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                _ => out.push(c),
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The text with `|` for the marks around strings, and the JSON that comes out again.
    #[track_caller]
    fn check(json: &str, text: &str, again: &str) {
        let read = Json::read(json);
        assert_eq!(read.text().replace(QUOTE, "|"), text, "{json}");
        assert_eq!(read.write(), again, "{json}");
    }

    #[test]
    fn escapes_are_undone_in_strings_and_written_where_they_are_due() {
        check(r#"{"a": [1, true]}"#, "{|a|: [1, true]}", r#"{"a": [1, true]}"#);
        check(r#"["Zo\u00EB", "\/"]"#, "[|Zoë|, |/|]", r#"["Zoë", "/"]"#);
        check(r#""a\"b\\n\n\t\u0001""#, "|a\"b\\n\n\t\u{1}|", r#""a\"b\\n\n\t\u0001""#);
        check(r#""\ud83d\ude00""#, "|😀|", r#""😀""#);
        check("[]", "[]", "[]");
    }

    #[test]
    fn what_is_no_json_comes_to_no_harm() {
        check(r#""\ud83d x\ude00""#, "|\u{FFFD} x\u{FFFD}|", "\"\u{FFFD} x\u{FFFD}\"");
        check(r#""\ud83d\ud83d\ude00""#, "|\u{FFFD}😀|", "\"\u{FFFD}😀\"");
        check(r#""\u00e", 1"#, "|\u{FFFD}|, 1", "\"\u{FFFD}\", 1");
        check(r#""it\'s"#, "|it's", r#""it's"#);
        check("\"\u{FDD0}\"\u{FDD0}", "|\u{FFFD}|\u{FFFD}", "\"\u{FFFD}\"\u{FFFD}");
        check("not \\u0041 \"json", "not \\u0041 |json", "not \\u0041 \"json");
    }

    #[test]
    fn what_is_put_into_a_string_stays_in_it() {
        let mut json = Json::read(r#"{"who":"X"}"#);
        let at = json.text().find('X').unwrap();
        json.replace(at..at + 1, "Ann \"A\\\" Lee\n");
        assert_eq!(json.write(), r#"{"who":"Ann \"A\\\" Lee\n"}"#);
    }

    /// What becomes of a JSON text when the part from `first` to `last` makes place for `Z`.
    #[track_caller]
    fn replaced(json: &str, first: &str, last: &str, want: &str) {
        let mut read = Json::read(json);
        let start = read.text().find(first).unwrap();
        let end = read.text().rfind(last).unwrap() + last.len();
        read.replace(start..end, "Z");
        assert_eq!(read.write(), want, "{json}");
        assert!(serde_json::from_str::<Value>(want).is_ok());
    }

    #[test]
    fn what_reaches_over_several_strings_leaves_their_marks() {
        replaced(r#"["by Ann", "Lee, who"]"#, "Ann", "Lee", r#"["by Z", ", who"]"#);
        replaced(r#"["x", "a", "n", "n"]"#, "a", "n", r#"["x", "Z", "", ""]"#);
        replaced(r#"{"Ann": {"Lee": 1}}"#, "Ann", "Lee", r#"{"Z": {"": 1}}"#);
        // A name of digits may be a number.
        replaced(r#"{"year": 1984}"#, "1984", "1984", r#"{"year": "Z"}"#);
        replaced(r#"[19, "84 b"]"#, "19", "84", r#"[19, "Z b"]"#);
    }

    #[test]
    fn a_name_over_several_strings_keeps_the_keys_between() {
        let check = |json: &str, first: &str, last: &str, want: &str| {
            let mut read = Json::read(json);
            let start = read.text().find(first).unwrap();
            let end = read.text().rfind(last).unwrap() + last.len();
            read.replace(start..end, "Zorvan Kell");
            assert_eq!(read.write(), want);
        };
        check(
            r#"{"first":"Ann","middle":"","last":"Lee"}"#,
            "Ann",
            "Lee",
            r#"{"first":"Zorvan","middle":"","last":"Kell"}"#,
        );
        check(r#"{"Ann":1, "Lee" : 2}"#, "Ann", "Lee", r#"{"Zorvan":1, "Kell" : 2}"#);
        check(r#"{"Ann": "Lee"}"#, "Ann", "Lee", r#"{"Zorvan": "Kell"}"#);
        assert_eq!(shares("Zora", 2), ["Zora", ""]);
        assert_eq!(shares("C, A B", 2), ["C", "A B"]);
    }

    proptest! {
        #[test]
        fn json_means_the_same_afterwards_however_it_was_cut(
            text in "(\\PC|[\"\\\\\n\u{1}é]){0,20}", escaped in any::<bool>(), step in 1..9usize,
        ) {
            let units = |it: &str| -> String {
                it.encode_utf16().map(|it| format!("\\u{it:04x}")).collect()
            };
            let own = if escaped { format!("\"{}\"", units(&text)) } else { Value::from(text.as_str()).to_string() };
            let json = format!("{{\"k\": [{own}, null]}}");
            let chars: Vec<char> = json.chars().collect();
            let mut reader = JsonReader::default();
            let pieces = chars.chunks(step).map(|it| reader.push(&it.iter().collect::<String>()));
            let read: String = pieces.collect();
            let whole = Json::read(&json);
            prop_assert_eq!(read.as_str(), whole.text());
            let mut writer = JsonWriter::default();
            let again: Value = serde_json::from_str(&writer.push(&read)).unwrap();
            prop_assert_eq!(again, serde_json::from_str::<Value>(&json).unwrap());
        }
    }
}
