//! The built-in rooms: what the clients of a namespace may do among themselves, without any backend.
//!
//! `room:join`, `room:leave` and `room:emit` come from stock clients as events; the namespace's rules say who may.

use std::sync::Arc;
use std::task::Context;

use roomcast_adapter::{Outgoing, Room, Selector, SocketId, TraceContext};
use roomcast_protocol::socketio::{Args, EncodedPacket};
use serde_json::Value;

use crate::auth::Grants;
use crate::config::{Access, Namespace as Rules, is_user_room};
use crate::handler::Step;
use crate::namespace::{Ack, Event, Socket, check_event_name};
use crate::trace;

use super::{ClientHandler, FORBIDDEN, INVALID, Member, NO_BACKEND, Refused, refuse};

/// The longest name of a room that a client may choose, in bytes.
const MAX_ROOM_NAME: usize = 512;

impl ClientHandler {
    pub(super) fn join(
        &self,
        rules: &Rules,
        socket: &Socket,
        event: Event,
        trace: Option<TraceContext>,
        cx: &mut Context<'_>,
    ) -> Step<()> {
        let room = match room_of(&event.args) {
            Ok(room) => room,
            Err(refused) => return refuse(&event.ack, refused),
        };
        match rules.join_access(&room) {
            _ if self.is_reserved(&room, socket) => refuse(&event.ack, FORBIDDEN),
            Access::Open => Step::start(join(socket.clone(), room, event.ack, None), cx),
            Access::Claims if grants(socket, |grants| grants.may_join(&room)) => {
                Step::start(join(socket.clone(), room, event.ack, None), cx)
            }
            Access::Webhook => self.ask_to_join(rules, socket, room, event.ack, trace, cx),
            Access::Members | Access::Claims | Access::Never => refuse(&event.ack, FORBIDDEN),
        }
    }

    /// Rooms that are the gateway's: those of users, and those that are named by the id of another socket. Whoever could
    /// join them would get what is meant for one user or one socket. Other names of 20 characters are names like others:
    /// an id begins with the tag of its node, and the rest of it cannot be guessed before the socket is there.
    fn is_reserved(&self, room: &str, socket: &Socket) -> bool {
        let is_anothers = |id: SocketId| id != socket.id() && self.clients.is_live(id.node());
        is_user_room(room) || room.parse().is_ok_and(is_anothers)
    }

    fn ask_to_join(
        &self,
        rules: &Rules,
        socket: &Socket,
        room: Room,
        ack: Ack,
        trace: Option<TraceContext>,
        cx: &mut Context<'_>,
    ) -> Step<()> {
        let named = rules.rule(&room).and_then(|rule| rule.to.as_ref()).or(rules.connect.as_ref());
        let Some(backend) = named.cloned().or_else(|| self.events.only()) else {
            return refuse(&ack, NO_BACKEND);
        };
        let (events, socket) = (Arc::clone(&self.events), socket.clone());
        let asked = events.join(backend, socket.clone(), Arc::clone(&room), trace);
        let step = async move {
            match asked.await {
                Ok(reply) => join(socket, room, ack, reply.ack.clone()).await,
                Err(error) => {
                    let _ = ack.refuse(error.code(), error.status());
                }
            }
        };
        Step::start(step, cx)
    }

    pub(super) fn leave(&self, socket: &Socket, event: &Event) -> Step<()> {
        match room_of(&event.args) {
            // The rooms of its own id and of its user are none that a client could leave.
            Ok(room) if !self.is_reserved(&room, socket) && *room != *socket.id().as_str() => {
                socket.leave(&room);
                confirm(&event.ack);
                Step::Done(())
            }
            Ok(_) => refuse(&event.ack, FORBIDDEN),
            Err(refused) => refuse(&event.ack, refused),
        }
    }

