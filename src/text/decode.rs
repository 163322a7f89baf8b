//! What an encoded text says: base64, hexadecimal and percent signs, escapes of markup and programming
//! languages, codes of single letters, rot13 and letters in reverse.
//!
//! The work is bounded. What is left unread at a bound is reported, for whoever must not pass it.

use std::ops::Range;

use super::normalise::is_invisible;
use super::{codes, escapes};

/// Encodings within each other that are undone.
pub const MAX_DEPTH: usize = 3;
/// Most bytes that the decoded pieces of one text may have together. Also at most
/// [`MAX_GROWTH`] times the text.
pub const MAX_BYTES: usize = 64 * 1024;
/// Most bytes of decoded pieces per byte of text.
pub const MAX_GROWTH: usize = 4;
/// Shortest piece of base64, its padding included, or of hexadecimal digits.
const FEWEST_DIGITS: usize = 8;
/// Bytes that tell text from something else when no more may be decoded.
const PROBE: usize = 48;
/// Most unread parts that are told apart.
const MOST_UNREAD: usize = 64;
/// A line of base64 at least this long may go on in the next.
const WRAPPED_LINE: usize = 60;

/// A text with its encodings undone, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The text.
    pub text: String,
    /// Every letter was exchanged or moved (rot13, reversal), so that a short word may come out by
    /// chance.
    pub turned: bool,
    map: Map,
    original_len: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Map {
    Same,
    Reversed,
    Pieces(Vec<Piece>),
}

/// A part of a decoded text, from `at` to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    at: usize,
    from: usize,
    to: usize,
    decoded: bool,
}

/// All views of a text.
#[derive(Debug, Default)]
pub struct Decodings {
    /// The views; rot13 and reversal of the whole text are always among them.
    pub views: Vec<Decoded>,
    /// Encoded parts of the original that were read in part or not at all; at most 64, of which the last
    /// may cover several.
    pub unread: Vec<Range<usize>>,
    /// Bytes of decoded pieces.
    pub bytes: usize,
    /// Bytes that may still be decoded.
    left: usize,
}

impl Decoded {
    /// The bytes of the original text that a range came from: the whole of every encoded piece that it
    /// touches.
    #[must_use]
    pub fn original_span(&self, range: Range<usize>) -> Range<usize> {
        let len = self.original_len;
        match &self.map {
            Map::Same => range.start.min(len)..range.end.min(len),
            Map::Reversed => len.saturating_sub(range.end)..len.saturating_sub(range.start),
            Map::Pieces(_) => {
                let touched = self.touched(&range);
                let (Some(first), Some(last)) = (touched.first(), touched.last()) else {
                    return len..len;
                };
                first.from.min(last.from)..first.to.max(last.to)
            }
        }
    }

    /// Whether a range has anything decoded in it.
    #[must_use]
    pub fn is_decoded(&self, range: &Range<usize>) -> bool {
        match &self.map {
            Map::Same | Map::Reversed => true,
            Map::Pieces(_) => self.touched(range).iter().any(|it| it.decoded),
        }
    }

    fn touched(&self, range: &Range<usize>) -> &[Piece] {
        let Map::Pieces(pieces) = &self.map else { return &[] };
        let first = pieces.partition_point(|it| it.at <= range.start).saturating_sub(1);
        let end = pieces.partition_point(|it| it.at < range.end);
        pieces.get(first..end).unwrap_or_default()
    }

    /// The text itself, without characters that nobody sees: they would cut a piece in two.
    fn visible(text: &str) -> Self {
        let hidden = |c: char| is_invisible(c) && !c.is_whitespace();
        let original_len = text.len();
        if !text.contains(hidden) {
            return Self { text: text.to_owned(), turned: false, map: Map::Same, original_len };
        }
        let mut out = Self { text: String::new(), turned: false, map: Map::Same, original_len };
        let mut pieces = Vec::new();
        for (from, c) in text.char_indices().filter(|it| !hidden(it.1)) {
            pieces.push(Piece {
                at: out.text.len(),
                from,
                to: from + c.len_utf8(),
                decoded: false,
            });
            out.text.push(c);
        }
        out.map = Map::Pieces(pieces);
        out
    }

