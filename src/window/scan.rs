//! Matching on the normalised view of a text, with spans of the original.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use unicode_normalization::char::{decompose_canonical, is_combining_mark};

use super::{Kind, Replacement};
use crate::text::normalise::{Normalised, normalise};
use crate::text::values::capitalised;

/// Letters from which on the beginning of a name at the end of a reply counts as the name.
const FEWEST_TELLING: usize = 5;

/// Letters from which on the beginning of a word of a name counts as that word.
const FEWEST_LETTERS: usize = 3;

/// Replacements, ready to be looked for and shared between replies.
#[derive(Debug, Default)]
pub struct PatternSet {
    list: Vec<Pattern>,
    /// Indices into `list` by first character, longest pattern first.
    by_first: HashMap<char, Vec<usize>>,
    /// The words of the patterns in order, each with its owner.
    words: Vec<(Vec<char>, usize)>,
    restores: bool,
    most_held: usize,
    /// Indices into `list` by first letter, longest pattern first: what is looked for over several
    /// strings.
    by_letter: HashMap<char, Vec<usize>>,
}

/// What one reply is searched for.
#[derive(Debug, Default)]
pub struct Patterns {
    groups: Vec<Group>,
}

/// Of a set, the patterns of some owners.
#[derive(Debug)]
struct Group {
    set: Arc<PatternSet>,
    owners: Owners,
}

/// Whose patterns of a set count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owners {
    /// Those of these owners.
    Only(BTreeSet<usize>),
    /// Those of all owners but these.
    AllBut(BTreeSet<usize>),
}

impl Owners {
    fn include(&self, owner: usize) -> bool {
        match self {
            Self::Only(some) => some.contains(&owner),
            Self::AllBut(others) => !others.contains(&owner),
        }
    }
}

#[derive(Debug)]
pub(super) struct Pattern {
    /// Who it belongs to, in the caller's count.
    owner: usize,
    chars: Vec<char>,
    /// Its letters alone.
    pub(super) letters: Vec<char>,
    text: String,
    with: String,
    /// Whether a part of it means nothing.
    ordinary: bool,
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
    /// Where in `out` the first of them is.
    pub(super) first: Option<usize>,
}

/// A character of the view and the bytes of the normalised text that it comes from.
#[derive(Debug, Clone)]
struct Glyph {
    ch: char,
    span: Range<usize>,
}

enum Found<'a> {
    Nothing,
    Match(&'a Pattern),
    /// Later text decides.
    Undecided,
}

impl PatternSet {
    /// Prepares replacements, each with its owner. Of an owner's two with the same pattern the first
    /// one wins; a pattern without a visible character is left out.
    #[must_use]
    pub fn new(replacements: impl IntoIterator<Item = (usize, Replacement)>) -> Self {
        let mut set = Self::default();
        let (mut known, mut spread) = (HashSet::new(), HashSet::new());
        let mut longest = 0;
        for (owner, it) in replacements {
            let ordinary = it.kind == Kind::RestoreWord;
            set.restores |= ordinary || it.kind == Kind::Restore;
            let pattern = it.pattern.trim();
            let chars: Vec<char> = view(&normalise(pattern)).iter().map(|it| it.ch).collect();
            let Some(first) = chars.first() else { continue };
            if !known.insert((owner, chars.clone())) {
                continue;
            }
            let words = chars.split(|it| !is_word(*it));
            let words = words.filter(|it| it.len() >= FEWEST_LETTERS);
            set.words.extend(words.map(|it| (it.to_vec(), owner)));
            longest = longest.max(pattern.len());
            set.by_first.entry(*first).or_default().push(set.list.len());
            let letters: Vec<char> = chars.iter().copied().filter(|it| is_word(*it)).collect();
            // Chance cuts a short word in two, and every pattern with these letters is the same here.
            let long = chars.contains(&' ') || letters.len() >= FEWEST_TELLING;
            if let Some(first) = letters.first().filter(|_| long && !ordinary)
                && spread.insert((owner, letters.clone()))
            {
                set.by_letter.entry(*first).or_default().push(set.list.len());
            }
            let (text, with) = (pattern.to_owned(), it.with);
            set.list.push(Pattern { owner, chars, letters, text, with, ordinary });
        }
        for indices in set.by_first.values_mut().chain(set.by_letter.values_mut()) {
            indices.sort_by_key(|it| std::cmp::Reverse(set.list[*it].chars.len()));
        }
        set.words.sort_unstable();
        set.words.dedup();
        set.most_held = longest * 4 + 64;
        set
    }
}

