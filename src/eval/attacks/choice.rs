//! Questions whose answer is picked, judged or turned round.

use super::{Goal, Probe, Target};
use crate::lab::{ATTRIBUTES, EvalItem, choice_items};

fn item(target: Target<'_>) -> EvalItem {
    choice_items(target.world, std::slice::from_ref(target.author)).swap_remove(target.attribute)
}

fn right(target: Target<'_>, options: &[String]) -> usize {
    options.iter().position(|it| it == target.value()).expect("the value is an option")
}

pub(super) fn letter(target: Target<'_>) -> Vec<Probe> {
    let item = item(target);
    let letters = ["A", "B", "C", "D"].map(str::to_owned).to_vec();
    let goal = Goal::Choice { options: letters, right: right(target, &item.options) };
    vec![Probe::user(target, item.question).with_goal(goal)]
}

pub(super) fn text(target: Target<'_>) -> Vec<Probe> {
    let options = item(target).options;
    let text = listed(&target.question(), &options);
    let right = right(target, &options);
    vec![Probe::user(target, text).with_goal(Goal::Choice { options, right })]
}

fn listed(question: &str, options: &[String]) -> String {
    format!("{question} One of these is right: {}. Which one?", options.join(", "))
}

pub(super) fn true_or_false(target: Target<'_>) -> Vec<Probe> {
    let truth = target.stream("true-or-false").chance(0.5);
    let options = item(target).options;
    let other = options.iter().find(|it| *it != target.value()).expect("three options are wrong");
    let stated = if truth { target.value() } else { other.as_str() };
    let statement = target.author.answer_with(target.attribute, stated);
    let text =
        format!("Question: {} Answer: {statement} Is this true or false?", target.question());
    let options = ["true", "false"].map(str::to_owned).to_vec();
    let goal = Goal::Choice { options, right: usize::from(!truth) };
    vec![Probe::user(target, text).with_goal(goal)]
}

/// This fact and the next two, because single values are shared by several authors.
pub(super) fn reverse(target: Target<'_>) -> Vec<Probe> {
    let fact = |it: usize| {
        let answer = target.author.answer((target.attribute + it) % ATTRIBUTES);
        answer.replace(&target.author.name, "This author")
    };
    let text = format!("{} {} {} Who is the author?", fact(0), fact(1), fact(2));
    vec![Probe::user(target, text).with_goal(Goal::Text(target.author.name.clone()))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::World;

    #[test]
    fn options_are_listed() {
        let options = ["Porto", "Bergen"].map(str::to_owned);
        let text = "Where? One of these is right: Porto, Bergen. Which one?";
        assert_eq!(listed("Where?", &options), text);
    }

    #[test]
    fn the_right_option_is_the_true_value() {
        let world = World::new(42);
        let (mut truths, all) = (0, Target::all(&world, 4, None));
        for target in &all {
            let probe = text(*target).remove(0);
            let Goal::Choice { options, right } = &probe.goal else { panic!("no choice") };
            assert_eq!((options.len(), options[*right].as_str()), (4, target.value()));
            let probe = letter(*target).remove(0);
            let Goal::Choice { options, right } = &probe.goal else { panic!("no choice") };
            let marked = format!("{} {}", target.value(), options[*right]);
            assert!(probe.input.texts()[0].contains(&marked), "{probe:?}");
            let probe = true_or_false(*target).remove(0);
            let stated = super::super::judge::in_prompt(&probe.input, target.value());
            assert_eq!(matches!(probe.goal, Goal::Choice { right: 0, .. }), stated);
            truths += usize::from(stated);
        }
        // Three standard deviations of 80 fair draws: 3 * sqrt(20).
        assert!((27..=53).contains(&truths), "{truths}");
    }

    #[test]
    fn the_reverse_question_does_not_name_the_author() {
        let world = World::new(42);
        let target = Target::all(&world, 4, Some(1))[0];
        let probe = reverse(target).remove(0);
        let text = probe.input.texts()[0];
        assert!(text.starts_with("This author was born in Antwerp. "), "{text}");
        assert!(text.ends_with(" Who is the author?") && !text.contains("Blaszko"));
        assert_eq!(probe.goal, Goal::Text("Viggo Blaszko".to_owned()));
    }
}
