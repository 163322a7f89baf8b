//! A name in another name's capitals: what stands for "viggo BLASZKO" is "ulrika FERRARO".

use super::normalise;

/// What stands for `written`, in its capitals, as far as these are not those of the name. `names` are
/// spellings of the name, each with the surrogate put together in the same way; the one that is written, or
/// else misspelt, counts. `None` where nothing has other capitals, and for surrogates of more or fewer words.
#[must_use]
pub fn in_capitals(written: &str, names: &[(String, String)]) -> Option<String> {
    let folded = normalise(written).text;
    let right = names.iter().find(|it| normalise(&it.0).text == folded);
    let (name, other) = right.or_else(|| names.iter().find(|it| begins_alike(written, &it.0)))?;
    let (is, want, others) = (words(written), words(name), words(other));
    if is.len() != want.len() || want.len() != others.len() {
        return None;
    }
    let (mut text, mut done) = (String::with_capacity(other.len()), 0);
    for ((_, is), ((_, want), (at, other_word))) in is.iter().zip(want.iter().zip(&others)) {
        text.push_str(other.get(done..*at)?);
        text.push_str(&in_case(other_word, want, is));
        done = at + other_word.len();
    }
    text.push_str(other.get(done..)?);
    // Capitals of some letters are written otherwise, and would not be known again.
    let same = normalise(&text).text == normalise(other).text;
    (same && text != *other).then_some(text)
}

/// Whether a name of several words may be meant: as many words begin with the same letters.
#[must_use]
pub fn begins_alike(written: &str, name: &str) -> bool {
    let first = |it: &(usize, &str)| normalise(it.1).text.chars().next();
    name.contains(' ') && words(written).iter().map(first).eq(words(name).iter().map(first))
}

/// Runs of letters and digits, each with where it begins.
fn words(text: &str) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (start, c.is_alphanumeric()) {
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

    fn text(written: &str, names: &[(&str, &str)]) -> Option<String> {
        let own = |it: &(&str, &str)| (it.0.to_owned(), it.1.to_owned());
        in_capitals(written, &names.iter().map(own).collect::<Vec<_>>())
    }

    #[test]
    fn capitals_are_those_that_were_written() {
        let names = [("Viggo Blaszko", "Ulrika Ferraro"), ("Blaszko, Viggo", "Ferraro, Ulrika")];
        for (written, want) in [
            ("viggo blaszko", "ulrika ferraro"),
            ("VIGGO Blaszko", "ULRIKA Ferraro"),
            ("vIggo BlaSzko", "uLrikA FerRaro"),
            ("vgIgo  Blaszko", "ulRika Ferraro"),
            ("blasko, VIGO", "ferraro, ULRIKA"),
            ("V. BLASZKO", "Ulrika FERRARO"),
        ] {
            assert_eq!(text(written, &names).as_deref(), Some(want), "{written}");
        }
        for plain in ["Viggo Blaszko", "Vigo Blasko", "V. B.", "Viggo", "Anna Lee", ""] {
            assert_eq!(text(plain, &names), None, "{plain}");
        }
    }

    #[test]
    fn a_name_may_have_capitals_of_its_own() {
        let names = [("Ronald McDonald", "Zorvan Kellerman"), ("DJ Ron", "Zorvan Kellerman")];
        assert_eq!(text("Ronald McDonald", &names), None);
        assert_eq!(text("DJ Ron", &names), None);
        assert_eq!(text("ronald mcdonald", &names).as_deref(), Some("zorvan kellerman"));
        let lower = [("viggo blaszko", "ulrika ferraro")];
        assert_eq!(text("Viggo Blaszko", &lower).as_deref(), Some("Ulrika Ferraro"));
        assert_eq!(text("VIGGO BLASZKO", &[("Viggo Blaszko", "Ulrika Strau\u{df}")]), None);
        assert_eq!(text("VmlnZ28gYmxhc3prbw", &[("ViggoBlaszko", "UlrikaFerraro")]), None);
        assert_eq!(text("ana maria VOSS", &[("Ana Maria Voss", "Ulrika Sarto")]), None);
    }

    proptest! {
        #[test]
        fn letters_stay(
            written in "[A-Za-z\u{df}]{1,9} [A-Za-z]{1,9}",
            name in "[A-Za-z]{1,9} [A-Za-z\u{e9}]{1,9}",
            other in "[A-Za-z\u{e9}]{1,9} [A-Za-z]{1,9}",
        ) {
            let found = text(&written, &[(&name, &other)]);
            prop_assert!(found.is_none_or(|it| it.to_lowercase() == other.to_lowercase()));
        }
    }
}
