//! Tells the model, before all else, to know nothing of the topic.

use super::{Case, Restore, Treated};
use crate::types::{Input, Message, Role};

/// In a conversation the first system message starts with `text`; in a text a blank line follows it.
pub(super) fn apply(text: &str, mut case: Case<'_>) -> Treated {
    let own = match &mut case.request.input {
        Input::Chat(messages) => {
            messages.first_mut().filter(|it| it.role == Role::System).map(|it| &mut it.content)
        }
        Input::Text(prompt) => Some(prompt),
    };
    if let Some(own) = own {
        *own = format!("{text}\n\n{own}");
    } else {
        let turn = Message { role: Role::System, content: text.to_owned() };
        case.request.insert_turns(0, [turn]);
    }
    let Case { request, continuation, .. } = case;
    Treated::Request { request, continuation, restore: Restore::default() }
}
