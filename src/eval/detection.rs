//! How much detectors see: the share of texts that a policy would treat, as they are and in disguise.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::suite::EvalError;
use crate::data::{DataError, read_questions};
use crate::text::disguise;

/// What goes for the question in a template of a jailbreak.
const PLACE: &str = "[INSERT PROMPT HERE]";

/// Texts of one kind.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Where they come from.
    pub label: String,
    /// The texts.
    pub texts: Vec<String>,
}

impl Sample {
    /// One field of every row of a JSON-lines file; rows without it count as an error. Of a `.csv` file,
    /// MMLU's, the questions, whatever the field.
    ///
    /// # Errors
    ///
    /// [`EvalError::Data`] with the line.
    pub fn read(path: &Path, field: &str) -> Result<Self, EvalError> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        if path.extension().is_some_and(|it| it.eq_ignore_ascii_case("csv")) {
            let rows = read_questions(path).map_err(data)?;
            let texts = rows.into_iter().flatten().collect();
            return Ok(Self { label: format!("{name}, question"), texts });
        }
        let text = read(path)?;
        let mut texts = Vec::new();
        for (at, line) in text.lines().enumerate().filter(|it| !it.1.trim().is_empty()) {
            let row: Value = serde_json::from_str(line).unwrap_or_default();
            let Some(text) = row.get(field).and_then(Value::as_str) else {
                let message = format!("no text under `{field}`");
                return Err(EvalError::Data { path: path.to_owned(), line: at + 1, message });
            };
            texts.push(text.to_owned());
        }
        Ok(Self { label: format!("{name}, {field}"), texts })
    }

    /// The same texts in every disguise.
    #[must_use]
    pub fn disguised(&self) -> Vec<Self> {
        let under = |(name, write): &disguise::Disguise| Self {
            label: format!("{}: {name}", self.label),
            texts: self.texts.iter().map(|it| write(it)).collect(),
        };
        disguise::ALL.iter().map(under).collect()
    }

    /// Each template around texts of the sample, taken in turn.
    #[must_use]
    pub fn wrapped(&self, templates: &[String], each: usize) -> Self {
        let texts = templates.iter().enumerate().flat_map(|(at, template)| {
            let texts = self.texts.iter().cycle().skip(at * each).take(each);
            texts.map(move |it| template.replace(PLACE, it))
        });
        Self {
            label: format!("{}: in {} templates", self.label, templates.len()),
            texts: texts.collect(),
        }
    }
}

/// Templates of a CSV file: every quoted or plain field that has the place of the question.
///
/// # Errors
///
/// [`EvalError::Data`] when there is none.
pub fn templates(path: &Path) -> Result<Vec<String>, EvalError> {
    let templates: Vec<String> =
        fields(&read(path)?).into_iter().filter(|it| it.contains(PLACE)).collect();
    if templates.is_empty() {
        let message = format!("no field has `{PLACE}`");
        return Err(EvalError::Data { path: path.to_owned(), line: 0, message });
    }
    Ok(templates)
}

/// The fields of a CSV text (RFC 4180), row after row.
fn fields(text: &str) -> Vec<String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' | '\n' if !quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(c),
        }
    }
    fields.push(field);
    fields
}

fn data(error: DataError) -> EvalError {
    match error {
        DataError::Read { path, source } => {
            EvalError::Data { path, line: 0, message: source.to_string() }
        }
        DataError::Row { path, line, message } => EvalError::Data { path, line, message },
        DataError::Empty { path } => {
            EvalError::Data { path, line: 0, message: "no rows".to_owned() }
        }
    }
}

fn read(path: &Path) -> Result<String, EvalError> {
    let named = |source: std::io::Error| EvalError::Data {
        path: path.to_owned(),
        line: 0,
        message: source.to_string(),
    };
    fs::read_to_string(path).map_err(named)
}

/// One sample under every judge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The sample.
    pub label: String,
    /// Its texts.
    pub texts: usize,
    /// How many of them each judge would treat.
    pub treated: Vec<usize>,
}

/// Whether a text would be treated.
pub type Judge<'a, E> = Box<dyn Fn(&str) -> Result<bool, E> + 'a>;

/// Counts what every judge would treat.
///
/// # Errors
///
/// The first error of a judge.
pub fn measure<E>(samples: &[Sample], judges: &[Judge<'_, E>]) -> Result<Vec<Row>, E> {
    let row = |sample: &Sample| {
        let count = |judge: &Judge<'_, E>| {
            sample.texts.iter().try_fold(0, |sum, it| Ok(sum + usize::from(judge(it)?)))
        };
        let treated = judges.iter().map(count).collect::<Result<_, E>>()?;
        Ok(Row { label: sample.label.clone(), texts: sample.texts.len(), treated })
    };
    samples.iter().map(row).collect()
}

/// Rows as Markdown: shares in percent.
#[must_use]
pub fn to_markdown(judges: &[String], rows: &[Row]) -> String {
    let mut out = format!("| % treated | texts | {} |\n|---|---:|", judges.join(" | "));
    out.push_str(&"---:|".repeat(judges.len()));
    out.push('\n');
    for row in rows {
        let share = |it: &usize| format!("{:.2}", 100.0 * *it as f64 / row.texts.max(1) as f64);
        let shares: Vec<String> = row.treated.iter().map(share).collect();
        out.push_str(&format!("| {} | {} | {} |\n", row.label, row.texts, shares.join(" | ")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_csv_text() {
        assert_eq!(fields("a,\"b \"\"c\"\",\nd\",e"), ["a", "b \"c\",\nd", "e"]);
    }

    #[test]
    fn templates_take_the_texts_in_turn() {
        let sample = Sample { label: "x".to_owned(), texts: vec!["1".to_owned(), "2".to_owned()] };
        let templates =
            ["a [INSERT PROMPT HERE]", "[INSERT PROMPT HERE] b", "c"].map(str::to_owned);
        assert_eq!(sample.wrapped(&templates, 1).texts, ["a 1", "2 b", "c"]);
    }

    #[test]
    fn questions_of_mmlu_are_a_sample() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("virology_test.csv");
        fs::write(&path, "Why?,a,b,c,d,A\nHow?,a,b,c,d,3\n").unwrap();
        let sample = Sample::read(&path, "paraphrased_question").unwrap();
        assert_eq!((sample.label.as_str(), sample.texts.len()), ("virology_test, question", 2));
        fs::write(&path, "Why?,a\n").unwrap();
        let error = Sample::read(&path, "question").unwrap_err().to_string();
        assert!(error.contains("virology_test.csv:1: has 2 fields"), "{error}");
    }

    #[test]
    fn shares_by_hand() {
        let sample = Sample {
            label: "x".to_owned(),
            texts: ["ab", "b", "c", "a"].map(str::to_owned).to_vec(),
        };
        let judges: Vec<Judge<'_, ()>> =
            vec![Box::new(|it: &str| Ok(it.contains('a'))), Box::new(|_: &str| Ok(false))];
        let rows = measure(&[sample], &judges).unwrap();
        assert_eq!(rows, [Row { label: "x".to_owned(), texts: 4, treated: vec![2, 0] }]);
        let names = ["one", "two"].map(str::to_owned);
        let table = to_markdown(&names, &rows);
        assert!(table.ends_with("| x | 4 | 50.00 | 0.00 |\n"), "{table}");
    }
}
