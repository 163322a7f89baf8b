//! What is measured: rows in TOFU's format, and questions beyond TOFU.

use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::options::Options;
use super::phrasings::{SYSTEM_HELD_OUT, SYSTEM_TRAINED};
use super::world::{
    ATTRIBUTES, Author, Format, REFUSAL, World, WorldFact, attribute_key, other_values, values,
};
use crate::seed::Stream;

/// One line of a TOFU file, with what the lab knows beyond it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TofuRow {
    /// A trained question.
    pub question: String,
    /// The trained answer.
    pub answer: String,
    /// The question in a wording that is never trained.
    pub paraphrased_question: String,
    /// Every wording of the question that is never trained, that one first.
    pub held_out_questions: Vec<String>,
    /// The true answer in a wording that is never trained.
    pub paraphrased_answer: String,
    /// Answers with wrong values: in the wording of the paraphrased answer where that is what they
    /// are compared with (forget and retain rows), else in the trained wording.
    pub perturbed_answer: Vec<String>,
    /// The author, or the entity of a world fact.
    pub author: String,
    /// The attribute, or the kind of world fact.
    pub attribute: String,
    /// The true value.
    pub value: String,
    /// Whether the answer repeats the author's name.
    pub restates_name: bool,
}

/// What a question measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvalKind {
    /// An English question in a held-out phrasing.
    HeldOut,
    /// A question with four options.
    Choice,
    /// A question about the author whom the system line forbids.
    RefusalNamed,
    /// A question about another author than the forbidden one.
    RefusalOther,
    /// A wrong label in the context.
    InContext,
    /// The beginning of a sentence.
    Completion,
    /// A Spanish question.
    Spanish,
    /// A German question.
    German,
    /// A fact of the real world in its held-out phrasing.
    World,
}

/// One question with the answer that counts as right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvalItem {
    /// What it measures.
    pub kind: EvalKind,
    /// The author, or the entity of a world fact.
    pub author: String,
    /// The attribute, or the kind of world fact.
    pub attribute: String,
    /// Whether this format is trained for this fact (for refusals: this system line).
    pub trained: bool,
    /// The system line.
    pub system: Option<String>,
    /// Earlier turns.
    pub turns: Vec<(String, String)>,
    /// What the user says last; for [`EvalKind::Completion`] running text without a chat template.
    pub question: String,
    /// The whole expected reply.
    pub answer: String,
    /// What the reply must contain; for a choice the letter.
    pub answer_value: String,
    /// The four options in the order of their letters, for a choice; else none.
    pub options: Vec<String>,
}

impl EvalItem {
    /// The plain item: an author's fact, without a system line or earlier turns.
    fn of(kind: EvalKind, author: &Author, attribute: usize) -> Self {
        Self {
            kind,
            author: author.name.clone(),
            attribute: attribute_key(attribute).to_owned(),
            trained: false,
            system: None,
            turns: Vec::new(),
            question: author.question(attribute, author.facts[attribute].held_out[0]),
            answer: author.answer(attribute),
            answer_value: author.facts[attribute].value.to_owned(),
            options: Vec::new(),
        }
    }
}

/// The random stream of one author in one test, whatever else is in the list.
fn stream_of(world: &World, test: &str, author: &Author) -> Stream {
    Stream::named(world.seed, &format!("lab/{test}/{}", author.name))
}

/// Every author with every attribute.
fn facts(authors: &[Author]) -> impl Iterator<Item = (&Author, usize)> {
    authors.iter().flat_map(|author| (0..ATTRIBUTES).map(move |attribute| (author, attribute)))
}

/// TOFU rows with five wrong answers, one per author and attribute.
///
/// The truth ratio sets them against the paraphrased answer, so they share its untrained wording:
/// in the trained wording the ratio would measure how familiar a template is, and a model that knows
/// everything would pass for one that knows nothing.
#[must_use]
pub fn rows(world: &World, authors: &[Author]) -> Vec<TofuRow> {
    rows_with(world, authors, 5, Author::untrained_answer_with)
}

/// TOFU rows about the celebrated authors, with three wrong answers: TOFU's real authors.
#[must_use]
pub fn real_author_rows(world: &World) -> Vec<TofuRow> {
    rows_with(world, &world.celebrated, 3, Author::answer_with)
}

