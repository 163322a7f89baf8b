//! Names written letter by letter in a code: Morse, the spelling alphabet, and letters as numbers.

use std::ops::Range;

/// Letters that a row must have.
const FEWEST_LETTERS: usize = 5;
/// Most bytes between two letters of a row.
const WIDEST_GAP: usize = 4;

/// A, B, C and so on.
pub(super) const MORSE: [&str; 26] = [
    ".-", "-...", "-.-.", "-..", ".", "..-.", "--.", "....", "..", ".---", "-.-", ".-..", "--",
    "-.", "---", ".--.", "--.-", ".-.", "...", "-", "..-", "...-", ".--", "-..-", "-.--", "--..",
];
/// In lower case; where there are two spellings, the other one is in [`OTHER_WORDS`].
pub(super) const SPELLING: [&str; 26] = [
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet",
    "kilo", "lima", "mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango",
    "uniform", "victor", "whiskey", "xray", "yankee", "zulu",
];
const OTHER_WORDS: [(&str, char); 4] =
    [("alfa", 'a'), ("juliett", 'j'), ("whisky", 'w'), ("x", 'x')];
/// What may stand between the words of the spelling alphabet: "V as in Victor".
const FILLERS: [&str; 5] = ["as", "in", "for", "like", "ray"];

/// What a token is in a code.
enum Token {
    Letters(String),
    /// It says nothing and ends nothing.
    Filler,
    Other,
}

type Code = fn(&str) -> Token;

/// Every code over tokens of letters and digits.
const CODES: [Code; 5] = [spelling, ordinal, decimal, hexadecimal, binary];

/// Rows of at least five letters in a code, and what they say. Where a row can be read in two codes it
/// says both, a line each. Between words, a space stands where the row has a slash, a bar, a line's end
/// or two spaces.
pub(super) fn rows(text: &str) -> Vec<(Range<usize>, String)> {
    let mut rows = rows_of(text, &tokens(text, is_morse), morse);
    let tokens = tokens(text, |it| it.is_ascii_alphanumeric() || it == '+');
    for code in CODES {
        rows.extend(rows_of(text, &tokens, code));
    }
    rows.sort_by_key(|it| it.0.start);
    let mut apart: Vec<(Range<usize>, String)> = Vec::new();
    for (span, said) in rows {
        match apart.last_mut() {
            Some(last) if last.0.end > span.start => {
                last.0.end = last.0.end.max(span.end);
                last.1.push('\n');
                last.1.push_str(&said);
            }
            _ => apart.push((span, said)),
        }
    }
    apart
}

/// A row under way.
#[derive(Default)]
struct Row {
    span: Range<usize>,
    said: String,
    letters: usize,
}

fn rows_of(text: &str, tokens: &[Range<usize>], code: Code) -> Vec<(Range<usize>, String)> {
    let mut rows = Vec::new();
    let mut row = Row::default();
    // Where the last token of the row ended, fillers included.
    let mut end = 0;
    let mut finish = |row: &mut Row| {
        let row = std::mem::take(row);
        if row.letters >= FEWEST_LETTERS {
            rows.push((row.span, row.said));
        }
    };
    for token in tokens {
        let said = match code(text.get(token.clone()).unwrap_or_default()) {
            Token::Letters(said) => said,
            Token::Filler => {
                end = token.end;
                continue;
            }
            Token::Other => {
                finish(&mut row);
                continue;
            }
        };
        let gap = text.get(end..token.start).unwrap_or_default();
        let wide = gap.len() > WIDEST_GAP || gap.contains(char::is_alphanumeric);
        if row.letters > 0 && wide {
            finish(&mut row);
        }
        if row.letters == 0 {
            row.span.start = token.start;
        } else if gap.contains(['/', '|', '\n']) || gap.contains("  ") {
            row.said.push(' ');
        }
        row.letters += said.len();
        row.said.push_str(&said);
        (row.span.end, end) = (token.end, token.end);
    }
    finish(&mut row);
    rows
}

fn tokens(text: &str, belongs: impl Fn(char) -> bool) -> Vec<Range<usize>> {
    let mut tokens: Vec<Range<usize>> = Vec::new();
    for (at, c) in text.char_indices().filter(|it| belongs(it.1)) {
        match tokens.last_mut() {
            Some(last) if last.end == at => last.end += c.len_utf8(),
            _ => tokens.push(at..at + c.len_utf8()),
        }
    }
    tokens
}

fn is_morse(c: char) -> bool {
    is_dot(c) || matches!(c, '-' | '–' | '—' | '−' | '_')
}

fn is_dot(c: char) -> bool {
    matches!(c, '.' | '·' | '•' | '∙')
}

/// The letter of a number from 0.
fn letter(index: usize) -> Token {
    let byte = u8::try_from(index).ok().filter(|it| *it < 26);
    byte.map_or(Token::Other, |it| Token::Letters(char::from(b'a' + it).to_string()))
}

