//! A misspelt name's mistakes, made in another name: what stands for "Vigo BLASZKO" is "Ulika FERRARO".

use super::likeness::lower;
use super::normalise;
use super::typos::{MASKS, is_scrambled};

/// Most edits that a word is read with.
const MOST_EDITS: usize = 2;

/// Another name in the place of one that was written with mistakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misspelt {
    /// The other name with the same mistakes; where it has no place for them, as it is.
    pub text: String,
    /// Letters that are wrong, missing, masked or too many, words out of order, and initials; none where only
    /// capitals differ.
    pub mistakes: usize,
}

/// What stands for `written`: letters left out, exchanged, doubled or masked, the middle of a word out of
/// order, an initial, and capitals, all at the same places. `names` are spellings of the name, each with the
/// surrogate put together in the same way; that with the fewest mistakes counts. `None` where it is written
/// as it should be or not at all, where nothing but initials is left, where other signs than a name's stand
/// between words, and for surrogates of more or fewer words.
#[must_use]
pub fn misspelt(written: &str, names: &[(String, String)]) -> Option<Misspelt> {
    let folded = normalise(written).text;
    let mut right = names.iter().filter(|it| normalise(&it.0).text == folded).peekable();
    if right.peek().is_some() {
        let mut in_capitals = right.filter_map(|(name, other)| {
            let it = of(written, name, other)?;
            let same = it.text != *other && normalise(&it.text).text == normalise(other).text;
            same.then_some(it)
        });
        return in_capitals.next();
    }
    let read = names.iter().filter_map(|(name, other)| of(written, name, other));
    read.filter(|it| it.mistakes > 0).min_by_key(|it| it.mistakes)
}

fn of(written: &str, name: &str, other: &str) -> Option<Misspelt> {
    let (written_words, names, others) = (words(written), words(name), words(other));
    if written_words.len() != names.len() || names.len() != others.len() {
        return None;
    }
    let (mut text, mut mistakes, mut initials) = (String::new(), 0, 0);
    let (mut masks, mut letters) = (0, 0);
    let (mut done, mut name_done) = (0, 0);
    for ((at, is), ((name_at, want), (_, other))) in
        written_words.iter().zip(names.iter().zip(&others))
    {
        let gap = written.get(done..*at)?;
        if !parts_words(gap, name.get(name_done..*name_at)?, done > 0) {
            return None;
        }
        let change = Change::between(want, is)?;
        mistakes += change.count();
        masks += is.chars().filter(|it| MASKS.contains(it)).count();
        letters += want.chars().count();
        initials += usize::from(matches!(change, Change::Initial { .. }));
        text.push_str(gap);
        text.push_str(&in_case(change.made_in(want, other), want, is));
        (done, name_done) = (at + is.len(), name_at + want.len());
    }
    let tail = written.get(done..)?;
    text.push_str(tail);
    let read = matches!(tail, "" | ".") && initials < names.len() && 2 * masks <= letters;
    read.then_some(Misspelt { text, mistakes })
}

/// Whether what stands in front of a word stands there in names.
fn parts_words(gap: &str, of_name: &str, within: bool) -> bool {
    gap == of_name || within && matches!(normalise(gap).text.as_str(), " " | "-" | "." | ". ")
}

/// Runs of letters, digits and masks, each with where it begins.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut start = None;
    let ends = text.char_indices().chain([(text.len(), ' ')]);
    for (at, c) in ends {
        match (start, c.is_alphanumeric() || MASKS.contains(&c)) {
            (None, true) => start = Some(at),
            (Some(from), false) => {
                words.extend(text.get(from..at).map(|it| (from, it)));
                start = None;
            }
            _ => {}
        }
    }
    words
}

/// What was done to a word.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    /// Only its first letter is there, in a spelling of the name (`known`) or instead of the word.
    Initial { known: bool },
    /// Which letter stands at each place.
    Scrambled(Vec<usize>),
    /// Letter after letter, in order.
    Edits(Vec<Edit>),
}

/// A mistake at a letter of a word, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    Replace(usize, char),
    Delete(usize),
    /// In front of it.
    Insert(usize, char),
    /// With the next one.
    Swap(usize),
}