    pub(super) fn emit(
        &self,
        rules: &Rules,
        socket: &Socket,
        event: &Event,
        trace: Option<TraceContext>,
        cx: &mut Context<'_>,
    ) -> Step<()> {
        let (room, name) = match room_of(&event.args).and_then(|room| Ok((room, name_of(&event.args)?))) {
            Ok(target) => target,
            Err(refused) => return refuse(&event.ack, refused),
        };
        if !may_emit(rules, socket, &room) {
            return refuse(&event.ack, FORBIDDEN);
        }
        let relayed = Relayed { name: &name, args: &event.args.skip(2), ack: &event.ack };
        self.relay(socket, Selector::rooms([room]), &relayed, trace, cx)
    }

    /// Emits for a client, which gets no copy, and learns that the broker has it if it asked for an ack.
    pub(super) fn relay(
        &self,
        socket: &Socket,
        mut selector: Selector,
        event: &Relayed<'_>,
        trace: Option<TraceContext>,
        cx: &mut Context<'_>,
    ) -> Step<()> {
        selector.except.push(socket.id().as_str().into());
        let namespace = socket.namespace_inner();
        let packet = EncodedPacket::event(namespace.name(), None, event.name, event.args);
        let mut span = trace::emitting(self.events.tracer(), trace, namespace.name(), event.name);
        let outgoing = Arc::new(Outgoing { trace: span.context(), ..Outgoing::now(packet) });
        if !event.ack.is_wanted() {
            if let Err(error) = namespace.adapter().broadcast(&selector, &outgoing) {
                span.failed(error.code());
                tracing::debug!(%error, "a client's emit did not reach the other nodes");
            }
            return Step::Done(());
        }
        let confirmed = namespace.adapter().broadcast_confirmed(&selector, &outgoing);
        let ack = event.ack.clone();
        let answer = async move {
            match confirmed.await {
                Ok(()) => confirm(&ack),
                Err(error) => {
                    span.failed(error.code());
                    let status = if error.code() == "payload_too_large" { 413 } else { 503 };
                    let _ = ack.refuse(error.code(), status);
                }
            }
        };
        Step::start(answer, cx)
    }
}

/// What a client emits to others.
pub(super) struct Relayed<'a> {
    pub(super) name: &'a str,
    pub(super) args: &'a Args,
    pub(super) ack: &'a Ack,
}

/// Whether the token of a client grants it something.
fn grants(socket: &Socket, asked: impl FnOnce(&Grants) -> bool) -> bool {
    socket.get::<Member>().and_then(|member| member.grants).is_some_and(|grants| asked(&grants))
}

/// Makes a socket join a room, and answers: with the backend's ack, if it gave one.
async fn join(socket: Socket, room: Room, ack: Ack, answer: Option<Vec<Value>>) {
    match (socket.join(room).await, answer.map(Args::from_json_values)) {
        (Ok(()), Some(Ok(args))) => drop(ack.send(args)),
        (Ok(()), _) => confirm(&ack),
        (Err(error), _) => {
            let status = if error.code() == "too_many_rooms" { 429 } else { 503 };
            let _ = ack.refuse(error.code(), status);
        }
    }
}

/// Whether a client may emit to a room.
pub(super) fn may_emit(rules: &Rules, socket: &Socket, room: &str) -> bool {
    match rules.emit_access(room) {
        Access::Open => true,
        Access::Members => socket.namespace_inner().adapter().is_member(socket.id(), room),
        Access::Claims => grants(socket, |grants| grants.may_emit(room)),
        Access::Webhook | Access::Never => false,
    }
}

fn room_of(args: &Args) -> Result<Room, Refused> {
    let room: String = args.get(0).map_err(|_| INVALID)?;
    let valid = !room.is_empty() && room.len() <= MAX_ROOM_NAME;
    valid.then(|| room.into()).ok_or(INVALID)
}

fn name_of(args: &Args) -> Result<String, Refused> {
    let name: String = args.get(1).map_err(|_| INVALID)?;
    check_event_name(&name).map_err(|_| INVALID)?;
    Ok(name)
}

fn confirm(ack: &Ack) {
    let _ = ack.send(serde_json::json!({ "ok": true }));
}
