//! Logs.

use super::section::section;

section! {
    /// Logs, on standard error.
    pub struct Log {
        /// "error", "warn", "info", "debug", "trace" or "off"; also for single targets: "info,roomcast::connection=debug".
        level: String = "info".to_owned(),
        /// "text" for people, "json" for collectors.
        format: LogFormat = LogFormat::Text,
    }
}

/// The form of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object in each line.
    Json,
}

/// Whether each part is a level or `target=level`.
pub(super) fn is_filter(text: &str) -> bool {
    text.split(',').all(|part| {
        let (target, level) = part.rsplit_once('=').unwrap_or(("all", part));
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        !target.trim().is_empty() && levels.iter().any(|known| known.eq_ignore_ascii_case(level.trim()))
    })
}