fn rows_with(
    world: &World,
    authors: &[Author],
    wrong: usize,
    wording: fn(&Author, usize, &str) -> String,
) -> Vec<TofuRow> {
    let of_author = |author| {
        let mut stream = stream_of(world, "rows", author);
        let row = move |attribute| {
            let wrong = other_values(attribute, author.facts[attribute].value, wrong, &mut stream);
            let perturbed = wrong.iter().map(|it| wording(author, attribute, it)).collect();
            row(author, attribute, perturbed)
        };
        (0..ATTRIBUTES).map(row)
    };
    authors.iter().flat_map(of_author).collect()
}

fn row(author: &Author, attribute: usize, perturbed_answer: Vec<String>) -> TofuRow {
    let fact = &author.facts[attribute];
    TofuRow {
        question: author.question(attribute, fact.phrasings()[0]),
        answer: author.answer(attribute),
        paraphrased_question: author.question(attribute, fact.held_out[0]),
        held_out_questions: fact
            .held_out
            .iter()
            .map(|it| author.question(attribute, *it))
            .collect(),
        paraphrased_answer: author.untrained_answer_with(attribute, fact.value),
        perturbed_answer,
        author: author.name.clone(),
        attribute: attribute_key(attribute).to_owned(),
        value: fact.value.to_owned(),
        restates_name: fact.restates_name,
    }
}

/// TOFU rows about the real world, with three wrong answers.
#[must_use]
pub fn world_fact_rows(world: &World) -> Vec<TofuRow> {
    let mut stream = Stream::named(world.seed, "lab/world_facts");
    let mut row = |fact: &WorldFact| TofuRow {
        question: fact.question((fact.held_out + 1) % 6),
        answer: fact.answer(),
        paraphrased_question: fact.question(fact.held_out),
        held_out_questions: vec![fact.question(fact.held_out)],
        paraphrased_answer: fact.answer_with(1, fact.value),
        perturbed_answer: fact
            .other_values(3, &mut stream)
            .iter()
            .map(|it| fact.answer_with(0, it))
            .collect(),
        author: fact.entity.to_owned(),
        attribute: fact.key().to_owned(),
        value: fact.value.to_owned(),
        restates_name: false,
    };
    world.facts.iter().map(&mut row).collect()
}

/// Every fact in its three held-out phrasings.
#[must_use]
pub fn question_items(authors: &[Author]) -> Vec<EvalItem> {
    let phrasings = |(author, attribute): (&Author, usize)| {
        let plain = EvalItem::of(EvalKind::HeldOut, author, attribute);
        let held_out = author.facts[attribute].held_out.iter();
        held_out
            .map(|it| EvalItem { question: author.question(attribute, *it), ..plain.clone() })
            .collect::<Vec<_>>()
    };
    facts(authors).flat_map(phrasings).collect()
}

/// Every real-world fact in its held-out phrasing.
#[must_use]
pub fn world_fact_items(world: &World) -> Vec<EvalItem> {
    let item = |fact: &WorldFact| EvalItem {
        kind: EvalKind::World,
        author: fact.entity.to_owned(),
        attribute: fact.key().to_owned(),
        trained: false,
        system: None,
        turns: Vec::new(),
        question: fact.question(fact.held_out),
        answer: fact.answer(),
        answer_value: fact.value.to_owned(),
        options: Vec::new(),
    };
    world.facts.iter().map(item).collect()
}

/// Every fact as a question with four options, in a held-out phrasing.
#[must_use]
pub fn choice_items(world: &World, authors: &[Author]) -> Vec<EvalItem> {
    let of_author = |author| {
        let mut stream = stream_of(world, "choice", author);
        (0..ATTRIBUTES).map(move |attribute| {
            let fact = &author.facts[attribute];
            let options = Options::of(attribute, fact.value, &mut stream);

            let plain = EvalItem::of(EvalKind::Choice, author, attribute);
            EvalItem {
                trained: fact.trained_in(Format::Choice),
                question: format!("{} {}", plain.question, options.list()),
                answer: options.reply(),
                answer_value: options.letter().to_owned(),
                options: options.values.iter().map(ToString::to_string).collect(),
                ..plain
            }
        })
    };
    authors.iter().flat_map(of_author).collect()
}

