//! Tells the model, before all else, to know nothing of the topic.

use super::{Case, Treated};
use crate::types::{Input, Message, Role};

/// In a conversation the first system message starts with `text`; in a text a blank line follows it.
pub(super) fn apply(text: &str, mut case: Case<'_>) -> Treated {
    match &mut case.request.input {
        Input::Chat(messages) => match messages.first_mut() {
            Some(first) if first.role == Role::System => {
                first.content = format!("{text}\n\n{}", first.content);
            }
            _ => messages.insert(0, Message { role: Role::System, content: text.to_owned() }),
        },
        Input::Text(prompt) => *prompt = format!("{text}\n\n{prompt}"),
    }
    let Case { request, continuation, .. } = case;
    Treated::Request { request, continuation, restore: Vec::new() }
}
