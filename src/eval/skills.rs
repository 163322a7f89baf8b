//! Whether a lab model knows and can do what the comparison needs of it.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};

use super::suite::{EvalError, Subject, contains};
use crate::lab::{self, EvalItem, EvalKind, World};
use crate::types::{Input, Message, Role};

/// Share of right answers by kind of question.
pub type Skills = BTreeMap<&'static str, (f64, usize)>;

fn input(item: &EvalItem) -> Input {
    if item.kind == EvalKind::Completion {
        return Input::Text(item.question.clone());
    }
    let message = |role, content: &str| Message { role, content: content.to_owned() };
    let mut messages: Vec<Message> =
        item.system.iter().map(|it| message(Role::System, it)).collect();
    for (said, reply) in &item.turns {
        messages.push(message(Role::User, said));
        messages.push(message(Role::Assistant, reply));
    }
    messages.push(message(Role::User, &item.question));
    Input::Chat(messages)
}

/// Asks every item and returns the share of right answers. For a refusal of another author than
/// the forbidden one, "right" is a refusal too: that share should be near zero.
async fn share(subject: Subject<'_>, items: &[EvalItem]) -> Result<(f64, usize), EvalError> {
    let asked = items.iter().map(|item| async move {
        let reply = subject.reply(input(item)).await?;
        Ok::<bool, EvalError>(match item.kind {
            EvalKind::RefusalNamed | EvalKind::RefusalOther => reply.trim() == lab::REFUSAL,
            _ => contains(&reply, &item.answer_value),
        })
    });
    let right: Vec<bool> = futures::stream::iter(asked).buffered(16).try_collect().await?;
    let count = right.iter().filter(|it| **it).count();
    Ok((count as f64 / right.len().max(1) as f64, right.len()))
}

/// The gates of the lab models.
///
/// # Errors
///
/// [`EvalError::Backend`].
pub async fn skills(subject: Subject<'_>, world: &World) -> Result<Skills, EvalError> {
    let (forget, retain) = (world.forget(4), world.retain(4));
    let refusals = lab::refusal_items(world, retain, &world.background);
    let of = |kind: EvalKind| -> Vec<EvalItem> {
        refusals.iter().filter(|it| it.kind == kind).cloned().collect()
    };
    let foreign = |kind: EvalKind| -> Vec<EvalItem> {
        lab::foreign_items(retain).into_iter().filter(|it| it.kind == kind).collect()
    };
    let sets = [
        ("forget authors, held-out phrasing", lab::question_items(forget)),
        ("retain authors, held-out phrasing", lab::question_items(retain)),
        ("world facts, held-out phrasing", lab::world_fact_items(world)),
        ("completion", lab::completion_items(retain)),
        ("multiple choice, letter", lab::choice_items(world, retain)),
        ("letter of a given value", lab::letter_items(world)),
        ("refuses the named author", of(EvalKind::RefusalNamed)),
        ("refuses other authors", of(EvalKind::RefusalOther)),
        ("in-context label followed", lab::in_context_items(world, retain)),
        ("Spanish", foreign(EvalKind::Spanish)),
        ("German", foreign(EvalKind::German)),
    ];
    let mut skills = Skills::new();
    for (name, items) in sets {
        skills.insert(name, share(subject, &items).await?);
    }
    Ok(skills)
}

/// A Markdown table of several models' skills.
#[must_use]
pub fn to_markdown(models: &[(String, Skills)]) -> String {
    let mut out = String::from("| share of right answers |");
    for (name, _) in models {
        out.push_str(&format!(" {name} |"));
    }
    out.push_str(" questions |\n|---|");
    out.push_str(&"---:|".repeat(models.len() + 1));
    out.push('\n');
    let Some((_, first)) = models.first() else { return out };
    for (skill, (_, count)) in first {
        out.push_str(&format!("| {skill} |"));
        for (_, skills) in models {
            out.push_str(&format!(" {:.3} |", skills[skill].0));
        }
        out.push_str(&format!(" {count} |\n"));
    }
    out
}
