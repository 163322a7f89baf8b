//! Letters held for longer than their word has them: "Viggggo".

use super::Normalised;

/// Equal letters in a row that no word has.
const TOO_MANY: usize = 3;

/// A text with every row of equal letters as one; both sides of a comparison must be treated so.
#[must_use]
pub fn single(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !(c.is_alphabetic() && out.ends_with(c)) {
            out.push(c);
        }
    }
    out
}

/// Whether a text has three equal letters in a row.
#[must_use]
pub fn is_drawn_out(text: &str) -> bool {
    let mut last = None;
    let mut count = 0;
    text.chars().any(|c| {
        count = if last == Some(c) { count + 1 } else { 1 };
        last = Some(c);
        c.is_alphabetic() && count >= TOO_MANY
    })
}

/// The same as [`single`] of a view, with offsets that lead to the text that `view` was made of.
/// `None` where no letter is drawn out.
#[must_use]
pub fn shortened(view: &Normalised) -> Option<Normalised> {
    if !is_drawn_out(&view.text) {
        return None;
    }
    let mut out = view.blank();
    for (c, span) in view.glyphs() {
        if c.is_alphabetic() && out.text.ends_with(c) {
            out.extend_last(span.end);
        } else {
            out.push(c, span.start, span.end);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::super::normalise;
    use super::*;

    #[test]
    fn rows_of_letters_become_one() {
        assert_eq!(single("viggo 100"), "vigo 100");
        assert!(is_drawn_out("viggggo") && !is_drawn_out("viggo 1000..."));
        assert!(shortened(&normalise("Viggo, 1000")).is_none());
        let text = "é Viiiggggo";
        let view = shortened(&normalise(text)).unwrap();
        assert_eq!(view.text, "e vigo");
        assert_eq!(text.get(view.original_span(2..6)), Some("Viiiggggo"));
    }
}
