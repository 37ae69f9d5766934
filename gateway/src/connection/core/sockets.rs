//! The sockets of a connection, by slot of its client: one for each namespace that it has joined or asks for. Owns who is
//! where, and what each slot has left of its rate.

use std::ops::Range;
use std::time::Instant;

use roomcast_adapter::SocketId;

use crate::connection::{Bucket, Limits};
use crate::namespace::{Phase, Socket};

#[derive(Default)]
pub(super) struct Sockets(Vec<Option<Socket>>);

impl Sockets {
    pub(super) fn get(&self, slot: usize) -> Option<&Socket> {
        self.0.get(slot)?.as_ref()
    }

    pub(super) fn insert(&mut self, slot: usize, socket: Socket) {
        if self.0.len() <= slot {
            self.0.reserve_exact(slot + 1 - self.0.len());
            self.0.resize(slot + 1, None);
        }
        self.0[slot] = Some(socket);
    }

    pub(super) fn remove(&mut self, slot: usize) -> Option<Socket> {
        self.0.get_mut(slot)?.take()
    }

    /// All of them, which are gone then.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Socket> + use<> {
        std::mem::take(&mut self.0).into_iter().flatten()
    }

    /// Every slot, whether there is a socket or not.
    pub(super) fn slots(&self) -> Range<usize> {
        0..self.0.len()
    }

    pub(super) fn slot_of(&self, id: SocketId) -> Option<usize> {
        self.0.iter().position(|socket| socket.as_ref().is_some_and(|socket| socket.id() == id))
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &Socket)> {
        self.0.iter().enumerate().filter_map(|(slot, socket)| Some((slot, socket.as_ref()?)))
    }

    /// Those that are in their namespace and whose client does not know it yet.
    pub(super) fn untold(&self) -> impl Iterator<Item = (usize, &Socket)> {
        self.iter().filter(|(_, socket)| matches!(socket.phase(), Phase::Joined | Phase::Impatient))
    }

    /// Those of them whose client must be told now.
    pub(super) fn impatient(&self) -> impl Iterator<Item = (usize, &Socket)> {
        self.iter().filter(|(_, socket)| socket.phase() == Phase::Impatient)
    }

    /// Whether somebody waits for an ack of the client.
    pub(super) fn owes_acks(&self) -> bool {
        let mut connected = self.0.iter().flatten().filter(|socket| socket.is_connected());
        connected.any(|socket| socket.namespace_inner().adapter().owes_acks(socket.id()))
    }
}

/// What each slot has left of its rate; empty as long as there is no limit.
#[derive(Default)]
pub(super) struct Rates(Vec<Option<Box<Bucket>>>);

impl Rates {
    /// Whether a slot has not sent more events than it may (`limits.events_per_second`).
    pub(super) fn allow_event(&mut self, limits: &Limits, slot: usize) -> bool {
        if !limits.counts_events() {
            self.0 = Vec::new();
            return true;
        }
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        self.0.get_mut(slot).is_none_or(|bucket| limits.allows_event(bucket, Instant::now()))
    }
}
