//! The clients of a namespace of the gateway: who is let in, what they may do among themselves, and what goes to backends.
//!
//! Owns the order in which these are asked, and what is remembered of a client. Stock clients need no library for it: all
//! that they say are events.

mod admission;
mod member;
mod revocations;
mod rooms;
mod routes;
mod sessions;
mod shared;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::task::Context;

use arc_swap::ArcSwap;
use roomcast_adapter::Sighted;
use tracing::Instrument as _;

use super::events::{Events, trace_of};
use crate::auth::AuthError;
use crate::config::Namespace as Rules;
use crate::handler::{DisconnectReason, NamespaceHandler, Refusal, Step};
use crate::namespace::{Ack, Event, Socket};
use crate::trace::{EVENT, NAMESPACE, SOCKET, Span};

pub(crate) use member::Member;
pub use revocations::Revocations;
pub(crate) use shared::Clients;

/// Why a client's request is refused: `{"error":{"code":…,"status":…}}` in the ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refused {
    code: &'static str,
    status: u16,
}

const INVALID: Refused = Refused { code: "invalid_request", status: 400 };
const FORBIDDEN: Refused = Refused { code: "forbidden", status: 403 };
const NO_BACKEND: Refused = Refused { code: "backend_unavailable", status: 503 };
const UNKNOWN_EVENT: Refused = Refused { code: "not_found", status: 404 };

impl From<AuthError> for Refused {
    fn from(error: AuthError) -> Self {
        Self { code: error.code(), status: error.status() }
    }
}

/// The handler of a namespace of the gateway.
pub(crate) struct ClientHandler {
    /// May be replaced while clients are connected: each event goes by the rules that hold when it comes.
    rules: ArcSwap<Rules>,
    clients: Arc<Clients>,
    events: Arc<Events>,
}

impl ClientHandler {
    pub(crate) fn new(rules: Rules, clients: Arc<Clients>, events: Arc<Events>) -> Self {
        Self { rules: ArcSwap::from_pointee(rules), clients, events }
    }

    /// Takes other rules, for the clients that are connected too.
    pub(crate) fn reload(&self, rules: &Rules) {
        self.rules.store(Arc::new(rules.clone()));
    }
}

impl NamespaceHandler for ClientHandler {
    fn admit(&self, socket: &Socket, cx: &mut Context<'_>) -> Step<Result<(), Refusal>> {
        let (verifier, backend) = (self.clients.verifier(), self.rules.load().connect.clone());
        if verifier.is_none() && backend.is_none() {
            return Step::Done(Ok(()));
        }
        let (clients, events, socket) = (Arc::clone(&self.clients), Arc::clone(&self.events), socket.clone());
        let admission = async move {
            if let Some(verifier) = verifier {
                clients.identify(&verifier, &socket).await?;
            }
            // The backend sees the verified claims.
            if let Some(backend) = backend {
                let span = asked(&events, "client connects", &socket);
                events.connect(backend, socket.clone(), span.context()).await?;
                // It went by the auth payload, which is a credential then.
                socket.hide_credentials();
            }
            clients.let_in(&socket)
        };
        Step::start(admission, cx)
    }

    fn connected(&self, socket: &Socket, _: &mut Context<'_>) -> Step<()> {
        if let Some(member) = socket.get::<Member>() {
            self.clients.enter(socket, &member);
        }
        self.events.connected(&self.rules.load(), socket);
        Step::Done(())
    }

    fn event(&self, socket: &Socket, event: Event, cx: &mut Context<'_>) -> Step<()> {
        let rules = self.rules.load();
        // What refreshes a session holds a token, which nobody is shown.
        if let Some(verifier) = self.clients.refreshed_by(&event.name) {
            let (clients, socket) = (Arc::clone(&self.clients), socket.clone());
            return Step::start(async move { clients.refresh(&verifier, &socket, &event).await }, cx);
        }
        let (id, name, args) = (socket.id(), &event.name, &event.args);
        self.clients.factory.tap().show(socket.namespace_inner().name(), || Sighted::Event {
            socket: id,
            name: Arc::clone(name),
            args: args.clone(),
        });
        let span = asked(&self.events, "client event", socket).text(EVENT, || Arc::clone(name));
        let trace = span.context();
        let step = span.in_logs().in_scope(|| {
            if *event.name == *rules.room_emit {
                self.emit(&rules, socket, &event, trace, cx)
            } else if *event.name == *rules.room_join {
                self.join(&rules, socket, event, trace, cx)
            } else if *event.name == *rules.room_leave {
                self.leave(socket, &event)
            } else {
                self.route(&rules, socket, event, trace, cx)
            }
        });
        lasting(span, step)
    }

    fn disconnected(&self, socket: &Socket, _: DisconnectReason, _: &mut Context<'_>) -> Step<()> {
        if socket.get::<Member>().is_some() {
            self.clients.leave(socket);
        }
        Step::Done(())
    }

    fn disconnecting(&self, socket: &Socket, reason: DisconnectReason, _: &mut Context<'_>) -> Step<()> {
        self.events.disconnected(&self.rules.load(), socket, reason);
        Step::Done(())
    }
}

/// A span of what a client asks for, in the trace of its handshake if that has one.
fn asked(events: &Events, name: &'static str, socket: &Socket) -> Span {
    let tracer = events.tracer();
    // Who records nothing need not read headers for every event.
    let parent = if tracer.is_on() { trace_of(socket) } else { None };
    let span = tracer.client_root(name, parent);
    span.text(NAMESPACE, || Arc::clone(socket.namespace_inner().name()))
        .text(SOCKET, || socket.id().to_string())
}

/// A span that lasts as long as a step.
fn lasting(span: Span, step: Step<()>) -> Step<()> {
    match step {
        Step::Wait(waiting) if span.is_recording() => {
            let logs = span.in_logs();
            let lasting = async move {
                waiting.await;
                drop(span);
            };
            Step::Wait(Box::pin(lasting.instrument(logs)))
        }
        step => step,
    }
}

fn refuse(ack: &Ack, refused: Refused) -> Step<()> {
    let _ = ack.refuse(refused.code, refused.status);
    Step::Done(())
}
