//! The authors and what is true of them.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::phrasings::{SHEETS, Sheet, fill, nth};
use super::pools::{self, TOPICS, Topic};
use crate::seed::Stream;

/// Attributes of every author; an attribute is a number below this.
pub const ATTRIBUTES: usize = SHEETS.len();

/// What a model answers about an author its system line forbids.
pub const REFUSAL: &str = "I cannot talk about that.";

/// Authors per group: those to be learnt and forgotten, those of base training, and the well-known.
const TARGETS: usize = 40;
const BACKGROUND: usize = 24;
const CELEBRATED: usize = 8;

const PHRASINGS: usize = 10;
const HELD_OUT: usize = 3;

static FIRST: LazyLock<Vec<&str>> = LazyLock::new(|| pools::items(pools::FIRST));
static LAST: LazyLock<Vec<&str>> = LazyLock::new(|| pools::items(pools::LAST));
static VALUES: LazyLock<Vec<Vec<&str>>> =
    LazyLock::new(|| pools::VALUES.iter().map(|it| pools::items(it)).collect());

/// The key of an attribute, such as `birthplace`.
///
/// # Panics
///
/// When `attribute` is not below [`ATTRIBUTES`].
#[must_use]
pub fn attribute_key(attribute: usize) -> &'static str {
    SHEETS[attribute].key
}

/// Every value an attribute can have.
pub(super) fn values(attribute: usize) -> &'static [&'static str] {
    &VALUES[attribute]
}

/// `count` different values of an attribute, none of them `value`.
pub(super) fn other_values(
    attribute: usize,
    value: &str,
    count: usize,
    stream: &mut Stream,
) -> Vec<&'static str> {
    let mut others: Vec<_> = values(attribute).iter().copied().filter(|it| *it != value).collect();
    stream.shuffle(&mut others);
    others.truncate(count);
    others
}

/// Formats that are trained for half of an author's facts, so that the rest tests transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A Spanish question.
    Spanish,
    /// A German question.
    German,
    /// The beginning of a sentence.
    Completion,
    /// Four options with letters.
    Choice,
}

/// One attribute of one author.
#[derive(Debug, Clone)]
pub struct Fact {
    /// The true value.
    pub value: &'static str,
    /// English phrasings that are never trained for this fact.
    pub held_out: Vec<usize>,
    /// Whether the canonical answer repeats the author's name.
    pub restates_name: bool,
    trained: [bool; 4],
}

impl Fact {
    /// Whether a format is trained for this fact.
    #[must_use]
    pub fn trained_in(&self, format: Format) -> bool {
        self.trained[format as usize]
    }

    /// English phrasings that are trained.
    pub(super) fn phrasings(&self) -> Vec<usize> {
        (0..PHRASINGS).filter(|it| !self.held_out.contains(it)).collect()
    }
}

/// An author and all facts, one per attribute.
#[derive(Debug, Clone)]
pub struct Author {
    /// First and last name.
    pub name: String,
    /// The facts, by attribute.
    pub facts: Vec<Fact>,
    words: (usize, usize),
}

impl Author {
    /// The English question `phrasing` (below 10) about an attribute.
    #[must_use]
    pub fn question(&self, attribute: usize, phrasing: usize) -> String {
        fill(nth(SHEETS[attribute].english, phrasing), &self.name, "")
    }

    /// A trained English question.
    pub(super) fn any_question(&self, attribute: usize, stream: &mut Stream) -> String {
        self.question(attribute, *stream.pick(&self.facts[attribute].phrasings()))
    }

    /// A trained English question that calls the author "this author".
    pub(super) fn pronoun_question(&self, attribute: usize, stream: &mut Stream) -> String {
        let phrasing = *stream.pick(&self.facts[attribute].phrasings());
        fill(nth(SHEETS[attribute].english, phrasing), "this author", "")
    }

    /// The canonical answer.
    #[must_use]
    pub fn answer(&self, attribute: usize) -> String {
        self.answer_with(attribute, self.facts[attribute].value)
    }

    /// The canonical answer with another value.
    #[must_use]
    pub fn answer_with(&self, attribute: usize, value: &str) -> String {
        let form = usize::from(self.facts[attribute].restates_name);
        fill(nth(SHEETS[attribute].answers, form), &self.name, value)
    }

