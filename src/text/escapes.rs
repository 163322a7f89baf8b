//! Characters written as escapes of markup and programming languages: `&#86;`, `&eacute;`, `\u0056`,
//! `\x56`, `%u0056`.

use std::ops::Range;

/// What one escape stands for.
enum Unit {
    /// A byte of UTF-8.
    Byte(u8),
    /// A code point, or half of a surrogate pair.
    Code(u32),
}

/// Accents of HTML's named letters; views of a text have none, so that the letter alone is enough.
const ACCENTS: [&str; 9] =
    ["acute", "grave", "circ", "uml", "tilde", "ring", "cedil", "caron", "slash"];
/// Other names of HTML that may stand inside of a name.
const NAMED: [(&str, u32); 9] = [
    ("amp", 0x26),
    ("apos", 0x27),
    ("quot", 0x22),
    ("nbsp", 0xA0),
    ("shy", 0xAD),
    ("zwnj", 0x200C),
    ("zwj", 0x200D),
    ("szlig", 0xDF),
    ("hyphen", 0x2010),
];
/// Longest of those names.
const LONGEST_NAME: usize = 8;

/// The end of a row of escapes that begins at `start`; `start` itself when there is none.
pub(super) fn end(text: &[u8], start: usize) -> usize {
    let mut end = start;
    while let Some((next, _)) = read(text, end) {
        end = next;
    }
    end
}

/// What a row of escapes says, as bytes that may not all be UTF-8.
pub(super) fn decode(row: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut high: Option<u32> = None;
    let mut at = 0;
    while let Some((next, unit)) = read(row, at) {
        at = next;
        let code = match unit {
            Unit::Byte(byte) => {
                out.push(byte);
                continue;
            }
            Unit::Code(code) => code,
        };
        let code = match (high.take(), code) {
            (Some(high), 0xDC00..=0xDFFF) => 0x10000 + ((high - 0xD800) << 10) + (code - 0xDC00),
            (_, 0xD800..=0xDBFF) => {
                high = Some(code);
                continue;
            }
            _ => code,
        };
        let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    out
}

/// The escape at `at`, and where it ends.
fn read(text: &[u8], at: usize) -> Option<(usize, Unit)> {
    match text.get(at)? {
        b'&' => entity(text, at + 1),
        b'%' if matches!(text.get(at + 1), Some(b'u' | b'U')) => {
            let digits = digits(text, at + 2, 16, 4..=4)?;
            Some((digits.end, Unit::Code(number(text, digits, 16)?)))
        }
        b'\\' => backslash(text, at + 1),
        _ => None,
    }
}

fn entity(text: &[u8], at: usize) -> Option<(usize, Unit)> {
    if text.get(at) != Some(&b'#') {
        return named(text, at);
    }
    let hex = matches!(text.get(at + 1), Some(b'x' | b'X'));
    let (from, radix) = if hex { (at + 2, 16) } else { (at + 1, 10) };
    let digits = digits(text, from, radix, 1..=7)?;
    let end = digits.end + usize::from(text.get(digits.end) == Some(&b';'));
    Some((end, Unit::Code(number(text, digits, radix)?)))
}

fn named(text: &[u8], at: usize) -> Option<(usize, Unit)> {
    let rest = text.get(at..text.len().min(at + LONGEST_NAME))?;
    let name = std::str::from_utf8(rest.split(|it| *it == b';').next()?).ok()?;
    let end = at + name.len();
    if text.get(end) != Some(&b';') {
        return None;
    }
    let known = NAMED.iter().find(|it| it.0 == name).map(|it| it.1);
    let letter = || {
        let (letter, accent) = name.split_at_checked(1)?;
        let letter = letter.chars().next().filter(char::is_ascii_alphabetic)?;
        ACCENTS.contains(&accent).then_some(u32::from(letter))
    };
    Some((end + 1, Unit::Code(known.or_else(letter)?)))
}

/// What stands after a backslash. Backslashes that are doubled once more count as one.
fn backslash(text: &[u8], mut at: usize) -> Option<(usize, Unit)> {
    while text.get(at) == Some(&b'\\') {
        at += 1;
    }
    let kind = *text.get(at)?;
    if matches!(kind, b'u' | b'x') && text.get(at + 1) == Some(&b'{') {
        let digits = digits(text, at + 2, 16, 1..=6)?;
        let closed = text.get(digits.end) == Some(&b'}');
        let end = digits.end + 1;
        return closed.then_some((end, Unit::Code(number(text, digits, 16)?)));
    }
    let (digits, radix) = match kind {
        b'u' => (digits(text, at + 1, 16, 4..=4)?, 16),
        b'U' => (digits(text, at + 1, 16, 8..=8)?, 16),
        b'x' => (digits(text, at + 1, 16, 2..=2)?, 16),
        b'0'..=b'3' => (digits(text, at, 8, 3..=3)?, 8),
        _ => return None,
    };
    let (end, code) = (digits.end, number(text, digits, radix)?);
    let byte = u8::try_from(code).ok().filter(|_| !matches!(kind, b'u' | b'U'));
    Some((end, byte.map_or(Unit::Code(code), Unit::Byte)))
}

/// As many digits as there are and may be, if they are enough.
fn digits(
    text: &[u8],
    from: usize,
    radix: u32,
    count: std::ops::RangeInclusive<usize>,
) -> Option<Range<usize>> {
    let rest = text.get(from..)?.iter().take(*count.end());
    let found = rest.take_while(|it| char::from(**it).is_digit(radix)).count();
    count.contains(&found).then_some(from..from + found)
}

fn number(text: &[u8], digits: Range<usize>, radix: u32) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(text.get(digits)?).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, row: usize, says: &str) {
        assert_eq!(end(text.as_bytes(), 0), row, "{text}");
        let said = decode(&text.as_bytes()[..row]);
        assert_eq!(String::from_utf8_lossy(&said), says, "{text}");
    }

    #[test]
    fn entities() {
        check("&#86;&#x69;&#103ggo", 16, "Vig");
        check("&eacute;&Ccaron;&nbsp;x", 22, "eC\u{A0}");
        check("&shy;", 5, "\u{AD}");
        check("&unknown; & so", 0, "");
        check("&#;", 0, "");
        check("&#1114112;", 10, "\u{FFFD}");
    }

    #[test]
    fn backslashes() {
        check(r"\u0056\x69\147\u{67}\U0000006F!", 31 - 1, "Viggo");
        check(r"\\u0056", 7, "V");
        check(r"\xc3\xa9", 8, "é");
        check(r"\ud835\udc15", 12, "\u{1D415}");
        check(r"\n\u12", 0, "");
        check(r"\u{56", 0, "");
        check("%u0056%U0069", 12, "Vi");
    }
}
