//! Rows of data files, as JSON lines or as one JSON array, and the spellings of other benchmarks.
//!
//! MUSE (Shi et al., arXiv:2407.06460) has lists of `prompt` and `gt` (verbmem), of `question` and
//! `answer` (knowmem) and of bare texts (privleak). RWKU (Jin et al., arXiv:2406.10890) has `query` and
//! `answer` with a `level` and a `type`, and passages as `text`.

use std::path::Path;

use serde_json::{Map, Value};

use super::DataError;

/// Reads the rows of a file with the line (of JSON lines) or number (of an array) of each, from 1. A
/// bare text becomes an object with `text`, and a row of RWKU gets the `question` that is asked there.
///
/// # Errors
///
/// [`DataError`] naming file and line.
pub fn read_objects(path: &Path) -> Result<Vec<(usize, Value)>, DataError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| DataError::Read { path: path.to_owned(), source })?;
    objects(path, &text)
}

/// The same of a text that was read from `path`.
///
/// # Errors
///
/// [`DataError::Row`] naming file and line, [`DataError::Empty`] without rows.
pub fn objects(path: &Path, text: &str) -> Result<Vec<(usize, Value)>, DataError> {
    let bad =
        |line: usize, message: String| DataError::Row { path: path.to_owned(), line, message };
    let values: Vec<(usize, Value)> = if text.trim_start().starts_with('[') {
        let rows: Vec<Value> =
            serde_json::from_str(text).map_err(|it| bad(it.line(), it.to_string()))?;
        rows.into_iter().enumerate().map(|(at, row)| (at + 1, row)).collect()
    } else {
        let lines = text.lines().enumerate().filter(|it| !it.1.trim().is_empty());
        let value = |(at, line): (usize, &str)| -> Result<(usize, Value), DataError> {
            let row = serde_json::from_str(line).map_err(|it| bad(at + 1, it.to_string()))?;
            Ok((at + 1, row))
        };
        lines.map(value).collect::<Result<_, _>>()?
    };
    if values.is_empty() {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    let object = |(line, row): (usize, Value)| -> Result<(usize, Value), DataError> {
        let row = canonical(row).ok_or_else(|| {
            bad(line, "is neither an object in braces nor a text in quotes".to_owned())
        })?;
        Ok((line, row))
    };
    values.into_iter().map(object).collect()
}

fn canonical(row: Value) -> Option<Value> {
    let mut row = match row {
        Value::Object(row) => row,
        Value::String(text) => std::iter::once(("text".to_owned(), Value::String(text))).collect(),
        _ => return None,
    };
    let asked = row.get("query").and_then(Value::as_str).map(|it| rwku_question(&row, it));
    if let Some(question) = asked.filter(|_| !row.contains_key("question")) {
        row.insert("question".to_owned(), Value::String(question));
    }
    Some(Value::Object(row))
}

/// What RWKU asks for a row. Its code also begins the reply with `Answer:`, which a question cannot.
fn rwku_question(row: &Map<String, Value>, query: &str) -> String {
    let text = |key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default();
    match (text("level"), text("type")) {
        ("", _) => query.to_owned(),
        ("1", _) => {
            format!("Please complete the blank in the following question.\nQuestion: {query}")
        }
        (_, "incontext learning") => {
            format!("Please briefly answer the following question.\n{query}")
        }
        _ => format!("Please briefly answer the following question.\nQuestion: {query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Vec<(usize, Value)>, DataError> {
        objects(Path::new("rows.json"), text)
    }

    #[test]
    fn lines_and_arrays_are_the_same_rows() {
        let (one, two) = (r#"{"question":"q","answer":"a"}"#, r#"{"prompt":"p","gt":"g"}"#);
        let lines = read(&format!("{one}\n\n{two}\n")).unwrap();
        let array = read(&format!(" [\n{one},\n{two}]")).unwrap();
        assert_eq!(lines.iter().map(|it| it.0).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(array.iter().map(|it| it.0).collect::<Vec<_>>(), [1, 2]);
        assert!(lines.iter().zip(&array).all(|it| it.0.1 == it.1.1));
    }

    #[test]
    fn a_bare_text_is_an_object() {
        assert_eq!(read(r#"["Once upon", "a time"]"#).unwrap()[1], (2, json!({"text": "a time"})));
    }

    #[test]
    fn rwku_rows_are_asked_as_there() {
        let asked = |row: Value| read(&row.to_string()).unwrap()[0].1["question"].clone();
        let of = |level: &str, kind: &str| {
            asked(json!({"query": "Born in ___?", "answer": "Maine", "level": level, "type": kind}))
        };
        let blank = "Please complete the blank in the following question.\nQuestion: Born in ___?";
        let brief = "Please briefly answer the following question.\nQuestion: Born in ___?";
        assert_eq!(of("1", "cloze"), blank);
        assert_eq!(of("2", "simple question"), brief);
        assert_eq!(of("3", "prefix injection"), brief);
        assert_eq!(
            of("3", "incontext learning"),
            "Please briefly answer the following question.\nBorn in ___?"
        );
        assert_eq!(asked(json!({"query": "Who?", "answer": "She."})), "Who?");
        assert_eq!(asked(json!({"query": "Who?", "question": "Which?"})), "Which?");
    }

    #[test]
    fn what_is_no_row_is_named() {
        let line = |text: &str| match read(text).unwrap_err() {
            DataError::Row { line, .. } => line,
            other => panic!("{other:?}"),
        };
        assert_eq!(line("{}\n{"), 2);
        assert_eq!(line("[{}, 3]"), 2);
        assert_eq!(line("[{},\n{"), 2);
        assert!(matches!(read(" \n"), Err(DataError::Empty { .. })));
        assert!(matches!(read("[]"), Err(DataError::Empty { .. })));
    }
}
