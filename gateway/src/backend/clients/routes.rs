//! Events of clients that have a route: to rooms, to a backend that is told or asked, or nowhere.

use std::sync::Arc;
use std::task::Context;

use roomcast_adapter::{Room, Selector, TraceContext};

use super::rooms::{Relayed, may_emit};
use super::{ClientHandler, FORBIDDEN, Member, NO_BACKEND, UNKNOWN_EVENT, refuse};
use crate::config::{Mode, Namespace as Rules, RoomPattern, Route};
use crate::handler::Step;
use crate::namespace::{Event, Socket};

impl ClientHandler {
    /// An event that is none of the built-in ones.
    pub(super) fn route(
        &self,
        rules: &Rules,
        socket: &Socket,
        event: Event,
        trace: Option<TraceContext>,
        cx: &mut Context<'_>,
    ) -> Step<()> {
        let Some(route) = rules.route(&event.name) else { return refuse(&event.ack, UNKNOWN_EVENT) };
        match route.mode {
            Mode::Drop => refuse(&event.ack, FORBIDDEN),
            Mode::Room => self.to_rooms(rules, route, socket, &event, trace, cx),
            Mode::Notify => match self.backend_of(route) {
                Some(backend) => self.notify(&backend, socket, &event, trace),
                None => refuse(&event.ack, NO_BACKEND),
            },
            Mode::Call => match self.backend_of(route) {
                Some(backend) => {
                    let events = Arc::clone(&self.events);
                    Step::start(events.call(backend, socket.clone(), event, trace), cx)
                }
                None => refuse(&event.ack, NO_BACKEND),
            },
        }
    }

    fn backend_of(&self, route: &Route) -> Option<String> {
        route.to.clone().or_else(|| self.events.only())
    }

    fn notify(&self, backend: &str, socket: &Socket, event: &Event, trace: Option<TraceContext>) -> Step<()> {
        let _ = match self.events.notify(backend, socket, event, trace) {
            Ok(()) => event.ack.send(serde_json::json!({ "ok": true })),
            Err(error) => event.ack.refuse(error.code(), error.status()),
        };
        Step::Done(())
    }

    /// Relays an event to the rooms of the client to which it may emit. The client gets no copy.
    fn to_rooms(
        &self,
        rules: &Rules,
        route: &Route,
        socket: &Socket,
        event: &Event,
        trace: Option<TraceContext>,
        cx: &mut Context<'_>,
    ) -> Step<()> {
        let only = route.to.as_deref().map(RoomPattern::from);
        let user = Member::of(socket).and_then(|member| member.user).map(|user| Member::room_of(&user));
        let is_meant = |room: &Room| {
            **room != *socket.id().as_str()
                && user.as_deref() != Some(&**room)
                && only.as_ref().is_none_or(|pattern| pattern.matches(room))
                && may_emit(rules, socket, room)
        };
        let rooms: Vec<Room> = socket.rooms().into_iter().filter(is_meant).collect();
        if rooms.is_empty() {
            return refuse(&event.ack, FORBIDDEN);
        }
        let relayed = Relayed { name: &event.name, args: &event.args, ack: &event.ack };
        self.relay(socket, Selector::rooms(rooms), &relayed, trace, cx)
    }
}
