//! A connection: one task that owns the protocol's state machines and carries out what they say.
//!
//! The task knows bytes through its transport and everybody else through its [`Mailbox`]; nothing else touches its state,
//! and there is no lock around it.

mod admission;
mod core;
mod engine;
mod farewell;
mod limits;
mod pace;
mod raw;
mod scratch;
mod sessions;
mod task;
mod wheel;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use roomcast_adapter::{CloseCause, Mailbox};
use roomcast_protocol::engineio::Transport;

pub(crate) use admission::Admission;
pub(crate) use engine::Engine;
pub(crate) use farewell::{Leaving, Linger};
pub(crate) use limits::{Bucket, Limits, Place};
pub use raw::{EngineHandler, EngineSocket};
pub(crate) use scratch::{with_mailbag, with_scratch};
pub(crate) use sessions::{Session, SessionId};
pub(crate) use task::Connection;
pub(crate) use wire::{Signal, Wire, WireQueue};

use crate::namespace::Handshake;

/// What a connection shares with its sockets and with the table of sessions.
#[derive(Debug)]
pub(crate) struct ConnectionShared {
    pub(crate) id: SessionId,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) handshake: Handshake,
    transport: AtomicU8,
    /// It was told to go, so that its client comes back.
    sent_away: AtomicBool,
    /// A POST is being read.
    posting: AtomicBool,
    /// Its place among the connections of its address, where those are counted.
    pub(crate) place: Option<Place>,
}

/// The turn of one POST; given back when it is dropped.
pub(crate) struct PostTurn<'a>(&'a AtomicBool);

impl Drop for PostTurn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl ConnectionShared {
    pub(crate) fn new(
        id: SessionId,
        mailbox: Arc<Mailbox>,
        handshake: Handshake,
        transport: Transport,
        place: Option<Place>,
    ) -> Arc<Self> {
        let kind = AtomicU8::new(0);
        let (sent_away, posting) = (AtomicBool::new(false), AtomicBool::new(false));
        let shared = Self { id, mailbox, handshake, transport: kind, sent_away, posting, place };
        shared.set_transport(transport);
        Arc::new(shared)
    }

    pub(crate) fn transport(&self) -> Transport {
        match self.transport.load(Ordering::Relaxed) {
            0 => Transport::Polling,
            _ => Transport::WebSocket,
        }
    }

    pub(crate) fn set_transport(&self, transport: Transport) {
        self.transport.store(u8::from(transport == Transport::WebSocket), Ordering::Relaxed);
    }

    /// Tells it to go once the acks of its events are written. False if it was told before.
    pub(crate) fn send_away(&self, cause: CloseCause) -> bool {
        let first = !self.sent_away.swap(true, Ordering::Relaxed);
        if first {
            self.mailbox.close(cause);
        }
        first
    }

    pub(crate) fn is_sent_away(&self) -> bool {
        self.sent_away.load(Ordering::Relaxed)
    }

    /// Takes the turn to post, unless another POST has it.
    pub(crate) fn begin_post(&self) -> Option<PostTurn<'_>> {
        (!self.posting.swap(true, Ordering::Acquire)).then_some(PostTurn(&self.posting))
    }
}
