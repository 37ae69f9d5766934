//! Roomcast: a Socket.IO server for Rust, and the gateway that is built on it.
//!
//! As a library it has the feel of the JavaScript one: namespaces, sockets, rooms, acks, middlewares, and a choice of
//! adapters. Start at [`Io`].
//!
//! ```no_run
//! use roomcast::{Io, Socket};
//!
//! # async fn example() -> std::io::Result<()> {
//! let io = Io::new();
//! io.on_connect(|socket: Socket| async move {
//!     socket.on("add", |a: i64, b: i64| async move { a + b });
//! });
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! roomcast::serve(io, listener, std::future::pending()).await;
//! # Ok(())
//! # }
//! ```
//!
//! Dependencies run one way: `server` makes everything and knows everybody; `transport` and `connection` know bytes and
//! the protocol; `namespace` knows rooms; `backend` and embedded code are handlers of namespaces.

pub mod admin;
mod auth;
pub mod backend;
pub mod cli;
pub mod config;
mod connection;
mod handler;
pub mod metrics;
mod namespace;
mod outbound;
mod server;
mod time;
mod tls;
mod trace;
mod transport;

pub use connection::{EngineHandler, EngineSocket};
pub use handler::{BoxFuture, DisconnectReason, NamespaceHandler, Refusal, Step};
pub use namespace::{
    Ack, AsIs, Broadcast, EmitError, Event, EventContext, EventHandler, FromEvent, Handshake, IntoAck,
    IntoArgs, IntoRooms, JoinError, Namespace, ParentNamespace, Socket, SocketEmitter, ViaContext, ViaResult,
    ViaSerde,
};
pub use roomcast_adapter as adapter;
pub use roomcast_protocol as protocol;
pub use roomcast_protocol::engineio::{CloseReason, Message};
pub use roomcast_protocol::socketio::{Args, ArgsError};
pub use server::{Io, IoBuilder, Peers, PeersError, RunError, run, serve, serve_configured, serve_tls};
pub use tls::{Reloaded, Tls, TlsError};
pub use trace::{TraceError, Tracer};
