//! What the kernel says of a process (proc(5)).

use std::fs;
use std::time::Duration;

use super::Error;

/// `sysconf(_SC_CLK_TCK)` is 100 on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

/// A process by its id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process(pub(super) u32);

impl Process {
    /// This one.
    pub(super) fn own() -> Self {
        Self(std::process::id())
    }

    /// Resident memory, in bytes.
    pub(super) fn resident(self) -> Result<u64, Error> {
        Ok(self.status("VmRSS:")? * 1024)
    }

    pub(super) fn threads(self) -> Result<u64, Error> {
        self.status("Threads:")
    }

    fn status(self, key: &str) -> Result<u64, Error> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|rest| rest.split_whitespace().next()).ok_or("no such line in status")?;
        Ok(number.parse()?)
    }

    /// User and system time so far.
    pub(super) fn cpu(self) -> Result<Duration, Error> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // The name of the command, the second field, may hold anything; what follows its bracket does not.
        let fields = text.rsplit_once(')').ok_or("stat has no command")?.1;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
        Ok(TICK * ticks.sum::<Result<u32, _>>()?)
    }

    /// The threads' ids.
    pub(super) fn tasks(self) -> Result<Vec<u32>, Error> {
        let names = fs::read_dir(format!("/proc/{}/task", self.0))?;
        names.map(|entry| Ok(entry?.file_name().to_string_lossy().parse()?)).collect()
    }

    /// True while every thread is traced.
    pub(super) fn is_traced(self) -> Result<bool, Error> {
        for thread in self.tasks()? {
            if Self(thread).status("TracerPid:")? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
