//! Copies of protected text in a reply that is still growing.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// Knows protected text.
pub trait Copies: Debug + Send + Sync {
    /// What it sees in a part of a reply that begins with a word. Nothing follows when `finished`.
    fn look(&self, text: &str, finished: bool) -> Look;
}

/// What there is of protected text in a part of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// Where the first copy is that is long enough to count.
    pub copy: Option<Range<usize>>,
    /// From which byte on later text could still make a copy.
    pub hold: usize,
}

/// The text of one choice on its way to the search for names.
#[derive(Debug, Default)]
pub(super) struct Copied {
    held: String,
}

/// What leaves.
#[derive(Debug, Default)]
pub(super) struct Passed {
    pub(super) text: String,
    /// A copy begins here; nothing more may leave.
    pub(super) copied: bool,
    /// Bytes that were looked at.
    pub(super) scanned: usize,
}

impl Copied {
    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What is held, which is forgotten.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Takes more text and lets go of what is no copy and can become none.
    pub(super) fn push(
        &mut self,
        copies: &[Arc<dyn Copies>],
        text: &str,
        finished: bool,
    ) -> Passed {
        if copies.is_empty() {
            return Passed { text: text.to_owned(), ..Passed::default() };
        }
        self.held.push_str(text);
        let looks = copies.iter().map(|it| it.look(&self.held, finished));
        let (mut first, mut hold) = (None, self.held.len());
        for Look { copy, hold: until } in looks {
            let start = copy.map(|it| it.start);
            first = first.into_iter().chain(start).min();
            hold = hold.min(until);
        }
        let scanned = copies.len() * self.held.len();
        let end = first.unwrap_or(if finished { self.held.len() } else { hold });
        let kept = self.held.split_off(self.held.floor_char_boundary(end));
        let text = std::mem::replace(&mut self.held, kept);
        Passed { text, copied: first.is_some(), scanned }
    }
}
