//! Pieces of texts put end to end: a name that is cut anywhere, over messages or quoted pieces.

use std::ops::Range;
use std::rc::Rc;

use super::{Normalised, normalise};
use crate::types::QUOTE;

/// Bytes of a text's beginning and end that may be a piece of a name.
const MOST_BYTES: usize = 256;
/// Bytes of a quoted piece of a name.
const MOST_QUOTED: usize = 64;
/// Between pieces that do not touch.
const APART: char = '\n';

/// Texts put end to end, normalised.
#[derive(Debug, Default)]
pub struct Joined {
    /// What they say together.
    pub text: String,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    at: usize,
    /// The number of the text, and where in it the piece begins.
    source: usize,
    start: usize,
    view: Rc<Normalised>,
    /// Bytes of the view that were left out in front, and that were taken.
    skipped: usize,
    taken: usize,
}

impl Joined {
    /// The ends and beginnings of texts, each with a number. A long text's middle is left out.
    #[must_use]
    pub fn of<'a>(texts: impl Iterator<Item = (usize, &'a str)>) -> Self {
        let mut joined = Self::default();
        for (source, text) in texts {
            if text.len() <= 2 * MOST_BYTES {
                joined.push(source, 0, read(text));
                continue;
            }
            let head = text.floor_char_boundary(MOST_BYTES);
            joined.push(source, 0, read(text.get(..head).unwrap_or_default()));
            joined.text.push(APART);
            let tail = text.ceil_char_boundary(text.len() - MOST_BYTES);
            joined.push(source, tail, read(text.get(tail..).unwrap_or_default()));
        }
        joined
    }

    /// The quoted pieces of one text in every way in which they may make up a name: as they stand,
    /// touching, as words, as "Last, First"; of JSON the values, and the keys with them. Every other piece
    /// may be a key, as in `d["a"] = "Vig"; d["b"] = "go"`.
    pub fn quoted(text: &str) -> impl Iterator<Item = Self> {
        // Marks of JSON go with marks of JSON only: a quote within a string is a character of it.
        let mut found = [Marks::Json, Marks::BesideWords, Marks::Any].map(|it| quoted(text, it));
        if found[1].iter().map(|it| it.start).eq(found[2].iter().map(|it| it.start)) {
            found[2].clear();
        }
        found.into_iter().flat_map(|all| {
            let values: Vec<_> = all.iter().filter(|it| !it.is_key).cloned().collect();
            let every_other = values.iter().skip(1).step_by(2).cloned().collect();
            let with_keys = (values.len() < all.len()).then_some(all);
            let several = [Some(values), with_keys, Some(every_other)];
            let several = several.into_iter().flatten().filter(|it| it.len() > 1);
            several.flat_map(|quotes| {
                let stand = Self::as_they_stand(&quotes);
                let apart = ["", " ", ", "].into_iter();
                std::iter::once(stand).chain(apart.map(move |it| Self::of_quotes(&quotes, it)))
            })
        })
    }

    /// Pieces with the spaces that they have themselves.
    fn as_they_stand(quotes: &[Quoted]) -> Self {
        let mut joined = Self::default();
        for Quoted { start, view, .. } in quotes {
            let twice = joined.text.ends_with(' ') && view.text.starts_with(' ');
            joined.add(0, *start, Rc::clone(view), usize::from(twice)..view.text.len());
        }
        joined
    }

    /// Pieces with something between them.
    fn of_quotes(quotes: &[Quoted], between: &str) -> Self {
        let mut joined = Self::default();
        for Quoted { start, view, .. } in quotes {
            let end = joined.text.len();
            if end > 0 {
                joined.text.push_str(between);
            }
            if !joined.push(0, *start, Rc::clone(view)) {
                joined.text.truncate(end);
            }
        }
        joined
    }

    /// Adds a piece without what stands around its words: a full stop does not make a piece of a name
    /// whole. Whether there is anything in it.
    fn push(&mut self, source: usize, start: usize, view: Rc<Normalised>) -> bool {
        let foreign = |it: char| !it.is_alphanumeric();
        let trimmed = view.text.trim_start_matches(foreign);
        let skipped = view.text.len() - trimmed.len();
        let taken = trimmed.trim_end_matches(foreign).len();
        self.add(source, start, view, skipped..skipped + taken)
    }

    /// Adds a part of a view. Whether there is anything in it.
    fn add(
        &mut self,
        source: usize,
        start: usize,
        view: Rc<Normalised>,
        part: Range<usize>,
    ) -> bool {
        let Some(text) = view.text.get(part.clone()).filter(|it| !it.is_empty()) else {
            return false;
        };
        let at = self.text.len();
        self.text.push_str(text);
        self.pieces.push(Piece { at, source, start, view, skipped: part.start, taken: part.len() });
        true
    }

    /// Where in each text a span comes from, as `(number, bytes)`.
    #[must_use]
    pub fn origins(&self, span: &Range<usize>) -> Vec<(usize, Range<usize>)> {
        let first = self.pieces.partition_point(|it| it.at <= span.start).saturating_sub(1);
        let touched = self.pieces.iter().skip(first).take_while(|it| it.at < span.end);
        let origin = |it: &Piece| {
            let from = it.skipped + span.start.saturating_sub(it.at).min(it.taken);
            let to = it.skipped + (span.end - it.at).min(it.taken);
            let Range { start, end } = it.view.original_span(from..to);
            (it.source, it.start + start..it.start + end)
        };
        touched.map(origin).filter(|it| !it.1.is_empty()).collect()
    }

    /// From where a span begins in the first of its texts to where it ends in the last one: of quoted
    /// pieces, which lie in one text.
    #[must_use]
    pub fn cover(&self, span: &Range<usize>) -> Option<Range<usize>> {
        let origins = self.origins(span);
        Some(origins.first()?.1.start..origins.last()?.1.end)
    }

    /// Whether a piece begins at a byte, or ends there.
    #[must_use]
    pub fn is_edge(&self, at: usize) -> bool {
        at == self.text.len() || self.pieces.binary_search_by_key(&at, |it| it.at).is_ok()
    }
}

