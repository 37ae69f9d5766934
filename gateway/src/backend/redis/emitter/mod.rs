//! What Socket.IO's Redis emitters publish, for the clients of this node.
//!
//! Redis gives each message to every node, so each node delivers to its own sockets and passes nothing on. Patterns are
//! listened to, never channels: Socket.IO's servers count the subscribers of a request's channel and wait for as many
//! answers, and a pattern is not counted. So the gateway can share a Redis with such servers, whose requests among
//! themselves it leaves alone. Nothing that is read here can end a node: what is no message is counted and dropped.

mod message;
mod msgpack;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use roomcast_adapter::redis::RedisListener;
use roomcast_adapter::{Adapter, Outgoing};
use roomcast_protocol::socketio::EncodedPacket;

use self::message::{Dropped, Emit, Request};
use crate::backend::Node;
use crate::backend::ingest::{Source, Tally};
use crate::namespace::check_event_name;

/// What a pattern carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carries {
    Broadcasts,
    Requests,
}

struct Pattern {
    text: String,
    carries: Carries,
    namespace: Arc<str>,
}

/// Takes messages of emitters.
pub(super) struct Emitter {
    node: Arc<dyn Node>,
    patterns: Vec<Pattern>,
    max_attachments: usize,
    tally: Tally,
}

impl Emitter {
    /// `key` is what the channels begin with.
    pub(super) fn new(
        node: &Arc<dyn Node>,
        key: &str,
        namespaces: impl IntoIterator<Item = Arc<str>>,
        max_attachments: usize,
    ) -> Self {
        let patterns = namespaces.into_iter().flat_map(|namespace| {
            let (key, name) = (literal(key), literal(&namespace));
            let pattern = |text, carries| Pattern { text, carries, namespace: Arc::clone(&namespace) };
            [
                // With one room, its name and another `#` follow.
                pattern(format!("{key}#{name}#*"), Carries::Broadcasts),
                pattern(format!("{key}-request#{name}#"), Carries::Requests),
            ]
        });
        let tally = Tally::new(node.metrics(), Source::RedisEmitter);
        Self { node: Arc::clone(node), patterns: patterns.collect(), max_attachments, tally }
    }

    /// What to listen to.
    pub(super) fn patterns(&self) -> Vec<String> {
        self.patterns.iter().map(|pattern| pattern.text.clone()).collect()
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    fn take(&self, pattern: &Pattern, payload: Bytes) -> Result<(), Dropped> {
        let namespace = &pattern.namespace;
        let adapter = self.node.adapter(namespace).ok_or(Dropped::OtherNamespace)?;
        match pattern.carries {
            Carries::Broadcasts => {
                let emit = message::broadcast(payload, namespace, self.max_attachments)?;
                self.emit(namespace, &*adapter, emit)
            }
            Carries::Requests => {
                self.carry_out(namespace, &*adapter, message::request(&payload)?);
                Ok(())
            }
        }
    }

    fn emit(&self, namespace: &str, adapter: &dyn Adapter, emit: Emit) -> Result<(), Dropped> {
        check_event_name(&emit.name).map_err(|_| Dropped::Refused)?;
        let packet = EncodedPacket::event(namespace, None, &emit.name, &emit.args);
        let Emit { selector, volatile, compress, .. } = emit;
        let outgoing = Outgoing { volatile, compress, ..Outgoing::now(packet) };
        // Of this node alone, which needs no broker.
        let _ = adapter.broadcast(&selector, &Arc::new(outgoing));
        Ok(())
    }

    fn carry_out(&self, namespace: &str, adapter: &dyn Adapter, request: Request) {
        // What concerns this node's sockets is done when the call returns. That the rooms are subscribed to at the
        // broker, for other nodes' emits, follows by itself; an emitter has nobody to tell.
        match request {
            Request::Join(selector, rooms) => drop(adapter.sockets_join(&selector, &rooms).now_or_never()),
            Request::Leave(selector, rooms) => drop(adapter.sockets_leave(&selector, &rooms).now_or_never()),
            Request::Disconnect(selector, close) => {
                drop(adapter.disconnect_sockets(&selector, close).now_or_never());
            }
            Request::ServerEvent(name, args) => self.node.server_side_event(namespace, &name, args),
        }
    }
}

impl RedisListener for Emitter {
    fn message(&self, pattern: &str, _channel: &str, payload: Bytes) {
        let Some(pattern) = self.patterns.iter().find(|known| known.text == pattern) else { return };
        match self.take(pattern, payload) {
            Ok(()) => self.tally.count("done"),
            Err(dropped) => {
                tracing::debug!(reason = dropped.as_str(), "a message of an emitter was dropped");
                self.tally.count(dropped.as_str());
            }
        }
    }
}

/// A text as a pattern of Redis that matches nothing else.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}
