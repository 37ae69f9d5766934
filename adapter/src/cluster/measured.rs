//! The doors through which `benches/` gets at the bytes between nodes. For nobody else, and behind a feature.

use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::socketio::EncodedPacket;

use super::journey::Journey;
use super::message::{Broadcast, Envelope, Identity, Message};
use super::wire;
use crate::id::NodeTag;
use crate::selector::Selector;

/// An emit as it is published.
pub fn encode_broadcast(from: NodeTag, namespace: &str, selector: &Selector, frames: &Bytes) -> Bytes {
    let broadcast = Broadcast {
        namespace: namespace.into(),
        id: 0,
        selector: selector.clone(),
        volatile: false,
        compress: true,
        journey: Some(Journey { age: Duration::from_millis(1), trace: None }),
        frames: frames.clone(),
    };
    wire::encode(Identity { tag: from, generation: 1 }, &Message::Broadcast(broadcast))
}

/// Reads it as a receiving node does, up to the packet that can be delivered.
pub fn decode_broadcast(payload: Bytes) -> bool {
    match wire::decode(payload) {
        Ok(Envelope { message: Message::Broadcast(broadcast), .. }) => {
            EncodedPacket::from_frames(broadcast.frames).is_ok()
        }
        Ok(_) | Err(_) => false,
    }
}
