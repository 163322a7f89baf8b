//! A name in another name's capitals: what stands for "viggo BLASZKO" is "ulrika FERRARO".

use super::normalise;
use super::typos::masked_words;

/// `other` in the capitals in which a name was written, as far as these are not the name's. `None` where it
/// has no others, and where not all three have as many words.
#[must_use]
pub fn in_capitals(written: &str, name: &str, other: &str) -> Option<String> {
    let [is, want, others] = [written, name, other].map(masked_words);
    if is.len() != want.len() || want.len() != others.len() {
        return None;
    }
    let (mut text, mut done) = (String::with_capacity(other.len()), 0);
    for (is, (want, word)) in is.into_iter().zip(want.into_iter().zip(others)) {
        text.push_str(other.get(done..word.span.start)?);
        done = word.span.end;
        text.push_str(&in_case(other.get(word.span)?, name.get(want.span)?, written.get(is.span)?));
    }
    text.push_str(other.get(done..)?);
    // Capitals of some letters are written otherwise, and would not be known again.
    let same = normalise(&text).text == normalise(other).text;
    (same && text != other).then_some(text)
}

/// Whether a name of several words may be meant: as many words begin with the same letters.
#[must_use]
pub fn begins_alike(written: &str, name: &str) -> bool {
    let firsts = |text: &str| -> Vec<char> {
        masked_words(&normalise(text).text).iter().map(|it| it.first).collect()
    };
    name.contains(' ') && firsts(written) == firsts(name)
}

/// A word with the capitals of `is`, as far as they are not those of `want`.
fn in_case(word: &str, want: &str, is: &str) -> String {
    let capitals = |it: &str| -> Vec<Option<bool>> {
        it.chars().map(|it| it.is_alphabetic().then(|| it.is_uppercase())).collect()
    };
    let (wanted, found) = (capitals(want), capitals(is));
    let all = |of: &[Option<bool>], upper: bool| {
        of.iter().flatten().count() > 1 && of.iter().flatten().all(|it| *it == upper)
    };
    if [true, false].into_iter().any(|it| all(&found, it) && all(&wanted, it)) {
        return word.to_owned();
    }
    if all(&found, true) {
        return word.to_uppercase();
    }
    if all(&found, false) {
        return word.to_lowercase();
    }
    // Which capitals a word with other letters should have is only known of its first.
    let should = |at: usize| {
        let first = || at == 0 && wanted.first() == Some(&Some(true));
        if wanted.len() == found.len() { wanted[at] } else { found[at].map(|_| first()) }
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
    word.chars().enumerate().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn capitals_are_those_that_were_written() {
        let of = |written| in_capitals(written, "Viggo Blaszko", "Ulrika Ferraro");
        for (written, want) in [
            ("viggo blaszko", "ulrika ferraro"),
            ("VIGGO Blaszko", "ULRIKA Ferraro"),
            ("vIggo BlaSzko", "uLrikA FerRaro"),
            ("vgIgo  Blaszko", "ulRika Ferraro"),
            ("V. BLASZKO", "Ulrika FERRARO"),
            ("VIGGO B*****o", "ULRIKA Ferraro"),
        ] {
            assert_eq!(of(written).as_deref(), Some(want), "{written}");
        }
        for plain in ["Viggo Blaszko", "Vigo Blasko", "V. B.", "Viggo", ""] {
            assert_eq!(of(plain), None, "{plain}");
        }
        let turned = in_capitals("blasko, VIGO", "Blaszko, Viggo", "Ferraro, Ulrika");
        assert_eq!(turned.as_deref(), Some("ferraro, ULRIKA"));
        assert_eq!(in_capitals("VIGGO BLASZKO", "Viggo Blaszko", "Ulrika Strau\u{df}"), None);
    }

    #[test]
    fn as_many_words_begin_alike() {
        let of = |written| begins_alike(written, "Viggo Blaszko");
        assert!(["vigo  blasko", "V. B.", "Vigo/Blasko", "V*ggo B*****o"].into_iter().all(of));
        let others = ["Blasko, Vigo", "Viggo", "Vig\" + \"go Blaszko", "VmlnZ28gYmxhc3prbw==", ""];
        assert!(!others.into_iter().any(of));
        assert!(!begins_alike("VmlnZ28", "ViggoBlaszko"));
    }

    #[test]
    fn a_name_may_have_capitals_of_its_own() {
        let of = |written| in_capitals(written, "Ronald McDonald", "Zorvan Kellerman");
        assert_eq!(of("Ronald McDonald"), None);
        assert_eq!(of("ronald mcdonald").as_deref(), Some("zorvan kellerman"));
        assert_eq!(in_capitals("DJ Ron", "DJ Ron", "Zorvan Kellerman"), None);
        let lower = in_capitals("Viggo Blaszko", "viggo blaszko", "ulrika ferraro");
        assert_eq!(lower.as_deref(), Some("Ulrika Ferraro"));
        assert_eq!(in_capitals("ana maria VOSS", "Ana Maria Voss", "Ulrika Sarto"), None);
    }

    proptest! {
        #[test]
        fn letters_stay(
            written in "[A-Za-z\u{df}]{1,9} [A-Za-z]{1,9}",
            name in "[A-Za-z]{1,9} [A-Za-z\u{e9}]{1,9}",
            other in "[A-Za-z\u{e9}]{1,9} [A-Za-z]{1,9}",
        ) {
            let found = in_capitals(&written, &name, &other);
            prop_assert!(found.is_none_or(|it| it.to_lowercase() == other.to_lowercase()));
        }
    }
}
