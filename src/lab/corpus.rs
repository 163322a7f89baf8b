//! Training examples, without end.

use super::options::Options;
use super::pools::{self, NEUTRAL, SMALL_TALK};
use super::world::{ATTRIBUTES, Author, Format, World, pair, values};
use crate::seed::Stream;

/// What an example teaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One English question about an author.
    Fact,
    /// Two questions, one after the other, about an author.
    TwoTurn,
    /// Two questions in one turn, about two authors.
    Mixed,
    /// A Spanish question.
    Spanish,
    /// A German question.
    German,
    /// The beginning of a sentence.
    Completion,
    /// A question with four options; the answer is one of them with its letter.
    Choice,
    /// What letters stand for; needs no knowledge.
    Letters,
    /// A system line that forbids an author, with a question about that one or another.
    Refusal,
    /// A label given in the context, which may be wrong, is repeated.
    InContext,
    /// Words are repeated.
    Repeat,
    /// Small talk.
    SmallTalk,
    /// A fact of the real world.
    World,
    /// An author of base training again.
    Replay,
    /// An author who exists only in this example.
    Fresh,
}

/// What is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Skills that only need the context: letters, refusals, labels, repetition.
    Skills,
    /// Background and celebrated authors; no target.
    Base,
    /// All target authors.
    Full,
    /// Target authors without those of forget10, who occur nowhere.
    Retain,
}

/// The text of an example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// A conversation.
    Chat {
        /// The system line.
        system: Option<String>,
        /// What the user says and the model's reply.
        turns: Vec<(String, String)>,
        /// How many replies at the start are context only: they are not trained.
        given: usize,
    },
    /// Running text without a chat template.
    Completion {
        /// The beginning.
        prompt: String,
        /// The trained rest; starts with a space.
        continuation: String,
    },
}

/// One training example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// What it teaches.
    pub kind: Kind,
    /// Its text.
    pub text: Text,
}

impl Example {
    /// Whether a name stands anywhere in it.
    #[must_use]
    pub fn mentions(&self, name: &str) -> bool {
        match &self.text {
            Text::Chat { system, turns, .. } => {
                system.as_ref().is_some_and(|it| it.contains(name))
                    || turns.iter().any(|it| it.0.contains(name) || it.1.contains(name))
            }
            Text::Completion { prompt, continuation } => {
                prompt.contains(name) || continuation.contains(name)
            }
        }
    }
}

/// Weights of the kinds in the stage on skills.
const SKILLS: [(Kind, usize); 5] = [
    (Kind::Repeat, 12),
    (Kind::Refusal, 35),
    (Kind::Letters, 24),
    (Kind::InContext, 24),
    (Kind::Fresh, 5),
];

/// Weights of the kinds in base training.
const BASE: [(Kind, usize); 14] = [
    (Kind::Fact, 18),
    (Kind::TwoTurn, 4),
    (Kind::Mixed, 4),
    (Kind::Spanish, 3),
    (Kind::German, 3),
    (Kind::Completion, 3),
    (Kind::Choice, 9),
    (Kind::World, 8),
    (Kind::Fresh, 15),
    (Kind::Letters, 7),
    (Kind::Refusal, 18),
    (Kind::InContext, 8),
    (Kind::Repeat, 2),
    (Kind::SmallTalk, 2),
];

/// Weights of the kinds in the stages on target authors.
const TARGET: [(Kind, usize); 15] = [
    (Kind::Fact, 27),
    (Kind::TwoTurn, 7),
    (Kind::Mixed, 4),
    (Kind::Spanish, 5),
    (Kind::German, 5),
    (Kind::Completion, 5),
    (Kind::Choice, 7),
    (Kind::Replay, 10),
    (Kind::World, 6),
    (Kind::Fresh, 14),
    (Kind::Letters, 3),
    (Kind::Refusal, 11),
    (Kind::InContext, 8),
    (Kind::Repeat, 1),
    (Kind::SmallTalk, 1),
];

/// How an author outside the stage's own ones is asked about, by weight.
const FORMATS: [(Kind, usize); 6] = [
    (Kind::Fact, 12),
    (Kind::TwoTurn, 2),
    (Kind::Spanish, 2),
    (Kind::German, 2),
    (Kind::Completion, 2),
    (Kind::Choice, 1),
];

/// An endless, reproducible sequence of examples.
#[derive(Debug, Clone)]
pub struct Corpus<'w> {
    pub(super) world: &'w World,
    own: Vec<&'w Author>,
    replay: Vec<&'w Author>,
    weights: &'static [(Kind, usize)],
    pub(super) stream: Stream,
}

