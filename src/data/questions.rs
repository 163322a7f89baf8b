//! Questions from files: MMLU's CSV, WMDP's JSON, TOFU's rows, plain questions and chat messages.
//!
//! Only the bare text of a question is taken. Choices, letters and headings such as "questions about
//! virology" would tell a classifier the source of a row instead of its subject.

use std::path::Path;

use serde::Deserialize;

use super::DataError;

/// Fields of a row of MMLU: the question, four choices, the answer.
const MMLU_FIELDS: usize = 6;

/// The wordings of one question: as it is asked, and a paraphrase where the file has one.
pub type Wordings = Vec<String>;

/// What is wrong, and in which line.
type Fault = (usize, String);

#[derive(Deserialize)]
struct RawRow {
    question: Option<String>,
    paraphrased_question: Option<String>,
    text: Option<String>,
    messages: Option<Vec<RawMessage>>,
}

#[derive(Deserialize)]
struct RawMessage {
    role: String,
    content: String,
}

/// Reads the questions of a file.
///
/// A `.csv` file has MMLU's six fields (question, four choices, the answer as a letter or as 0 to 3), with
/// or without a header. Any other file has JSON objects, one a line or all in one list, with `question`
/// (and `paraphrased_question`), `text`, or `messages`, of which the user's are read.
///
/// # Errors
///
/// [`DataError`] naming file and line.
pub fn read_questions(path: &Path) -> Result<Vec<Wordings>, DataError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    let rows = if path.extension().is_some_and(|it| it.eq_ignore_ascii_case("csv")) {
        mmlu(&text)
    } else if text.trim_start().starts_with('[') {
        json_list(&text)
    } else {
        json_lines(&text)
    };
    let rows =
        rows.map_err(|(line, message)| DataError::Row { path: path.to_owned(), line, message })?;
    if rows.is_empty() {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    Ok(rows)
}

fn wordings(row: RawRow) -> Result<Wordings, String> {
    let said = row.messages.map(|it| {
        let user = it.into_iter().filter(|it| it.role == "user").map(|it| it.content);
        user.collect::<Vec<_>>().join("\n")
    });
    let first = row.question.or(row.text).or(said);
    let first = first.ok_or("needs `question`, `text` or `messages`")?;
    if first.trim().is_empty() {
        return Err("the question is empty".to_owned());
    }
    Ok(std::iter::once(first).chain(row.paraphrased_question).collect())
}

fn json_lines(text: &str) -> Result<Vec<Wordings>, Fault> {
    let lines = text.lines().enumerate().filter(|it| !it.1.trim().is_empty());
    let row = |(at, line): (usize, &str)| {
        let row = serde_json::from_str(line).map_err(|it| it.to_string()).and_then(wordings);
        row.map_err(|message| (at + 1, message))
    };
    lines.map(row).collect()
}

/// The objects of one list; a fault names the line in which its object begins.
fn json_list(text: &str) -> Result<Vec<Wordings>, Fault> {
    let line = |at: usize| 1 + text.bytes().take(at).filter(|it| *it == b'\n').count();
    let mut at = text.find('[').map_or(text.len(), |it| it + 1);
    let mut rows = Vec::new();
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let here = rest.trim_start_matches(|it: char| it.is_whitespace() || it == ',');
        at += rest.len() - here.len();
        if here.starts_with(']') {
            return Ok(rows);
        }
        let mut objects = serde_json::Deserializer::from_str(here).into_iter::<RawRow>();
        let row = match objects.next() {
            Some(row) => row.map_err(|it| it.to_string()).and_then(wordings),
            None => Err("the list does not end".to_owned()),
        };
        rows.push(row.map_err(|message| (line(at), message))?);
        at += objects.byte_offset();
    }
}

fn mmlu(text: &str) -> Result<Vec<Wordings>, Fault> {
    let mut rows = Vec::new();
    for (line, mut fields) in records(text)? {
        let is_header = fields.first().is_some_and(|it| it.eq_ignore_ascii_case("question"));
        if is_header && line == 1 {
            continue;
        }
        if fields.len() != MMLU_FIELDS {
            let message = format!("has {} fields where MMLU has {MMLU_FIELDS}", fields.len());
            return Err((line, message));
        }
        let answer = fields[MMLU_FIELDS - 1].trim();
        if !matches!(answer, "A" | "B" | "C" | "D" | "0" | "1" | "2" | "3") {
            return Err((line, format!("the answer `{answer}` is none of A to D or 0 to 3")));
        }
        let question = fields.swap_remove(0).trim().to_owned();
        if question.is_empty() {
            return Err((line, "the question is empty".to_owned()));
        }
        rows.push(vec![question]);
    }
    Ok(rows)
}

