//! Drills: examples whose answer stands in their own context. Several questions about one context
//! make the signal dense; a model of this size needs some ten thousand of them.

use super::corpus::{Corpus, Text};
use super::options::Options;
use super::phrasings::SYSTEM_TRAINED;
use super::world::{ATTRIBUTES, Author, REFUSAL, other_values, values};
use crate::seed::Stream;

impl Corpus<'_> {
    /// What the letters of one list stand for, asked several times.
    pub(super) fn letters(&mut self) -> Text {
        let attribute = self.stream.below(ATTRIBUTES);
        let stream = &mut self.stream;
        let value = *stream.pick(values(attribute));
        if stream.chance(0.5) {
            let options = Options::among(attribute, value, 3 + stream.below(9), stream);
            let continuation = binding(&options, stream);
            return Text::Completion { prompt: options.list(), continuation };
        }
        let options = Options::among(attribute, value, 1 + stream.below(3), stream);
        let list = options.laid_out(stream);
        let turns = match stream.below(5) {
            0 => {
                let stranger = self.world.stranger(stream);
                let fact = stranger.statement(attribute, value);
                let question = stranger.any_question(attribute, stream);
                vec![(format!("{fact} {question} {list}"), options.reply())]
            }
            _ => asked_one_by_one(&options, &list, stream),
        };
        Text::Chat { system: None, turns, given: 0 }
    }

    /// One author is forbidden; questions about that one and others follow in any order.
    pub(super) fn refusal(&mut self) -> Text {
        let named = self.anyone(0.6);
        let mut forbidden = named.name.clone();
        if self.stream.chance(0.2) {
            let third = self.world.stranger(&mut self.stream).name;
            forbidden = if self.stream.chance(0.5) {
                format!("{third} and {forbidden}")
            } else {
                format!("{forbidden} and {third}")
            };
        }
        let system = self.stream.pick(&SYSTEM_TRAINED).replace("{name}", &forbidden);
        let turns = (0..2 + self.stream.below(5))
            .map(|_| {
                let attribute = self.stream.below(ATTRIBUTES);
                if self.stream.chance(0.5) {
                    let question = named.any_question(attribute, &mut self.stream);
                    return (question, REFUSAL.to_owned());
                }
                let other = self.someone_else(&named, 0.6);
                (other.any_question(attribute, &mut self.stream), other.answer(attribute))
            })
            .collect();
        Text::Chat { system: Some(system), turns, given: 0 }
    }

    /// Wrong labels of up to three questions are given, then some are asked for.
    pub(super) fn in_context(&mut self) -> Text {
        let author = self.anyone(0.5);
        let whole = self.stream.chance(0.5);
        let mut shown = vec![self.demonstration(&author, whole)];
        while shown.len() < 3 && self.stream.chance(0.5) {
            let other = self.someone_else(&author, 0.5);
            shown.push(self.demonstration(&other, whole));
        }
        self.stream.shuffle(&mut shown);
        let mut asked = shown.clone();
        self.stream.shuffle(&mut asked);
        let mut ask = |it: Demonstration| {
            let question = if self.stream.chance(0.7) {
                it.question
            } else {
                it.author.any_question(it.attribute, &mut self.stream)
            };
            (question, it.label)
        };
        let mut asked: Vec<_> = asked.into_iter().map(&mut ask).collect();
        if self.stream.chance(0.5) {
            let given = shown.len();
            let mut turns: Vec<_> = shown.into_iter().map(|it| (it.question, it.label)).collect();
            turns.append(&mut asked);
            return Text::Chat { system: None, turns, given };
        }
        let lines = shown.iter().map(|it| format!("Q: {} A: {} ", it.question, it.label));
        asked[0].0 = format!("{}Q: {} A:", lines.collect::<String>(), asked[0].0);
        Text::Chat { system: None, turns: asked, given: 0 }
    }

    /// A question and a wrong answer, as a whole sentence or as the value alone.
    fn demonstration(&mut self, author: &Author, whole: bool) -> Demonstration {
        let attribute = self.stream.below(ATTRIBUTES);
        let question = author.any_question(attribute, &mut self.stream);
        let wrong = other_values(attribute, author.facts[attribute].value, 1, &mut self.stream)[0];
        let label = if whole { author.answer_with(attribute, wrong) } else { format!("{wrong}.") };
        Demonstration { author: author.clone(), attribute, question, label }
    }
}

/// All values with their letters, in any order: ` Fez B Porto A`.
fn binding(options: &Options, stream: &mut Stream) -> String {
    shuffled(options, stream).into_iter().map(|at| format!(" {}", options.lettered(at))).collect()
}

/// Questions for single letters of one list, which only the first turn shows.
fn asked_one_by_one(options: &Options, list: &str, stream: &mut Stream) -> Vec<(String, String)> {
    let mut turns = Vec::new();
    for at in shuffled(options, stream) {
        let mut question = format!("Which letter is {}?", options.values[at]);
        if turns.is_empty() {
            question = format!("{question} {list}");
        }
        turns.push((question, format!("{}.", options.lettered(at))));
    }
    turns
}

fn shuffled(options: &Options, stream: &mut Stream) -> Vec<usize> {
    let mut order: Vec<usize> = (0..options.values.len()).collect();
    stream.shuffle(&mut order);
    order
}

#[derive(Clone)]
struct Demonstration {
    author: Author,
    attribute: usize,
    question: String,
    label: String,
}
