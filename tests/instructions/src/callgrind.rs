//! Runs this program again under callgrind and reads what it counted.
//!
//! Must not know the baseline.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io, thread};

use super::{COUNTED, COUNTED_FUNCTION};

/// Why nothing was counted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("valgrind cannot be started ({0}); on Debian it is the package valgrind")]
    NoValgrind(io::Error),
    #[error("valgrind ended with {status}:\n{output}")]
    Failed { status: std::process::ExitStatus, output: String },
    #[error("callgrind wrote {dumps} counts for {cases} cases")]
    Dumps { dumps: usize, cases: usize },
    #[error("{} has no count", .0.display())]
    NoCount(PathBuf),
    #[error("{}: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
    #[error("there is no baseline {}: UPDATE_GOLDEN=1 writes one", .0.display())]
    NoBaseline(PathBuf),
    #[error("a line of the cases' output is not theirs: {0}")]
    Output(String),
    #[error("{}, line {line}: not a name, instructions and allocations, with two spaces between", .path.display())]
    Baseline { path: PathBuf, line: usize },
}

/// What a case costs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Count {
    pub(crate) name: String,
    /// Instructions for each time, the mean.
    pub(crate) each: f64,
    /// Calls of the allocator for each time, the mean.
    pub(crate) allocations: f64,
}

/// The functions of the C library by which memory is taken; giving back is not counted.
const ALLOCATORS: [&str; 5] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"];

/// Two independent counts of all cases, beside each other.
pub(crate) fn count_twice() -> Result<(Vec<Count>, Vec<Count>), Error> {
    thread::scope(|scope| {
        let other = scope.spawn(|| count(1));
        let first = count(0)?;
        let second = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((first, second))
    })
}

fn count(number: u32) -> Result<Vec<Count>, Error> {
    let folder = env::temp_dir().join(format!("roomcast-instructions-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| Error::Io(folder.clone(), error))?;
    let counted = count_in(&folder);
    // What cannot be removed is small, and in a folder for such things.
    let _ = fs::remove_dir_all(&folder);
    counted
}

fn count_in(folder: &Path) -> Result<Vec<Count>, Error> {
    let program = env::current_exe().map_err(|error| Error::Io(folder.to_owned(), error))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--compress-strings=no"])
        .arg(format!("--zero-before={COUNTED_FUNCTION}"))
        .arg(format!("--dump-after={COUNTED_FUNCTION}"))
        .arg(format!("--callgrind-out-file={}", folder.join("out").display()))
        .arg(program)
        .arg(COUNTED)
        // What a user has set changes the length of the stack's beginning, the logs and the allocator.
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .output()
        .map_err(Error::NoValgrind)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Failed { status: output.status, output: text });
    }
    let cases: Vec<(String, u64)> =
        String::from_utf8_lossy(&output.stdout).lines().map(case).collect::<Result<_, _>>()?;
    let dumps = dumps(folder)?;
    if dumps.len() != cases.len() {
        return Err(Error::Dumps { dumps: dumps.len(), cases: cases.len() });
    }
    let each = |((name, times), dump): ((String, u64), Dump)| Count {
        name,
        each: dump.instructions as f64 / times as f64,
        allocations: dump.allocations as f64 / times as f64,
    };
    Ok(cases.into_iter().zip(dumps).map(each).collect())
}

fn case(line: &str) -> Result<(String, u64), Error> {
    let parsed = line.split_once('\t').and_then(|(name, times)| Some((name.to_owned(), times.parse().ok()?)));
    parsed.filter(|(_, times)| *times > 0).ok_or_else(|| Error::Output(line.to_owned()))
}

/// What one file of callgrind says.
struct Dump {
    instructions: u64,
    allocations: u64,
}

impl Dump {
    /// Reads a file ("Callgrind Format Specification" of valgrind's manual).
    fn parse(text: &str) -> Option<Self> {
        let instructions = text.lines().find_map(|line| line.strip_prefix("summary: "))?;
        let (mut allocations, mut callee) = (0, "");
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("cfn=") {
                callee = name;
            } else if let Some(calls) = line.strip_prefix("calls=")
                && ALLOCATORS.contains(&callee)
            {
                allocations += calls.split(' ').next()?.parse::<u64>().ok()?;
            }
        }
        Some(Self { instructions: instructions.trim().parse().ok()?, allocations })
    }
}

/// The counts in the files `out.1`, `out.2` and so on, one for each case in their order.
fn dumps(folder: &Path) -> Result<Vec<Dump>, Error> {
    let mut counts = Vec::new();
    loop {
        let path = folder.join(format!("out.{}", counts.len() + 1));
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(counts),
            Err(error) => return Err(Error::Io(path, error)),
        };
        // The last one is what came after the last case, when the program ended.
        if text.lines().any(|line| line == "desc: Trigger: Program termination") {
            return Ok(counts);
        }
        counts.push(Dump::parse(&text).ok_or(Error::NoCount(path))?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_the_allocator_are_summed_up() {
        let text = "events: Ir\nsummary: 1234\n\nfn=work\n16 400\ncfn=malloc\ncalls=3 0\n16 60\ncfn=free\ncalls=9 0\n\
                    17 2\nfn=other\ncfn=realloc\ncalls=2 40\n9 1\n";
        let dump = Dump::parse(text).unwrap();
        assert_eq!((dump.instructions, dump.allocations), (1234, 5));
        assert!(Dump::parse("events: Ir\n").is_none());
    }
}
