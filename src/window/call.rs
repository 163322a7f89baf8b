//! The arguments of one tool call on their way through the window.

use std::sync::Arc;

use super::channel::Channel;
use super::copies::{Copied, Copies};
use super::scan::Patterns;
use super::spread::{Passed, Spread};
use crate::types::{JsonReader, JsonWriter, QUOTE};

/// What is kept of one call.
#[derive(Debug, Default)]
pub(super) struct Call {
    reader: JsonReader,
    copied: Copied,
    /// The rest of a string that copies is not wanted.
    dropping: bool,
    arguments: Channel,
    spread: Spread,
    writer: JsonWriter,
}

impl Call {
    /// Takes more JSON and lets go of what later JSON cannot change; of all when there is none to come.
    pub(super) fn push(
        &mut self,
        patterns: &Patterns,
        copies: &[Arc<dyn Copies>],
        json: &str,
        finished: bool,
    ) -> Passed {
        let mut passed = Passed::default();
        let text = self.reader.push(json);
        let text = self.without_copies(copies, text, finished, &mut passed);
        self.arguments.held.push_str(&text);
        let whole = self.arguments.release(patterns, finished);
        let spread = self.spread.push(patterns, &whole.text, finished);
        passed.hits += whole.hits + spread.hits;
        passed.scanned += whole.scanned + spread.scanned;
        passed.text = self.writer.push(&spread.text);
        passed
    }

    /// A string ends where it begins to copy; the marks and what follows them stay.
    fn without_copies(
        &mut self,
        copies: &[Arc<dyn Copies>],
        mut text: String,
        finished: bool,
        passed: &mut Passed,
    ) -> String {
        let mut out = String::new();
        loop {
            if self.dropping {
                let Some(mark) = text.find(QUOTE) else { return out };
                text = text.split_off(mark);
                self.dropping = false;
            }
            let found = self.copied.push(copies, &text, finished);
            out.push_str(&found.text);
            passed.scanned += found.scanned;
            if !found.copied {
                return out;
            }
            passed.hits += 1;
            self.dropping = true;
            text = self.copied.take();
        }
    }
}