    fn rot13(&self) -> Self {
        let turn = |c: char| match c {
            'a'..='m' | 'A'..='M' => char::from(c as u8 + 13),
            'n'..='z' | 'N'..='Z' => char::from(c as u8 - 13),
            other => other,
        };
        let text = self.text.chars().map(turn).collect();
        let map = match &self.map {
            Map::Pieces(pieces) => Map::Pieces(pieces.iter().map(Piece::marked).collect()),
            other => other.clone(),
        };
        Self { text, turned: true, map, original_len: self.original_len }
    }

    fn reversed(&self) -> Self {
        let len = self.text.len();
        let map = match &self.map {
            Map::Same => Map::Reversed,
            Map::Reversed => Map::Same,
            Map::Pieces(pieces) => {
                let ends = pieces.iter().skip(1).map(|it| it.at).chain([len]);
                let mut turned: Vec<Piece> = pieces
                    .iter()
                    .zip(ends)
                    .map(|(it, end)| Piece { at: len - end, ..it.marked() })
                    .collect();
                turned.reverse();
                Map::Pieces(turned)
            }
        };
        let text = self.text.chars().rev().collect();
        Self { text, turned: true, map, original_len: self.original_len }
    }

    /// The text with some of its parts replaced.
    fn with(&self, parts: &[(Range<usize>, String)]) -> Self {
        let mut text = String::with_capacity(self.text.len());
        let mut pieces = Vec::new();
        let copy = |range: Range<usize>, text: &mut String, pieces: &mut Vec<Piece>| {
            let kept = self.text.get(range.clone()).unwrap_or_default();
            for (at, c) in kept.char_indices() {
                let start = range.start + at;
                let Range { start: from, end: to } =
                    self.original_span(start..start + c.len_utf8());
                pieces.push(Piece { at: text.len(), from, to, decoded: false });
                text.push(c);
            }
        };
        let mut end = 0;
        for (range, part) in parts {
            copy(end..range.start, &mut text, &mut pieces);
            let Range { start: from, end: to } = self.original_span(range.clone());
            pieces.push(Piece { at: text.len(), from, to, decoded: true });
            text.push_str(part);
            end = range.end;
        }
        copy(end..self.text.len(), &mut text, &mut pieces);
        let map = Map::Pieces(pieces);
        Self { text, turned: self.turned, map, original_len: self.original_len }
    }

    /// Only such parts as [`Decoded::with`] takes, a space after each.
    fn only(&self, parts: &[(Range<usize>, String)]) -> Self {
        let mut text = String::new();
        let mut pieces = Vec::new();
        for (range, part) in parts {
            let Range { start: from, end: to } = self.original_span(range.clone());
            pieces.push(Piece { at: text.len(), from, to, decoded: true });
            text.push_str(part);
            text.push(' ');
        }
        let map = Map::Pieces(pieces);
        Self { text, turned: self.turned, map, original_len: self.original_len }
    }
}

impl Piece {
    fn marked(&self) -> Self {
        Self { decoded: true, ..self.clone() }
    }
}

/// Undoes the encodings in a text.
///
/// The text, its rot13 and its reversal are each searched for base64 (both alphabets, with or without
/// padding) and hexadecimal digits, 8 at least, percent signs and escapes, the text itself also for
/// letters in Morse, the spelling alphabet or numbers; what comes out is searched again. Each step gives the text with the decoded pieces in their places, and the pieces alone
/// under rot13 and reversed. A piece counts when it decodes to UTF-8 that is mostly printable.
#[must_use]
pub fn decode(text: &str) -> Decodings {
    let left = text.len().saturating_mul(MAX_GROWTH).min(MAX_BYTES);
    let mut out = Decodings { left, ..Decodings::default() };
    let plain = Decoded::visible(text);
    let turned = [plain.rot13(), plain.reversed()];
    out.unfold(plain, 0);
    for it in turned {
        out.unfold(it, 1);
    }
    out
}

