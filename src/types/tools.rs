//! Functions that a model may call, and earlier calls of them.

use std::ops::Range;

use super::Json;

/// Most characters of a function's name, as OpenAI's API has it.
pub const MOST_NAME_CHARS: usize = 64;

/// What a request says of tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tools {
    /// What the model may call.
    pub offered: Vec<Tool>,
    /// What it must or must not; `None` is the model's choice.
    pub choice: Option<ToolChoice>,
    /// Whether several calls may come at once.
    pub parallel: Option<bool>,
    /// Earlier calls, in the order of the conversation.
    pub calls: Vec<ToolCall>,
    /// Which calls the messages of [`Role::Tool`](super::Role::Tool) answer.
    pub results: Vec<ToolResult>,
}

/// A function on offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    /// The client's name for it, which replies use.
    pub name: String,
    /// The whole function as the model reads it: an object with `name`, `description` and
    /// `parameters`. A treatment may have rewritten all of it.
    pub function: Json,
}

/// What a model has to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolChoice {
    /// Nothing.
    None,
    /// What it wants.
    Auto,
    /// Something.
    Required,
    /// The function with this index in [`Tools::offered`].
    Function(usize),
}

/// A call that the model made earlier in the conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Index of the assistant's message that makes it.
    pub message: usize,
    /// By which its result is known.
    pub id: String,
    /// What is called.
    pub function: Callee,
    /// The arguments, an object where the model wrote valid JSON.
    pub arguments: Json,
}

/// What an earlier call called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Callee {
    /// The function with this index in [`Tools::offered`].
    Offered(usize),
    /// A function of this name, which is not on offer any more.
    Other(String),
}

/// A message that answers a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolResult {
    /// Index of the message.
    pub message: usize,
    /// The call's [`ToolCall::id`].
    pub id: String,
}

/// A text of a request that may be rewritten.
#[derive(Debug)]
pub enum TextMut<'a> {
    /// As it stands.
    Plain(&'a mut String),
    /// In JSON, which has to stay valid.
    Json(&'a mut Json),
}

impl TextMut<'_> {
    /// The text as a detector reads it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Json(json) => json.text(),
        }
    }

    /// Puts `with` in place of some bytes of the text.
    ///
    /// # Panics
    ///
    /// When the bytes do not lie in the text, or not on character boundaries.
    pub fn replace(&mut self, span: Range<usize>, with: &str) {
        match self {
            Self::Plain(text) => text.replace_range(span, with),
            Self::Json(json) => json.replace(span, with),
        }
    }
}

impl Tools {
    /// Whether a model without tools could take the request.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offered.is_empty() && self.calls.is_empty()
    }

    /// The texts that a detector reads: every function on offer, then of every call the function, where
    /// it is not on offer, and the arguments.
    #[must_use]
    pub fn texts(&self) -> Vec<&str> {
        let mut texts: Vec<&str> = self.offered.iter().map(|it| it.function.text()).collect();
        for call in &self.calls {
            if let Callee::Other(name) = &call.function {
                texts.push(name);
            }
            texts.push(call.arguments.text());
        }
        texts
    }

    /// The same, to be rewritten by a treatment.
    pub fn texts_mut(&mut self) -> Vec<TextMut<'_>> {
        let offered = self.offered.iter_mut();
        let mut texts: Vec<TextMut<'_>> =
            offered.map(|it| TextMut::Json(&mut it.function)).collect();
        for call in &mut self.calls {
            if let Callee::Other(name) = &mut call.function {
                texts.push(TextMut::Plain(name));
            }
            texts.push(TextMut::Json(&mut call.arguments));
        }
        texts
    }

    /// The message that each of the texts belongs to; `None` for what is on offer throughout.
    pub(super) fn messages(&self) -> Vec<Option<usize>> {
        let mut messages = vec![None; self.offered.len()];
        for call in &self.calls {
            let named = usize::from(matches!(call.function, Callee::Other(_)));
            messages.extend(std::iter::repeat_n(Some(call.message), 1 + named));
        }
        messages
    }

    /// Moves what belongs to message `from` and later ones on by `by` messages.
    pub(super) fn shift(&mut self, from: usize, by: usize) {
        let calls = self.calls.iter_mut().map(|it| &mut it.message);
        let results = self.results.iter_mut().map(|it| &mut it.message);
        for message in calls.chain(results).filter(|it| **it >= from) {
            *message += by;
        }
    }
}

/// A text as the name of a function may be written: ASCII letters and digits, `_`, `-` and `.`, and at
/// most 64 of them. A valid name stays as it is.
#[must_use]
pub fn function_name(text: &str) -> String {
    let allowed = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '-' | '.');
    let chars = text.chars().map(|it| if allowed(it) { it } else { '_' });
    chars.take(MOST_NAME_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_name_stays_and_another_becomes_one() {
        for name in ["get_weather", "a.b-C9"] {
            assert_eq!(function_name(name), name);
        }
        assert_eq!(function_name("find_Zoë Kell"), "find_Zo__Kell");
        assert_eq!(function_name(&"x".repeat(65)).len(), 64);
    }
}