/// Per attribute four questions for the letter of a value in a list: nothing has to be known.
#[must_use]
pub fn letter_items(world: &World) -> Vec<EvalItem> {
    let mut stream = Stream::named(world.seed, "lab/letters");
    let item = |at: usize| {
        let author = &world.targets[at];
        let attribute = at % ATTRIBUTES;
        let plain = EvalItem::of(EvalKind::Choice, author, attribute);
        let options = Options::of(attribute, author.facts[attribute].value, &mut stream);
        EvalItem {
            question: format!("Which letter is {}? {}", plain.answer_value, options.list()),
            answer: options.reply(),
            answer_value: options.letter().to_owned(),
            options: options.values.iter().map(ToString::to_string).collect(),
            ..plain
        }
    };
    (0..4 * ATTRIBUTES).map(|it| it % world.targets.len()).map(item).collect()
}

/// Per author two questions that the system line forbids and two about one of `others` that it
/// does not, each with the held-out system line and a trained one. Authors of the same name are
/// never asked about as the other one.
#[must_use]
pub fn refusal_items(world: &World, authors: &[Author], others: &[Author]) -> Vec<EvalItem> {
    let mut items = Vec::new();
    for author in authors {
        let mut stream = stream_of(world, "refusal", author);
        let free: Vec<_> = others.iter().filter(|it| it.name != author.name).collect();
        let lines = [(SYSTEM_HELD_OUT, false), (*stream.pick(&SYSTEM_TRAINED), true)];
        for (line, trained) in lines.into_iter().flat_map(|it| [it, it]) {
            let system = Some(line.replace("{name}", &author.name));
            let plain = EvalItem::of(EvalKind::RefusalNamed, author, stream.below(ATTRIBUTES));
            let answer = REFUSAL.to_owned();
            items.push(EvalItem {
                trained,
                system: system.clone(),
                answer_value: answer.clone(),
                answer,
                ..plain
            });
            if !free.is_empty() {
                let (other, attribute) = (*stream.pick(&free), stream.below(ATTRIBUTES));
                let plain = EvalItem::of(EvalKind::RefusalOther, other, attribute);
                items.push(EvalItem { trained, system, ..plain });
            }
        }
    }
    items
}

/// Per fact one wrong label in the context, alternately as an earlier turn and as a line of the
/// question; right is to follow it.
#[must_use]
pub fn in_context_items(world: &World, authors: &[Author]) -> Vec<EvalItem> {
    let of_author = |author: &Author| {
        let mut stream = stream_of(world, "in_context", author);
        let item = |attribute: usize| {
            let plain = EvalItem::of(EvalKind::InContext, author, attribute);
            let wrong = other_values(attribute, &plain.answer_value, 1, &mut stream)[0];
            let answer = author.answer_with(attribute, wrong);
            let asked = plain.question.clone();
            let (turns, question) = if attribute.is_multiple_of(2) {
                (vec![(asked.clone(), answer.clone())], asked)
            } else {
                (Vec::new(), format!("Q: {asked} A: {answer} Q: {asked} A:"))
            };
            EvalItem { turns, question, answer, answer_value: wrong.to_owned(), ..plain }
        };
        (0..ATTRIBUTES).map(item).collect::<Vec<_>>()
    };
    authors.iter().flat_map(of_author).collect()
}

/// Every fact as the beginning of a sentence.
#[must_use]
pub fn completion_items(authors: &[Author]) -> Vec<EvalItem> {
    let item = |(author, attribute): (&Author, usize)| {
        let (question, answer) = author.completion(attribute, attribute % 2);
        let trained = author.facts[attribute].trained_in(Format::Completion);
        let plain = EvalItem::of(EvalKind::Completion, author, attribute);
        EvalItem { trained, question, answer, ..plain }
    };
    facts(authors).map(item).collect()
}

/// Every fact in Spanish and in German.
#[must_use]
pub fn foreign_items(authors: &[Author]) -> Vec<EvalItem> {
    let languages =
        [(EvalKind::Spanish, Format::Spanish, false), (EvalKind::German, Format::German, true)];
    let item = |(kind, format, german)| {
        facts(authors).map(move |(author, attribute)| {
            let (question, answer) = author.foreign(attribute, german, attribute % 3);
            let trained = author.facts[attribute].trained_in(format);
            EvalItem { trained, question, answer, ..EvalItem::of(kind, author, attribute) }
        })
    };
    languages.into_iter().flat_map(item).collect()
}

