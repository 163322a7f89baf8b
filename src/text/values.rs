//! Values that can stand for each other, found in a text.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::normalise;

/// Lists of values by kind: cities, professions, years.
#[derive(Debug, Clone, Default)]
pub struct Values {
    listed: Vec<Listed>,
    /// Indices into `listed` by the first word, longest value first.
    by_first: HashMap<String, Vec<usize>>,
}

#[derive(Debug, Clone)]
struct Listed {
    kind: usize,
    text: String,
    normalised: String,
}

impl Values {
    /// The values of these kinds. One that is in several, in any case, counts for the first; one that
    /// does not begin with a letter or a digit is left out.
    #[must_use]
    pub fn new<'a>(kinds: impl IntoIterator<Item = &'a [String]>) -> Self {
        let mut known = HashSet::new();
        let mut values = Self::default();
        for (kind, texts) in kinds.into_iter().enumerate() {
            for text in texts {
                let text = text.trim().to_owned();
                let normalised = normalise(&text).text;
                let Some(first) = next_word(&normalised, 0).filter(|it| it.start == 0) else {
                    continue;
                };
                if known.insert(normalised.clone()) {
                    let first = normalised.get(first).unwrap_or_default().to_owned();
                    values.by_first.entry(first).or_default().push(values.listed.len());
                    values.listed.push(Listed { kind, text, normalised });
                }
            }
        }
        let listed = &values.listed;
        for indices in values.by_first.values_mut() {
            indices.sort_by_key(|it| std::cmp::Reverse(listed[*it].normalised.len()));
        }
        values
    }

    /// Whether there is nothing to find.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// A value as it was listed.
    #[must_use]
    pub fn text(&self, value: usize) -> &str {
        &self.listed[value].text
    }

    /// The values of the kind that a value is of, itself among them.
    pub fn kin(&self, value: usize) -> impl Iterator<Item = usize> {
        let kind = self.listed[value].kind;
        (0..self.listed.len()).filter(move |it| self.listed[*it].kind == kind)
    }

    /// A value for which no other can stand, because the rest of its kind counts for others.
    #[must_use]
    pub fn alone(&self) -> Option<&str> {
        let mut counts: HashMap<usize, usize> = HashMap::new();
        for it in &self.listed {
            *counts.entry(it.kind).or_default() += 1;
        }
        let alone = self.listed.iter().find(|it| counts.get(&it.kind) == Some(&1));
        alone.map(|it| it.text.as_str())
    }

    /// The values in a text as whole words in any case: bytes of the text, in order and apart, each with
    /// its value. Of values that begin together the longest counts.
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<(Range<usize>, usize)> {
        if self.is_empty() {
            return Vec::new();
        }
        let view = normalise(text);
        let mut found: Vec<(Range<usize>, usize)> = Vec::new();
        let mut at = 0;
        while let Some(word) = next_word(&view.text, at) {
            let rest = view.text.get(word.start..).unwrap_or_default();
            let named = view.text.get(word.clone()).and_then(|it| self.by_first.get(it));
            let here = named.into_iter().flatten().find(|it| {
                let after = rest.strip_prefix(self.listed[**it].normalised.as_str());
                after.is_some_and(|it| !it.starts_with(char::is_alphanumeric))
            });
            at = word.end;
            let Some(value) = here else { continue };
            at = word.start + self.listed[*value].normalised.len();
            let span = view.original_span(word.start..at);
            // One character may be read as several: "\u{bd}" as a one and a two.
            if found.last().is_none_or(|it| it.0.end <= span.start) {
                found.push((span, *value));
            }
        }
        found
    }
}

/// A value in the case of what it is written for: all capitals, all lower case or with a capital first,
/// as far as that differs from how it is listed.
#[must_use]
pub fn in_case_of(value: &str, written: &str) -> String {
    let letters = || written.chars().filter(|it| it.is_alphabetic());
    let first = letters().next();
    if letters().count() > 1 && letters().all(char::is_uppercase) {
        value.to_uppercase()
    } else if first.is_some() && letters().all(char::is_lowercase) {
        value.to_lowercase()
    } else if first.is_some_and(char::is_uppercase) {
        capitalised(value)
    } else {
        value.to_owned()
    }
}

/// A text with its first character in upper case.
#[must_use]
pub fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase);
    first.into_iter().flatten().chain(chars).collect()
}

/// The next run of letters and digits from a byte on.
fn next_word(text: &str, from: usize) -> Option<Range<usize>> {
    let rest = text.get(from..)?;
    let start = from + rest.find(char::is_alphanumeric)?;
    let word = text.get(start..)?;
    let length = word.find(|it: char| !it.is_alphanumeric()).unwrap_or(word.len());
    Some(start..start + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(lists: &[&[&str]]) -> Values {
        let own = |it: &&[&str]| it.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let lists: Vec<Vec<String>> = lists.iter().map(own).collect();
        Values::new(lists.iter().map(Vec::as_slice))
    }

    fn found(values: &Values, text: &str) -> Vec<(String, String)> {
        let found = values.find(text).into_iter();
        let shown = |it: (Range<usize>, usize)| {
            (text.get(it.0).unwrap().to_owned(), values.text(it.1).to_owned())
        };
        found.map(shown).collect()
    }

    #[test]
    fn values_are_whole_words_and_the_longest_counts() {
        let lists = [
            &["ten", "thirty-one"][..],
            &["fiction", "science fiction"],
            &["3 October", "9 July"],
            &["1", "2"],
        ];
        let values = values(&lists);
        let rows: [(&str, &[(&str, &str)]); 6] = [
            ("often ten tens, TEN.", &[("ten", "ten"), ("TEN", "ten")]),
            (
                "Science  Fiction or fiction",
                &[("Science  Fiction", "science fiction"), ("fiction", "fiction")],
            ),
            ("on 3 October 1961, not 13 October", &[("3 October", "3 October")]),
            ("t\u{200b}en \u{442}en", &[("t\u{200b}en", "ten"), ("\u{442}en", "ten")]),
            ("1\u{bd} \u{bd} \u{33c2}", &[("\u{bd}", "2"), ("\u{bd}", "1")]),
            ("nothing here, \u{1f600}", &[]),
        ];
        for (text, want) in rows {
            let want: Vec<(String, String)> =
                want.iter().map(|it| (it.0.to_owned(), it.1.to_owned())).collect();
            assert_eq!(found(&values, text), want, "{text}");
        }
    }

    #[test]
    fn a_value_counts_for_its_first_kind() {
        let values = values(&[&["Antwerp", "Turin"], &["antwerp", "Lyon", "-5"]]);
        let kin = |value: usize| values.kin(value).map(|it| values.text(it)).collect::<Vec<_>>();
        assert_eq!(kin(0), ["Antwerp", "Turin"]);
        assert_eq!(kin(2), ["Lyon"]);
        assert_eq!(found(&values, "-5 ANTWERP").len(), 1);
        assert_eq!(values.alone(), Some("Lyon"));
        assert!(Values::default().find("Antwerp").is_empty());
    }

    #[test]
    fn values_are_written_in_the_case_of_others() {
        for (value, written, want) in [
            ("Turin", "ANTWERP", "TURIN"),
            ("Turin", "antwerp", "turin"),
            ("Turin", "Antwerp", "Turin"),
            ("horror", "Fantasy", "Horror"),
            ("Harbor Press", "Zenith Books", "Harbor Press"),
            ("Turin", "aNtwerp", "Turin"),
            ("1961", "1972", "1961"),
            ("9 July", "3 October", "9 July"),
        ] {
            assert_eq!(in_case_of(value, written), want);
        }
    }
}