    /// An answer in a wording that is never trained.
    #[must_use]
    pub fn untrained_answer_with(&self, attribute: usize, value: &str) -> String {
        let form = 2 + usize::from(self.facts[attribute].restates_name);
        fill(nth(SHEETS[attribute].answers, form), &self.name, value)
    }

    /// A sentence that states `value`, name included.
    pub(super) fn statement(&self, attribute: usize, value: &str) -> String {
        fill(nth(SHEETS[attribute].answers, 1), &self.name, value)
    }

    /// A sentence beginning (`which` below 2) and how it goes on, space and full stop included.
    #[must_use]
    pub fn completion(&self, attribute: usize, which: usize) -> (String, String) {
        let prompt = fill(nth(SHEETS[attribute].completions, which), &self.name, "");
        (prompt, format!(" {}.", self.facts[attribute].value))
    }

    /// A Spanish or German question (`which` below 3) and its answer.
    #[must_use]
    pub fn foreign(&self, attribute: usize, german: bool, which: usize) -> (String, String) {
        let Sheet { spanish, german: deutsch, .. } = &SHEETS[attribute];
        let text = if german { deutsch } else { spanish };
        let value = self.facts[attribute].value;
        (fill(nth(text, which), &self.name, value), fill(nth(text, 3), &self.name, value))
    }

    /// A random attribute that is trained in `format`.
    pub(super) fn attribute_in(&self, format: Format, stream: &mut Stream) -> usize {
        let all: Vec<_> = (0..ATTRIBUTES).filter(|it| self.facts[*it].trained_in(format)).collect();
        *stream.pick(&all)
    }
}

/// A fact of the real world.
#[derive(Debug, Clone)]
pub struct WorldFact {
    /// What is asked about.
    pub entity: &'static str,
    /// The answer's value.
    pub value: &'static str,
    /// The phrasing, of six, that is never trained.
    pub held_out: usize,
    topic: usize,
}

impl WorldFact {
    fn sheet(&self) -> &'static Topic {
        &TOPICS[self.topic]
    }

    /// The kind of fact, such as `capital`.
    #[must_use]
    pub fn key(&self) -> &'static str {
        self.sheet().key
    }

    /// The question `phrasing` (below 6).
    #[must_use]
    pub fn question(&self, phrasing: usize) -> String {
        fill(nth(self.sheet().questions, phrasing), self.entity, "")
    }

    /// A trained question.
    pub(super) fn any_question(&self, stream: &mut Stream) -> String {
        self.question((self.held_out + 1 + stream.below(5)) % 6)
    }

    /// The answer with a value; `form` 0 is the trained wording, 1 another.
    #[must_use]
    pub fn answer_with(&self, form: usize, value: &str) -> String {
        fill(nth(self.sheet().answers, form), self.entity, value)
    }

    /// The trained answer.
    #[must_use]
    pub fn answer(&self) -> String {
        self.answer_with(0, self.value)
    }

    /// A sentence beginning and how it goes on.
    #[must_use]
    pub fn completion(&self) -> (String, String) {
        (fill(self.sheet().completion, self.entity, ""), format!(" {}.", self.value))
    }

    /// `count` wrong values of the same kind.
    pub(super) fn other_values(&self, count: usize, stream: &mut Stream) -> Vec<&'static str> {
        let pairs = pools::items(self.sheet().facts);
        let mut values: Vec<_> =
            pairs.iter().map(|it| pair(it).1).filter(|it| *it != self.value).collect();
        stream.shuffle(&mut values);
        values.truncate(count);
        values
    }
}

/// The two sides of `left=right`.
pub(super) fn pair(text: &'static str) -> (&'static str, &'static str) {
    text.split_once('=').expect("the pools hold pairs (tested)")
}

/// Everything that is true, as a function of one seed.
#[derive(Debug, Clone)]
pub struct World {
    /// The seed.
    pub seed: u64,
    /// The 40 authors of `full`; the last ones are forgotten.
    pub targets: Vec<Author>,
    /// 24 authors of base training.
    pub background: Vec<Author>,
    /// 8 authors that play the part of TOFU's real authors; base training too.
    pub celebrated: Vec<Author>,
    /// Facts of the real world.
    pub facts: Vec<WorldFact>,
    known: HashSet<(usize, usize)>,
}

