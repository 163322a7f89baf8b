//! The text as a reader sees it: one spelling for all the ways to write the same letters.

use std::ops::Range;

use unicode_normalization::char::{canonical_combining_class, compose, decompose_compatible};

/// A normalised text and where each of its characters came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalised {
    /// NFKC in lower case, without invisible characters and accents, look-alikes of other scripts
    /// replaced by Latin letters, whitespace runs by one space, typographic quotes and dashes by
    /// ASCII ones.
    pub text: String,
    map: Vec<Piece>,
    original_len: usize,
}

/// One character of the normalised text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    at: usize,
    from: usize,
    to: usize,
}

impl Normalised {
    /// The bytes of the original text that a range of the normalised one came from, on character
    /// boundaries. A range that ends inside a character takes the whole of it; an empty one stays
    /// empty; what lies past the end is cut off.
    #[must_use]
    pub fn original_span(&self, normalised: Range<usize>) -> Range<usize> {
        if normalised.start >= self.text.len() {
            return self.original_len..self.original_len;
        }
        let first = self.map.partition_point(|it| it.at <= normalised.start).saturating_sub(1);
        let from = self.map.get(first).map_or(self.original_len, |it| it.from);
        if normalised.end <= normalised.start {
            return from..from;
        }
        let last = self.map.partition_point(|it| it.at < normalised.end).saturating_sub(1);
        from..self.map.get(last).map_or(from, |it| it.to.max(from))
    }

    /// A view without text yet, of the same original.
    pub(super) fn blank(&self) -> Self {
        Self { text: String::new(), map: Vec::new(), original_len: self.original_len }
    }

    /// The characters, and the bytes of the original text that each came from.
    pub(super) fn glyphs(&self) -> impl Iterator<Item = (char, Range<usize>)> + '_ {
        self.text.chars().zip(self.map.iter().map(|it| it.from..it.to))
    }

    pub(super) fn push(&mut self, c: char, from: usize, to: usize) {
        if c == ' ' && self.text.ends_with(' ') {
            self.extend_last(to);
            return;
        }
        self.map.push(Piece { at: self.text.len(), from, to });
        self.text.push(c);
    }

    pub(super) fn extend_last(&mut self, to: usize) {
        if let Some(last) = self.map.last_mut() {
            last.to = to;
        }
    }

    /// Adds a character, composed with the one before it where Unicode has a single one for both.
    fn push_composed(&mut self, c: char, from: usize, to: usize) {
        let joins = canonical_combining_class(c) != 0 || is_hangul_jamo(c);
        let joined = self.text.chars().next_back().filter(|_| joins).and_then(|it| compose(it, c));
        if let Some(joined) = joined {
            self.text.pop();
            self.text.push(joined);
            self.extend_last(to);
        } else {
            self.push(c, from, to);
        }
    }
}

/// Most characters that one character is taken apart into. What Unicode has longer ones for, whole
/// Arabic phrases and the like, hides no name, and would make a text eleven times as long.
const MAX_PARTS: usize = 4;

/// Normalises a text in linear time; the view has at most four characters for one of the text.
///
/// Goes beyond NFKC in three ways. Accents go, because a mark on a letter hides a name at no cost to
/// the reader. Cyrillic and Greek letters that look Latin in either case become Latin ones, so
/// words in those scripts come out mixed; both sides of a comparison must be normalised. Letters
/// compose pairwise with what follows, without the reordering of marks that NFKC asks for.
#[must_use]
pub fn normalise(text: &str) -> Normalised {
    let mut out = Normalised {
        text: String::with_capacity(text.len()),
        map: Vec::with_capacity(text.len()),
        original_len: text.len(),
    };
    for (from, c) in text.char_indices() {
        let to = from + c.len_utf8();
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase(), from, to);
        } else if c.is_whitespace() {
            out.push(' ', from, to);
        } else if is_accent(c) {
            out.extend_last(to);
        } else if let Some(plain) = punctuation(c) {
            out.push(plain, from, to);
        } else if !is_invisible(c) {
            let mut parts = 0;
            decompose_compatible(c, |_| parts += 1);
            if parts > MAX_PARTS {
                out.push(c, from, to);
            } else {
                decompose_compatible(c, |part| push_part(&mut out, part, from, to));
            }
        }
    }
    out
}

