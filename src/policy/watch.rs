//! Notices that the files of a policy folder have changed.
//!
//! The folder is looked at every two seconds: modification times and sizes, not contents. That works
//! on every file system and for mounts that are swapped as a whole, where change events do not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(2);
/// How long files must lie still before they are read: an editor may be half way through them.
const SETTLE: Duration = Duration::from_millis(100);
/// After so many looks files that never lie still are read as they are.
const MOST_LOOKS: usize = 20;

/// What the folder listing says of one policy file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Stamp {
    path: PathBuf,
    modified: Option<SystemTime>,
    bytes: Option<u64>,
}

/// A policy folder, as it was when last looked at.
#[derive(Debug)]
pub struct Watch {
    folder: PathBuf,
    /// `None` when the folder could not be listed.
    seen: Option<Vec<Stamp>>,
}

impl Watch {
    /// Remembers the folder as it is. To be called before its policies are read, so that a change
    /// between the two is noticed.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), seen: stamps(folder) }
    }

    /// Waits until the folder has changed and lies still. Nothing is lost when the wait is given up.
    pub async fn changed(&mut self) {
        loop {
            sleep(PERIOD).await;
            let mut now = self.listing().await;
            if now == self.seen {
                continue;
            }
            for _ in 0..MOST_LOOKS {
                sleep(SETTLE).await;
                let again = self.listing().await;
                if again == now {
                    break;
                }
                now = again;
            }
            self.seen = now;
            return;
        }
    }

    /// The listing, taken where it may block.
    async fn listing(&self) -> Option<Vec<Stamp>> {
        let folder = self.folder.clone();
        let listed = tokio::task::spawn_blocking(move || stamps(&folder)).await;
        listed.unwrap_or_default()
    }
}

/// The stamps of a folder's policy files and rows, in order; `None` when it cannot be listed.
fn stamps(folder: &Path) -> Option<Vec<Stamp>> {
    let mut stamps = Vec::new();
    for entry in fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        if path.extension().is_none_or(|it| it != "toml" && it != "jsonl") {
            continue;
        }
        // Follows links: mounted configuration is often a link to a folder that is exchanged.
        let about = fs::metadata(&path).ok();
        let modified = about.as_ref().and_then(|it| it.modified().ok());
        stamps.push(Stamp { path, modified, bytes: about.map(|it| it.len()) });
    }
    stamps.sort();
    Some(stamps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_files_that_come_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("one.toml");
        let mut seen = stamps(dir.path());
        let mut changed = || {
            let now = stamps(dir.path());
            let changed = now != seen;
            seen = now;
            changed
        };
        assert!(!changed());
        fs::write(&file, "a").unwrap();
        assert!(changed() && !changed());
        fs::write(&file, "ab").unwrap();
        assert!(changed() && !changed());
        let later = SystemTime::now() + Duration::from_secs(5);
        fs::File::options().write(true).open(&file).unwrap().set_modified(later).unwrap();
        assert!(changed() && !changed());
        fs::write(dir.path().join("notes.txt"), "a").unwrap();
        assert!(!changed());
        fs::remove_file(&file).unwrap();
        assert!(changed() && !changed());
        fs::remove_dir_all(dir.path()).unwrap();
        assert!(changed() && !changed());
        fs::create_dir(dir.path()).unwrap();
    }
}