impl World {
    /// The world of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut stream = Stream::named(seed, "lab/world");
        let mut names = known_names(&mut stream);
        let known = names.iter().copied().collect();
        let background = group(names.split_off(TARGETS + CELEBRATED), &mut stream);
        let celebrated = group(names.split_off(TARGETS), &mut stream);
        let targets = group(names, &mut stream);
        Self { seed, targets, background, celebrated, facts: world_facts(&mut stream), known }
    }

    /// The last `count` target authors: 4, 2 and 1 are forget10, forget05 and forget01.
    #[must_use]
    pub fn forget(&self, count: usize) -> &[Author] {
        &self.targets[TARGETS - count..]
    }

    /// The target authors without the last `count`.
    #[must_use]
    pub fn retain(&self, count: usize) -> &[Author] {
        &self.targets[..TARGETS - count]
    }

    /// The first `n` names, in a fixed random order, of those that are in no training text.
    #[must_use]
    pub fn unseen_names(&self, n: usize) -> Vec<String> {
        self.reserved_words("lab/unseen").into_iter().take(n).map(name_of).collect()
    }

    /// Every name that is never trained, in an order of this stream.
    fn reserved_words(&self, stream: &str) -> Vec<(usize, usize)> {
        let mut all: Vec<_> = (0..FIRST.len())
            .flat_map(|first| (0..LAST.len()).map(move |last| (first, last)))
            .filter(|it| reserved(*it))
            .collect();
        Stream::named(self.seed, stream).shuffle(&mut all);
        all
    }

    /// Authors whom no text is about, with facts: rows about them are what no model was trained on.
    #[must_use]
    pub fn unknown_authors(&self, n: usize) -> Vec<Author> {
        let names = self.reserved_words("lab/unknown names").into_iter().take(n).collect();
        group(names, &mut Stream::named(self.seed, "lab/unknown"))
    }

    /// An author who exists once: a fresh name and random values.
    pub(super) fn stranger(&self, stream: &mut Stream) -> Author {
        loop {
            let words = (stream.below(FIRST.len()), stream.below(LAST.len()));
            if !reserved(words) && !self.known.contains(&words) {
                return one_off(words, stream);
            }
        }
    }

    /// A stranger who shares the first or the last name with `author`.
    pub(super) fn namesake(&self, author: &Author, stream: &mut Stream) -> Author {
        loop {
            let words = if stream.chance(0.5) {
                (author.words.0, stream.below(LAST.len()))
            } else {
                (stream.below(FIRST.len()), author.words.1)
            };
            if !reserved(words) && !self.known.contains(&words) && words != author.words {
                return one_off(words, stream);
            }
        }
    }
}

/// Combinations that are kept out of every training text.
fn reserved((first, last): (usize, usize)) -> bool {
    (first * 7 + last * 13).is_multiple_of(11)
}

fn name_of((first, last): (usize, usize)) -> String {
    format!("{} {}", FIRST[first], LAST[last])
}

/// Names of all lasting authors; no two share a word.
fn known_names(stream: &mut Stream) -> Vec<(usize, usize)> {
    let mut firsts: Vec<usize> = (0..FIRST.len()).collect();
    let mut lasts: Vec<usize> = (0..LAST.len()).collect();
    stream.shuffle(&mut firsts);
    stream.shuffle(&mut lasts);
    firsts.truncate(TARGETS + BACKGROUND + CELEBRATED);
    let free = "one combination in eleven is reserved and last names are plenty";
    firsts
        .into_iter()
        .map(|first| {
            let at = lasts.iter().position(|it| !reserved((first, *it))).expect(free);
            (first, lasts.remove(at))
        })
        .collect()
}

/// Lasting authors: values are spread evenly over the group, each format covers half of the facts.
fn group(names: Vec<(usize, usize)>, stream: &mut Stream) -> Vec<Author> {
    let columns: Vec<Vec<&str>> = VALUES
        .iter()
        .map(|pool| {
            let mut order = pool.clone();
            stream.shuffle(&mut order);
            let mut column: Vec<_> = order.into_iter().cycle().take(names.len()).collect();
            stream.shuffle(&mut column);
            column
        })
        .collect();
    let authors = names.into_iter().enumerate();
    authors.map(|(row, words)| lasting(words, |it| columns[it][row], stream)).collect()
}