/// The records of a CSV text (RFC 4180), each with the line in which it begins. A quote that is not
/// the first sign of its field is a quote, as MMLU's files have it; empty lines are none.
fn records(text: &str) -> Result<Vec<(usize, Vec<String>)>, Fault> {
    let mut records = Vec::new();
    let (mut fields, mut field) = (Vec::new(), String::new());
    let (mut line, mut first, mut opened, mut quoted) = (1, 1, 1, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => {
                quoted = true;
                opened = line;
            }
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                if !fields.is_empty() || !field.is_empty() {
                    fields.push(std::mem::take(&mut field));
                    records.push((first, std::mem::take(&mut fields)));
                }
                first = line;
            }
            _ => field.push(c),
        }
    }
    if quoted {
        return Err((opened, "a quote is not closed".to_owned()));
    }
    if !fields.is_empty() || !field.is_empty() {
        fields.push(field);
        records.push((first, fields));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<Wordings>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let home = format!("{}/", dir.path().display());
        read_questions(&path).map_err(|it| it.to_string().replace(&home, ""))
    }

    fn one(text: &str) -> Wordings {
        vec![text.to_owned()]
    }

    #[test]
    fn mmlu_with_and_without_header() {
        let rows =
            "\"What is 1,\n\"\"really\"\"?\",a,b,c,\"d, e\",B\n\nWho asks “why”?,1,2,3,4,0\r\n";
        let want = vec![one("What is 1,\n\"really\"?"), one("Who asks “why”?")];
        assert_eq!(read("a.csv", rows).unwrap(), want);
        let header = format!("question,choice0,choice1,choice2,choice3,answer\n{rows}");
        assert_eq!(read("a.csv", &header).unwrap(), want);
        assert_eq!(read("a.CSV", "A 5\" nail?,1,2,3,4,D").unwrap(), [one("A 5\" nail?")]);
    }

    #[test]
    fn faults_of_csv_name_the_line() {
        let rows = "\"a\nb\",1,2,3,4,A\n";
        let fault = |more: &str| read("a.csv", &format!("{rows}{more}")).unwrap_err();
        assert_eq!(fault("c,1,2,A\n"), "a.csv:3: has 4 fields where MMLU has 6");
        assert_eq!(fault("c,1,2,3,4,E\n"), "a.csv:3: the answer `E` is none of A to D or 0 to 3");
        assert_eq!(fault(" ,1,2,3,4,A\n"), "a.csv:3: the question is empty");
        assert_eq!(fault("c,1\nd,\"2"), "a.csv:4: a quote is not closed");
        assert_eq!(read("a.csv", "").unwrap_err(), "a.csv: no rows");
    }

    #[test]
    fn wmdp_as_lines_and_as_a_list() {
        let (one_row, other) = (
            r#"{"answer": 2, "question": "Which toxin?", "choices": ["a", "b", "c", "d"]}"#,
            r#"{"answer": 0, "question": "Which [port], sir?", "choices": ["]", "b", "c", "d"]}"#,
        );
        let want = [one("Which toxin?"), one("Which [port], sir?")];
        assert_eq!(read("w.jsonl", &format!("{one_row}\n\n{other}\n")).unwrap(), want);
        assert_eq!(read("w.json", &format!("[{one_row},\n {other}\n]\n")).unwrap(), want);
        let fault = read("w.json", &format!("[\n{one_row},\n{{\"answer\": 1}}]")).unwrap_err();
        assert_eq!(fault, "w.json:3: needs `question`, `text` or `messages`");
        let fault = read("w.json", &format!("[\n{one_row}")).unwrap_err();
        assert_eq!(fault, "w.json:2: the list does not end");
    }

    #[test]
    fn tofu_rows_text_and_messages() {
        let rows = r#"{"question": "Who?", "answer": "He.", "paraphrased_question": "Which one?"}
{"text": "A line."}
{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}
"#;
        let want = [vec!["Who?".to_owned(), "Which one?".to_owned()], one("A line."), one("u")];
        assert_eq!(read("t.json", rows).unwrap(), want);
        let fault = read("t.jsonl", "{\"question\": \"a\"}\n{\"answer\": 1}\n").unwrap_err();
        assert_eq!(fault, "t.jsonl:2: needs `question`, `text` or `messages`");
        assert!(read("t.jsonl", "{\n").unwrap_err().starts_with("t.jsonl:1: "));
    }
}
