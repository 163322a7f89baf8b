//! Matching on the normalised view of a text, with spans of the original.

use std::collections::HashMap;
use std::ops::Range;

use unicode_normalization::char::{decompose_canonical, is_combining_mark};

use super::{Kind, Replacement};
use crate::text::normalise::{Normalised, normalise};

/// Letters from which on the beginning of a name at the end of a reply counts as the name.
const FEWEST_TELLING: usize = 5;

/// Replacements, ready to be looked for.
#[derive(Debug)]
pub struct Patterns {
    list: Vec<Pattern>,
    /// Indices into `list` by first character, longest pattern first.
    by_first: HashMap<char, Vec<usize>>,
    restores: bool,
    most_held: usize,
}

#[derive(Debug)]
struct Pattern {
    chars: Vec<char>,
    text: String,
    with: String,
}

/// What a scan found.
#[derive(Debug)]
pub(super) struct Scan {
    /// Text to release, replacements made.
    pub(super) out: String,
    /// Bytes of the scanned text that `out` stands for; the rest must wait.
    pub(super) cut: usize,
    /// The last visible character before `cut`.
    pub(super) previous: Option<char>,
    /// Replacements made.
    pub(super) hits: usize,
}

/// A character of the view and the bytes of the normalised text that it comes from.
#[derive(Debug, Clone)]
struct Glyph {
    ch: char,
    span: Range<usize>,
}

enum Found {
    Nothing,
    Match(usize),
    /// Later text decides.
    Undecided,
}

