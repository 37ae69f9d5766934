//! The built-in rooms: what the clients of a namespace may do among themselves, without any backend.
//!
//! `room:join`, `room:leave` and `room:emit` come from stock clients as events; the namespace's rules say who may.

use std::sync::Arc;
use std::task::Context;
use std::time::Instant;

use roomcast_adapter::{Outgoing, Room, Selector};
use roomcast_protocol::socketio::{Args, EncodedPacket};

use crate::config::{Access, Namespace as Rules};
use crate::handler::Step;
use crate::namespace::{Ack, Event, Socket, check_event_name};

use super::{ClientHandler, FORBIDDEN, INVALID, Refused, refuse};

/// The longest name of a room that a client may choose, in bytes.
const MAX_ROOM_NAME: usize = 512;

impl ClientHandler {
    pub(super) fn join(rules: &Rules, socket: &Socket, event: Event, cx: &mut Context<'_>) -> Step<()> {
        let room = match room_of(&event.args) {
            Ok(room) if rules.join_access(&room) == Access::Open => room,
            Ok(_) => return refuse(&event.ack, FORBIDDEN),
            Err(refused) => return refuse(&event.ack, refused),
        };
        let socket = socket.clone();
        let join = async move {
            match socket.join(room).await {
                Ok(()) => confirm(&event.ack),
                Err(error) => {
                    let status = if error.code() == "too_many_rooms" { 429 } else { 503 };
                    let _ = event.ack.refuse(error.code(), status);
                }
            }
        };
        Step::start(join, cx)
    }

    pub(super) fn leave(socket: &Socket, event: &Event) -> Step<()> {
        match room_of(&event.args) {
            // The room of its own id is no room that a client could leave.
            Ok(room) if *room != *socket.id().as_str() => {
                socket.leave(&room);
                confirm(&event.ack);
                Step::Done(())
            }
            Ok(_) => refuse(&event.ack, FORBIDDEN),
            Err(refused) => refuse(&event.ack, refused),
        }
    }

    pub(super) fn emit(rules: &Rules, socket: &Socket, event: &Event, cx: &mut Context<'_>) -> Step<()> {
        let (room, name) = match room_of(&event.args).and_then(|room| Ok((room, name_of(&event.args)?))) {
            Ok(target) => target,
            Err(refused) => return refuse(&event.ack, refused),
        };
        let adapter = socket.namespace_inner().adapter();
        let allowed = match rules.emit_access(&room) {
            Access::Open => true,
            Access::Members => adapter.is_member(socket.id(), &room),
            Access::Claims | Access::Webhook | Access::Never => false,
        };
        if !allowed {
            return refuse(&event.ack, FORBIDDEN);
        }
        let args = event.args.skip(2);
        let packet = EncodedPacket::event(socket.namespace_inner().name(), None, &name, &args);
        let outgoing =
            Arc::new(Outgoing { packet, emitted_at: Instant::now(), volatile: false, compress: true });
        let mut selector = Selector::rooms([room]);
        selector.except.push(socket.id().as_str().into());
        if !event.ack.is_wanted() {
            if let Err(error) = adapter.broadcast(&selector, &outgoing) {
                tracing::debug!(%error, "a client's emit did not reach the other nodes");
            }
            return Step::Done(());
        }
        let confirmed = adapter.broadcast_confirmed(&selector, &outgoing);
        let ack = event.ack.clone();
        let answer = async move {
            match confirmed.await {
                Ok(()) => confirm(&ack),
                Err(error) => {
                    let _ =
                        ack.refuse(error.code(), if error.code() == "payload_too_large" { 413 } else { 503 });
                }
            }
        };
        Step::start(answer, cx)
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
