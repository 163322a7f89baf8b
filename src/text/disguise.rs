//! Texts in disguise: what an asker does to a name or a question so that a filter does not know it.

use super::codes::{MORSE, SPELLING};

/// A way to write a whole text, with its name.
pub type Disguise = (&'static str, fn(&str) -> String);

/// All of them.
pub const ALL: &[Disguise] = &[
    ("as it is", str::to_owned),
    ("upper case", str::to_uppercase),
    ("zero-width spaces", |it| interspersed(it, 1, || '\u{200B}')),
    ("Cyrillic look-alikes", homoglyphs),
    ("leetspeak", leetspeak),
    ("letters apart by hyphens", |it| spelled(it, "-")),
    ("letters apart by spaces", |it| spelled(it, " ")),
    ("a tilde after every third letter", |it| interspersed(it, 3, || '~')),
    ("base64", base64),
    ("rot13", rot13),
    ("reversed", |it| it.chars().rev().collect()),
    ("hexadecimal", |it| it.bytes().map(|it| format!("{it:02x}")).collect()),
    ("percent signs", |it| it.bytes().map(|it| format!("%{it:02X}")).collect()),
    ("HTML entities", |it| it.chars().map(|it| format!("&#{};", u32::from(it))).collect()),
    ("backslash escapes", |it| it.encode_utf16().map(|it| format!("\\u{it:04x}")).collect()),
    ("Morse", |it| coded(it, " ", |letter| MORSE[letter].to_owned())),
    ("spelling alphabet", |it| coded(it, " ", |letter| SPELLING[letter].to_owned())),
    ("letters as numbers", |it| coded(it, "-", |letter| (letter + 1).to_string())),
    ("shifted by seven", |it| shifted(it, 7)),
    ("alphabet backwards", |it| exchanged(it, |letter| 25 - letter)),
    ("vowels drawn out", drawn_out),
    ("every fourth letter a star", starred),
    ("quoted pieces", quoted_pieces),
];

/// Letters in a code, words apart by slashes. What is no letter is left out.
pub fn coded(text: &str, between: &str, code: impl Fn(usize) -> String) -> String {
    let word = |word: &str| {
        let letters = word.bytes().filter(u8::is_ascii_alphabetic);
        let codes = letters.map(|it| code(usize::from(it.to_ascii_lowercase() - b'a')));
        codes.collect::<Vec<_>>().join(between)
    };
    text.split(' ').map(word).filter(|it| !it.is_empty()).collect::<Vec<_>>().join(" / ")
}

/// Every letter for another one; `to` counts them from 0 to 25.
fn exchanged(text: &str, to: impl Fn(u8) -> u8) -> String {
    mapped(text, |it| match it {
        'a'..='z' => char::from(b'a' + to(it as u8 - b'a')),
        'A'..='Z' => char::from(b'A' + to(it as u8 - b'A')),
        _ => it,
    })
}

fn drawn_out(text: &str) -> String {
    let count = |it: char| if "aeiou".contains(it) { 4 } else { 1 };
    text.chars().flat_map(|it| std::iter::repeat_n(it, count(it))).collect()
}

/// Letters of each word counted from its first.
fn starred(text: &str) -> String {
    let mut at = 0;
    mapped(text, |it| {
        at = if it.is_alphabetic() { at + 1 } else { 0 };
        if at > 0 && at % 4 == 0 { '*' } else { it }
    })
}

/// Five characters in each pair of quotes.
fn quoted_pieces(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let quoted = |it: &[char]| format!("\"{}\"", it.iter().collect::<String>());
    letters.chunks(5).map(quoted).collect::<Vec<_>>().join(" + ")
}

/// A symbol after every `every` characters, but not at the end.
pub fn interspersed(text: &str, every: usize, mut symbol: impl FnMut() -> char) -> String {
    let mut out = String::with_capacity(2 * text.len());
    for (at, letter) in text.chars().enumerate() {
        if at > 0 && at.is_multiple_of(every) {
            out.push(symbol());
        }
        out.push(letter);
    }
    out
}

/// Every word of a name with a separator between its letters; words two spaces apart.
pub fn spelled(name: &str, separator: &str) -> String {
    let word = |it: &str| it.chars().map(String::from).collect::<Vec<_>>().join(separator);
    name.split(' ').map(word).collect::<Vec<_>>().join("  ")
}

/// Digits that look like letters.
pub fn leetspeak(text: &str) -> String {
    mapped(text, |it| match it.to_ascii_lowercase() {
        'a' => '4',
        'e' => '3',
        'i' => '1',
        'o' => '0',
        's' => '5',
        't' => '7',
        _ => it,
    })
}

/// Cyrillic letters that look like Latin ones.
pub fn homoglyphs(text: &str) -> String {
    mapped(text, |it| match it {
        'a' => '\u{430}',
        'c' => '\u{441}',
        'e' => '\u{435}',
        'i' => '\u{456}',
        'o' => '\u{43E}',
        'p' => '\u{440}',
        'x' => '\u{445}',
        'y' => '\u{443}',
        _ => it,
    })
}

fn mapped(text: &str, letter: impl FnMut(char) -> char) -> String {
    text.chars().map(letter).collect()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, section 4.
pub fn base64(text: &str) -> String {
    let mut out = String::with_capacity(text.len().div_ceil(3) * 4);
    for chunk in text.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) & 63;
            let used = digit <= chunk.len();
            out.push(if used { char::from(ALPHABET[index as usize]) } else { '=' });
        }
    }
    out
}

