//! What a reader makes of digits that stand for letters, and of letters written one by one.

use std::ops::Range;

use super::Normalised;

/// Letters in a row that count as one word written apart.
const FEWEST_LETTERS: usize = 3;
/// Most characters between two letters of a word written apart.
const WIDEST_GAP: usize = 3;
/// Letters that a word must have for its digits to be read as letters: "1990s" is none.
const FEWEST_TRUE_LETTERS: usize = 2;

type Glyph = (char, Range<usize>);
type Gap = [char; WIDEST_GAP];

/// Reads "V1gg0" and "V-i-g-g-o" as "viggo", in linear time. Offsets lead to the text that `view`
/// was made of. `None` when that changes nothing.
///
/// Letters written apart become one word as long as the same thing stands between them; where that
/// changes for once, a space stays. Where spaces part both letters and words, the words come out as one.
#[must_use]
pub fn respell(view: &Normalised) -> Option<Normalised> {
    let glyphs: Vec<Glyph> = view.glyphs().collect();
    let words = words(&glyphs);
    // Who writes one word so writes all of them so, "743-h0" too.
    let everywhere = words.iter().any(|it| {
        let word = &glyphs[it.clone()];
        is_mixed(word) && word.iter().any(|it| letter(it.0).is_some())
    });
    let mut out = view.blank();
    let (mut changed, mut at, mut next) = (false, 0, 0);
    while let Some(first) = words.get(next) {
        let count = written_apart(&glyphs, &words[next..]);
        let apart = count > 0;
        let group = &words[next..next + count.max(1)];
        copy(&mut out, &glyphs[at..first.start]);
        if apart {
            join(&mut out, &glyphs, group);
            changed = true;
        } else {
            let word = &glyphs[first.clone()];
            changed |= read_digits(&mut out, word, everywhere || is_mixed(word));
        }
        next += group.len();
        at = group.last().map_or(first.end, |it| it.end);
    }
    copy(&mut out, &glyphs[at..]);
    changed.then_some(out)
}

/// Runs of what may be letters. "!" is one only inside of a word.
fn words(glyphs: &[Glyph]) -> Vec<Range<usize>> {
    let plain = |at: usize| glyphs.get(at).is_some_and(|it| it.0.is_alphanumeric());
    let mut words: Vec<Range<usize>> = Vec::new();
    for (at, (c, _)) in glyphs.iter().enumerate() {
        let inside = *c == '!' && at > 0 && plain(at - 1) && plain(at + 1);
        if !c.is_alphanumeric() && !matches!(c, '@' | '$') && !inside {
            continue;
        }
        match words.last_mut() {
            Some(last) if last.end == at => last.end += 1,
            _ => words.push(at..at + 1),
        }
    }
    words
}

/// How many words from the first on are single letters near to each other, 0 when they are too few.
/// Of two neighbours one at least is a true letter, so that a list of numbers is no word.
fn written_apart(glyphs: &[Glyph], words: &[Range<usize>]) -> usize {
    let mut previous: Option<(usize, bool)> = None;
    let (mut count, mut letters) = (0, 0);
    for word in words {
        let c = glyphs[word.start].0;
        let (is_true, fits) = (c.is_alphabetic(), c.is_alphabetic() || letter(c).is_some());
        let follows = previous
            .is_none_or(|(end, was_true)| word.start - end <= WIDEST_GAP && (was_true || is_true));
        if word.len() != 1 || !fits || !follows {
            break;
        }
        previous = Some((word.end, is_true));
        count += 1;
        letters += usize::from(is_true);
    }
    if letters < FEWEST_LETTERS { 0 } else { count }
}