impl Decodings {
    /// Adds a view that took `depth` steps, and what more steps make of it. The original is no view.
    fn unfold(&mut self, mut layer: Decoded, mut depth: usize) {
        loop {
            let parts = self.parts(&layer, depth < MAX_DEPTH);
            let next = (!parts.is_empty()).then(|| layer.with(&parts));
            if next.is_some() {
                let only = layer.only(&parts);
                self.views.extend([only.rot13(), only.reversed()]);
            }
            if depth > 0 {
                self.views.push(layer);
            }
            let Some(next) = next else { return };
            layer = next;
            depth += 1;
        }
    }

    /// The encoded pieces of a text and what they say. When no more may be opened, they are unread.
    fn parts(&mut self, layer: &Decoded, open: bool) -> Vec<(Range<usize>, String)> {
        let bytes = layer.text.as_bytes();
        let mut parts: Vec<(Range<usize>, String)> = Vec::new();
        let rows = if layer.turned { Vec::new() } else { codes::rows(&layer.text) };
        let mut rows = rows.into_iter().peekable();
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if let Some((span, said)) = rows.next_if(|it| it.0.start <= at) {
                at = span.end.max(at);
                let free = parts.last().is_none_or(|it| it.0.end <= span.start);
                if !open {
                    self.leave(layer.original_span(span));
                } else if free {
                    self.bytes += said.len();
                    parts.push((span, said));
                }
                continue;
            }
            let run = match byte {
                b'%' | b'&' | b'\\' => at..escaped_end(bytes, at),
                _ if digit64(*byte).is_some() => at..run_end(bytes, at),
                _ => at..at,
            };
            at = run.end.max(at + 1);
            for (span, encoding) in candidates(bytes, run) {
                // A decoded part that begins before the end of the last one is part of it.
                let free = parts.last().is_none_or(|it| it.0.end <= span.start);
                if free && let Some(said) = self.read(layer, &span, encoding, open) {
                    parts.push((span, said));
                }
            }
        }
        parts
    }

    fn read(
        &mut self,
        layer: &Decoded,
        span: &Range<usize>,
        encoding: Encoding,
        open: bool,
    ) -> Option<String> {
        let left = if open { self.left } else { 0 };
        let encoded = layer.text.as_bytes().get(span.clone())?;
        let (bytes, cut) = encoding.decode(encoded, left.max(PROBE));
        let mut said = readable(bytes)?;
        if cut || said.len() > left {
            self.leave(layer.original_span(span.clone()));
            said.truncate(said.floor_char_boundary(left));
        }
        self.left -= said.len().min(self.left);
        self.bytes += said.len();
        (!said.is_empty()).then_some(said)
    }

    /// Notes a part of the original that stays unread.
    fn leave(&mut self, span: Range<usize>) {
        let full = self.unread.len() == MOST_UNREAD;
        match self.unread.last_mut() {
            Some(last) if full || (last.start..=last.end + 1).contains(&span.start) => {
                *last = last.start.min(span.start)..last.end.max(span.end);
            }
            _ => self.unread.push(span),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Encoding {
    Escapes,
    Percent,
    Hex,
    Base64,
}

impl Encoding {
    /// At most `most` decoded bytes, and whether there are more. Nothing for what is not this encoding.
    fn decode(self, encoded: &[u8], most: usize) -> (Vec<u8>, bool) {
        let (digits, bits) = match self {
            Self::Escapes => {
                let mut said = escapes::decode(encoded);
                let cut = said.len() > most;
                said.truncate(most);
                return (said, cut);
            }
            Self::Percent => (encoded, 4),
            Self::Hex => (encoded.strip_prefix(b"0x").unwrap_or(encoded), 4),
            Self::Base64 => (encoded, 6),
        };
        let mut out = Vec::new();
        let (mut held, mut count) = (0u32, 0u32);
        for byte in digits {
            // Percent signs, padding and the ends of lines are no digits.
            let digit = if bits == 4 { digit16(*byte) } else { digit64(*byte) };
            let Some(digit) = digit else { continue };
            held = ((held << bits) | digit) & 0xFFFF;
            count += bits;
            if count >= 8 {
                if out.len() == most {
                    return (out, true);
                }
                count -= 8;
                out.push(((held >> count) & 0xFF) as u8);
            }
        }
        (out, false)
    }
}

/// The ways to read a run, best first. Parts of it come after the whole.
fn candidates(bytes: &[u8], run: Range<usize>) -> Vec<(Range<usize>, Encoding)> {
    let mut found = Vec::new();
    if run.is_empty() {
        return found;
    }
    if matches!(bytes[run.start], b'%' | b'&' | b'\\') {
        let percent = escapes_end(bytes, run.start) == run.end;
        found.push((run, if percent { Encoding::Percent } else { Encoding::Escapes }));
        return found;
    }
    let mut add = |span: Range<usize>| {
        let text = &bytes[span.clone()];
        let digits = text.strip_prefix(b"0x").unwrap_or(text);
        let hex = digits.len().is_multiple_of(2) && digits.iter().all(|it| digit16(*it).is_some());
        if digits.len() >= FEWEST_DIGITS && hex {
            found.push((span.clone(), Encoding::Hex));
        }
        let count = text.iter().filter(|it| digit64(**it).is_some()).count();
        if text.len() >= FEWEST_DIGITS && count % 4 != 1 {
            found.push((span, Encoding::Base64));
        }
    };
    add(run.clone());
    let is_joint = |it: &u8| matches!(it, b'+' | b'/' | b'-' | b'_' | b'\n' | b'\r');
    if bytes[run.clone()].iter().any(is_joint) {
        let mut start = run.start;
        for part in bytes[run].split(is_joint) {
            if part.len() >= FEWEST_DIGITS {
                add(start..start + part.len());
            }
            start += part.len() + 1;
        }
    }
    found
}

/// The end of a row of escapes of either kind; `start` itself when there is none.
fn escaped_end(bytes: &[u8], start: usize) -> usize {
    let percent = escapes_end(bytes, start);
    if percent > start { percent } else { escapes::end(bytes, start) }
}

/// The end of a row of escapes like "%C3%A9"; `start` itself when there is none.
fn escapes_end(bytes: &[u8], start: usize) -> usize {
    let is_escape = |it: &[u8]| {
        let [b'%', digits @ ..] = it else { return false };
        digits.len() == 2 && digits.iter().all(|it| digit16(*it).is_some())
    };
    let escapes = bytes[start..].chunks(3).take_while(|it| is_escape(it)).count();
    start + 3 * escapes
}

/// The end of a run of base64 digits and its padding. Long lines are taken together.
fn run_end(bytes: &[u8], start: usize) -> usize {
    let (mut end, mut line) = (start, start);
    loop {
        match bytes.get(end) {
            Some(byte) if digit64(*byte).is_some() => end += 1,
            Some(b'\r' | b'\n') if end - line >= WRAPPED_LINE => {
                let next = end + 1 + usize::from(bytes[end..].starts_with(b"\r\n"));
                if bytes.get(next).is_none_or(|it| digit64(*it).is_none()) {
                    return end;
                }
                (end, line) = (next, next);
            }
            _ => break,
        }
    }
    let padding = bytes[end..].iter().take(2).take_while(|it| **it == b'=').count();
    end + padding
}

/// Text, if it is: of which at most a tenth is neither printable nor whitespace. Zeros are left out,
/// so that UTF-16 is read as well.
fn readable(mut bytes: Vec<u8>) -> Option<String> {
    bytes.retain(|it| *it != 0);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let is_strange = |it: &char| *it == char::REPLACEMENT_CHARACTER || it.is_control();
    let strange = text.chars().filter(|it| is_strange(it) && !it.is_whitespace()).count();
    (!text.is_empty() && strange * 10 <= text.chars().count()).then_some(text)
}

fn digit16(byte: u8) -> Option<u32> {
    char::from(byte).to_digit(16)
}

/// A digit of either base64 alphabet.
fn digit64(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests;
