//! Whether a machine is fit for figures that others will read.

use std::fs;

use super::Error;

/// Beyond this load average a machine is busy with something else.
const QUIET: f64 = 0.5;

/// Refuses to take figures for a page where something else runs, or where servers and generator share a core.
pub(super) fn require_quiet(pinned: bool) -> Result<(), Error> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let load: f64 = text.split_whitespace().next().ok_or("no load average")?.parse()?;
    if load > QUIET {
        return Err(
            format!("figures for a page need a quiet machine: its load is {load}, at most {QUIET}").into()
        );
    }
    if pinned { Ok(()) } else { Err("figures for a page need --pin".into()) }
}
