//! The committed counts, and the judgement of new ones.

use std::fmt::Write as _;
use std::path::Path;
use std::{fs, io};

use super::callgrind::{Count, Error};

/// How much more a case may cost than its baseline says, in per cent.
const TOLERANCE: f64 = 3.0;

/// The same where another compiler made the code. It may well be better or worse by more than 3 % for no change of ours;
/// what is worse than this is worth a look all the same.
const TOLERANCE_OF_ANOTHER_COMPILER: f64 = 15.0;

/// How many calls of the allocator more than its baseline a case may make: a mean over a hundred times may have a queue
/// that grew once, and who allocates a hundred times a table.
const SPARE_ALLOCATIONS: f64 = 0.1;
const SPARE_ALLOCATIONS_PER_CENT: f64 = 1.0;

/// Below this many instructions a single one is more than the tolerance.
const SPARE: f64 = 1.0;

const RUSTC: &str = env!("COUNTED_RUSTC");

const HEAD: &str = "\
# Instructions of one operation each, and calls of the allocator, by callgrind. Who makes one dearer by more than 3 %, or
# lets it allocate more, moves its line in the same commit and says why: UPDATE_GOLDEN=1 ./tests/run bench
";

/// What the cases cost when somebody last looked.
#[derive(Debug, PartialEq)]
pub(crate) struct Baseline {
    compiler: String,
    counts: Vec<Count>,
}

/// What there is to say of a case.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// Within the tolerance, by this many per cent.
    Holds(f64),
    Dearer(f64),
    /// So many times more.
    Allocates(f64),
    /// So much that the baseline hides what may be lost again.
    Cheaper(f64),
    /// Without a line in the baseline.
    New,
}

impl Baseline {
    pub(crate) fn of(counts: &[Count]) -> Self {
        Self { compiler: compiler(), counts: counts.to_vec() }
    }

    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::NoBaseline(path.to_owned()),
            _ => Error::Io(path.to_owned(), error),
        })?;
        Self::parse(&text).map_err(|line| Error::Baseline { path: path.to_owned(), line })
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        fs::write(path, self.to_text()).map_err(|error| Error::Io(path.to_owned(), error))
    }

    /// A file's text; an error is the number of the line that is wrong.
    fn parse(text: &str) -> Result<Self, usize> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty());
        let mut lines = lines.map(|(at, line)| (at + 1, line));
        let (_, compiler) = lines.next().ok_or(0_usize)?;
        let count = |(at, line): (usize, &str)| {
            let (rest, allocations) = line.rsplit_once("  ").ok_or(at)?;
            let (name, each) = rest.trim_end().rsplit_once("  ").ok_or(at)?;
            let number = |text: &str| text.trim().parse().map_err(|_| at);
            Ok(Count {
                name: name.trim_end().to_owned(),
                each: number(each)?,
                allocations: number(allocations)?,
            })
        };
        Ok(Self { compiler: compiler.to_owned(), counts: lines.map(count).collect::<Result<_, usize>>()? })
    }

    fn to_text(&self) -> String {
        let mut text = format!("{HEAD}{}\n", self.compiler);
        for count in &self.counts {
            // Writing into a string does not fail.
            let _ = writeln!(text, "{:<56}  {:>12.1}  {:>10.2}", count.name, count.each, count.allocations);
        }
        text
    }

    /// Prints each case with its verdict. True if all hold.
    pub(crate) fn judge(&self, counts: &[Count]) -> bool {
        let same_compiler = self.compiler == compiler();
        let tolerance = if same_compiler { TOLERANCE } else { TOLERANCE_OF_ANOTHER_COMPILER };
        if !same_compiler {
            println!(
                "the baseline is of {}, this is {}: {tolerance} % are tolerated in place of {TOLERANCE} %",
                self.compiler,
                compiler()
            );
        }
        let mut holds = true;
        for count in counts {
            let verdict = self.verdict(count, tolerance);
            holds &= verdict.holds();
            let Count { name, each, allocations } = count;
            println!("{name:<56}  {each:>12.1}  {allocations:>10.2}  {}", verdict.text(tolerance));
        }
        for gone in self.counts.iter().filter(|old| !counts.iter().any(|count| count.name == old.name)) {
            println!(
                "{:<56}  {:>12}  {:>10}  FAILED: in the baseline, but no case any more",
                gone.name, "", ""
            );
            holds = false;
        }
        holds
    }

    fn verdict(&self, count: &Count, tolerance: f64) -> Verdict {
        let Some(old) = self.counts.iter().find(|old| old.name == count.name) else { return Verdict::New };
        let more = count.each - old.each;
        let per_cent = more / old.each.max(SPARE) * 100.0;
        let allocations = count.allocations - old.allocations;
        let spare = SPARE_ALLOCATIONS + old.allocations * SPARE_ALLOCATIONS_PER_CENT / 100.0;
        match () {
            () if allocations > spare => Verdict::Allocates(allocations),
            () if more > SPARE && per_cent > tolerance => Verdict::Dearer(per_cent),
            () if -more > SPARE && -per_cent > tolerance => Verdict::Cheaper(-per_cent),
            () => Verdict::Holds(per_cent),
        }
    }
}

