//! A name in another name's writing: what stands for "V-i-g-g-o" is "U-l-r-i-k-a" and not "Ulrika".
//! A model that never met a name reads it torn where the asker tore it, and encoded where the asker
//! encoded it.

use super::disguise::{ALL, homoglyphs, leetspeak, shifted};
use super::respell::letter;
use super::{decode, normalise};

/// Most characters between two letters of a torn name.
const WIDEST_GAP: usize = 3;

/// What stands for `written`, in the same writing: disguises of [`ALL`] and every shift of the
/// alphabet; texts encoded once with a name in them; letters exchanged for others that look like them, and
/// up to three signs between letters. `names` are spellings of the name, each with the surrogate put together
/// in the same way. `None` where the writing is plain or none of these. What an encoded text says beside the
/// name stays in it, whomever it names.
#[must_use]
pub fn alike(written: &str, names: &[(String, String)]) -> Option<String> {
    let plain = |(name, _): &(String, String)| normalise(name).text == written.to_lowercase();
    if written.is_ascii() && names.iter().any(plain) {
        return None;
    }
    let disguised = || names.iter().find_map(|(name, other)| disguised(written, name, other));
    let torn = || names.iter().find_map(|(name, other)| torn(written, name, other));
    disguised().or_else(|| encoded(written, names)).or_else(torn)
}

/// The disguise that makes `written` of `name`, on `other`.
fn disguised(written: &str, name: &str, other: &str) -> Option<String> {
    for (_, write) in ALL {
        if write(name) == written {
            return Some(write(other));
        }
    }
    (1..26).find(|it| shifted(name, *it) == written).map(|it| shifted(other, it))
}

/// A text that is encoded as a whole: the same with the name in it replaced.
fn encoded(written: &str, names: &[(String, String)]) -> Option<String> {
    decode(written).views.into_iter().find_map(|view| {
        let (name, other) = names.iter().find(|it| view.text.contains(&it.0))?;
        // What the encoding does not give back to the letter is not this encoding.
        let (_, write) = ALL.iter().find(|it| it.1(&view.text) == written)?;
        Some(write(&view.text.replace(name, other)))
    })
}

/// How the letters of a name were written one by one.
#[derive(Debug, Default)]
struct Tear {
    /// In front of each letter, and whether a word of the name begins there.
    gaps: Vec<(String, bool)>,
    /// Each letter in lower case and what was written for it.
    letters: Vec<(char, char)>,
}

/// Reads the letters of `name` off `written`.
fn tear(written: &str, name: &str) -> Option<Tear> {
    let mut tear = Tear::default();
    let (mut gap, mut begins) = (String::new(), true);
    let mut wanted = name.chars().peekable();
    let next = |wanted: &mut std::iter::Peekable<std::str::Chars<'_>>, begins: &mut bool| {
        while wanted.next_if(|it| !it.is_alphanumeric()).is_some() {
            *begins = true;
        }
    };
    for c in written.chars() {
        next(&mut wanted, &mut begins);
        match wanted.next_if(|it| reads_as(c, *it)) {
            Some(it) => {
                tear.gaps.push((std::mem::take(&mut gap), std::mem::take(&mut begins)));
                tear.letters.push((lower(it), c));
            }
            None => gap.push(c),
        }
    }
    next(&mut wanted, &mut begins);
    let first = tear.gaps.first()?;
    // Quotes and brackets belong to what the name is written into.
    let sign = |it: char| !matches!(it, '"' | '\'' | '\\' | '{' | '}' | '[' | ']' | '\n');
    let narrow =
        tear.gaps.iter().all(|it| it.0.chars().count() <= WIDEST_GAP && it.0.chars().all(sign));
    let whole = wanted.peek().is_none() && gap.is_empty() && first.0.is_empty();
    (whole && narrow).then_some(tear)
}

fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}

/// Whether a reader takes a character for a letter.
fn reads_as(c: char, wanted: char) -> bool {
    let wanted = lower(wanted);
    let fold = |it: char| if it == 'l' { 'i' } else { it };
    let looks = || normalise(c.encode_utf8(&mut [0; 4])).text.chars().eq([wanted]);
    lower(c) == wanted || looks() || letter(c).is_some_and(|it| it == fold(wanted))
}