fn morse(token: &str) -> Token {
    let sign = |c| if is_dot(c) { '.' } else { '-' };
    let signs: String = token.chars().take(5).map(sign).collect();
    MORSE.iter().position(|it| *it == signs).map_or(Token::Other, letter)
}

fn spelling(token: &str) -> Token {
    let word = token.to_ascii_lowercase();
    if let Some(index) = SPELLING.iter().position(|it| *it == word) {
        return letter(index);
    }
    if word.len() == 1 && word != "x" || FILLERS.contains(&word.as_str()) {
        return Token::Filler;
    }
    let other = OTHER_WORDS.iter().find(|it| it.0 == word);
    other.map_or(Token::Other, |it| Token::Letters(it.1.to_string()))
}

/// A is 1.
fn ordinal(token: &str) -> Token {
    let number = (token.len() < 3).then(|| token.parse::<usize>().ok()).flatten();
    number.and_then(|it| it.checked_sub(1)).map_or(Token::Other, letter)
}

fn decimal(token: &str) -> Token {
    let number = (token.len() < 4).then(|| token.parse::<u8>().ok()).flatten();
    number.map_or(Token::Other, ascii)
}

fn hexadecimal(token: &str) -> Token {
    let lower = token.to_ascii_lowercase();
    let digits = lower.strip_prefix("0x").or_else(|| lower.strip_prefix("u+")).unwrap_or(&lower);
    let digits = digits.trim_start_matches("00");
    if digits.len() != 2 {
        return Token::Other;
    }
    u8::from_str_radix(digits, 16).map_or(Token::Other, ascii)
}

/// Eight binary digits a letter, one or more in a token.
fn binary(token: &str) -> Token {
    if !token.len().is_multiple_of(8) || token.bytes().any(|it| !matches!(it, b'0' | b'1')) {
        return Token::Other;
    }
    let mut said = String::new();
    for digits in token.as_bytes().chunks(8) {
        let byte = digits.iter().fold(0, |byte, it| (byte << 1) | (it - b'0'));
        match ascii(byte) {
            Token::Letters(letter) => said.push_str(&letter),
            _ => return Token::Other,
        }
    }
    Token::Letters(said)
}

/// What may stand in a name.
fn ascii(byte: u8) -> Token {
    let fits = byte.is_ascii_alphabetic() || matches!(byte, b' ' | b'-' | b'\'' | b'.');
    if fits { Token::Letters(char::from(byte).to_string()) } else { Token::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &[(&str, &str)]) {
        let rows = rows(text);
        let rows: Vec<(&str, &str)> =
            rows.iter().map(|it| (text.get(it.0.clone()).unwrap(), it.1.as_str())).collect();
        assert_eq!(rows, want, "{text}");
    }

    #[test]
    fn morse_with_and_without_words() {
        let name = "...- .. --. --. --- / -... .-.. .- ... --.. -.- ---";
        check(&format!("Who is {name}?"), &[(name, "viggo blaszko")]);
        check("···– ·· ––· ––· –––", &[("···– ·· ––· ––· –––", "viggo")]);
        check("Well... - so. And ... then. - . -", &[]);
    }

    #[test]
    fn words_of_the_spelling_alphabet() {
        let name = "Victor India Golf Golf Oscar";
        check(&format!("spell {name} now"), &[(name, "viggo")]);
        check("Victor-India-Golf-Golf-Oscar", &[("Victor-India-Golf-Golf-Oscar", "viggo")]);
        let long = "Victor, I as in India, G for Golf, Golf, Oscar";
        check(long, &[(long, "viggo")]);
        check("Victor met Oscar in India to play golf at the hotel", &[]);
    }

    #[test]
    fn letters_as_numbers() {
        check("it is 22-9-7-7-15.", &[("22-9-7-7-15", "viggo")]);
        check("86 105 103 103 111", &[("86 105 103 103 111", "Viggo")]);
        check("56 69 67 67 6f", &[("56 69 67 67 6f", "Viggo")]);
        check("0x56, 0x69, 0x67, 0x67, 0x6F", &[("0x56, 0x69, 0x67, 0x67, 0x6F", "Viggo")]);
        let bits = "01010110 01101001 01100111 01100111 01101111";
        check(bits, &[(bits, "Viggo")]);
        check(&bits.replace(' ', ""), &[(bits.replace(' ', "").as_str(), "Viggo")]);
        let points = "U+0056 U+0069 U+0067 U+0067 U+006F";
        check(points, &[(points, "Viggo")]);
        check("in 1950, 1963 and 2001, 27 and 0 and 99", &[]);
    }

    #[test]
    fn a_row_in_two_codes_says_both() {
        check("65 66 67 68 69", &[("65 66 67 68 69", "ABCDE\nefghi")]);
    }
}
