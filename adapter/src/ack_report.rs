//! Summing up a stream of ack events.

use futures_util::StreamExt;
use roomcast_protocol::socketio::Args;
use rustc_hash::FxHashSet;

use crate::adapter::{AckEvent, AckReport, AckStream};
use crate::id::SocketId;

impl AckReport {
    /// Waits for the end of a stream and sums it up.
    pub async fn collect(mut stream: AckStream) -> Self {
        let mut report = Self::default();
        let mut asked: Vec<SocketId> = Vec::new();
        let mut answered: FxHashSet<SocketId> = FxHashSet::default();
        while let Some(event) = stream.next().await {
            match event {
                AckEvent::Asked(ids) => asked.extend(ids),
                AckEvent::Ack(id, args) => report.take(&mut answered, id, args),
                AckEvent::Gone(_) => {}
                AckEvent::LostNode(node) => report.lost_nodes.push(node),
            }
        }
        report.expected = asked.len();
        report.timed_out = asked.into_iter().filter(|id| !answered.contains(id)).collect();
        report
    }

    fn take(&mut self, answered: &mut FxHashSet<SocketId>, id: SocketId, args: Args) {
        if answered.insert(id) {
            self.acks.push((id, args));
        }
    }
}
