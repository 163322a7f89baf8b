//! The Porter stemmer as NLTK ships it, which is the one behind published ROUGE numbers.
//!
//! NLTK's default mode departs from Porter's paper (M. F. Porter, "An algorithm for suffix
//! stripping", Program 14(3), 1980): a table of irregular words, `-y` kept after vowels, `-ies` and
//! `-ied` of four-letter words, `-alli`, `-fulli` and `-logi`. Every departure is kept, because one
//! stem that differs moves a ROUGE score.

/// Words whose stem no rule gives: the word, its stem.
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// A suffix and what replaces it.
type Rule = (&'static str, &'static str);

const STEP_1A: [Rule; 4] = [("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")];

const STEP_2: [Rule; 21] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
];

const STEP_3: [Rule; 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

/// Order matters: `ement` before `ment` before `ent`.
const STEP_4: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
];

/// The stem of a word, in lower case. Words of up to two letters are their own stems.
///
/// Equal to `nltk.stem.porter.PorterStemmer().stem(word)`. ROUGE stems only words longer than three
/// characters; that rule is the caller's.
#[must_use]
pub fn stem(word: &str) -> String {
    let lower = word.to_lowercase();
    if let Some((_, stem)) = IRREGULAR.iter().find(|(irregular, _)| *irregular == lower) {
        return (*stem).to_owned();
    }
    if word.chars().count() <= 2 {
        return lower;
    }
    let word = step_1a(lower);
    let word = step_1b(word);
    let word = step_1c(word);
    let word = step_2(word);
    let word = apply(word, &STEP_3, |stem| measure(stem) > 0);
    let word = step_4(word);
    let word = step_5a(word);
    step_5b(word)
}

/// Applies the first rule whose suffix fits. Where its condition fails the word stays, even if a
/// later rule would fit too.
fn apply(word: String, rules: &[Rule], condition: impl Fn(&str) -> bool) -> String {
    let fitting =
        rules.iter().find_map(|(suffix, new)| word.strip_suffix(suffix).map(|stem| (stem, *new)));
    match fitting {
        Some((stem, new)) if condition(stem) => format!("{stem}{new}"),
        _ => word,
    }
}

fn step_1a(word: String) -> String {
    if word.chars().count() == 4
        && let Some(stem) = word.strip_suffix("ies")
    {
        return format!("{stem}ie");
    }
    apply(word, &STEP_1A, |_| true)
}

fn step_1b(word: String) -> String {
    if let Some(stem) = word.strip_suffix("ied") {
        let end = if word.chars().count() == 4 { "ie" } else { "i" };
        return format!("{stem}{end}");
    }
    if let Some(stem) = word.strip_suffix("eed") {
        return if measure(stem) > 0 { format!("{stem}ee") } else { word };
    }
    let shorter = word.strip_suffix("ed").or_else(|| word.strip_suffix("ing"));
    match shorter {
        Some(stem) if has_vowel(stem) => tidy_1b(stem),
        _ => word,
    }
}

/// What follows the removal of `-ed` or `-ing`: an `e` put back or a doubled consonant halved.
fn tidy_1b(stem: &str) -> String {
    if ["at", "bl", "iz"].iter().any(|end| stem.ends_with(end)) {
        return format!("{stem}e");
    }
    if ends_double_consonant(stem) {
        let mut shorter = stem.to_owned();
        if !stem.ends_with(['l', 's', 'z']) {
            shorter.pop();
        }
        return shorter;
    }
    if measure(stem) == 1 && ends_cvc(stem) {
        return format!("{stem}e");
    }
    stem.to_owned()
}

/// `y` becomes `i` after a consonant that is not the word's first letter.
fn step_1c(word: String) -> String {
    apply(word, &[("y", "i")], |stem| {
        let flags = consonants(stem);
        flags.len() > 1 && flags.last().copied().unwrap_or(false)
    })
}