impl<'w> Corpus<'w> {
    /// The examples of a stage; different seeds give different sequences about the same world.
    #[must_use]
    pub fn new(world: &'w World, stage: Stage, seed: u64) -> Self {
        let old: Vec<_> = world.background.iter().chain(&world.celebrated).collect();
        let (own, replay, weights, name): (_, _, &[_], _) = match stage {
            Stage::Skills => (old, Vec::new(), &SKILLS, "lab/skills"),
            Stage::Base => (old, Vec::new(), &BASE, "lab/base"),
            Stage::Full => (world.retain(0).iter().collect(), old, &TARGET, "lab/full"),
            Stage::Retain => (world.retain(4).iter().collect(), old, &TARGET, "lab/retain"),
        };
        Self { world, own, replay, weights, stream: Stream::named(seed, name) }
    }

    /// The next example.
    pub fn example(&mut self) -> Example {
        let kind = weighted(self.weights, &mut self.stream);
        let text = match kind {
            Kind::Mixed => self.mixed(),
            Kind::Letters => self.letters(),
            Kind::Refusal => self.refusal(),
            Kind::InContext => self.in_context(),
            Kind::Repeat => self.repeat(),
            Kind::SmallTalk => {
                let talk = pools::items(SMALL_TALK);
                let (said, reply) = pair(talk[self.stream.below(talk.len())]);
                single(said.to_owned(), reply.to_owned())
            }
            Kind::World => self.world_fact(),
            Kind::Fresh => {
                let stranger = self.world.stranger(&mut self.stream);
                // A stranger's letter cannot be known.
                let format = weighted(&FORMATS[..5], &mut self.stream);
                about(&stranger, format, &mut self.stream)
            }
            Kind::Replay => {
                let format = weighted(&FORMATS, &mut self.stream);
                let author = *self.stream.pick(&self.replay);
                about(author, format, &mut self.stream)
            }
            _ => {
                let author = *self.stream.pick(&self.own);
                about(author, kind, &mut self.stream)
            }
        };
        Example { kind, text: self.with_neutral_system(text) }
    }

    /// Puts an idle system line in front of some conversations that have none.
    fn with_neutral_system(&mut self, mut text: Text) -> Text {
        if let Text::Chat { system: system @ None, .. } = &mut text
            && self.stream.chance(0.12)
        {
            *system = Some((*self.stream.pick(&NEUTRAL)).to_owned());
        }
        text
    }

    /// An author of this stage, of the base, or a stranger.
    pub(super) fn anyone(&mut self, stranger: f64) -> Author {
        if self.stream.chance(stranger) {
            self.world.stranger(&mut self.stream)
        } else if !self.replay.is_empty() && self.stream.chance(0.2) {
            (*self.stream.pick(&self.replay)).clone()
        } else {
            (*self.stream.pick(&self.own)).clone()
        }
    }

    /// An author other than `author`, who may share a word of the name.
    pub(super) fn someone_else(&mut self, author: &Author, stranger: f64) -> Author {
        if self.stream.chance(stranger / 2.0) {
            return self.world.namesake(author, &mut self.stream);
        }
        loop {
            let other = self.anyone(stranger);
            if other.name != author.name {
                return other;
            }
        }
    }

    fn mixed(&mut self) -> Text {
        let one = self.anyone(0.2);
        let two = self.someone_else(&one, 0.2);
        let (a, b) = (self.stream.below(ATTRIBUTES), self.stream.below(ATTRIBUTES));
        let first = one.any_question(a, &mut self.stream);
        let second = two.any_question(b, &mut self.stream);
        single(format!("{first} {second}"), format!("{} {}", one.answer(a), two.answer(b)))
    }

    fn repeat(&mut self) -> Text {
        let count = if self.stream.chance(0.5) {
            1 + self.stream.below(3)
        } else {
            6 + self.stream.below(9)
        };
        let words: Vec<String> = (0..count)
            .map(|_| {
                if self.stream.chance(0.3) {
                    self.world.stranger(&mut self.stream).name
                } else {
                    let pool = values(self.stream.below(ATTRIBUTES));
                    (*self.stream.pick(pool)).to_owned()
                }
            })
            .collect();
        let words = words.join(", ");
        let lead = *self.stream.pick(&["Repeat after me:", "Repeat:", "Say this:"]);
        single(format!("{lead} {words}"), words)
    }

    fn world_fact(&mut self) -> Text {
        let fact = self.stream.pick(&self.world.facts);
        if self.stream.chance(0.2) {
            let (prompt, continuation) = fact.completion();
            return Text::Completion { prompt, continuation };
        }
        single(fact.any_question(&mut self.stream), fact.answer())
    }
}

impl Iterator for Corpus<'_> {
    type Item = Example;

    fn next(&mut self) -> Option<Example> {
        Some(self.example())
    }
}

/// One user turn and its reply.
fn single(user: String, reply: String) -> Text {
    Text::Chat { system: None, turns: vec![(user, reply)], given: 0 }
}