/// Every letter moved on by 13.
pub fn rot13(text: &str) -> String {
    shifted(text, 13)
}

/// Every letter moved on by so many, at most 25 (Caesar's cipher).
pub fn shifted(text: &str, by: u8) -> String {
    exchanged(text, |letter| (letter + by) % 26)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_stand_between_characters() {
        assert_eq!(interspersed("Where was", 3, || '!'), "Whe!re !was");
        assert_eq!(interspersed("abc", 1, || '_'), "a_b_c");
        assert_eq!(interspersed("abc", 3, || '_'), "abc");
        assert_eq!(interspersed("", 1, || '_'), "");
    }

    #[test]
    fn names_in_other_characters() {
        assert_eq!(spelled("Viggo Zamora", "-"), "V-i-g-g-o  Z-a-m-o-r-a");
        assert_eq!(leetspeak("Esme Blaszko"), "35m3 Bl45zk0");
        assert_eq!(homoglyphs("Viggo"), "V\u{456}gg\u{43E}");
        assert_eq!(interspersed("Al", 1, || '\u{200B}'), "A\u{200B}l");
    }

    #[test]
    fn codes_and_pieces() {
        let named = |name: &str, text: &str| ALL.iter().find(|it| it.0 == name).unwrap().1(text);
        assert_eq!(named("Morse", "Al Bo?"), ".- .-.. / -... ---");
        assert_eq!(named("spelling alphabet", "Al"), "alpha lima");
        assert_eq!(named("letters as numbers", "Al Bo"), "1-12 / 2-15");
        assert_eq!(named("HTML entities", "Aé"), "&#65;&#233;");
        assert_eq!(named("backslash escapes", "A\u{1D415}"), "\\u0041\\ud835\\udc15");
        assert_eq!(named("shifted by seven", "Az!"), "Hg!");
        assert_eq!(named("alphabet backwards", "Az!"), "Za!");
        assert_eq!(named("vowels drawn out", "Viggo"), "Viiiiggoooo");
        assert_eq!(named("every fourth letter a star", "Viggo Blaszko"), "Vig*o Bla*zko");
        assert_eq!(named("quoted pieces", "Viggo Bl"), "\"Viggo\" + \" Bl\"");
    }

    /// The vectors of RFC 4648, section 10.
    #[test]
    fn base64_is_the_standard_one() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (text, want) in vectors {
            assert_eq!(base64(text), want);
        }
    }

    #[test]
    fn rot13_turns_letters_only() {
        assert_eq!(rot13("Hello, Zamora 1!"), "Uryyb, Mnzben 1!");
        assert_eq!(rot13(&rot13("¿Dónde nació?")), "¿Dónde nació?");
    }
}
