//! The hold-back on a streaming reply.
//!
//! A [`Window`] releases every text that no later text can turn into a match of a pattern, and keeps
//! the rest. A pattern that ends where the text ends waits for one more character, because "Ann Lee"
//! must not fire inside "Ann Leeds". Replaced text is never scanned again, so a surrogate that is
//! restored to its name is not redacted afterwards.
//!
//! The arguments of tool calls are JSON. They are scanned with the escapes in their strings undone,
//! each call on its own, and written as JSON again, so that no escape hides a name and no replacement
//! ends a string. JSON within a string of theirs is a text like any other, with its own escapes. A name
//! over several strings of one call gives each of them a word of its surrogate; from what could be its
//! first half on a call waits for its next string.
//!
//! A choice ends where its text begins to copy protected text, a string of arguments there too. What
//! begins like a copy waits until it is none.
//!
//! Log-probabilities leave with their text and end where it was replaced or a call begins. A rival of a
//! token that would write a word of a name, or three letters of one and more, is dropped.

mod call;
mod channel;
mod copies;
mod rivals;
mod scan;
mod spread;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::{Finish, ReplyEvent, TokenLogprob, ToolCallPiece, function_name};
use call::Call;
use channel::Channel;
use copies::Copied;
use rivals::Written;

pub use copies::{Copies, Look};
pub use scan::{Owners, PatternSet, Patterns};

/// Why a text is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A treatment put the pattern there; the client gets its own word back.
    Restore,
    /// The same for an ordinary word, of which a part at the end of a reply is a word too.
    RestoreWord,
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
    /// By choice and index of the call.
    calls: BTreeMap<(usize, usize), Call>,
    copies: Vec<Arc<dyn Copies>>,
    /// What a choice ends with in place of everything from its first hit on.
    ending: Option<String>,
    /// Names of functions that are the client's own words.
    functions: Vec<String>,
    hits: usize,
    scanned: usize,
    no_logprobs: bool,
    /// The end of the text before every choice, where a name may have begun.
    before: String,
    /// What the first token's rivals would go on from.
    written: Written,
}