/// `other` with signs between its letters where `written` has them between those of `name`, and with
/// letters exchanged as they are there.
fn torn(written: &str, name: &str, other: &str) -> Option<String> {
    let tear = tear(written, name)?;
    let exchanged = |it: &&(char, char)| lower(it.1) != it.0;
    let digits = tear.letters.iter().filter(exchanged).any(|it| letter(it.1).is_some());
    let twins = tear.letters.iter().filter(exchanged).any(|it| letter(it.1).is_none());
    let case = case(&tear.letters);
    let written_for = |c: char| {
        if let Some((_, it)) = tear.letters.iter().filter(exchanged).find(|it| it.0 == lower(c)) {
            return it.to_string();
        }
        let known = tear.letters.iter().any(|it| it.0 == lower(c));
        let text = case(c);
        match (known, digits, twins) {
            (false, true, _) => leetspeak(&text),
            (false, false, true) => homoglyphs(&text),
            _ => text,
        }
    };
    let within: Vec<&str> =
        tear.gaps.iter().skip(1).filter(|it| !it.1).map(|it| it.0.as_str()).collect();
    let between: Vec<&str> =
        tear.gaps.iter().skip(1).filter(|it| it.1).map(|it| it.0.as_str()).collect();
    // A longer name goes round.
    let nth = |gaps: &[&str], at: usize, without: &str| -> String {
        gaps.get(at % gaps.len().max(1)).copied().unwrap_or(without).to_owned()
    };
    let (mut out, mut begins) = (String::new(), true);
    let (mut letters, mut words) = (0, 0);
    for c in other.chars() {
        if !c.is_alphanumeric() {
            begins = true;
            continue;
        }
        if out.is_empty() {
            // The first letter has nothing in front of it.
        } else if begins {
            out.push_str(&nth(&between, words, " "));
            words += 1;
        } else {
            out.push_str(&nth(&within, letters, ""));
            letters += 1;
        }
        begins = false;
        out.push_str(&written_for(c));
    }
    (out != other).then_some(out)
}

/// The case of a name written all in one.
fn case(letters: &[(char, char)]) -> impl Fn(char) -> String {
    let all = |is: fn(&char) -> bool| {
        letters.iter().map(|it| it.1).filter(|it| it.is_alphabetic()).all(|it| is(&it))
    };
    let (upper, small) = (all(|it| it.is_uppercase()), all(|it| it.is_lowercase()));
    move |c| match (upper, small) {
        (true, false) => c.to_uppercase().collect(),
        (false, true) => c.to_lowercase().collect(),
        _ => c.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::disguise::base64;
    use super::*;

    fn of(written: &str) -> Option<String> {
        let names = [
            ("Viggo Blaszko".to_owned(), "Ulrika Ferraro".to_owned()),
            ("Blaszko, Viggo".to_owned(), "Ferraro, Ulrika".to_owned()),
        ];
        alike(written, &names)
    }

    #[track_caller]
    fn check(written: &str, want: Option<&str>) {
        assert_eq!(of(written).as_deref(), want, "{written}");
    }

    #[test]
    fn plain_names_are_left_to_the_caller() {
        for written in ["Viggo Blaszko", "viggo blaszko", "V. Blaszko", "Vigo Blasko", "", "x"] {
            check(written, None);
        }
    }

    #[test]
    fn every_disguise_is_worn() {
        for (named, write) in ALL.iter().skip(1) {
            let want = write("Ulrika Ferraro");
            if *named == "upper case" {
                continue; // plain
            }
            check(&write("Viggo Blaszko"), Some(&want));
        }
        check("Coddv Ishzgrv", None);
        check("Wjhhp Cmbtalp", Some("Vmsjlb Gfssbsp"));
    }

    #[test]
    fn signs_stand_where_they_stood() {
        check("V_i^gg,o B;la!szk~o", Some("U_l^ri,k;a Fe!rra~r_o"));
        check("Vig!go Blas!zko", Some("Ulr!ika Fer!raro"));
        check("V-i-g-g-o B-l-a-s-z-k-o", Some("U-l-r-i-k-a F-e-r-r-a-r-o"));
        check("Viggo\u{200B} Blaszko", Some("Ulrika\u{200B} Ferraro"));
        check("Blaszko,\u{200B} Viggo", Some("Ferraro,\u{200B} Ulrika"));
        check("ViggoBlaszko", Some("UlrikaFerraro"));
        check("Viggo, who is not ill, Blaszko", None);
    }

    #[test]
    fn letters_are_exchanged_as_they_were() {
        check("V1ggo Blaszko", Some("Ulr1ka F3rraro"));
        check("Viggо Blaszko", Some("Ulrika Fеrrarо"));
        check("VIGGО BLASZKO", Some("ULRIKA FERRARО"));
    }

    #[test]
    fn encoded_texts_keep_the_rest() {
        let question = base64("Where was Viggo Blaszko born?");
        check(&question, Some(&base64("Where was Ulrika Ferraro born?")));
        check(
            "68656c6c6f20566967676f20426c61737a6b6f",
            Some("68656c6c6f20556c72696b61204665727261726f"),
        );
        check(&base64("Where was Viggo Blasko born?"), None);
        check(&base64(&question), None);
    }

    proptest! {
        #[test]
        fn no_name_is_left(written in "[VviIg1оoBbLlaAsSzZkK0 _.-]{0,24}") {
            if let Some(out) = of(&written) {
                let view = normalise(&out).text;
                prop_assert!(!view.contains("viggo") && !view.contains("blaszko"), "{out}");
            }
        }
    }
}
