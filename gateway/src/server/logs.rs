//! Logs of the binary: where they go, in which form, and from which level on.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, reload};

use super::reload::Target;
use crate::config::{Config, LogFormat};

/// Starts logging. What is returned sets another level.
pub(super) fn init_logs(config: &Config) -> Target {
    let filter = |config: &Config| EnvFilter::try_new(&config.log.level).unwrap_or_default();
    let (level, handle) = reload::Layer::new(filter(config));
    let ansi = std::io::stderr().is_terminal();
    let logs = fmt::layer().with_ansi(ansi).with_writer(std::io::stderr);
    // A program that embeds the gateway may have its own.
    let _ = match config.log.format {
        LogFormat::Text => tracing_subscriber::registry().with(level).with(logs).try_init(),
        LogFormat::Json => tracing_subscriber::registry().with(level).with(logs.json()).try_init(),
    };
    Box::new(move |config| {
        let _ = handle.reload(filter(config));
    })
}
