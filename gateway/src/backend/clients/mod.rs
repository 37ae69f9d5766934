//! The clients of a namespace of the gateway: who is let in, what they may do among themselves, and what goes to backends.
//!
//! Owns the order in which these are asked, and what is remembered of a client. Stock clients need no library for it: all
//! that they say are events.

mod member;
mod rooms;
mod routes;

use std::sync::Arc;
use std::task::Context;

use arc_swap::ArcSwap;

use super::events::Events;
use crate::config::Namespace as Rules;
use crate::handler::{DisconnectReason, NamespaceHandler, Refusal, Step};
use crate::namespace::{Ack, Event, Socket};

pub(crate) use member::Member;

/// Why a client's request is refused: `{"error":{"code":…,"status":…}}` in the ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refused {
    code: &'static str,
    status: u16,
}

const INVALID: Refused = Refused { code: "invalid_request", status: 400 };
const FORBIDDEN: Refused = Refused { code: "forbidden", status: 403 };
const UNKNOWN_EVENT: Refused = Refused { code: "not_found", status: 404 };
const NO_BACKEND: Refused = Refused { code: "backend_unavailable", status: 503 };

/// The handler of a namespace of the gateway.
pub(crate) struct ClientHandler {
    /// May be replaced while clients are connected: each event goes by the rules that hold when it comes.
    rules: ArcSwap<Rules>,
    events: Arc<Events>,
}

impl ClientHandler {
    pub(crate) fn new(rules: Rules, events: Arc<Events>) -> Self {
        Self { rules: ArcSwap::from_pointee(rules), events }
    }

    /// Takes other rules, for the clients that are connected too.
    pub(crate) fn reload(&self, rules: &Rules) {
        self.rules.store(Arc::new(rules.clone()));
    }
}

impl NamespaceHandler for ClientHandler {
    fn admit(&self, socket: &Socket, cx: &mut Context<'_>) -> Step<Result<(), Refusal>> {
        match &self.rules.load().connect {
            Some(backend) => {
                let events = Arc::clone(&self.events);
                Step::start(events.connect(backend.clone(), socket.clone()), cx)
            }
            None => Step::Done(Ok(())),
        }
    }

    fn connected(&self, socket: &Socket, _: &mut Context<'_>) -> Step<()> {
        self.events.connected(&self.rules.load(), socket);
        Step::Done(())
    }

    fn event(&self, socket: &Socket, event: Event, cx: &mut Context<'_>) -> Step<()> {
        let rules = self.rules.load();
        if *event.name == *rules.room_emit {
            Self::emit(&rules, socket, &event, cx)
        } else if *event.name == *rules.room_join {
            self.join(&rules, socket, event, cx)
        } else if *event.name == *rules.room_leave {
            Self::leave(socket, &event)
        } else {
            self.route(&rules, socket, event, cx)
        }
    }

    fn disconnecting(&self, socket: &Socket, reason: DisconnectReason, _: &mut Context<'_>) -> Step<()> {
        self.events.disconnected(&self.rules.load(), socket, reason);
        Step::Done(())
    }
}

fn refuse(ack: &Ack, refused: Refused) -> Step<()> {
    let _ = ack.refuse(refused.code, refused.status);
    Step::Done(())
}
