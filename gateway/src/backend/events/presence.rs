//! What happens in the cluster, for backends. Owns the task that takes it from the adapter.

use std::sync::Arc;

use roomcast_adapter::PresenceEvent;
use tokio::sync::mpsc;

use super::{CloudEvent, Events};

/// Tells backends what the adapter tells, until it ends. Each thing is told by one node of the cluster.
pub(super) async fn run(events: Arc<Events>, mut presence: mpsc::Receiver<PresenceEvent>) {
    while let Some(event) = presence.recv().await {
        let names = events.names.load();
        let namespace = match &event {
            PresenceEvent::RoomOccupied { namespace, .. }
            | PresenceEvent::RoomVacated { namespace, .. }
            | PresenceEvent::SocketGone { namespace, .. } => namespace,
        };
        let Some(rules) = names.namespaces.get(&**namespace) else { continue };
        let backend = match &event {
            PresenceEvent::RoomOccupied { .. } => &rules.occupied,
            PresenceEvent::RoomVacated { .. } => &rules.vacated,
            PresenceEvent::SocketGone { .. } => &rules.disconnected,
        };
        if let Some(backend) = backend {
            events.tell(backend, CloudEvent::presence(&event));
        }
    }
}