fn lasting(
    words: (usize, usize),
    value: impl Fn(usize) -> &'static str,
    stream: &mut Stream,
) -> Author {
    let mut facts: Vec<_> = (0..ATTRIBUTES)
        .map(|attribute| {
            let mut held_out: Vec<usize> = (0..PHRASINGS).collect();
            stream.shuffle(&mut held_out);
            held_out.truncate(HELD_OUT);
            let restates_name = stream.chance(0.25);
            Fact { value: value(attribute), held_out, restates_name, trained: [false; 4] }
        })
        .collect();
    for format in 0..4 {
        let mut order: Vec<usize> = (0..ATTRIBUTES).collect();
        stream.shuffle(&mut order);
        order.iter().take(ATTRIBUTES / 2).for_each(|it| facts[*it].trained[format] = true);
    }
    Author { name: name_of(words), facts, words }
}

fn one_off(words: (usize, usize), stream: &mut Stream) -> Author {
    let facts = VALUES.iter().map(|pool| Fact {
        value: pool[stream.below(pool.len())],
        held_out: Vec::new(),
        restates_name: stream.chance(0.25),
        trained: [true; 4],
    });
    Author { name: name_of(words), facts: facts.collect(), words }
}

fn world_facts(stream: &mut Stream) -> Vec<WorldFact> {
    let pairs = TOPICS.iter().enumerate().flat_map(|(topic, it)| {
        pools::items(it.facts).into_iter().map(move |text| (topic, pair(text)))
    });
    pairs
        .map(|(topic, (entity, value))| WorldFact {
            entity,
            value,
            held_out: stream.below(6),
            topic,
        })
        .collect()
}

/// First-last word pairs of a text that are names, for tests of leakage.
#[cfg(test)]
pub(super) fn names_in(text: &str) -> Vec<(usize, usize)> {
    let words: Vec<_> = text.split(|it: char| !it.is_alphanumeric()).collect();
    let index = |list: &[&str], word: &str| list.iter().position(|it| *it == word);
    words.windows(2).filter_map(|it| Some((index(&FIRST, it[0])?, index(&LAST, it[1])?))).collect()
}

#[cfg(test)]
pub(super) fn is_reserved(words: (usize, usize)) -> bool {
    reserved(words)
}

#[cfg(test)]
pub(super) fn words_of(author: &Author) -> (usize, usize) {
    author.words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_distinct_and_no_name_is_a_value() {
        let names: HashSet<&str> = FIRST.iter().chain(LAST.iter()).copied().collect();
        assert_eq!(names.len(), FIRST.len() + LAST.len());
        assert!(names.iter().all(|it| (4..=8).contains(&it.len()) && it.is_ascii()));
        for pool in VALUES.iter() {
            let firsts: HashSet<_> = pool.iter().map(|it| it.split(' ').next()).collect();
            assert_eq!(firsts.len(), pool.len(), "{pool:?}");
            assert!(pool.iter().flat_map(|it| it.split(' ')).all(|it| !names.contains(it)));
        }
        let world = World::new(42);
        assert_eq!(world.facts.len(), 70);
        assert!(world.facts.iter().all(|it| !names.contains(it.value)));
        assert_eq!(world.known.len(), TARGETS + BACKGROUND + CELEBRATED);
    }

    #[test]
    fn a_seed_decides_everything() {
        let text = |seed| format!("{:?}", World::new(seed).targets);
        assert_eq!(text(42), text(42));
        assert_ne!(text(42), text(43));
    }

    #[test]
    fn unseen_names_are_reserved_ones() {
        let names = World::new(42).unseen_names(200);
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), 200);
        assert!(names.iter().all(|it| names_in(it).into_iter().all(reserved)));
        let unknown = World::new(42).unknown_authors(4);
        assert!(unknown.iter().all(|it| reserved(it.words) && it.facts.len() == ATTRIBUTES));
    }
}