impl Change {
    /// `None` where one word is not the other.
    fn between(want: &str, is: &str) -> Option<Self> {
        let letters = |it: &str| -> Vec<char> { normalise(it).text.chars().collect() };
        let (want, is) = (letters(want), letters(is));
        if is.len() == 1 && is.first().is_some_and(|it| it.is_alphabetic()) {
            let known = want.len() == 1;
            return (want.first() == is.first()).then_some(Self::Initial { known });
        }
        if want.len().abs_diff(is.len()) > MOST_EDITS {
            return None;
        }
        if want != is && is_scrambled(&want, &is) {
            return Some(Self::Scrambled(places(&want, &is)));
        }
        let edits = edits(&want, &is);
        let masks =
            edits.iter().filter(|it| matches!(it, Edit::Replace(_, c) if MASKS.contains(c)));
        let masks = masks.count();
        (edits.len() - masks <= MOST_EDITS).then_some(Self::Edits(edits))
    }

    fn count(&self) -> usize {
        match self {
            Self::Initial { known } => usize::from(!known),
            Self::Scrambled(_) => 1,
            Self::Edits(edits) => edits.len(),
        }
    }

    /// The same in another word. Places are those of a word as long as `want`, stretched.
    fn made_in(&self, want: &str, other: &str) -> Vec<char> {
        let (want, mut word): (Vec<char>, Vec<char>) =
            (normalise(want).text.chars().collect(), other.chars().collect());
        let (from, length) = (want.len().max(1), word.len());
        match self {
            Self::Initial { .. } => word.truncate(1),
            Self::Scrambled(_) if length < 2 => {}
            Self::Scrambled(places) => {
                // Places that the other word has, in the order in which they were written.
                let last = length.saturating_sub(1);
                let known =
                    places.iter().copied().filter(|it| (1..last).contains(it) && *it + 1 < from);
                let rest = (from - 1..last).chain([last]);
                let order: Vec<usize> = [0].into_iter().chain(known).chain(rest).collect();
                word = order.iter().filter_map(|it| word.get(*it)).copied().collect();
            }
            Self::Edits(edits) => {
                for edit in edits.iter().rev() {
                    edit.make(&mut word, &want, length);
                }
            }
        }
        word
    }
}

impl Edit {
    /// Makes the mistake in a word that had `length` letters before the first one.
    fn make(self, word: &mut Vec<char>, want: &[char], length: usize) {
        let stretched = |at: usize| (at * length + want.len() / 2) / want.len().max(1);
        let place =
            |at: usize| stretched(at).max(usize::from(at > 0)).min(length.saturating_sub(1));
        match self {
            Self::Replace(at, c) => {
                if let Some(letter) = word.get_mut(place(at)) {
                    *letter = c;
                }
            }
            Self::Delete(at) if word.len() > 2 => drop(word.remove(place(at).min(word.len() - 1))),
            Self::Delete(_) => {}
            Self::Insert(at, c) => {
                let to = if at == want.len() { length } else { place(at) };
                let doubled = match (at.checked_sub(1), want.get(at)) {
                    (Some(before), _) if want[before] == c => to.checked_sub(1),
                    (_, Some(after)) if *after == c => Some(to),
                    _ => None,
                };
                let letter = doubled.and_then(|it| word.get(it)).copied().unwrap_or(c);
                word.insert(doubled.map_or(to, |it| it + 1), lower(letter));
            }
            Self::Swap(at) => {
                let first = place(at).min(length.saturating_sub(2));
                // First letters stay, as they do in what is read as a mistake.
                if first + 1 < word.len() && (first > 0 || at == 0) {
                    word.swap(first, first + 1);
                }
            }
        }
    }
}

/// For each letter of a scrambled word which of the right ones it is.
fn places(want: &[char], is: &[char]) -> Vec<usize> {
    let mut free: Vec<bool> = vec![true; want.len()];
    let mut take = |c: &char| {
        let at = (0..want.len()).find(|it| free[*it] && want[*it] == *c);
        if let Some(at) = at {
            free[at] = false;
        }
        at
    };
    is.iter().filter_map(&mut take).collect()
}

