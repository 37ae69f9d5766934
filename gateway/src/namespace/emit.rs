//! What can be emitted, and why it may fail.

use roomcast_adapter::AdapterError;
use roomcast_protocol::socketio::{Args, ArgsError};
use serde::Serialize;

/// Why an emit failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The socket is gone.
    #[error("the socket is disconnected")]
    Disconnected,
    /// The name belongs to Socket.IO itself.
    #[error("\"{0}\" is a reserved event name")]
    ReservedName(String),
    /// The arguments cannot be written as JSON.
    #[error(transparent)]
    Args(#[from] ArgsError),
    /// The cluster was not reached; local sockets were.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// No ack came in time.
    #[error("the ack did not come in time")]
    Timeout,
}

impl EmitError {
    /// A stable name for logs, metrics and ack errors.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::ReservedName(_) => "reserved_event",
            Self::Args(error) => error.code(),
            Self::Adapter(error) => error.code(),
            Self::Timeout => "timeout",
        }
    }
}

/// Names that a server may not emit (socket.io, `RESERVED_EVENTS`).
const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Refuses the names that Socket.IO keeps for itself.
pub(crate) fn check_event_name(name: &str) -> Result<(), EmitError> {
    if RESERVED_EVENTS.contains(&name) {
        return Err(EmitError::ReservedName(name.to_owned()));
    }
    Ok(())
}

/// How a value becomes arguments; chosen by the compiler.
#[derive(Debug)]
pub struct ViaSerde;

/// How a value becomes arguments; chosen by the compiler.
#[derive(Debug)]
pub struct AsIs;

/// What can be emitted: every `Serialize` value (a tuple is several arguments, `()` none, everything else one; bytes
/// become binary attachments), and [`Args`] as they came.
pub trait IntoArgs<M> {
    /// The arguments.
    fn into_args(self) -> Result<Args, ArgsError>;
}

impl<T: Serialize> IntoArgs<ViaSerde> for T {
    fn into_args(self) -> Result<Args, ArgsError> {
        Args::from_serialize(&self)
    }
}

impl IntoArgs<AsIs> for Args {
    fn into_args(self) -> Result<Args, ArgsError> {
        Ok(self)
    }
}

impl IntoArgs<AsIs> for &Args {
    fn into_args(self) -> Result<Args, ArgsError> {
        Ok(self.clone())
    }
}