/// What is kept of one choice.
#[derive(Debug, Default)]
struct Choice {
    copied: Copied,
    text: Channel,
    /// Nothing more of it leaves.
    ended: bool,
    /// Log-probabilities whose text is not wholly released.
    logprobs: Vec<TokenLogprob>,
    /// What the next token's rivals would go on from.
    written: Written,
    /// Text was replaced or a call has begun, so that log-probabilities are not those of the text.
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
        Self {
            patterns,
            choices: BTreeMap::new(),
            calls: BTreeMap::new(),
            copies: Vec::new(),
            ending: None,
            functions: Vec::new(),
            hits: 0,
            scanned: 0,
            no_logprobs,
            before: String::new(),
            written: Written::default(),
        }
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
        self.written = Written::after(tail);
        self
    }

    /// The same for a model that may call these functions. Their names are no secret: the client wrote
    /// them.
    #[must_use]
    pub fn offering(mut self, functions: Vec<String>) -> Self {
        self.functions = functions;
        self
    }

    /// The same, and a choice ends where it begins to copy protected text. No log-probabilities leave:
    /// they would not be those of the text.
    #[must_use]
    pub fn watching(mut self, copies: Vec<Arc<dyn Copies>>) -> Self {
        self.no_logprobs |= !copies.is_empty();
        self.copies = copies;
        self
    }

    /// The same, and `ending` leaves in place of everything from the first hit of a choice's text on.
    #[must_use]
    pub fn ending_with(mut self, ending: String) -> Self {
        self.ending = Some(ending);
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
        if self.patterns.is_empty() && self.copies.is_empty() {
            return vec![event];
        }
        match event {
            ReplyEvent::Text { choice, text, logprobs } => {
                self.text(choice, &text, logprobs).into_iter().collect()
            }
            ReplyEvent::ToolCall { choice, piece } => {
                self.call(choice, piece).into_iter().collect()
            }
            ReplyEvent::Finished { choice, finish } => {
                let (mut events, ended) = self.flush(choice);
                let finish = if ended { Finish::Stop } else { finish };
                events.push(ReplyEvent::Finished { choice, finish });
                events
            }
            ReplyEvent::Done(_) => {
                let open: Vec<usize> = self.choices.keys().copied().collect();
                let mut events: Vec<_> = open.into_iter().flat_map(|it| self.flush(it).0).collect();
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
        mut logprobs: Vec<TokenLogprob>,
    ) -> Option<ReplyEvent> {
        let state = open(&mut self.choices, choice, &self.before, &self.written);
        if !state.altered && !self.no_logprobs {
            state.written.read(&self.patterns, text, &mut logprobs);
            state.logprobs.extend(logprobs);
        }
        self.pass(choice, text, false)
    }

    /// Moves text of a choice on, past the search for copies and then for names.
    fn pass(&mut self, choice: usize, text: &str, finished: bool) -> Option<ReplyEvent> {
        let state = self.choices.get_mut(&choice).filter(|it| !it.ended)?;
        let passed = state.copied.push(&self.copies, text, finished);
        self.scanned += passed.scanned;
        state.text.held.push_str(&passed.text);
        if !passed.copied {
            return self.release(choice, finished);
        }
        self.hits += 1;
        let released = self.release(choice, true);
        let state = self.choices.get_mut(&choice)?;
        if state.ended {
            return released;
        }
        state.ended = true;
        let ending = self.ending.clone().unwrap_or_default();
        let text = match released {
            Some(ReplyEvent::Text { text, .. }) => text + &ending,
            _ => ending,
        };
        (!text.is_empty()).then_some(ReplyEvent::Text { choice, text, logprobs: Vec::new() })
    }

    /// Takes a piece of a call. Name and id leave at once: they come whole.
    fn call(&mut self, choice: usize, mut piece: ToolCallPiece) -> Option<ReplyEvent> {
        let state = open(&mut self.choices, choice, &self.before, &self.written);
        // Some servers count the tokens of a call among those of the text.
        state.altered = true;
        state.logprobs.clear();
        if state.ended {
            return None;
        }
        piece.arguments = self.pass_on((choice, piece.index), &piece.arguments, false);
        if !self.functions.contains(&piece.name)
            && let Some(other) = self.replaced(&piece.name)
        {
            piece.name = function_name(&other);
        }
        if self.replaced(&piece.id).is_some() {
            // Without one, it gets one that says nothing.
            piece.id.clear();
        }
        let nothing = piece.id.is_empty() && piece.name.is_empty() && piece.arguments.is_empty();
        (!nothing).then_some(ReplyEvent::ToolCall { choice, piece })
    }

    /// A whole text with its names replaced, if it has any.
    fn replaced(&mut self, text: &str) -> Option<String> {
        self.scanned += text.len();
        let scan = self.patterns.scan(text, 0, None, true);
        self.hits += scan.hits;
        (scan.hits > 0).then_some(scan.out)
    }

    /// Moves arguments of a call on.
    fn pass_on(&mut self, key: (usize, usize), json: &str, finished: bool) -> String {
        let call = self.calls.entry(key).or_default();
        let passed = call.push(&self.patterns, &self.copies, json, finished);
        self.scanned += passed.scanned;
        self.hits += passed.hits;
        passed.text
    }

    /// Releases all that is left of a choice, and whether it ended before the model did.
    fn flush(&mut self, choice: usize) -> (Vec<ReplyEvent>, bool) {
        let mut events: Vec<ReplyEvent> = self.pass(choice, "", true).into_iter().collect();
        let ended = self.choices.remove(&choice).is_some_and(|it| it.ended);
        let calls = self.calls.range((choice, 0)..=(choice, usize::MAX));
        let keys: Vec<(usize, usize)> = calls.map(|it| *it.0).collect();
        for key in keys {
            let arguments = self.pass_on(key, "", true);
            self.calls.remove(&key);
            if !arguments.is_empty() {
                let piece = ToolCallPiece { index: key.1, arguments, ..ToolCallPiece::default() };
                events.push(ReplyEvent::ToolCall { choice, piece });
            }
        }
        (events, ended)
    }

    fn release(&mut self, choice: usize, finished: bool) -> Option<ReplyEvent> {
        let state = self.choices.get_mut(&choice)?;
        let released = state.text.release(&self.patterns, finished);
        self.scanned += released.scanned;
        self.hits += released.hits;
        state.altered |= released.altered;
        let mut text = released.text;
        if let (Some(first), Some(ending)) = (released.first, &self.ending) {
            text.truncate(first);
            text.push_str(ending);
            state.ended = true;
            state.text = Channel::default();
        }
        if state.altered {
            state.logprobs.clear();
        }
        // They may come before their text, which could still turn out to be a name.
        let logprobs =
            if state.text.is_empty() && state.copied.is_empty() && (finished || !text.is_empty()) {
                std::mem::take(&mut state.logprobs)
            } else {
                Vec::new()
            };
        let nothing = text.is_empty() && logprobs.is_empty();
        (!nothing).then_some(ReplyEvent::Text { choice, text, logprobs })
    }
}

/// The state of a choice, which begins with its first event.
fn open<'a>(
    choices: &'a mut BTreeMap<usize, Choice>,
    choice: usize,
    before: &str,
    written: &Written,
) -> &'a mut Choice {
    choices.entry(choice).or_insert_with(|| Choice {
        text: Channel::after(before),
        written: written.clone(),
        ..Choice::default()
    })
}
