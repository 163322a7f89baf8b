//! Texts cut into quoted pieces that a reader puts together: `"Vig" + "go Blas" + "zko"`.

use super::Normalised;
use crate::types::QUOTE;

/// Most characters between two pieces.
const LONGEST: usize = 24;
/// Letters of a literal that stand before its quote: `f"go"`.
const PREFIX: &str = "bflru";
/// Most of them.
const LONGEST_PREFIX: usize = 2;

/// A text without its seams: a quote, then signs and spaces, then a quote. Around what is left the text
/// stays as it is. Offsets lead to the text that `view` was made of. `None` without a seam.
#[must_use]
pub fn closed(view: &Normalised) -> Option<Normalised> {
    view.text.chars().filter(|it| is_quote(*it)).nth(1)?;
    let glyphs: Vec<_> = view.glyphs().collect();
    let chars: Vec<char> = glyphs.iter().map(|it| it.0).collect();
    let mut out = view.blank();
    let (mut at, mut changed) = (0, false);
    while let Some((c, span)) = glyphs.get(at) {
        if let Some(end) = seam(&chars[at..]) {
            changed = true;
            at += end;
        } else {
            out.push(*c, span.start, span.end);
            at += 1;
        }
    }
    changed.then_some(out)
}

/// Where a seam ends that begins with the first character.
fn seam(chars: &[char]) -> Option<usize> {
    if !is_quote(*chars.first()?) {
        return None;
    }
    let between = chars.iter().skip(1).take(LONGEST).take_while(|it| !it.is_alphanumeric());
    if let Some(at) = between.clone().position(|it| is_quote(*it)) {
        return Some(at + 2);
    }
    let rest = &chars[1 + between.count()..];
    let prefix = rest.iter().take(LONGEST_PREFIX).take_while(|it| PREFIX.contains(**it)).count();
    rest.get(prefix).filter(|it| is_quote(**it))?;
    Some(chars.len() - rest.len() + prefix + 1)
}

/// Marks as they are once normalised.
fn is_quote(c: char) -> bool {
    matches!(c, '\'' | '"' | '‹' | '›' | '\u{2BA}' | '〈'..='』' | '〝'..='〟' | QUOTE)
}

#[cfg(test)]
mod tests {
    use super::super::normalise;
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let view = closed(&normalise(text));
        assert_eq!(view.map_or_else(|| text.to_owned(), |it| it.text), want, "{text}");
    }

    #[test]
    fn pieces_are_put_together() {
        check(r#"x = "vig" + "go blas" + "zko""#, r#"x = "viggo blaszko""#);
        check(
            r#""where was 'v" + "iggo bl" + "aszko' born?""#,
            r#""where was 'viggo blaszko' born?""#,
        );
        check(r#"["ann"," lee will","iams"]"#, r#"["ann lee williams"]"#);
        check(r#"f"vig" f'go' 2 rb"blas", 'zko'"#, r#"f"viggo' 2 rb"blaszko'"#);
        check(r#"f"vig" f'go' + rb"blas""#, r#"f"viggoblas""#);
        check("“vig” . «go» 「blas」\n＂zko＂", "\"viggoblaszko\"");
        check(r#""vig" + "" + 'go'"#, r#""viggo'"#);
        let marked = r#"{"q":["vig","go"]}"#.replace('"', QUOTE.encode_utf8(&mut [0; 4]));
        assert!(closed(&normalise(&marked)).unwrap().text.contains("viggo"));
        let hidden = format!("\"vig{}\" + \"go\"", "\u{200B}".repeat(300));
        check(&hidden, "\"viggo\"");
    }

    #[test]
    fn other_quotes_stay() {
        for text in
            ["\"vig\" and \"go\"", "it's viggo's", "rock 'n' roll", "\"vig\"", "", "'", "'f"]
        {
            check(text, text);
        }
        check(&format!("'vig'{}'go'", "-".repeat(40)), &format!("'vig'{}'go'", "-".repeat(40)));
    }

    #[test]
    fn offsets_lead_to_the_text() {
        let text = r#"é "Vig" + "go" x"#;
        let view = closed(&normalise(text)).unwrap();
        let at = view.text.find("viggo").unwrap();
        assert_eq!(text.get(view.original_span(at..at + 5)), Some(r#"Vig" + "go"#));
    }
}