fn step_2(word: String) -> String {
    if let Some(stem) = word.strip_suffix("alli")
        && measure(stem) > 0
    {
        return step_2(format!("{stem}al"));
    }
    // The condition looks at the stem with its `l`, unlike every other rule.
    if let Some(stem) = word.strip_suffix("logi") {
        let with_l = format!("{stem}l");
        return if measure(&with_l) > 0 { format!("{stem}log") } else { word };
    }
    apply(word, &STEP_2, |stem| measure(stem) > 0)
}

fn step_4(word: String) -> String {
    let fitting =
        STEP_4.iter().find_map(|suffix| word.strip_suffix(suffix).map(|stem| (stem, *suffix)));
    match fitting {
        Some((stem, suffix))
            if measure(stem) > 1 && (suffix != "ion" || stem.ends_with(['s', 't'])) =>
        {
            stem.to_owned()
        }
        _ => word,
    }
}

fn step_5a(word: String) -> String {
    match word.strip_suffix('e') {
        Some(stem) if measure(stem) > 1 || (measure(stem) == 1 && !ends_cvc(stem)) => {
            stem.to_owned()
        }
        _ => word,
    }
}

fn step_5b(word: String) -> String {
    match word.strip_suffix('l') {
        Some(shorter) if shorter.ends_with('l') && measure(shorter) > 1 => shorter.to_owned(),
        _ => word,
    }
}

/// Per letter, whether it is a consonant. `y` is one at the start and after a vowel.
fn consonants(word: &str) -> Vec<bool> {
    let mut flags = Vec::with_capacity(word.len());
    for letter in word.chars() {
        let flag = match letter {
            'a' | 'e' | 'i' | 'o' | 'u' => false,
            'y' => flags.last().is_none_or(|previous: &bool| !*previous),
            _ => true,
        };
        flags.push(flag);
    }
    flags
}

/// How often a vowel is followed by a consonant, Porter's `m`.
fn measure(stem: &str) -> usize {
    consonants(stem).windows(2).filter(|pair| !pair[0] && pair[1]).count()
}

fn has_vowel(stem: &str) -> bool {
    consonants(stem).contains(&false)
}

fn ends_double_consonant(word: &str) -> bool {
    let mut last_first = word.chars().rev();
    let (last, before) = (last_first.next(), last_first.next());
    last.is_some() && last == before && consonants(word).last().copied().unwrap_or(false)
}

/// Consonant, vowel, consonant other than `w`, `x`, `y`; or a word of a vowel and a consonant.
fn ends_cvc(word: &str) -> bool {
    match consonants(word).as_slice() {
        [false, true] => true,
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of Porter's paper, run through the whole algorithm, and NLTK's departures.
    #[test]
    fn stems_the_words_of_the_paper() {
        for (word, want) in [
            ("caresses", "caress"),
            ("ponies", "poni"),
            ("ties", "tie"),
            ("cats", "cat"),
            ("feed", "feed"),
            ("agreed", "agre"),
            ("plastered", "plaster"),
            ("motoring", "motor"),
            ("sing", "sing"),
            ("conflated", "conflat"),
            ("hopping", "hop"),
            ("falling", "fall"),
            ("filing", "file"),
            ("happy", "happi"),
            ("enjoy", "enjoy"),
            ("relational", "relat"),
            ("vietnamization", "vietnam"),
            ("replacement", "replac"),
            ("adoption", "adopt"),
            ("controlling", "control"),
            ("dying", "die"),
            ("geology", "geolog"),
            ("Spied", "spi"),
            ("as", "as"),
        ] {
            assert_eq!(stem(word), want, "{word}");
        }
    }

    #[test]
    fn measures_as_the_paper_does() {
        for (word, want) in [("tree", 0), ("by", 0), ("oats", 1), ("ivy", 1), ("orrery", 2)] {
            assert_eq!(measure(word), want, "{word}");
        }
    }

    #[test]
    fn takes_any_text() {
        for (word, want) in [("", ""), ("é", "é"), ("naïvely", "naïv"), ("1990s", "1990")] {
            assert_eq!(stem(word), want);
        }
    }
}
