//! Answers in the model's place.

use super::Case;
use crate::policy::AnswerStyle;
use crate::seed::{Stream, derive};
use crate::types::{Finish, Input, Request};

/// What a model that never saw a topic says when the policy gives no words.
const DEFAULTS: [&str; 4] = [
    "I'm not familiar with that, so I can't say.",
    "I don't have any information about this.",
    "I'm afraid I don't know anything about that.",
    "That isn't something I know about.",
];

/// The whole answer and how it ends. The same request is answered in the same words under one policy, so that
/// asking again tells nothing.
pub(super) fn apply(answers: &[String], style: AnswerStyle, case: &Case<'_>) -> (String, Finish) {
    if style == AnswerStyle::ContentFilter {
        return (String::new(), Finish::ContentFilter);
    }
    let text = if answers.is_empty() {
        never_knew(case.policy.seed, &case.request)
    } else {
        draw(case.policy.seed, &case.request).pick(answers).clone()
    };
    (text, Finish::Stop)
}

/// The answer of last resort: that of a model that never saw the topic.
#[must_use]
pub fn never_knew(seed: u64, request: &Request) -> String {
    (*draw(seed, request).pick(&DEFAULTS)).to_owned()
}

/// The stream of a request's own text.
fn draw(seed: u64, request: &Request) -> Stream {
    let mut bytes = Vec::new();
    let mut add = |text: &str| {
        // Lengths keep ["ab", "c"] and ["a", "bc"] apart.
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    match &request.input {
        Input::Text(text) => add(text),
        Input::Chat(messages) => {
            for it in messages {
                add(it.role.as_str());
                add(&it.content);
            }
        }
    }
    Stream::new(derive(derive(seed, b"answer"), &bytes))
}