fn read(text: &str) -> Rc<Normalised> {
    Rc::new(normalise(text))
}

/// What stands in quotes.
#[derive(Debug, Clone)]
struct Quoted {
    start: usize,
    view: Rc<Normalised>,
    /// A colon follows.
    is_key: bool,
}

/// Which quotes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marks {
    /// Those of JSON.
    Json,
    /// Others, opening only where no word ends and closing only where none begins: a stray one is told
    /// from them.
    BesideWords,
    /// Others wherever they stand, `f"go"`, but for apostrophes.
    Any,
}

/// What stands in quotes: short, and without such quotes of its own.
fn quoted(text: &str, marks: Marks) -> Vec<Quoted> {
    let json = marks == Marks::Json;
    let mut found = Vec::new();
    let mut open: Option<(usize, char)> = None;
    let mut before = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let end = at + c.len_utf8();
        // An apostrophe stands between letters.
        let is_apostrophe = matches!(c, '\'' | '’');
        let by_words = marks == Marks::BesideWords || marks == Marks::Any && is_apostrophe;
        let word = |it: Option<char>| by_words && it.is_some_and(char::is_alphanumeric);
        if let Some(quote) = closing(c).filter(|_| json == (c == QUOTE)) {
            let after = chars.peek().map(|it| it.1);
            match open {
                Some((start, wanted)) if (c == wanted || quote == wanted) && !word(after) => {
                    let rest = text.get(end..).unwrap_or_default();
                    let is_key = rest.trim_start().starts_with(':');
                    if end - start <= MOST_QUOTED {
                        let view = read(text.get(start..at).unwrap_or_default());
                        found.push(Quoted { start, view, is_key });
                    }
                    open = None;
                }
                _ if !word(before) => open = Some((end, quote)),
                _ => {}
            }
        } else if !json && open.is_some_and(|(start, _)| end - start > MOST_QUOTED) {
            open = None;
        }
        before = Some(c);
    }
    found
}

