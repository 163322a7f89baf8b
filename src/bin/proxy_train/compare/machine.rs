//! How much memory this process has used.

use std::fs;

/// Lets the peak begin anew, where the system can (Linux).
pub(super) fn reset_peak() {
    if let Err(error) = fs::write("/proc/self/clear_refs", "5") {
        tracing::debug!(%error, "the peak of memory is counted from the start of the process");
    }
}

/// The largest resident memory since then, in bytes; `None` where the system does not say.
pub(super) fn peak_bytes() -> Option<u64> {
    high_water(&fs::read_to_string("/proc/self/status").ok()?)
}

/// The line `VmHWM` of a process's status.
fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|it| it.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(1024 * kibibytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_read() {
        assert_eq!(high_water("Name:\tx\nVmHWM:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(high_water("Name:\tx\n"), None);
    }
}