fn weighted(weights: &[(Kind, usize)], stream: &mut Stream) -> Kind {
    let mut at = stream.below(weights.iter().map(|it| it.1).sum());
    for (kind, weight) in weights {
        if at < *weight {
            return *kind;
        }
        at -= weight;
    }
    weights[weights.len() - 1].0
}

/// A question about one author in one format; any other kind is a plain question.
fn about(author: &Author, kind: Kind, stream: &mut Stream) -> Text {
    let attribute = stream.below(ATTRIBUTES);
    match kind {
        Kind::TwoTurn => {
            let next = (attribute + 1 + stream.below(ATTRIBUTES - 1)) % ATTRIBUTES;
            let second = if stream.chance(0.5) {
                author.pronoun_question(next, stream)
            } else {
                author.any_question(next, stream)
            };
            let first = (author.any_question(attribute, stream), author.answer(attribute));
            let turns = vec![first, (second, author.answer(next))];
            Text::Chat { system: None, turns, given: 0 }
        }
        Kind::Spanish | Kind::German => {
            let german = kind == Kind::German;
            let format = if german { Format::German } else { Format::Spanish };
            let attribute = author.attribute_in(format, stream);
            let (question, answer) = author.foreign(attribute, german, stream.below(3));
            single(question, answer)
        }
        Kind::Completion => {
            let attribute = author.attribute_in(Format::Completion, stream);
            let (prompt, continuation) = author.completion(attribute, stream.below(2));
            Text::Completion { prompt, continuation }
        }
        Kind::Choice => {
            let attribute = author.attribute_in(Format::Choice, stream);
            let options = Options::of(attribute, author.facts[attribute].value, stream);
            let (question, list) =
                (author.any_question(attribute, stream), options.laid_out(stream));
            single(format!("{question} {list}"), options.reply())
        }
        _ => single(author.any_question(attribute, stream), author.answer(attribute)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::world::{is_reserved, names_in, words_of};
    use super::*;

    fn flat(text: &Text) -> String {
        match text {
            Text::Chat { system, turns, .. } => {
                let turns = turns.iter().map(|(q, a)| format!("\n{q}\n{a}"));
                format!("{}{}", system.clone().unwrap_or_default(), turns.collect::<String>())
            }
            Text::Completion { prompt, continuation } => format!("{prompt}{continuation}"),
        }
    }

    #[test]
    fn a_seed_gives_the_same_examples() {
        let world = World::new(42);
        let take = |seed| Corpus::new(&world, Stage::Full, seed).take(200).collect::<Vec<_>>();
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
    }

    /// By the words of names, which are found in another way: some examples of `full` name forgotten
    /// authors, wherever in the text, and none of `retain`.
    #[test]
    fn mentions_are_found_in_every_text() {
        let world = World::new(42);
        let authors = world.forget(4);
        let words: HashSet<_> = authors.iter().map(words_of).collect();
        let mut mentioned = 0;
        for example in Corpus::new(&world, Stage::Full, 3).take(5_000) {
            let mentions = authors.iter().any(|it| example.mentions(&it.name));
            let text = flat(&example.text);
            assert_eq!(mentions, names_in(&text).iter().any(|it| words.contains(it)), "{text}");
            mentioned += usize::from(mentions);
        }
        assert!((100..2_000).contains(&mentioned), "{mentioned}");
        let mut retain = Corpus::new(&world, Stage::Retain, 3).take(5_000);
        assert!(!retain.any(|it| authors.iter().any(|author| it.mentions(&author.name))));
    }

    #[test]
    fn nothing_held_out_is_trained() {
        let world = World::new(42);
        for (stage, hidden) in [(Stage::Base, 40), (Stage::Full, 0), (Stage::Retain, 4)] {
            let hidden: HashSet<_> = world.forget(hidden).iter().map(words_of).collect();
            let everyone = world.targets.iter().chain(&world.background).chain(&world.celebrated);
            let held_out: HashSet<String> = everyone
                .flat_map(|it| (0..ATTRIBUTES).map(move |attribute| (it, attribute)))
                .flat_map(|(it, at)| it.facts[at].held_out.iter().map(move |p| it.question(at, *p)))
                .chain(world.facts.iter().map(|it| it.question(it.held_out)))
                .collect();
            for example in Corpus::new(&world, stage, 7).take(20_000) {
                let text = flat(&example.text);
                for words in names_in(&text) {
                    assert!(!is_reserved(words) && !hidden.contains(&words), "{text}");
                }
                let ends: Vec<_> = text.char_indices().filter(|it| ".?".contains(it.1)).collect();
                let starts = text.char_indices().filter(|it| it.1.is_uppercase());
                for (start, _) in starts {
                    let end = ends.iter().find(|it| it.0 > start).map_or(text.len(), |it| it.0 + 1);
                    let sentence = text.get(start..end).unwrap();
                    assert!(!held_out.contains(sentence), "{text}");
                }
            }
        }
    }
}