/// The quote that ends what this one begins.
fn closing(c: char) -> Option<char> {
    Some(match c {
        '"' | '\'' | '`' | '”' | '’' | '＂' | '＇' | '″' | '」' | '』' | '》' | QUOTE => {
            c
        }
        '“' | '„' | '‟' => '”',
        '‘' | '‚' | '‛' => '’',
        '«' => '»',
        '»' => '«',
        '‹' => '›',
        '›' => '‹',
        '「' => '」',
        '『' => '』',
        '《' => '》',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_end_to_end() {
        let texts = [(4, "It is \u{201C}Viggo Blas…"), (7, " zko, he said.")];
        let joined = Joined::of(texts.into_iter());
        let at = joined.text.find("viggo blaszko").unwrap();
        let origins = joined.origins(&(at..at + 13));
        let said: Vec<(usize, &str)> = origins
            .into_iter()
            .zip(texts)
            .map(|((number, span), (_, text))| (number, text.get(span).unwrap()))
            .collect();
        assert_eq!(said, [(4, "Viggo Blas"), (7, "zko")]);
        assert!(joined.is_edge(at + 10) && !joined.is_edge(at + 9));
    }

    #[test]
    fn the_middle_of_a_long_text_is_left_out() {
        let long = format!("go{} Blas", " é".repeat(400));
        let joined = Joined::of([(0, "Vig"), (1, &long), (2, "zko")].into_iter());
        assert!(joined.text.starts_with("viggo e") && joined.text.ends_with("e blaszko"));
        assert!(joined.text.contains(APART) && joined.text.len() < 600);
    }

    #[test]
    fn quoted_pieces() {
        let all = |text: &str| Joined::quoted(text).map(|it| it.text).collect::<Vec<_>>();
        let touching = |text: &str| all(text).swap_remove(1);
        assert_eq!(touching("x = \"Vig\"; y = 'go Blas'; `zko`?"), "viggo blaszko");
        let ways = ["viggo,blaszko", "viggoblaszko", "viggo blaszko", "viggo, blaszko"];
        assert_eq!(all("“Viggo,” and ‘Blaszko’"), ways);
        // Cut in a word and at a space.
        assert_eq!(all(r#""Ann ", "Lee Will", "iams""#)[0], "ann lee williams");
        assert_eq!(all(r#""Ann ", " Lee Will", "iams""#)[0], "ann lee williams");
        assert!(all("It's Viggo's \"book\"").is_empty());
        assert_eq!(touching("don't say \"a\" or \"b\""), "ab");
        // A piece without a letter is not there.
        assert_eq!(all("'Al', '', '-', 'Wu'")[2], "al wu");
        let text = "a='Vig'+'go'";
        let joined = Joined::quoted(text).nth(1).unwrap();
        let spans = joined.origins(&(0..5)).into_iter();
        let parts: Vec<&str> = spans.map(|it| text.get(it.1).unwrap()).collect();
        assert_eq!(parts, ["Vig", "go"]);
        let long = format!("'{}' 'b'", "a".repeat(80));
        assert!(all(&long).is_empty());
    }

    #[test]
    fn quoted_pieces_of_json() {
        let all = |json: &str| {
            let text = json.replace('"', QUOTE.encode_utf8(&mut [0; 4])).replace('~', "\"");
            Joined::quoted(&text).map(|it| it.text).collect::<Vec<_>>()
        };
        let ways = all(r#"{"a":"Vig","b" : "go"}"#);
        assert_eq!(ways[1..3], ["viggo", "vig go"]);
        assert_eq!(ways[5..7], ["avigbgo", "a vig b go"]);
        assert_eq!(all(r#"{"Viggo":"Blaszko"}"#)[2], "viggo blaszko");
        // Quotes in a string neither end it nor are lost.
        let ways = all(r#"["it is ~", "Vig", "go", "~Blas~ and ~zko~"]"#);
        assert_eq!(ways[1], "it isviggoblas\" and \"zko");
        assert!(ways[4..].iter().any(|it| it.contains("blaszko")), "{ways:?}");
        let long = "a".repeat(80);
        assert_eq!(all(&format!(r#"["{long}", "Vig", "go"]"#))[1], "viggo");
    }
}