impl Verdict {
    fn holds(&self) -> bool {
        match self {
            Self::Holds(_) | Self::Cheaper(_) => true,
            Self::Dearer(_) | Self::Allocates(_) | Self::New => false,
        }
    }

    fn text(&self, tolerance: f64) -> String {
        match self {
            Self::Holds(per_cent) => format!("{per_cent:+.1} %"),
            Self::Dearer(per_cent) => format!("FAILED: {per_cent:+.1} %, tolerated are {tolerance} %"),
            Self::Allocates(more) => format!("FAILED: allocates {more:.2} times more"),
            Self::Cheaper(per_cent) => {
                format!("-{per_cent:.1} %: move the baseline, so that it is not lost again (UPDATE_GOLDEN=1)")
            }
            Self::New => "FAILED: not in the baseline (UPDATE_GOLDEN=1)".to_owned(),
        }
    }
}

/// The compiler and the machine that it compiles for: both make other instructions of the same code.
fn compiler() -> String {
    format!("{RUSTC} for {}", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(each: &[(&str, f64)]) -> Vec<Count> {
        let count =
            |(name, each): &(&str, f64)| Count { name: (*name).to_owned(), each: *each, allocations: 2.0 };
        each.iter().map(count).collect()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let baseline = Baseline::of(&counts(&[("decode a text", 120.0), ("a, to 1,000", 35_412.5)]));
        assert_eq!(Baseline::parse(&baseline.to_text()), Ok(baseline));
        assert_eq!(Baseline::parse("# head\nrustc 1\n\nno number here\n"), Err(4));
        assert_eq!(Baseline::parse("# head only\n"), Err(0));
    }

    #[test]
    fn three_per_cent_are_tolerated_and_no_more() {
        let baseline = Baseline::of(&counts(&[("work", 1000.0), ("tiny", 4.0)]));
        let judge = |name, each| baseline.judge(&counts(&[(name, each), ("other", 0.0)])[..1]);
        let verdict = |name, each| baseline.verdict(&counts(&[(name, each)])[0], TOLERANCE);
        assert_eq!(verdict("work", 1030.0), Verdict::Holds(3.0));
        assert!(matches!(verdict("work", 1031.0), Verdict::Dearer(_)));
        assert!(matches!(verdict("work", 900.0), Verdict::Cheaper(_)));
        assert!(matches!(verdict("tiny", 5.0), Verdict::Holds(_)), "one instruction is no regression");
        assert_eq!(verdict("unknown", 1.0), Verdict::New);
        let allocates = Count { allocations: 3.0, ..counts(&[("work", 1000.0)])[0].clone() };
        assert_eq!(baseline.verdict(&allocates, TOLERANCE), Verdict::Allocates(1.0));
        assert!(!judge("work", 1000.0), "a line without a case is stale");
    }

    #[test]
    fn all_lines_have_to_hold() {
        let baseline = Baseline::of(&counts(&[("one", 100.0), ("two", 100.0)]));
        assert!(baseline.judge(&counts(&[("one", 102.0), ("two", 50.0)])));
        assert!(!baseline.judge(&counts(&[("one", 100.0), ("two", 120.0)])));
    }

    #[test]
    fn another_compiler_gets_more_room() {
        let mut baseline = Baseline::of(&counts(&[("work", 1000.0)]));
        assert!(!baseline.judge(&counts(&[("work", 1100.0)])));
        baseline.compiler = "rustc 1.0.0 for pdp11".to_owned();
        assert!(baseline.judge(&counts(&[("work", 1100.0)])));
        assert!(!baseline.judge(&counts(&[("work", 1200.0)])));
    }
}