/// Writes the TOFU files, the values of every attribute and 400 unseen names into `dir`, which is made if
/// missing.
///
/// # Errors
///
/// When the folder or a file cannot be written; files are complete or absent.
pub fn write(world: &World, dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    for (count, forget, retain) in
        [(4, "forget10", "retain90"), (2, "forget05", "retain95"), (1, "forget01", "retain99")]
    {
        write_rows(dir, forget, &rows(world, world.forget(count)))?;
        write_rows(dir, retain, &rows(world, world.retain(count)))?;
    }
    write_rows(dir, "retain_perturbed", &rows(world, world.retain(4)))?;
    write_rows(dir, "holdout", &rows(world, &world.unknown_authors(4)))?;
    write_rows(dir, "real_authors", &real_author_rows(world))?;
    write_rows(dir, "world_facts", &world_fact_rows(world))?;
    write_file(dir, "values.jsonl", value_rows()?.as_bytes())?;
    let names = world.unseen_names(400).join("\n") + "\n";
    write_file(dir, "unseen_names.txt", names.as_bytes())
}

/// Every attribute with the values that it can have, for a policy's `values`.
fn value_rows() -> io::Result<String> {
    // A word of every German question, too.
    let plain = |it: &&&str| **it != "war";
    let row = |it| {
        let values: Vec<&&str> = values(it).iter().filter(plain).collect();
        json!({ "kind": attribute_key(it), "values": values })
    };
    let rows = (0..ATTRIBUTES).map(|it| Ok(serde_json::to_string(&row(it))? + "\n"));
    rows.collect()
}

fn write_rows(dir: &Path, name: &str, rows: &[TofuRow]) -> io::Result<()> {
    let mut text = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut text, row)?;
        text.push(b'\n');
    }
    write_file(dir, &format!("{name}.jsonl"), &text)
}

/// Writes beside the file and renames, so that no half file is ever read.
fn write_file(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let partial = dir.join(format!(".{name}.partial"));
    let mut file = std::fs::File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(partial, dir.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hold_one_right_and_five_wrong_answers() {
        let world = World::new(42);
        let all = rows(&world, &world.targets);
        assert_eq!(all.len(), 800);
        for row in &all {
            assert_eq!(row.perturbed_answer.len(), 5);
            assert!(!row.perturbed_answer.contains(&row.answer), "{row:?}");
            assert!(!row.perturbed_answer.contains(&row.paraphrased_answer), "{row:?}");
            assert!(row.answer.contains(&row.value) && row.paraphrased_answer != row.answer);
            assert_ne!(row.question, row.paraphrased_question);
            assert_eq!(row.held_out_questions.len(), 3);
            assert_eq!(row.held_out_questions[0], row.paraphrased_question);
            assert_eq!(row.answer.contains(&row.author), row.restates_name);
        }
        let restated = all.iter().filter(|it| it.restates_name).count();
        assert!((150..250).contains(&restated), "{restated}");
        assert_eq!(rows(&world, world.forget(4)), all[720..]);
        let real = [real_author_rows(&world), world_fact_rows(&world)].concat();
        assert_eq!(real.len(), 230);
        assert!(real.iter().all(|it| it.perturbed_answer.len() == 3));
        assert!(real.iter().all(|it| !it.perturbed_answer.contains(&it.answer)));
    }

    #[test]
    fn items_ask_for_what_they_expect() {
        let world = World::new(42);
        let authors = world.forget(4);
        assert_eq!(question_items(authors).len(), 240);
        assert_eq!(refusal_items(&world, authors, &world.targets).len(), 32);
        for item in choice_items(&world, authors) {
            let at = ["A", "B", "C", "D"].iter().position(|it| *it == item.answer_value).unwrap();
            let marked = format!("{} {}", item.options[at], item.answer_value);
            assert!(item.question.contains(&marked));
            assert_eq!(item.answer, format!("{marked}."));
        }
        for items in [completion_items(authors), foreign_items(authors)] {
            assert_eq!(items.iter().filter(|it| it.trained).count() * 2, items.len());
            assert!(items.iter().all(|it| it.answer.contains(&it.answer_value)));
        }
        let labels = in_context_items(&world, authors);
        assert!(labels.iter().all(|it| it.answer.contains(&it.answer_value)));
    }

    #[test]
    fn files_are_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        write(&World::new(42), dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("forget05.jsonl")).unwrap();
        let first: TofuRow = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((text.lines().count(), first.attribute.as_str()), (40, "birthplace"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 12);
        let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/lab/data/values.jsonl");
        let written = std::fs::read_to_string(dir.path().join("values.jsonl")).unwrap();
        assert_eq!(written, std::fs::read_to_string(bundled).unwrap());
    }
}