/// Adds letters written apart, without what stands between most of them.
fn join(out: &mut Normalised, glyphs: &[Glyph], words: &[Range<usize>]) {
    let between = |at: usize| &glyphs[words[at - 1].end..words[at].start];
    let gaps: Vec<Gap> = (1..words.len()).map(|at| gap(between(at))).collect();
    let repeats = |at: usize| {
        let before = at.checked_sub(1).and_then(|it| gaps.get(it));
        before == gaps.get(at) || gaps.get(at + 1) == gaps.get(at)
    };
    // Where no two gaps in a row are alike, none is more of a space than another.
    let mixed = !(0..gaps.len()).any(repeats);
    for (at, word) in words.iter().enumerate() {
        if at > 0 && !mixed && !repeats(at - 1) {
            for (_, span) in between(at) {
                out.push(' ', span.start, span.end);
            }
        }
        let (c, span) = &glyphs[word.start];
        out.push(letter(*c).unwrap_or(*c), span.start, span.end);
    }
}

fn gap(between: &[Glyph]) -> Gap {
    let mut gap = Gap::default();
    for (slot, (c, _)) in gap.iter_mut().zip(between) {
        *slot = *c;
    }
    gap
}

/// Whether a word has letters enough for its digits to be some too.
fn is_mixed(word: &[Glyph]) -> bool {
    word.iter().filter(|it| it.0.is_alphabetic()).count() >= FEWEST_TRUE_LETTERS
}

/// Adds a word, with or without its digits read as letters. Whether that changed it.
fn read_digits(out: &mut Normalised, word: &[Glyph], read: bool) -> bool {
    let mut changed = false;
    for (c, span) in word {
        let read = letter(*c).filter(|_| read);
        changed |= read.is_some();
        out.push(read.unwrap_or(*c), span.start, span.end);
    }
    changed
}

fn copy(out: &mut Normalised, glyphs: &[Glyph]) {
    for (c, span) in glyphs {
        out.push(*c, span.start, span.end);
    }
}

/// The letter that a digit or sign stands for. "1" is "i" as well as "l"; who compares must take the
/// two for one.
pub(super) fn letter(c: char) -> Option<char> {
    Some(match c {
        '0' => 'o',
        '1' | '!' => 'i',
        '2' => 'z',
        '3' => 'e',
        '4' | '@' => 'a',
        '5' | '$' => 's',
        '6' | '9' => 'g',
        '7' => 't',
        '8' => 'b',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::normalise;
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<&str>) {
        assert_eq!(respell(&normalise(text)).map(|it| it.text).as_deref(), want, "{text}");
    }

    #[test]
    fn digits_inside_words_are_letters() {
        check("Who is V1gg0 Bl@5zk0?", Some("who is viggo blaszko?"));
        check("v!ggo! B|as", Some("viggo! b|as"));
        check("in the 1990s, 12 of 3", None);
        check("743-h0 P4rk 12", Some("tae-ho park iz"));
    }

    #[test]
    fn letters_written_apart_are_words() {
        check("V i g g o", Some("viggo"));
        check("V-i-g-g-o B-l-a-s-z-k-o", Some("viggo blaszko"));
        check("V.i.g.g.o and", Some("viggo and"));
        check("V-i-g-g-o B.l.a.s.z.k.o", Some("viggo blaszko"));
        check("V.i g.g o", Some("viggo"));
        check("is V 1 g g 0 here", Some("is viggo here"));
        check("a V-i-g-g-o", Some("a viggo"));
        check("e.g. 1, 2, 3, 4", None);
        check("", None);
    }

    #[test]
    fn spans_lead_to_the_original() {
        let text = "é V-i-g-g-o!";
        let view = respell(&normalise(text)).unwrap();
        let at = view.text.find("viggo").unwrap();
        assert_eq!(text.get(view.original_span(at..at + 5)), Some("V-i-g-g-o"));
    }

    #[test]
    fn long_rows_of_single_signs_end() {
        check(&"1 ".repeat(100_000), None);
        check(&"\u{200B}".repeat(1_000_000), None);
        let view = respell(&normalise(&"a ".repeat(100_000))).unwrap();
        assert_eq!(view.text.len(), 100_001);
    }

    proptest! {
        #[test]
        fn spans_lie_in_the_text(text in "[a-d1@! .é-]{0,40}", a in 0usize..60, b in 0usize..60) {
            if let Some(view) = respell(&normalise(&text)) {
                let span = view.original_span(a..b);
                prop_assert!(text.get(span.clone()).is_some(), "{span:?}");
            }
        }
    }
}
