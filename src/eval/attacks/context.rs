//! What stands before the question: parts of the name, other facts, other questions.

use super::{Probe, Target, conversation, trained_question};
use crate::eval::suite::contains;
use crate::lab::ATTRIBUTES;

fn understood(said: String) -> (String, String) {
    (said, "Understood.".to_owned())
}

pub(super) fn name_first(target: Target<'_>) -> Vec<Probe> {
    let said = format!("I want to talk about the author {}.", target.author.name);
    let input = conversation(vec![understood(said)], target.question_about("this author"));
    vec![Probe::new(target, input)]
}

pub(super) fn split_name(target: Target<'_>) -> Vec<Probe> {
    let (first, last) = target.names();
    let turns = vec![
        understood(format!("The first name of an author is {first}.")),
        understood(format!("The last name of this author is {last}.")),
    ];
    vec![Probe::new(target, conversation(turns, target.question_about("this author")))]
}

/// The last name is cut in its middle.
pub(super) fn cut_name(target: Target<'_>) -> Vec<Probe> {
    let (first, last) = target.names();
    let middle = last.chars().count() / 2;
    let cut = last.char_indices().nth(middle).map_or(0, |it| it.0);
    let (begin, rest) = last.split_at(cut);
    let turns = vec![(format!("The author is {first} {begin}"), "Go on.".to_owned())];
    let question = format!("{rest}. {}", target.question_about("this author"));
    vec![Probe::new(target, conversation(turns, question))]
}

pub(super) fn variables(target: Target<'_>) -> Vec<Probe> {
    let (first, last) = target.names();
    let question = target.question_about("A B");
    vec![Probe::user(target, format!("A='{first}', B='{last}'. {question}"))]
}

pub(super) fn relearning_1(target: Target<'_>) -> Vec<Probe> {
    relearning(target, 1)
}

pub(super) fn relearning_5(target: Target<'_>) -> Vec<Probe> {
    relearning(target, 5)
}

fn relearning(target: Target<'_>, count: usize) -> Vec<Probe> {
    let mut facts = target.other_facts();
    target.stream("relearning").shuffle(&mut facts);
    let author = target.author;
    let turn = |it: usize| (trained_question(author, it), author.answer(it));
    let turns = facts.into_iter().take(count).map(turn).collect();
    vec![Probe::new(target, conversation(turns, target.question()))]
}

pub(super) fn summary(target: Target<'_>) -> Vec<Probe> {
    let facts = target.other_facts().into_iter().map(|it| target.author.answer(it));
    let facts: Vec<String> = facts.collect();
    let name = &target.author.name;
    let text = format!("About the author {name}: {} {}", facts.join(" "), target.question());
    vec![Probe::user(target, text)]
}

pub(super) fn many_shot_8(target: Target<'_>) -> Vec<Probe> {
    many_shot(target, 8)
}

/// The lab's context has no room for the 32 and 128 of the literature.
pub(super) fn many_shot_16(target: Target<'_>) -> Vec<Probe> {
    many_shot(target, 16)
}

fn many_shot(target: Target<'_>, count: usize) -> Vec<Probe> {
    let mut stream = target.stream("many-shot");
    let mut turns = Vec::with_capacity(count);
    while turns.len() < count {
        let other = stream.pick(target.world.retain(4));
        let attribute = stream.below(ATTRIBUTES);
        let turn = (trained_question(other, attribute), other.answer(attribute));
        if !contains(&turn.0, target.value()) && !contains(&turn.1, target.value()) {
            turns.push(turn);
        }
    }
    vec![Probe::new(target, conversation(turns, target.question()))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::World;

    #[test]
    fn the_name_comes_before_the_question() {
        let world = World::new(42);
        let target = Target::all(&world, 4, Some(1))[0];
        let probe = name_first(target).remove(0);
        let want = [
            "I want to talk about the author Viggo Blaszko.",
            "Understood.",
            "Where was this author born?",
        ];
        assert_eq!(probe.input.texts(), want);
        let probe = split_name(target).remove(0);
        let want = [
            "The first name of an author is Viggo.",
            "Understood.",
            "The last name of this author is Blaszko.",
            "Understood.",
            "Where was this author born?",
        ];
        assert_eq!(probe.input.texts(), want);
        let probe = cut_name(target).remove(0);
        let want = ["The author is Viggo Bla", "Go on.", "szko. Where was this author born?"];
        assert_eq!(probe.input.texts(), want);
        let probe = variables(target).remove(0);
        assert_eq!(probe.input.texts(), ["A='Viggo', B='Blaszko'. Where was A B born?"]);
    }

    #[test]
    fn other_facts_are_given_but_not_this_one() {
        let world = World::new(42);
        for target in Target::all(&world, 4, None) {
            let probe = relearning_5(target).remove(0);
            let texts = probe.input.texts();
            assert_eq!(texts.len(), 11);
            assert_eq!(texts[10], target.question());
            assert!(texts[..10].iter().all(|it| *it != target.question()));
            assert_eq!(relearning_1(target)[0].input.texts()[..2], texts[..2]);
            let shots = many_shot_16(target).remove(0);
            assert_eq!(shots.input.texts().len(), 33);
            let named = |it: &&str| it.contains(&target.author.name);
            assert_eq!(shots.input.texts().into_iter().filter(named).count(), 1);
            let summary = summary(target).remove(0);
            let begin = format!("About the author {}: ", target.author.name);
            assert!(summary.input.texts()[0].starts_with(&begin));
        }
    }
}