impl Patterns {
    /// Prepares replacements. Of two with the same pattern the first one wins; a pattern without a
    /// visible character is left out.
    #[must_use]
    pub fn new(replacements: Vec<Replacement>) -> Self {
        let restores = replacements.iter().any(|it| it.kind == Kind::Restore);
        let mut list: Vec<Pattern> = Vec::new();
        let mut by_first: HashMap<char, Vec<usize>> = HashMap::new();
        let mut longest = 0;
        for it in replacements {
            let pattern = it.pattern.trim();
            let chars: Vec<char> = view(&normalise(pattern)).iter().map(|it| it.ch).collect();
            let Some(first) = chars.first() else { continue };
            let same = by_first.entry(*first).or_default();
            if same.iter().any(|known| list[*known].chars == chars) {
                continue;
            }
            longest = longest.max(pattern.len());
            same.push(list.len());
            list.push(Pattern { chars, text: pattern.to_owned(), with: it.with });
        }
        for indices in by_first.values_mut() {
            indices.sort_by_key(|it| std::cmp::Reverse(list[*it].chars.len()));
        }
        Self { list, by_first, restores, most_held: longest * 4 + 64 }
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a treatment's words are put back, which makes log-probabilities meaningless.
    #[must_use]
    pub fn restores(&self) -> bool {
        self.restores
    }

    /// Most bytes that a choice may hold back.
    pub(super) fn most_held(&self) -> usize {
        self.most_held
    }

    /// Replaces from the left, the longest pattern first, up to where later text could decide. The
    /// first `own` bytes are the client's: they are matched and do not appear in the output.
    pub(super) fn scan(
        &self,
        text: &str,
        own: usize,
        previous: Option<char>,
        finished: bool,
    ) -> Scan {
        let reply = |span: Range<usize>| slice(text, span.start.max(own)..span.end.max(own));
        let normalised = normalise(text);
        let glyphs = view(&normalised);
        let mut scan = Scan { out: String::new(), cut: 0, previous, hits: 0 };
        let mut at = 0;
        while let Some(glyph) = glyphs.get(at) {
            // What the client wrote must not glue itself to a name that the reply begins with.
            let begins = own > 0
                && at > 0
                && normalised.original_span(glyph.span.clone()).start >= own
                && normalised.original_span(glyphs[at - 1].span.clone()).start < own;
            if begins {
                scan.previous = None;
            }
            match self.find(&glyphs, at, scan.previous, finished) {
                Found::Nothing => {
                    scan.previous = Some(glyph.ch);
                    at += 1;
                }
                Found::Match(index) => {
                    let pattern = &self.list[index];
                    // Cut short by the end of the reply, it may lack its last letters.
                    let end = glyphs.len().min(at + pattern.chars.len());
                    let covered = glyph.span.start..glyphs[end - 1].span.end;
                    let span = normalised.original_span(covered);
                    scan.out.push_str(reply(scan.cut..span.start));
                    if span.end > own {
                        scan.out.push_str(&styled(pattern, slice(text, span.clone())));
                        scan.hits += 1;
                    }
                    scan.cut = span.end;
                    scan.previous = Some(glyphs[end - 1].ch);
                    at = end;
                }
                Found::Undecided => {
                    let start = normalised.original_span(glyph.span.clone()).start.max(scan.cut);
                    scan.out.push_str(reply(scan.cut..start));
                    scan.cut = start;
                    return scan;
                }
            }
        }
        scan.out.push_str(reply(scan.cut..text.len()));
        scan.cut = text.len();
        scan
    }

    fn find(&self, glyphs: &[Glyph], at: usize, previous: Option<char>, finished: bool) -> Found {
        let first = glyphs[at].ch;
        if !boundary(previous, Some(first)) {
            return Found::Nothing;
        }
        let Some(candidates) = self.by_first.get(&first) else { return Found::Nothing };
        let mut cut_off = None;
        for index in candidates {
            let chars = &self.list[*index].chars;
            let rest = &glyphs[at..];
            let equal = rest.iter().zip(chars).all(|(glyph, ch)| glyph.ch == *ch);
            if !equal {
                continue;
            }
            if rest.len() > chars.len() {
                if boundary(chars.last().copied(), Some(rest[chars.len()].ch)) {
                    return Found::Match(*index);
                }
            } else if !finished {
                return Found::Undecided;
            } else if rest.len() == chars.len() {
                return Found::Match(*index);
            } else if tells(rest.len(), chars.len()) {
                cut_off = Some(*index);
            }
        }
        cut_off.map_or(Found::Nothing, Found::Match)
    }
}

/// Whether so many letters of a name that a reply ends with give it away.
fn tells(written: usize, all: usize) -> bool {
    written >= FEWEST_TELLING && 2 * written > all
}

/// A held text without invisible characters and repeated whitespace. Padding a name until the
/// window overflows must not carry it through.
pub(super) fn compact(held: &str) -> String {
    let normalised = normalise(held);
    let mut out = String::new();
    let mut end = 0;
    for glyph in view(&normalised) {
        let span = normalised.original_span(glyph.span);
        let text = slice(held, span.start.max(end)..span.end.max(end));
        if glyph.ch == ' ' {
            out.extend(text.chars().next());
        } else {
            out.extend(text.chars().filter(|it| !it.is_whitespace()));
        }
        end = end.max(span.end);
    }
    out
}

/// The view that is compared: normalised, lower case, canonically decomposed, so that a letter whose
/// accent arrives later is a prefix of the accented one, with each run of whitespace as one space.
fn view(normalised: &Normalised) -> Vec<Glyph> {
    let mut glyphs: Vec<Glyph> = Vec::new();
    for (start, ch) in normalised.text.char_indices() {
        let span = start..start + ch.len_utf8();
        if ch.is_whitespace() {
            match glyphs.last_mut() {
                Some(last) if last.ch == ' ' => last.span.end = span.end,
                _ => glyphs.push(Glyph { ch: ' ', span }),
            }
            continue;
        }
        for lower in ch.to_lowercase() {
            decompose_canonical(lower, |part| glyphs.push(Glyph { ch: part, span: span.clone() }));
        }
    }
    glyphs
}

fn is_word(ch: char) -> bool {
    ch.is_alphanumeric() || is_combining_mark(ch)
}

/// Whether a word may end or start between two characters.
fn boundary(left: Option<char>, right: Option<char>) -> bool {
    !(left.is_some_and(is_word) && right.is_some_and(is_word))
}

/// The replacement in the manner of what it replaces: all capitals, all lower case, or as given.
fn styled(pattern: &Pattern, original: &str) -> String {
    let letters = || original.chars().filter(|it| it.is_alphabetic());
    let cased = |text: &str| text.chars().any(char::is_uppercase);
    if letters().count() > 1 && letters().all(char::is_uppercase) {
        let already = pattern.text.chars().filter(|it| it.is_alphabetic()).all(char::is_uppercase);
        return if already { pattern.with.clone() } else { pattern.with.to_uppercase() };
    }
    if letters().any(char::is_lowercase) && !cased(original) && cased(&pattern.text) {
        return pattern.with.to_lowercase();
    }
    pattern.with.clone()
}

fn slice(text: &str, span: Range<usize>) -> &str {
    text.get(span).expect("spans of a normalised text lie on character boundaries")
}