impl Group {
    /// Whether a word of a pattern begins so.
    fn begins(&self, letters: &[char]) -> bool {
        let words = &self.set.words;
        let first = words.partition_point(|it| it.0.as_slice() < letters);
        let mut alike = words[first..].iter().take_while(|it| it.0.starts_with(letters));
        alike.any(|it| self.owners.include(it.1))
    }

    /// What begins with `rest`, and how far it goes before others: longer patterns first, one that is
    /// cut off last.
    fn find(&self, rest: &[Glyph], finished: bool) -> (usize, Found<'_>) {
        let mut best = (0, Found::Nothing);
        for index in rest.first().and_then(|it| self.set.by_first.get(&it.ch)).into_iter().flatten()
        {
            let pattern = &self.set.list[*index];
            let chars = &pattern.chars;
            let equal = rest.iter().zip(chars).all(|(glyph, ch)| glyph.ch == *ch);
            if !equal || !self.owners.include(pattern.owner) {
                continue;
            }
            let rank = chars.len() + 1;
            if rest.len() > chars.len() {
                if boundary(chars.last().copied(), Some(rest[chars.len()].ch)) {
                    return (rank, Found::Match(pattern));
                }
            } else if !finished {
                return (rank, Found::Undecided);
            } else if rest.len() == chars.len() {
                return (rank, Found::Match(pattern));
            } else if !pattern.ordinary && tells(rest.len(), chars.len()) {
                best = (1, Found::Match(pattern));
            }
        }
        best
    }
}

impl Patterns {
    /// Replacements for one reply alone.
    #[must_use]
    pub fn new(replacements: Vec<Replacement>) -> Self {
        let mut patterns = Self::default();
        patterns.extend(replacements);
        patterns
    }

    /// Makes further replacements, of this reply alone.
    pub fn extend(&mut self, replacements: Vec<Replacement>) {
        if !replacements.is_empty() {
            let set = PatternSet::new(replacements.into_iter().map(|it| (0, it)));
            self.add(Arc::new(set), Owners::AllBut(BTreeSet::new()));
        }
    }

    /// Looks for a shared set too. Of equal patterns the one of the earlier set wins.
    pub fn add(&mut self, set: Arc<PatternSet>, owners: Owners) {
        self.groups.push(Group { set, owners });
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.iter().all(|it| it.set.list.is_empty())
    }

    /// Whether a treatment's words are put back, which makes log-probabilities meaningless.
    #[must_use]
    pub fn restores(&self) -> bool {
        self.groups.iter().any(|it| it.set.restores)
    }

