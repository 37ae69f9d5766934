//! What each thing costs, with where the figure is from.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Why there are no constants.
#[derive(Debug, thiserror::Error)]
pub enum ConstantsError {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// It is not what it has to be.
    #[error("the constants: {0}")]
    Parse(#[from] toml::de::Error),
}

/// Where a figure is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// By the command in `how`, on our machine.
    Measured,
    /// By somebody else, in print.
    Published,
    /// It follows from the code.
    Counted,
    /// Nobody has measured it: a guess, on the safe side, with its reason in `how`.
    Assumed,
    /// It is a choice, of machines or of how full they may be.
    Chosen,
}

/// A line of the table.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    /// The field of [`Constants`].
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: String,
    /// Where it is from.
    pub kind: Kind,
    /// The command, or the reason.
    pub how: String,
    /// The day.
    pub when: String,
    /// What it is.
    pub what: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    constant: Vec<Constant>,
}

/// All constants. Times of processors are in microseconds; what each is stands in the file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each is described in the file, which has the same names")]
pub struct Constants {
    pub connection_bytes: f64,
    pub kernel_bytes: f64,
    pub membership_bytes: f64,
    pub redis_room_bytes: f64,
    pub nats_room_bytes: f64,
    pub owned_room_bytes: f64,
    pub owned_share_bytes: f64,
    pub owned_socket_bytes: f64,
    pub member_bytes: f64,
    pub process_bytes: f64,

    pub heartbeat_us: f64,
    pub connect_us: f64,
    pub delivery_us: f64,
    pub delivery_saturated_us: f64,
    pub publish_us: f64,
    pub receive_us: f64,
    pub subscribe_us: f64,
    pub entry_us: f64,
    pub visit_us: f64,

    pub redis_publish_us: f64,
    pub redis_send_us: f64,
    pub redis_subscribe_us: f64,
    pub redis_subscription_bytes: f64,
    pub nats_publish_us: f64,
    pub nats_send_us: f64,
    pub nats_subscribe_us: f64,
    pub nats_subscription_bytes: f64,
    pub envelope_bytes: f64,
    pub control_bytes: f64,
    pub entry_bytes: f64,

    pub node_cores: f64,
    pub node_memory: f64,
    pub node_descriptors: f64,
    pub large_cores: f64,
    pub large_memory: f64,
    pub large_descriptors: f64,
    pub redis_cores: f64,
    pub nats_cores: f64,
    pub broker_memory: f64,
    pub broker_bandwidth: f64,
    pub cpu_fill: f64,
    pub memory_fill: f64,
    pub descriptor_fill: f64,
    pub spare: f64,
    pub storm_seconds: f64,
}

/// The file of this repository.
pub fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations/scaling.toml")
}

/// Reads a file: the lines in their order, and their values by name.
///
/// # Errors
///
/// A constant that is missing, that nobody knows, or that does not say where it is from.
pub fn read(path: &Path) -> Result<(Vec<Constant>, Constants), ConstantsError> {
    let text = fs::read_to_string(path).map_err(|error| ConstantsError::Read(path.to_owned(), error))?;
    parse(&text)
}

fn parse(text: &str) -> Result<(Vec<Constant>, Constants), ConstantsError> {
    let File { constant: lines } = toml::from_str(text)?;
    let values = lines.iter().map(|line| (line.name.clone(), toml::Value::Float(line.value)));
    let values = toml::Value::Table(values.collect());
    Ok((lines, Constants::deserialize(values)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constant_is_there_once_and_says_where_it_is_from() {
        let (lines, _) = read(&path()).unwrap();
        let mut names: Vec<_> = lines.iter().map(|line| line.name.as_str()).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|two| two[0] != two[1]), "{names:?}");
        for line in &lines {
            assert!(line.value.is_finite() && line.value > 0.0, "{}", line.name);
            for text in [&line.unit, &line.how, &line.what, &line.when] {
                assert!(!text.trim().is_empty() && !text.contains(['|', '\n']), "{}", line.name);
            }
        }
    }

    #[test]
    fn what_is_missing_or_unknown_is_refused() {
        let text = fs::read_to_string(path()).unwrap();
        assert!(parse(&text.replace("\"receive_us\"", "\"recieve_us\"")).is_err());
        assert!(parse(&text.replace("unit = ", "units = ")).is_err());
    }
}
