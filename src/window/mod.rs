//! The hold-back on a streaming reply.
//!
//! A [`Window`] releases every text that no later text can turn into a match of a pattern, and keeps
//! the rest. A pattern that ends where the text ends waits for one more character, because "Ann Lee"
//! must not fire inside "Ann Leeds". Replaced text is never scanned again, so a surrogate that is
//! restored to its name is not redacted afterwards.

mod scan;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::{ReplyEvent, TokenLogprob};

pub use scan::{PatternSet, Patterns};

/// Why a text is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A treatment put the pattern there; the client gets its own word back.
    Restore,
    /// The pattern is to be forgotten, whoever wrote it.
    Redact,
}

/// A text to be replaced wherever a reply says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// Matched at word boundaries, without case, on the normalised view.
    pub pattern: String,
    /// What the client reads instead.
    pub with: String,
    /// Why.
    pub kind: Kind,
}

/// The hold-back over all choices of one reply.
#[derive(Debug)]
pub struct Window {
    patterns: Arc<Patterns>,
    choices: BTreeMap<usize, Choice>,
    hits: usize,
    scanned: usize,
    no_logprobs: bool,
    /// The end of the text before every choice, where a name may have begun.
    before: String,
}

/// What is kept of one choice.
#[derive(Debug, Default)]
struct Choice {
    held: String,
    /// Bytes at the start of `held` that are the client's and do not leave.
    own: usize,
    /// Log-probabilities whose text is not wholly released.
    logprobs: Vec<TokenLogprob>,
    /// The last visible character before `held`, which decides whether a word starts there.
    previous: Option<char>,
    /// Text was replaced, so that log-probabilities no longer describe it.
    altered: bool,
}

impl Window {
    /// A window over these replacements.
    #[must_use]
    pub fn new(replacements: Vec<Replacement>) -> Self {
        Self::over(Arc::new(Patterns::new(replacements)))
    }

    /// A window over patterns that are shared between replies.
    #[must_use]
    pub fn over(patterns: Arc<Patterns>) -> Self {
        let no_logprobs = patterns.restores();
        let (choices, before) = (BTreeMap::new(), String::new());
        Self { patterns, choices, hits: 0, scanned: 0, no_logprobs, before }
    }

    /// The same for replies that continue `text` in the middle. A name that begins there and ends in
    /// the reply is seen; what leaves instead is the whole replacement.
    #[must_use]
    pub fn after(mut self, text: &str) -> Self {
        let most = self.patterns.most_held();
        let start = text.len() - text.len().min(most);
        let start = (start..=text.len()).find(|it| text.is_char_boundary(*it));
        let tail = start.and_then(|it| text.get(it..)).unwrap_or_default();
        let cut = self.patterns.scan(tail, 0, None, false).cut;
        self.before = tail.get(cut..).unwrap_or_default().to_owned();
        self
    }

    /// The same, and no log-probabilities leave: what a treated request deserves even where
    /// nothing is put back.
    #[must_use]
    pub fn without_logprobs(mut self) -> Self {
        self.no_logprobs = true;
        self
    }

    /// Takes an event of the backend and returns what may leave, in order.
    ///
    /// Without patterns the event itself leaves and no text is copied or scanned.
    pub fn push(&mut self, mut event: ReplyEvent) -> Vec<ReplyEvent> {
        if self.no_logprobs
            && let ReplyEvent::Text { logprobs, .. } = &mut event
        {
            logprobs.clear();
        }
        if self.patterns.is_empty() {
            return vec![event];
        }
        match event {
            ReplyEvent::Text { choice, text, logprobs } => {
                self.text(choice, &text, logprobs).into_iter().collect()
            }
            ReplyEvent::Finished { choice, .. } => {
                self.flush(choice).into_iter().chain([event]).collect()
            }
            ReplyEvent::Done(_) => {
                let open: Vec<usize> = self.choices.keys().copied().collect();
                let mut events: Vec<_> = open.into_iter().filter_map(|it| self.flush(it)).collect();
                events.push(event);
                events
            }
        }
    }

    /// Replacements made.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.hits
    }

    /// Bytes normalised, each as often as it was looked at: the cost of the window.
    #[must_use]
    pub fn scanned(&self) -> usize {
        self.scanned
    }

    fn text(
        &mut self,
        choice: usize,
        text: &str,
        logprobs: Vec<TokenLogprob>,
    ) -> Option<ReplyEvent> {
        let state = self.choices.entry(choice).or_insert_with(|| Choice {
            held: self.before.clone(),
            own: self.before.len(),
            ..Choice::default()
        });
        if !state.altered {
            state.logprobs.extend(logprobs);
        }
        state.held.push_str(text);
        self.release(choice, false)
    }

    /// Releases all that is left of a choice.
    fn flush(&mut self, choice: usize) -> Option<ReplyEvent> {
        let event = self.release(choice, true);
        self.choices.remove(&choice);
        event
    }

    fn release(&mut self, choice: usize, finished: bool) -> Option<ReplyEvent> {
        let state = self.choices.get_mut(&choice)?;
        let mut text = String::new();
        if !state.held.is_empty() {
            self.scanned += state.held.len();
            let scan = self.patterns.scan(&state.held, state.own, state.previous, finished);
            text = scan.out;
            self.hits += scan.hits;
            state.previous = scan.previous;
            state.altered |= scan.hits > 0;
            let kept = state.held.split_off(scan.cut);
            state.held = kept;
            state.own = state.own.saturating_sub(scan.cut);
            if state.held.len() > self.patterns.most_held() {
                let reply = state.held.split_off(state.own);
                let own = scan::compact(&state.held);
                state.own = own.len();
                state.held = own + &scan::compact(&reply);
                state.altered = true;
            }
        }
        if state.altered {
            state.logprobs.clear();
        }
        // They may come before their text, which could still turn out to be a name.
        let logprobs = if state.held.len() == state.own && (finished || !text.is_empty()) {
            std::mem::take(&mut state.logprobs)
        } else {
            Vec::new()
        };
        let nothing = text.is_empty() && logprobs.is_empty();
        (!nothing).then_some(ReplyEvent::Text { choice, text, logprobs })
    }
}