/// The fewest mistakes from one word to the other, in order; an exchange of neighbours is one, and no letter
/// is touched twice (optimal string alignment).
fn edits(want: &[char], is: &[char]) -> Vec<Edit> {
    let width = is.len() + 1;
    let mut table = vec![0usize; (want.len() + 1) * width];
    let at = |i: usize, j: usize| i * width + j;
    let swapped = |i: usize, j: usize| {
        i > 1
            && j > 1
            && want[i - 1] == is[j - 2]
            && want[i - 2] == is[j - 1]
            && want[i - 1] != want[i - 2]
    };
    for i in 0..=want.len() {
        for j in 0..=is.len() {
            let same = |i: usize, j: usize| usize::from(want[i - 1] != is[j - 1]);
            table[at(i, j)] = match (i, j) {
                (0, _) => j,
                (_, 0) => i,
                _ => {
                    let mut best = table[at(i - 1, j - 1)] + same(i, j);
                    best = best.min(table[at(i - 1, j)] + 1).min(table[at(i, j - 1)] + 1);
                    if swapped(i, j) { best.min(table[at(i - 2, j - 2)] + 1) } else { best }
                }
            };
        }
    }
    let (mut i, mut j, mut edits) = (want.len(), is.len(), Vec::new());
    while i > 0 || j > 0 {
        let cost = table[at(i, j)];
        if i > 0 && j > 0 && want[i - 1] == is[j - 1] && table[at(i - 1, j - 1)] == cost {
            (i, j) = (i - 1, j - 1);
        } else if swapped(i, j) && table[at(i - 2, j - 2)] + 1 == cost {
            edits.push(Edit::Swap(i - 2));
            (i, j) = (i - 2, j - 2);
        } else if i > 0 && j > 0 && table[at(i - 1, j - 1)] + 1 == cost {
            edits.push(Edit::Replace(i - 1, is[j - 1]));
            (i, j) = (i - 1, j - 1);
        } else if i > 0 && table[at(i - 1, j)] + 1 == cost {
            edits.push(Edit::Delete(i - 1));
            i -= 1;
        } else {
            edits.push(Edit::Insert(i, is[j - 1]));
            j -= 1;
        }
    }
    edits.reverse();
    edits
}

