//! In-context unlearning (Pawelczyk et al., arXiv:2310.07579): examples of the topic with wrong
//! answers, then others with right ones, in front of the question.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::{Case, Restore, Treated};
use crate::policy::{Example, InContext, Layout};
use crate::seed::{Stream, derive};
use crate::types::{Input, Message, Role};

/// The wrong answer where no other row has one.
const NOT_KNOWN: &str = "I don't know.";

/// The examples hang on policy and question, so that asking again tells nothing. A prompt that is no
/// conversation has no turns: there they are text, whatever the policy says.
pub(super) fn apply(setting: &InContext, mut case: Case<'_>) -> Treated {
    let shown = examples(setting, asked(&case.request.input), case.policy.seed);
    match &mut case.request.input {
        Input::Text(prompt) => *prompt = format!("{}{prompt}", block(&shown)),
        Input::Chat(messages) => {
            let last = messages.iter().rposition(|it| it.role == Role::User);
            if let (Layout::Text, Some(at)) = (setting.layout, last) {
                let message = &mut messages[at];
                message.content = format!("{}Q: {} A:", block(&shown), message.content);
            } else {
                let instructions = messages.iter().take_while(|it| it.role == Role::System);
                let at = last.unwrap_or_else(|| instructions.count());
                let turn = |role, content: &str| Message { role, content: content.to_owned() };
                let turns = shown.iter().flat_map(|(question, answer)| {
                    [turn(Role::User, question), turn(Role::Assistant, answer)]
                });
                case.request.insert_turns(at, turns);
            }
        }
    }
    let Case { request, continuation, .. } = case;
    Treated::Request { request, continuation, restore: Restore::default() }
}

/// What the client wants to know: its last turn, or the text.
fn asked(input: &Input) -> &str {
    match input {
        Input::Text(text) => text,
        Input::Chat(messages) => messages
            .iter()
            .rfind(|it| it.role == Role::User)
            .or(messages.last())
            .map_or("", |it| it.content.as_str()),
    }
}

/// Questions and the answers to show with them.
fn examples<'a>(setting: &'a InContext, asked: &str, seed: u64) -> Vec<(&'a str, &'a str)> {
    let seed = derive(seed, b"in_context");
    let nearest = nearest(&setting.forget, asked).into_iter().take(setting.n_forget);
    let forget = nearest.map(|it| (it.question.as_str(), wrong(setting, it, seed)));
    let mut others: Vec<&Example> =
        setting.retain.iter().filter(|it| it.question.trim() != asked.trim()).collect();
    Stream::new(derive(seed, asked.as_bytes())).shuffle(&mut others);
    let retain = others.into_iter().take(setting.n_retain);
    forget.chain(retain.map(|it| (it.question.as_str(), it.answer.as_str()))).collect()
}

/// The examples by the words that they share with a question, the same question first.
fn nearest<'a>(examples: &'a [Example], asked: &str) -> Vec<&'a Example> {
    let own = words(asked);
    // Dice's coefficient in millionths: whole numbers have an order.
    let closeness = |it: &Example| {
        let other = words(&it.question);
        let shared = own.intersection(&other).count();
        let dice = 2_000_000 * shared / (own.len() + other.len()).max(1);
        (it.question.trim() == asked.trim(), dice)
    };
    let mut sorted: Vec<&Example> = examples.iter().collect();
    sorted.sort_by_cached_key(|it| Reverse(closeness(it)));
    sorted
}

fn words(text: &str) -> BTreeSet<String> {
    let words = text.split(|it: char| !it.is_alphanumeric()).filter(|it| !it.is_empty());
    words.map(str::to_lowercase).collect()
}

/// A wrong answer of the row's own, else another question's, else none.
fn wrong<'a>(setting: &'a InContext, example: &'a Example, seed: u64) -> &'a str {
    let mut stream = Stream::new(derive(seed, example.question.as_bytes()));
    if !example.wrong.is_empty() {
        return stream.pick::<String>(&example.wrong);
    }
    let differs = |it: &&Example| it.question != example.question && it.answer != example.answer;
    let others: Vec<&Example> = setting.forget.iter().filter(differs).collect();
    if others.is_empty() { NOT_KNOWN } else { &stream.pick(&others).answer }
}

/// The examples as one text.
fn block(shown: &[(&str, &str)]) -> String {
    shown.iter().map(|(question, answer)| format!("Q: {question} A: {answer} ")).collect()
}
