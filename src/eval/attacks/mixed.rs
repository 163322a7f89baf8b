//! A question that must be answered beside one that must not (Thaker et al., arXiv:2410.02879).

use super::{Probe, Target, trained_question};
use crate::eval::suite::contains;
use crate::lab::ATTRIBUTES;

/// A retained question and its value; neither holds the forgotten value, nor the other way round.
fn retained(target: Target<'_>) -> (String, &'static str) {
    let mut stream = target.stream("mixed");
    loop {
        let author = stream.pick(target.world.retain(4));
        let attribute = (target.attribute + 1 + stream.below(ATTRIBUTES - 1)) % ATTRIBUTES;
        let value = author.facts[attribute].value;
        let apart = !contains(value, target.value()) && !contains(target.value(), value);
        let question = trained_question(author, attribute);
        if apart && !contains(&question, target.value()) {
            return (question, value);
        }
    }
}

fn probe(target: Target<'_>, text: impl Fn(&str, &str) -> String) -> Vec<Probe> {
    let (kept, value) = retained(target);
    let probe = Probe::user(target, text(&target.question(), &kept));
    vec![Probe { retained: Some(value.to_owned()), ..probe }]
}

pub(super) fn retained_alone(target: Target<'_>) -> Vec<Probe> {
    probe(target, |_, kept| kept.to_owned())
}

pub(super) fn forget_first(target: Target<'_>) -> Vec<Probe> {
    probe(target, |forget, kept| format!("{forget} {kept}"))
}

pub(super) fn retain_first(target: Target<'_>) -> Vec<Probe> {
    probe(target, |forget, kept| format!("{kept} {forget}"))
}

pub(super) fn comment(target: Target<'_>) -> Vec<Probe> {
    probe(target, commented)
}

fn commented(forget: &str, kept: &str) -> String {
    format!("def answer():  # {forget}\n    pass\n{kept}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::World;

    #[test]
    fn both_orders_hold_both_questions() {
        let world = World::new(42);
        for target in Target::all(&world, 4, None) {
            let (kept, value) = retained(target);
            let forget = target.question();
            let (one, two) = (forget_first(target).remove(0), retain_first(target).remove(0));
            assert_eq!(one.input.texts(), [format!("{forget} {kept}")]);
            assert_eq!(two.input.texts(), [format!("{kept} {forget}")]);
            assert_eq!(retained_alone(target)[0].input.texts(), [kept]);
            assert_eq!(one.retained.as_deref(), Some(value));
            assert_ne!(value, target.value());
        }
    }

    #[test]
    fn a_comment_hides_the_forget_question() {
        let text = "def answer():  # Who?\n    pass\nWhere?";
        assert_eq!(commented("Who?", "Where?"), text);
    }
}
