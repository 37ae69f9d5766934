//! Telling a node to drain, and being told. What draining is, is known to the process behind the node only.

use std::sync::Arc;

use super::message::{Answer, Message};
use super::node::Node;
use super::{subject, wire};
use crate::host::{DrainError, DrainOrder, Drains};
use crate::id::NodeTag;

impl Node {
    /// Tells a live node to drain.
    pub(crate) async fn drain(self: Arc<Self>, to: NodeTag, order: DrainOrder) -> Result<Drains, DrainError> {
        if to == self.me().tag {
            return self.host.drain(order);
        }
        let version = {
            let membership = self.membership.lock();
            let mut live = membership.live();
            let (_, member) = live.find(|(tag, _)| *tag == to).ok_or(DrainError::UnknownNode)?;
            member.vitals.map_or(0, |vitals| vitals.version)
        };
        if version < wire::VERSION_3 {
            return Err(DrainError::TooOld);
        }
        let id = self.requests.next_id();
        match self.ask(to, id, &Message::Drain { id, order }, self.config.request_timeout).await {
            Ok(Some(Answer::Drains(drains))) => Ok(drains),
            Ok(_) => Err(DrainError::NoAnswer),
            Err(_) => Err(DrainError::Unreachable),
        }
    }

    /// Another node passes on that this one is to drain.
    pub(crate) fn drained_by(&self, from: NodeTag, id: u64, order: DrainOrder) {
        tracing::info!(%from, "told to drain");
        // A node without a process of its own has nothing to say.
        if let Ok(drains) = self.host.drain(order) {
            let _ = self.publish(vec![subject::node(from)], &Message::Draining { id, drains }, None);
        }
    }
}
