//! A reader of TOML tables that collects problems instead of stopping at the first.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::Problem;
use super::file::digest;
use super::rows::{self, Row};

/// The problems of one file.
#[derive(Debug)]
pub(super) struct Problems<'a> {
    pub(super) path: &'a Path,
    pub(super) list: Vec<Problem>,
    /// A digest of each file of rows that was read.
    pub(super) named: String,
}

impl Problems<'_> {
    pub(super) fn add(&mut self, key: &str, message: impl Into<String>) {
        let (path, message) = (self.path.to_owned(), message.into());
        self.list.push(Problem { path, key: key.to_owned(), message });
    }

    /// Whether a problem of this key is known already.
    pub(super) fn names(&self, key: &str) -> bool {
        self.list.iter().any(|it| it.key == key)
    }
}

/// The keys of one table, taken one by one; what is left over is unknown.
///
/// serde's `deny_unknown_fields` would stop at the first problem.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) table: toml::Table,
    /// `entity[0].`, or empty for the file.
    prefix: String,
    /// Every key that was looked for, to suggest one for a misspelling.
    pub(super) asked: Vec<&'static str>,
}

impl Keys {
    /// The keys of a whole file.
    pub(super) fn new(table: toml::Table) -> Self {
        Self { table, prefix: String::new(), asked: Vec::new() }
    }

    pub(super) fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    pub(super) fn take<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
        out: &mut Problems<'_>,
    ) -> Option<T> {
        self.asked.push(key);
        let value = self.table.remove(key)?;
        match value.try_into() {
            Ok(value) => Some(value),
            Err(error) => {
                out.add(&self.key(key), error.message());
                None
            }
        }
    }

    pub(super) fn require<T: DeserializeOwned>(
        &mut self,
        key: &'static str,
        remedy: &str,
        out: &mut Problems<'_>,
    ) -> Option<T> {
        if !self.table.contains_key(key) {
            out.add(&self.key(key), format!("missing; write {remedy}"));
        }
        self.take(key, out)
    }

    pub(super) fn tables(&mut self, key: &'static str, out: &mut Problems<'_>) -> Vec<Self> {
        let tables: Vec<toml::Table> = self.take(key, out).unwrap_or_default();
        let numbered = tables.into_iter().enumerate();
        let keys = numbered.map(|(at, table)| (table, format!("{key}[{at}].")));
        keys.map(|(table, prefix)| Self { table, prefix, asked: Vec::new() }).collect()
    }

    /// The keys of a table, when it is there.
    pub(super) fn table(&mut self, key: &'static str, out: &mut Problems<'_>) -> Option<Self> {
        let table = self.take(key, out)?;
        Some(Self { table, prefix: format!("{}.", self.key(key)), asked: Vec::new() })
    }

    /// One of the allowed values, when the key is there.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        allowed: &[(&'static str, T)],
        out: &mut Problems<'_>,
    ) -> Option<T> {
        let value: String = self.take(key, out)?;
        let found = allowed.iter().find(|it| it.0 == value).map(|it| it.1);
        if found.is_none() {
            let names: Vec<&str> = allowed.iter().map(|it| it.0).collect();
            let hint = suggestion(&value, &names);
            let message = format!("unknown value `{value}`{hint}; use one of {}", names.join(", "));
            out.add(&self.key(key), message);
        }
        found
    }

    /// The value of `use`. Without a known one the other keys of the table cannot be judged.
    pub(super) fn kind(
        &mut self,
        allowed: &[(&'static str, &'static str)],
        out: &mut Problems<'_>,
    ) -> Option<&'static str> {
        if !self.table.contains_key("use") {
            let example = allowed.first().map_or("", |it| it.0);
            out.add(&self.key("use"), format!("missing; write use = \"{example}\""));
        }
        self.choice("use", allowed, out)
    }

    pub(super) fn positive(&mut self, key: &'static str, out: &mut Problems<'_>) -> Option<f64> {
        let value: f64 = self.take(key, out)?;
        if !(value.is_finite() && value > 0.0) {
            out.add(&self.key(key), format!("is {value}; use a finite number above 0"));
            return None;
        }
        Some(value)
    }

    pub(super) fn whole(&mut self, key: &'static str, out: &mut Problems<'_>) -> Option<usize> {
        let value: i64 = self.require(key, &format!("{key} = 160"), out)?;
        let whole = usize::try_from(value).ok().filter(|it| *it > 0);
        if whole.is_none() {
            out.add(&self.key(key), format!("is {value}; use a whole number above 0"));
        }
        whole
    }

    /// A whole number that is at least `least`, or the default.
    pub(super) fn count(
        &mut self,
        key: &'static str,
        default: usize,
        least: usize,
        out: &mut Problems<'_>,
    ) -> usize {
        let Some(value) = self.take::<i64>(key, out) else { return default };
        usize::try_from(value).ok().filter(|it| *it >= least).unwrap_or_else(|| {
            out.add(&self.key(key), format!("is {value}; use a whole number from {least} on"));
            default
        })
    }

    /// The rows of a file that must be named; a relative path starts at the policy's folder.
    pub(super) fn rows<T>(
        &mut self,
        key: &'static str,
        remedy: &str,
        of: fn(Row) -> Result<T, String>,
        out: &mut Problems<'_>,
    ) -> Option<Vec<T>> {
        let file: PathBuf = self.require(key, remedy, out)?;
        let path = out.path.parent().unwrap_or(Path::new("")).join(file);
        match rows::read(&path, of) {
            Ok((rows, text)) => {
                out.named.push_str(&digest(text.as_bytes()));
                Some(rows)
            }
            Err(message) => {
                out.add(&self.key(key), message);
                None
            }
        }
    }

    pub(super) fn finish(self, out: &mut Problems<'_>) {
        for key in self.table.keys() {
            let hint = suggestion(key, &self.asked);
            out.add(&self.key(key), format!("unknown key{hint}; remove or rename it"));
        }
    }
}

/// `, did you mean ...?` for the closest allowed word, when it is close enough to be one.
fn suggestion(word: &str, allowed: &[&str]) -> String {
    let near = allowed.iter().map(|it| (distance(word, it), it)).min();
    match near {
        Some((steps, it)) if steps <= 1 + word.len() / 4 => format!(", did you mean `{it}`?"),
        _ => String::new(),
    }
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replace = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}
