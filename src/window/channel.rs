//! One text of a reply on its way through the window.

use super::scan::{self, Patterns};

/// What is kept of a text.
#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) held: String,
    /// Bytes at the start of `held` that are the client's and do not leave.
    own: usize,
    /// The last visible character before `held`, which decides whether a word starts there.
    previous: Option<char>,
}

/// What leaves a channel.
#[derive(Debug, Default)]
pub(super) struct Released {
    pub(super) text: String,
    /// Replacements made.
    pub(super) hits: usize,
    /// Where in `text` the first of them is.
    pub(super) first: Option<usize>,
    /// Bytes that were looked at.
    pub(super) scanned: usize,
    /// The text that left, or what is still held, is not as it came.
    pub(super) altered: bool,
}

impl Channel {
    /// The channel of a text that goes on from `before`.
    pub(super) fn after(before: &str) -> Self {
        Self { held: before.to_owned(), own: before.len(), previous: None }
    }

    /// Whether all of the reply's text has left.
    pub(super) fn is_empty(&self) -> bool {
        self.held.len() == self.own
    }

    /// Lets go of what later text cannot change; of all when there is none to come.
    pub(super) fn release(&mut self, patterns: &Patterns, finished: bool) -> Released {
        if self.held.is_empty() {
            return Released::default();
        }
        let scanned = self.held.len();
        let scan = patterns.scan(&self.held, self.own, self.previous, finished);
        let mut altered = scan.hits > 0;
        self.previous = scan.previous;
        self.held = self.held.split_off(scan.cut);
        self.own = self.own.saturating_sub(scan.cut);
        if self.held.len() > patterns.most_held() {
            let reply = self.held.split_off(self.own);
            let own = scan::compact(&self.held);
            self.own = own.len();
            self.held = own + &scan::compact(&reply);
            altered = true;
        }
        Released { text: scan.out, hits: scan.hits, first: scan.first, scanned, altered }
    }
}
