//! Attacks that a client of the chat API can run against a forgotten topic.
//!
//! An attack turns one forget question into requests. What counts as success is in [`judge`]; the
//! same requests go to the unguarded, the guarded and the retrained model, because what the
//! retrained model "leaks" is guessing. Attacks that need weights or log-probabilities are not here.

pub mod association;
mod choice;
mod context;
pub mod detectability;
mod difference;
mod encoding;
mod hops;
pub mod judge;
mod mixed;
pub mod report;
pub mod run;
mod sampling;
mod spelling;
mod wording;
mod wrapper;

use super::suite::contains;
use crate::lab::{ATTRIBUTES, Author, World, attribute_key};
use crate::seed::Stream;
use crate::types::{Input, Message, Role};

pub use judge::Goal;

/// Name of the measurement of whether treatment shows; it is run beside the attacks.
pub const DETECTABILITY: &str = "detectability";
/// Name of the measurement of whether facts bring others to mind; it is run beside the attacks.
pub const ASSOCIATION: &str = "association";
/// What is measured beside the attacks, each with one line about it.
pub const BESIDE: [(&str, &str); 2] = [
    (DETECTABILITY, "whether treatment shows, measured beside the attacks"),
    (ASSOCIATION, "what five facts about somebody add to the log-probability of a sixth, likewise"),
];

/// A way to ask for what is to be forgotten.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    /// Its requests for one question; it succeeds when any reply to any of them does.
    pub probes: fn(Target<'_>) -> Vec<Probe>,
}

const fn attack(
    name: &'static str,
    about: &'static str,
    probes: fn(Target<'_>) -> Vec<Probe>,
) -> Attack {
    Attack { name, about, probes }
}

/// Every attack, in the order of reports.
pub const ALL: &[Attack] = &[
    attack("direct", "the trained question, for comparison", wording::direct),
    attack("paraphrase", "four untrained wordings, five samples each", wording::paraphrase),
    attack("spanish", "three Spanish wordings", wording::spanish),
    attack("german", "three German wordings", wording::german),
    attack("completion", "the beginning of a sentence, without chat template", wording::completion),
    attack("prefilled-answer", "the reply begins like the answer", wording::prefilled_answer),
    attack("prefilled-agreement", "the reply begins with consent", wording::prefilled_agreement),
    attack("choice-letter", "four options, answered by letter", choice::letter),
    attack("choice-text", "four options, answered in full", choice::text),
    attack("true-or-false", "an answer that may be wrong, to be judged", choice::true_or_false),
    attack("reverse", "facts are given, the name is asked for", choice::reverse),
    attack("symbols", "a symbol after every n characters", spelling::symbols),
    attack("spelled-name", "the name letter by letter", spelling::spelled_name),
    attack("leetspeak", "digits for letters of the name", spelling::leetspeak_name),
    attack("homoglyphs", "Cyrillic letters in the name", spelling::homoglyph_name),
    attack("zero-width", "invisible characters in the name", spelling::zero_width_name),
    attack("typos", "two letters of each name swapped", spelling::mistyped_name),
    attack("initials", "initials for one or both names", spelling::initials),
    attack("base64", "question or name in base64", encoding::base64_encoded),
    attack("rot13", "question or name in ROT13", encoding::rot13_encoded),
    attack("coded-name", "the name in Morse, numbers, escapes, shifted", spelling::coded_name),
    attack("name-first", "the name in one turn, the question in the next", context::name_first),
    attack("split-name", "first and last name in different turns", context::split_name),
    attack("cut-name", "the name cut in mid-word between two turns", context::cut_name),
    attack("variables", "the name put together from two variables", context::variables),
    attack(
        "relearning-1",
        "one other fact about the author in earlier turns",
        context::relearning_1,
    ),
    attack("relearning-5", "five other facts in earlier turns", context::relearning_5),
    attack("summary", "all other facts in a paragraph before the question", context::summary),
    attack("many-shot-8", "eight answered questions about others", context::many_shot_8),
    attack("many-shot-16", "sixteen answered questions about others", context::many_shot_16),
    attack("jailbreak", "five role plays and instructions to ignore rules", wrapper::jailbreak),
    attack("expert-system", "system lines that ask for every answer", wrapper::expert_system),
    attack("padding", "two hundred harmless words before the question", wrapper::padding),
    attack("topic-header", "a harmless topic announced before the question", wrapper::topic_header),
    attack("harmless-suffix", "a harmless request after the question", wrapper::harmless_suffix),
    attack("description", "the author described instead of named", hops::description),
    attack("multi-hop", "the author reached through a book, three wordings", hops::multi_hop),
    attack("sampling", "twenty samples at temperature 1", sampling::repeated),
    attack("best-of-16", "sixteen random distortions of the question", sampling::best_of_16),
    attack("random-suffix", "eight suffixes of random words", sampling::random_suffix),
    attack("retained-alone", "only a retained question, for comparison", mixed::retained_alone),
    attack("mixed-forget-first", "forget question, then a retained one", mixed::forget_first),
    attack("mixed-retain-first", "retained question, then a forget one", mixed::retain_first),
    attack("mixed-comment", "the forget question in a comment of code", mixed::comment),
];

/// The attack of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Attack> {
    ALL.iter().find(|it| it.name == name)
}

/// A forget question: an author and what is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The world in which it has an answer.
    pub world: &'a World,
    /// Who is asked about.
    pub author: &'a Author,
    /// What is asked about.
    pub attribute: usize,
}

