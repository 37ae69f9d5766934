//! System calls of the server, counted by strace(1) where it is there and allowed.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use super::Error;
use super::process::Process;

const CALLS: &str = "trace=write,writev,sendto,sendmsg,mmap";

/// How long strace may take to hold all threads.
const ATTACH: Duration = Duration::from_secs(5);

/// A server whose system calls are being written down.
pub(super) struct Trace {
    child: Child,
    file: PathBuf,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// Writes to sockets.
    pub(super) socket_writes: u64,
    /// Writes to the runtime's eventfd, which wake a sleeping thread.
    pub(super) wakes: u64,
    /// The lengths of memory maps.
    maps: Vec<usize>,
}

impl Trace {
    /// Begins. `None` where there is no strace, or none that may trace the server.
    pub(super) fn attach(process: Process) -> Result<Option<Self>, Error> {
        let file = std::env::temp_dir().join(format!("roomcast-load-{}.strace", process.0));
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-y", "-s", "0", "-e", CALLS, "-p", &process.0.to_string(), "-o"]);
        command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            return Ok(None);
        };
        let mut trace = Self { child, file };
        let deadline = Instant::now() + ATTACH;
        while !process.is_traced()? {
            if trace.child.try_wait()?.is_some() || Instant::now() > deadline {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Some(trace))
    }

    /// Ends, and counts.
    pub(super) fn finish(mut self) -> Result<Calls, Error> {
        // Only this signal makes it let go in good order, and write what it has.
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status()?;
        self.child.wait()?;
        let text = fs::read_to_string(&self.file)?;
        let mut calls = Calls::default();
        text.lines().for_each(|line| calls.count(line));
        Ok(calls)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.file);
    }
}

impl Calls {
    /// A line is `<thread> <call>(<file descriptor>, …`; a call that another thread interrupted has a second line
    /// (`<... writev resumed>`), which does not count.
    fn count(&mut self, line: &str) {
        let Some((_, call)) = line.split_once(' ') else { return };
        let Some((name, arguments)) = call.trim_start().split_once('(') else { return };
        let first = arguments.split(',').next().unwrap_or_default();
        match name {
            "mmap" => {
                let length: Option<usize> =
                    arguments.split(", ").nth(1).and_then(|length| length.parse().ok());
                self.maps.extend(length);
            }
            "write" | "writev" | "sendto" | "sendmsg" if first.contains("eventfd") => self.wakes += 1,
            "write" | "writev" | "sendto" | "sendmsg" => self.socket_writes += 1,
            _ => {}
        }
    }

    /// Maps that hold one buffer of this many bytes or somewhat more.
    pub(super) fn buffers(&self, bytes: usize) -> usize {
        self.maps.iter().filter(|length| (bytes..4 * bytes).contains(length)).count()
    }
}
