//! The record of rulings: one JSON object a line, appended, never with the text it is about.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::types::{Evidence, Place, View};

/// One ruling, as the log takes it.
#[derive(Debug, Clone, Copy)]
pub struct AuditRecord<'a> {
    /// The text ruled on; only its hash is written.
    pub text: &'a str,
    /// The policy's topic.
    pub topic: &'a str,
    /// The policy's revision.
    pub revision: &'a str,
    /// What the ruling rests on; `None` when a detector failed and the policy treats that as seen.
    pub evidence: Option<&'a Evidence>,
    /// The treatment's name in policy files.
    pub treatment: &'a str,
    /// `enforce` or `shadow`.
    pub mode: &'a str,
    /// From the first detector to the ruling.
    pub duration: Duration,
}

/// The log. A failure to write must not fail the request.
#[derive(Debug)]
pub struct AuditLog {
    file: Mutex<File>,
}

impl AuditLog {
    /// Opens a log to append to, or creates it.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or created.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        Ok(Self { file: Mutex::new(file) })
    }

    /// Appends one line, in one write.
    ///
    /// # Errors
    ///
    /// When the line is lost.
    pub fn write(&self, record: &AuditRecord<'_>) -> io::Result<()> {
        let line = format!("{}\n", record.to_json(SystemTime::now()));
        // A thread that panicked while it held the lock left at worst half a line.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes())
    }
}

impl AuditRecord<'_> {
    fn to_json(self, now: SystemTime) -> Value {
        let evidence = self.evidence;
        let place = evidence.map(|it| match it.place {
            Place::Text(index) => format!("text:{index}"),
            Place::Continuation => "continuation".to_owned(),
        });
        let view = evidence.map(|it| match it.view {
            View::Raw => "raw",
            View::Normalised => "normalised",
            View::Respelled => "respelled",
            View::Decoded => "decoded",
            View::Conversation => "conversation",
        });
        json!({
            "time": rfc3339(now),
            "request": hash(self.text),
            "topic": self.topic,
            "revision": self.revision,
            "detector": evidence.map(|it| it.detector),
            "score": evidence.map(|it| it.score),
            "place": place,
            "span": evidence.map(|it| [it.span.start, it.span.end]),
            "view": view,
            "treatment": self.treatment,
            "mode": self.mode,
            "duration_us": u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
        })
    }
}

/// The first 16 hex digits of the text's SHA-256.
fn hash(text: &str) -> String {
    Sha256::digest(text).iter().take(8).map(|it| format!("{it:02x}")).collect()
}

/// UTC with milliseconds.
fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of a count of days since 1970-01-01 (Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms", `civil_from_days`).
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence() -> Evidence {
        Evidence {
            detector: "names",
            score: 1.0,
            place: Place::Text(1),
            span: 7..19,
            view: View::Normalised,
            entity: Some(0),
        }
    }

    fn record<'a>(text: &'a str, evidence: Option<&'a Evidence>) -> AuditRecord<'a> {
        AuditRecord {
            text,
            topic: "authors",
            revision: "0123456789abcdef",
            evidence,
            treatment: "alias",
            mode: "enforce",
            duration: Duration::from_micros(42),
        }
    }

    #[test]
    fn a_line_says_everything_but_the_text() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let evidence = evidence();
        for evidence in [Some(&evidence), None] {
            let log = AuditLog::open(&path).unwrap();
            log.write(&record("Who is Basil Okafor?", evidence)).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(!written.contains("Basil") && !written.contains("Who"), "{written}");
        let lines: Vec<Value> =
            written.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
        assert_eq!(lines.len(), 2, "opening appends");
        assert_eq!(lines[0]["request"], lines[1]["request"]);
        assert_eq!(lines[0]["request"].as_str().unwrap().len(), 16);
        assert_eq!(lines[0]["place"], "text:1");
        assert_eq!(lines[0]["span"], json!([7, 19]));
        assert_eq!(lines[0]["view"], "normalised");
        assert_eq!(lines[0]["duration_us"], 42);
        assert_eq!(lines[1]["detector"], Value::Null);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let log = AuditLog::open(Path::new("/dev/full")).unwrap();
        assert!(log.write(&record("text", None)).is_err());
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        let at = |seconds: u64, millis: u32| {
            rfc3339(UNIX_EPOCH + Duration::new(seconds, millis * 1_000_000))
        };
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_868_799, 999), "2000-02-29T23:59:59.999Z");
        assert_eq!(at(1_735_689_600, 5), "2025-01-01T00:00:00.005Z");
    }
}