/// A word with the capitals of `is`, as far as they are not those of `want`.
fn in_case(word: Vec<char>, want: &str, is: &str) -> String {
    let capitals = |it: &str| -> Vec<Option<bool>> {
        it.chars().map(|it| it.is_alphabetic().then(|| it.is_uppercase())).collect()
    };
    let (wanted, found) = (capitals(want), capitals(is));
    let all = |of: &[Option<bool>], upper: bool| {
        of.iter().flatten().count() > 1 && of.iter().flatten().all(|it| *it == upper)
    };
    if [true, false].into_iter().any(|it| all(&found, it) && all(&wanted, it)) {
        return word.into_iter().collect();
    }
    if all(&found, true) {
        return word.iter().flat_map(|it| it.to_uppercase()).collect();
    }
    if all(&found, false) {
        return word.iter().flat_map(|it| it.to_lowercase()).collect();
    }
    // Which capitals a word with other letters should have is only known of its first.
    let should = |at: usize| {
        let same = wanted.len() == found.len();
        if same {
            wanted[at]
        } else {
            found[at].map(|_| at == 0 && wanted.first() == Some(&Some(true)))
        }
    };
    let turned = |at: usize| found[at].filter(|it| should(at).is_some_and(|should| should != *it));
    // A longer word goes round, but for the first letter.
    let rest = found.len().saturating_sub(1).max(1);
    let place =
        |at: usize| if at < found.len() { at } else { (1 + (at - 1) % rest).min(found.len() - 1) };
    let letter = |(at, it): (usize, char)| match turned(place(at)) {
        Some(true) => it.to_uppercase().collect::<String>(),
        Some(false) => it.to_lowercase().collect(),
        None => it.to_string(),
    };
    word.into_iter().enumerate().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(written: &str) -> Option<(String, usize)> {
        let names = [
            ("Viggo Blaszko".to_owned(), "Ulrika Ferraro".to_owned()),
            ("Blaszko, Viggo".to_owned(), "Ferraro, Ulrika".to_owned()),
        ];
        misspelt(written, &names).map(|it| (it.text, it.mistakes))
    }

    #[test]
    fn mistakes_are_made_at_the_same_places() {
        for (written, want, mistakes) in [
            ("Vigo Blaszko", "Ulika Ferraro", 1),
            ("Viggo Blasko", "Ulrika Ferrro", 1),
            ("Viggo Blazsko", "Ulrika Ferarro", 1),
            ("Viggoo Blaszko", "Ulrikaa Ferraro", 1),
            ("Viggo Blasxko", "Ulrika Ferrxro", 1),
            ("V. Blaszko", "U. Ferraro", 1),
            ("Vigo\n Blaszko", "Ulika\n Ferraro", 1),
            ("Viggo B*****o", "Ulrika F*****o", 5),
            ("Vviggo Blaszko", "Uulrika Ferraro", 1),
            ("Viggo B.", "Ulrika F.", 1),
            ("Blazko, Viggo", "Feraro, Ulrika", 1),
            ("Vig*o Bl*szk*", "Ulri*a Fe*rar*", 3),
            ("Vgigo Bkzsalo", "Urlika Frarreo", 2),
            ("VIGO BLASZKO", "ULIKA FERRARO", 1),
        ] {
            assert_eq!(of(written), Some((want.to_owned(), mistakes)), "{written}");
        }
    }

    #[test]
    fn capitals_are_no_mistakes() {
        for (written, want) in [
            ("viggo blaszko", "ulrika ferraro"),
            ("VIGGO Blaszko", "ULRIKA Ferraro"),
            ("vIggo BlaSzko", "uLrikA FerRaro"),
        ] {
            assert_eq!(of(written), Some((want.to_owned(), 0)), "{written}");
        }
    }

    #[test]
    fn other_words_are_no_misspelt_name() {
        for written in [
            "Viggo Blaszko",
            "Viggo",
            "Viggo von Blaszko",
            "Anna Lee",
            "V*** B*****o",
            "",
            "Vgo Bl",
            "V. B.",
            "Vigo, Blasko",
            "Vigo Blasko!",
            "V** B*****o",
        ] {
            assert_eq!(of(written), None, "{written}");
        }
    }

    /// An alias is no misspelt name, however near it is to one.
    #[test]
    fn what_is_right_stays() {
        for alias in ["Vigo Blaszko", "V. B.", "V. Blaszko", "DJ Blaszko"] {
            let names = ["Viggo Blaszko", alias];
            let names = names.map(|it| (it.to_owned(), "Ulrika Ferraro".to_owned()));
            assert_eq!(misspelt(alias, &names), None, "{alias}");
        }
        let text = |written: &str, names: &[(&str, &str)]| {
            let names: Vec<(String, String)> =
                names.iter().map(|it| (it.0.to_owned(), it.1.to_owned())).collect();
            misspelt(written, &names).unwrap().text
        };
        let names = ["Viggo Blaszko", "V. Blaszko"].map(|it| (it, "Ulrika Ferraro"));
        assert_eq!(text("V. Blasko", &names), "U. Ferrro");
        let names = [("Ronald McDonald", "Zorvan Kellerman")];
        assert_eq!(text("Ronld McDonald", &names), "Zoran Kellerman");
        assert_eq!(text("ronald mcdonald", &names), "zorvan kellerman");
        let names = [("viggo blaszko", "ulrika ferraro")];
        assert_eq!(text("Viggo Blaszko", &names), "Ulrika Ferraro");
    }

    /// A mistake for which the other name has no place is still one.
    #[test]
    fn short_names_take_what_they_can() {
        for (written, name, other, want) in [
            ("Ingrid Kirkegaard", "Ingrid Kirkegaarden", "Ulrika Ferraro", "Ulrika Ferra"),
            ("Ingrid Kirkegaardenxy", "Ingrid Kirkegaarden", "Zora Ek", "Zora Ekxy"),
            ("Viggo Blaszok", "Viggo Blaszko", "Zora Kell", "Zora Kell"),
            ("Vigog Blaszko", "Viggo Blaszko", "Bo Kell", "Bo Kell"),
        ] {
            let found = misspelt(written, &[(name.to_owned(), other.to_owned())]).unwrap();
            assert_eq!((found.text.as_str(), found.mistakes > 0), (want, true), "{written}");
        }
    }

    #[test]
    fn edits_by_hand() {
        let of = |want: &str, is: &str| {
            let letters = |it: &str| it.chars().collect::<Vec<char>>();
            edits(&letters(want), &letters(is))
        };
        assert_eq!(of("viggo", "viggo"), []);
        assert_eq!(of("viggo", "vigog"), [Edit::Swap(3)]);
        assert_eq!(of("kitten", "sitting").len(), 3);
        assert_eq!(of("abc", ""), [Edit::Delete(0), Edit::Delete(1), Edit::Delete(2)]);
        assert_eq!(of("", "ab"), [Edit::Insert(0, 'a'), Edit::Insert(0, 'b')]);
    }

    proptest! {
        #[test]
        fn any_names_do(
            written in "[A-Za-z*]{1,14} [A-Za-z*]{1,14}",
            name in "[A-Za-z]{1,14} [A-Za-z]{1,14}",
            other in "[A-Za-z\u{e9}\u{df}]{1,5} [A-Za-z\u{130}]{1,5}",
        ) {
            let near = name.replace(['a', 'e'], "");
            for written in [written, near] {
                let found = misspelt(&written, &[(name.clone(), other.clone())]);
                prop_assert!(found.is_none_or(|it| it.text.contains(' ')));
            }
        }

        /// Scrambled words keep their letters, and no other word falls short.
        #[test]
        fn any_text_is_read(written in "[VviIgobBlLasSzZkK*. -]{0,20}") {
            if let Some((text, _)) = of(&written) {
                prop_assert!(text.chars().count() + 4 >= written.chars().count(), "{text}");
            }
        }
    }
}
