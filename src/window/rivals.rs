//! Rivals of a reply's tokens, which may spell a name that the reply itself does not say.

use super::scan::Patterns;
use crate::types::TokenLogprob;

/// Bytes of a text that are remembered: more than any word of a name has.
const MOST_BYTES: usize = 256;

/// What stands in front of the next token of a choice.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    /// The end of the text, whole characters only.
    text: String,
    /// The beginning of the character that follows.
    partial: Vec<u8>,
    /// The reply has begun; before that `text` is the client's.
    begun: bool,
    /// Bytes of the reply that are in `text` or were.
    known: usize,
    /// Bytes of the reply that have come as text.
    said: usize,
}

impl Written {
    /// In front of a reply that goes on from `before`.
    pub(super) fn after(before: &str) -> Self {
        let mut written = Self::default();
        written.add(before.as_bytes());
        written
    }

    /// Takes more of a reply and drops those rivals of its tokens that would go on to a name here.
    ///
    /// Tokens and text may come apart. Text that no token has announced counts on its own.
    pub(super) fn read(&mut self, patterns: &Patterns, text: &str, tokens: &mut [TokenLogprob]) {
        if tokens.is_empty() && self.known <= self.said {
            self.go_on(text.as_bytes());
        }
        for token in tokens {
            let chosen = &token.bytes;
            // The chosen token is in the text, which is watched on its own.
            token.top.retain(|(rival, _)| *rival == *chosen || !self.tells(patterns, rival));
            self.go_on(chosen);
        }
        self.said += text.len();
    }

    /// Whether a token would write, or go on with, a word of a name. What the client wrote must not
    /// glue itself to a name that the reply could begin with.
    fn tells(&self, patterns: &Patterns, rival: &[u8]) -> bool {
        let bytes: Vec<u8> = self.partial.iter().chain(rival).copied().collect();
        let rival = String::from_utf8_lossy(&bytes);
        let joined = format!("{}{rival}", self.text);
        patterns.begins_name(&joined, self.text.len())
            || (!self.begun && patterns.begins_name(&rival, 0))
    }

    fn go_on(&mut self, bytes: &[u8]) {
        self.begun |= !bytes.is_empty();
        self.known += bytes.len();
        self.add(bytes);
    }

    fn add(&mut self, bytes: &[u8]) {
        self.partial.extend(bytes);
        let all = std::mem::take(&mut self.partial);
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.text.push_str(chunk.valid());
            let broken = chunk.invalid();
            let last = chunks.peek().is_none();
            if last && str::from_utf8(broken).is_err_and(|it| it.error_len().is_none()) {
                self.partial = broken.to_vec();
            } else if !broken.is_empty() {
                self.text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        // Only the last word matters.
        let word = self.text.rfind(char::is_whitespace).unwrap_or_default();
        let far = self.text.len().saturating_sub(MOST_BYTES);
        let start = self.text.floor_char_boundary(word.max(far));
        self.text.replace_range(..start, "");
    }
}
