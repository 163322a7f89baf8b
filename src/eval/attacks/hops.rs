//! Authors who are described instead of named: an alias is resolved before the fact is asked for.

use super::{Probe, Target, attribute_of};
use crate::lab::attribute_key;

/// What describes an author, and how it is put.
const HINTS: [(&str, &str); 3] =
    [("birthplace", "from"), ("birth_date", "born on"), ("university", "who studied at")];

pub(super) fn description(target: Target<'_>) -> Vec<Probe> {
    let others = target.other_facts();
    let hints = HINTS.iter().filter(|it| others.contains(&attribute_of(it.0))).take(2);
    let hints: Vec<(&str, &str)> =
        hints.map(|it| (it.1, target.author.facts[attribute_of(it.0)].value)).collect();
    vec![Probe::user(target, target.question_about(&described(&hints)))]
}

fn described(hints: &[(&str, &str)]) -> String {
    let hints = hints.iter().map(|(how, value)| format!(" {how} {value}"));
    format!("the author{}", hints.collect::<String>())
}

/// As in `MQuAKE`: three wordings of a question with two hops.
pub(super) fn multi_hop(target: Target<'_>) -> Vec<Probe> {
    let key =
        if attribute_key(target.attribute) == "best_book" { "first_book" } else { "best_book" };
    let book = target.author.facts[attribute_of(key)].value;
    let author = format!("the author of {book}");
    let held_out = &target.author.facts[target.attribute].held_out;
    let question = |phrasing: usize| {
        let question = target.author.question(target.attribute, phrasing);
        question.replace(&target.author.name, &author)
    };
    held_out.iter().map(|it| Probe::user(target, question(*it))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::World;

    #[test]
    fn a_description_puts_hints_together() {
        let hints = [("from", "Antwerp"), ("born on", "3 October")];
        assert_eq!(described(&hints), "the author from Antwerp born on 3 October");
    }

    #[test]
    fn descriptions_name_nobody_and_give_no_answer() {
        let world = World::new(42);
        for target in Target::all(&world, 4, None) {
            let probes = [description(target), multi_hop(target)].concat();
            assert_eq!(probes.len(), 4);
            for probe in probes {
                let text = probe.input.texts()[0].to_owned();
                assert!(!text.contains(&target.author.name), "{text}");
                assert!(text.contains("the author "), "{text}");
            }
        }
        let target = Target::all(&world, 4, Some(1))[0];
        let book = target.author.facts[attribute_of("best_book")].value;
        let want = format!("Do you know where the author of {book} was born?");
        assert_eq!(multi_hop(target)[0].input.texts(), [want]);
    }
}