/// Adds one character of a compatibility decomposition.
fn push_part(out: &mut Normalised, part: char, from: usize, to: usize) {
    if is_accent(part) || is_invisible(part) {
        out.extend_last(to);
    } else if part.is_whitespace() {
        out.push(' ', from, to);
    } else {
        for lower in part.to_lowercase().filter(|it| !is_accent(*it)) {
            out.push_composed(latin_twin(lower), from, to);
        }
    }
}

fn is_hangul_jamo(c: char) -> bool {
    matches!(c, '\u{1161}'..='\u{1175}' | '\u{11A8}'..='\u{11C2}')
}

/// Marks that sit on Latin, Greek and Cyrillic letters. Vowel signs of other scripts are letters to
/// their readers and stay.
fn is_accent(c: char) -> bool {
    matches!(c,
        '\u{0300}'..='\u{036F}' | '\u{0483}'..='\u{0489}' | '\u{1AB0}'..='\u{1AFF}'
        | '\u{1DC0}'..='\u{1DFF}' | '\u{20D0}'..='\u{20FF}' | '\u{FE20}'..='\u{FE2F}')
}

/// Controls, and characters that Unicode calls default-ignorable: joiners, direction marks, tags.
pub(super) fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00AD}' | '\u{061C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
            | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E0FFF}')
}

fn punctuation(c: char) -> Option<char> {
    match c {
        '‘' | '’' | '‚' | '‛' | '′' | 'ʼ' | 'ʹ' | '´' | '`' => Some('\''),
        '“' | '”' | '„' | '‟' | '″' | '«' | '»' => Some('"'),
        '‐' | '‑' | '‒' | '–' | '—' | '―' | '−' => Some('-'),
        _ => None,
    }
}

/// The Latin letter that a lower-case Cyrillic or Greek one, or its capital, looks like.
fn latin_twin(c: char) -> char {
    match c {
        'а' | 'α' => 'a',
        'в' | 'β' => 'b',
        'с' | 'ϲ' => 'c',
        'ԁ' => 'd',
        'е' | 'ε' => 'e',
        'ɡ' => 'g',
        'н' | 'һ' | 'η' => 'h',
        'і' | 'ι' | 'ı' | 'ӏ' => 'i',
        'ј' | 'ϳ' => 'j',
        'к' | 'κ' => 'k',
        'м' | 'μ' => 'm',
        'ν' => 'n',
        'о' | 'ο' | 'օ' => 'o',
        'р' | 'ρ' => 'p',
        'ԛ' => 'q',
        'ѕ' => 's',
        'т' | 'τ' => 't',
        'ѵ' => 'v',
        'ԝ' => 'w',
        'х' | 'χ' => 'x',
        'у' | 'υ' | 'ү' => 'y',
        'ζ' => 'z',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        assert_eq!(normalise(text).text, want);
    }

    #[test]
    fn undoes_the_usual_disguises() {
        check("Bas\u{200B}il  Ma\u{00AD}hfouz", "basil mahfouz");
        check("Вasіl", "basil");
        check("B\u{0301}\u{0336}asil", "basil");
        check("Ｂａｓｉｌ", "basil");
        check("a\u{00A0}\r\n\tb", "a b");
        check("“it’s”—ﬁne…", "\"it's\"-fine...");
        check("José Jose\u{0301}", "jose jose");
        check("㎏\u{FDFA}", "kg\u{FDFA}");
    }

    #[test]
    fn keeps_letters_of_other_scripts_whole() {
        check("が か\u{3099} 한 \u{1112}\u{1161}\u{11AB}", "が が 한 한");
    }

    #[test]
    fn a_span_covers_what_was_removed_inside_it() {
        let text = "x Jo\u{200B}se\u{0301}, y";
        let view = normalise(text);
        let at = view.text.find("jose").unwrap();
        let span = view.original_span(at..at + 4);
        assert_eq!(text.get(span), Some("Jo\u{200B}se\u{0301}"));
    }

    proptest! {
        #[test]
        fn spans_lie_in_the_text_on_character_boundaries(
            text in "(\\PC|[a-zé ‘\u{200B}\u{0301}ﬁ\u{FDFA}\n]){0,60}", a in 0usize..300, b in 0usize..300,
        ) {
            let view = normalise(&text);
            let span = view.original_span(a..b);
            prop_assert!(span.start <= span.end, "{span:?}");
            prop_assert!(text.get(span.clone()).is_some(), "{span:?}");
            prop_assert_eq!(view.original_span(0..0).len(), 0);
            prop_assert!(!view.text.contains("  "));
        }
    }
}
