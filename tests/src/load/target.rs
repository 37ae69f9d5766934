//! A server that can be measured, as a file describes it: how it is started, what its events are called, what it says of
//! itself. Anything that speaks Socket.IO can be a target; those that are here are in `tests/load/targets/`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Error;

/// The folder of the files.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("load/targets")
}

/// One file.
///
/// In commands and variables are replaced: `{port}`, the public listener's; `{api_port}`, another one that is free;
/// `{redis}`, the URL of the broker when there are several nodes; `{bin}`, the folder of this program; `{tests}`, the
/// folder of the tests.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    /// Its name in tables.
    pub(crate) title: String,
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// The same for a program that prints a version and ends; its first line is taken.
    pub(crate) version: Vec<String>,
    /// Environment variables.
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
    /// More of them when there are several nodes. None: it cannot be a cluster.
    pub(crate) cluster: Option<BTreeMap<String, String>>,
    /// More of them for a server that is to be left alone: without heartbeats for as long as system calls are counted.
    #[serde(default)]
    pub(crate) calm: BTreeMap<String, String>,
    pub(crate) events: EventNames,
    /// False: it does not speak HTTP long-polling.
    #[serde(default = "yes")]
    pub(crate) polling: bool,
    /// False: it takes no attachments.
    #[serde(default = "yes")]
    pub(crate) binary: bool,
    /// True: whoever reads nothing for long is disconnected.
    #[serde(default)]
    pub(crate) ends_slow_clients: bool,
    /// Where it tells the number of tasks in its runtime, and nothing else.
    pub(crate) tasks: Option<Page>,
    /// Where it tells what it counts itself.
    pub(crate) metrics: Option<Metrics>,
}

fn yes() -> bool {
    true
}

/// What the events are called that every target knows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EventNames {
    /// `(room)`, acknowledged once the socket is in the room.
    pub(crate) join: String,
    /// `(room, event, argument)`: the event goes to the others in the room.
    pub(crate) broadcast: String,
    /// `(argument)`, acknowledged with the argument. None: it has no such event.
    pub(crate) echo: Option<String>,
}

/// What can be got by HTTP.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// The address of the listener.
    pub(crate) address: String,
    pub(crate) path: String,
}

/// Figures in the format of Prometheus.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metrics {
    pub(crate) page: Page,
    /// The series that counts packets of broadcasts on their way to sockets.
    pub(crate) deliveries: String,
}

impl Target {
    /// A target by its name, or by the path of a file that ends in `.toml`.
    pub(crate) fn load(name: &str) -> Result<Self, Error> {
        let path = if name.ends_with(".toml") { name.into() } else { folder().join(format!("{name}.toml")) };
        let text = fs::read_to_string(&path).map_err(|error| {
            format!("no target {name}: {}: {error}; there are: {}", path.display(), names().join(", "))
        })?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    /// Measures another program in place of its own.
    pub(crate) fn with_program(mut self, program: &Path) -> Self {
        for command in [&mut self.command, &mut self.version] {
            if let Some(first) = command.first_mut() {
                *first = program.display().to_string();
            }
        }
        self
    }
}

/// The targets that are here.
pub(crate) fn names() -> Vec<String> {
    let files = fs::read_dir(folder()).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        files.filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".toml")?.to_owned())).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_target() {
        let names = names();
        assert!(names.len() >= 6, "{names:?}");
        for name in names {
            let target = Target::load(&name).unwrap();
            assert!(!target.command.is_empty() && !target.version.is_empty(), "{name}");
        }
    }

    #[test]
    fn an_unknown_target_names_those_that_are_there() {
        let error = Target::load("nobody").unwrap_err().to_string();
        assert!(error.contains("nobody") && error.contains("roomcast"), "{error}");
    }
}