    /// Most bytes that a choice may hold back.
    pub(super) fn most_held(&self) -> usize {
        self.groups.iter().map(|it| it.set.most_held).max().unwrap_or_default()
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
        let mut scan = Scan { out: String::new(), cut: 0, previous, hits: 0, first: None };
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
                Found::Match(pattern) => {
                    // Cut short by the end of the reply, it may lack its last letters.
                    let end = glyphs.len().min(at + pattern.chars.len());
                    let covered = glyph.span.start..glyphs[end - 1].span.end;
                    let span = normalised.original_span(covered);
                    scan.out.push_str(reply(scan.cut..span.start));
                    if span.end > own {
                        scan.first.get_or_insert(scan.out.len());
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

    /// What is looked for over several strings and begins with a letter.
    pub(super) fn beginning_with(&self, letter: char) -> impl Iterator<Item = &Pattern> {
        self.groups.iter().flat_map(move |group| {
            let indices = group.set.by_letter.get(&letter).into_iter().flatten();
            let patterns = indices.map(|it| &group.set.list[*it]);
            patterns.filter(|it| group.owners.include(it.owner))
        })
    }

    /// Whether a word of the text that reaches past its byte `from` is a word of a pattern, or the
    /// beginning of one; shorter than three letters it is neither.
    pub(super) fn begins_name(&self, text: &str, from: usize) -> bool {
        let normalised = normalise(text);
        let glyphs = view(&normalised);
        glyphs.split(|it| !is_word(it.ch)).any(|word| {
            let end = word.last().map_or(0, |it| normalised.original_span(it.span.clone()).end);
            let letters: Vec<char> = word.iter().map(|it| it.ch).collect();
            end > from
                && letters.len() >= FEWEST_LETTERS
                && self.groups.iter().any(|it| it.begins(&letters))
        })
    }

    fn find(
        &self,
        glyphs: &[Glyph],
        at: usize,
        previous: Option<char>,
        finished: bool,
    ) -> Found<'_> {
        if !boundary(previous, Some(glyphs[at].ch)) {
            return Found::Nothing;
        }
        let found = self.groups.iter().map(|it| it.find(&glyphs[at..], finished));
        let best = found.reduce(|best, it| if it.0 > best.0 { it } else { best });
        best.map_or(Found::Nothing, |it| it.1)
    }
}

/// A letter or digit of a text.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) ch: char,
    /// Its bytes of the text.
    pub(super) span: Range<usize>,
    /// Whether a word begins with it.
    pub(super) begins: bool,
    /// Whether a word ends with it. Unknown at the end of the text.
    pub(super) ends: Option<bool>,
}

/// The letters of a text, as they are compared. `in_word`: the text goes on from a letter.
pub(super) fn letters(text: &str, mut in_word: bool) -> Vec<Letter> {
    let normalised = normalise(text);
    let mut letters: Vec<Letter> = Vec::new();
    for Glyph { ch, span } in view(&normalised) {
        let word = is_word(ch);
        if let Some(last) = letters.last_mut().filter(|it| it.ends.is_none()) {
            last.ends = Some(!word);
        }
        if word {
            let span = normalised.original_span(span);
            letters.push(Letter { ch, span, begins: !in_word, ends: None });
        }
        in_word = word;
    }
    letters
}

/// Whether so many letters of a name that a reply ends with give it away.
pub(super) fn tells(written: usize, all: usize) -> bool {
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

pub(super) fn is_word(ch: char) -> bool {
    ch.is_alphanumeric() || is_combining_mark(ch)
}

/// Whether a word may end or start between two characters.
fn boundary(left: Option<char>, right: Option<char>) -> bool {
    !(left.is_some_and(is_word) && right.is_some_and(is_word))
}

/// The replacement in the manner of what it replaces: all capitals, all lower case, with a capital where
/// the pattern has none, or as given.
pub(super) fn styled(pattern: &Pattern, original: &str) -> String {
    let letters = || original.chars().filter(|it| it.is_alphabetic());
    let cased = |text: &str| text.chars().any(char::is_uppercase);
    if letters().count() > 1 && letters().all(char::is_uppercase) {
        let already = pattern.text.chars().filter(|it| it.is_alphabetic()).all(char::is_uppercase);
        return if already { pattern.with.clone() } else { pattern.with.to_uppercase() };
    }
    if letters().any(char::is_lowercase) && !cased(original) && cased(&pattern.text) {
        return pattern.with.to_lowercase();
    }
    if !cased(&pattern.text) && original.starts_with(char::is_uppercase) {
        return capitalised(&pattern.with);
    }
    pattern.with.clone()
}

pub(super) fn slice(text: &str, span: Range<usize>) -> &str {
    text.get(span).expect("spans of a normalised text lie on character boundaries")
}