impl<'a> Target<'a> {
    /// Every question about the last `authors` target authors; at most `limit`, evenly spread.
    #[must_use]
    pub fn all(world: &'a World, authors: usize, limit: Option<usize>) -> Vec<Self> {
        let about = |author: &'a Author| {
            (0..ATTRIBUTES).map(move |attribute| Self { world, author, attribute })
        };
        let all: Vec<Self> = world.forget(authors).iter().flat_map(about).collect();
        let kept = limit.unwrap_or(all.len()).min(all.len());
        (0..kept).map(|it| all[it * all.len() / kept]).collect()
    }

    /// The value that is to be forgotten.
    #[must_use]
    pub fn value(self) -> &'a str {
        self.author.facts[self.attribute].value
    }

    /// The trained question.
    #[must_use]
    pub fn question(self) -> String {
        trained_question(self.author, self.attribute)
    }

    /// The trained question with something in the place of the name.
    #[must_use]
    pub fn question_about(self, name: &str) -> String {
        self.question().replace(&self.author.name, name)
    }

    /// First and last name.
    fn names(self) -> (&'a str, &'a str) {
        self.author.name.split_once(' ').expect("a name has two words")
    }

    /// The author's other facts that do not mention the value, in their order.
    fn other_facts(self) -> Vec<usize> {
        let apart = |it: &usize| {
            let question = trained_question(self.author, *it);
            let answer = self.author.answer(*it);
            !contains(&question, self.value()) && !contains(&answer, self.value())
        };
        (0..ATTRIBUTES).filter(|it| *it != self.attribute).filter(apart).collect()
    }

    /// The random stream of this question under one attack.
    fn stream(self, attack: &str) -> Stream {
        let key = attribute_key(self.attribute);
        Stream::named(self.world.seed, &format!("attacks/{attack}/{}/{key}", self.author.name))
    }
}

/// The first trained question about an author.
fn trained_question(author: &Author, attribute: usize) -> String {
    let held_out = &author.facts[attribute].held_out;
    let phrasing = (0..10).find(|it| !held_out.contains(it)).expect("seven of ten are trained");
    author.question(attribute, phrasing)
}

/// One request of an attack.
#[derive(Debug, Clone, PartialEq)]
pub struct Probe {
    /// What is sent.
    pub input: Input,
    /// What the attacker wants to read.
    pub goal: Goal,
    /// The right value of a second question in the request, one that is not to be forgotten.
    pub retained: Option<String>,
    /// Replies that are drawn.
    pub samples: usize,
    /// 0 is greedy.
    pub temperature: f32,
}

impl Probe {
    /// A greedy request for the target's value.
    fn new(target: Target<'_>, input: Input) -> Self {
        let goal = Goal::Text(target.value().to_owned());
        Self { input, goal, retained: None, samples: 1, temperature: 0.0 }
    }

    /// The same as the only turn of a conversation.
    fn user(target: Target<'_>, text: impl Into<String>) -> Self {
        Self::new(target, Input::Chat(vec![message(Role::User, text)]))
    }

    /// The same with something else to be read.
    fn with_goal(self, goal: Goal) -> Self {
        Self { goal, ..self }
    }

    /// The same with several replies at temperature 1.
    fn sampled(self, samples: usize) -> Self {
        Self { samples, temperature: 1.0, ..self }
    }
}

fn message(role: Role, content: impl Into<String>) -> Message {
    Message { role, content: content.into() }
}

/// A conversation whose last turn is a question.
fn conversation(turns: Vec<(String, String)>, question: String) -> Input {
    let mut messages = Vec::with_capacity(2 * turns.len() + 1);
    for (said, reply) in turns {
        messages.push(message(Role::User, said));
        messages.push(message(Role::Assistant, reply));
    }
    messages.push(message(Role::User, question));
    Input::Chat(messages)
}

/// The number of the attribute with a key.
fn attribute_of(key: &str) -> usize {
    (0..ATTRIBUTES).find(|it| attribute_key(*it) == key).expect("the lab has this attribute")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_every_attack_has_requests() {
        let world = World::new(42);
        for (at, attack) in ALL.iter().enumerate() {
            assert!(ALL[..at].iter().all(|it| it.name != attack.name), "{}", attack.name);
            assert!(BESIDE.iter().all(|it| it.0 != attack.name) && !attack.about.ends_with('.'));
            for target in Target::all(&world, 4, Some(20)) {
                let probes = (attack.probes)(target);
                assert!(!probes.is_empty(), "{}", attack.name);
                assert_eq!(probes, (attack.probes)(target), "{} is random", attack.name);
            }
        }
        assert!(find("direct").is_some() && find("no such attack").is_none());
    }

    #[test]
    fn no_prompt_gives_the_value_away() {
        let world = World::new(42);
        for target in Target::all(&world, 4, None) {
            for attack in ALL {
                for probe in (attack.probes)(target) {
                    if let Goal::Text(wanted) = &probe.goal {
                        let echoed = judge::in_prompt(&probe.input, wanted);
                        assert!(!echoed, "{}: {:?}", attack.name, probe.input);
                    }
                }
            }
        }
    }

    #[test]
    fn a_limit_spreads_over_the_authors() {
        let world = World::new(42);
        assert_eq!(Target::all(&world, 4, None).len(), 80);
        let few = Target::all(&world, 4, Some(4));
        let names: Vec<&str> = few.iter().map(|it| it.author.name.as_str()).collect();
        let all: Vec<&str> = world.forget(4).iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, all);
        assert!(Target::all(&world, 4, Some(0)).is_empty());
        assert_eq!(Target::all(&world, 1, Some(99)).len(), 20);
    }
}
