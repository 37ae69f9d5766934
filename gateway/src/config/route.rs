//! Where the events of clients go. Owns which route an event takes; going it is the handler's.

use super::RoomPattern;
use super::section::section;

section! {
    /// Where events of some names go: the first route that matches. An event that none matches is refused.
    pub struct Route {
        /// The names: "*" stands for any text.
        event: RoomPattern = RoomPattern::default(); example "\"cart.*\"",
        /// "call": a backend is asked, and its reply is the client's ack. "notify": a backend is told, a little later and
        /// together with other events. "room": no backend; the event goes to the rooms of the client, as far as it may emit
        /// to them. "drop": refused.
        mode: Mode = Mode::Call,
        /// For "call" and "notify" the backend; it may be left out if there is only one. For "room" a pattern of the rooms,
        /// such as "doc:{id}"; left out: all that the client is in.
        to: Option<String> = None; example "\"orders\"",
    }
}

/// What happens to an event of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It goes to rooms of the client.
    Room,
    /// A backend is told.
    Notify,
    /// A backend is asked.
    Call,
    /// It is refused.
    Drop,
}

impl super::Namespace {
    /// The route of an event.
    pub fn route(&self, event: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.event.matches(event))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Namespace;
    use super::*;

    #[test]
    fn the_first_route_that_matches_is_taken() {
        let route = |event: &str, mode| Route { event: event.into(), mode, to: None };
        let mut namespace = Namespace::named("/");
        assert_eq!(namespace.route("x"), None);
        namespace.routes = vec![
            route("cart.get", Mode::Call),
            route("cart.*", Mode::Notify),
            route("secret", Mode::Drop),
            route("*", Mode::Room),
        ];
        let mode = |event: &str| namespace.route(event).map(|route| route.mode);
        assert_eq!(mode("cart.get"), Some(Mode::Call));
        assert_eq!(mode("cart.add"), Some(Mode::Notify));
        assert_eq!(mode("secret"), Some(Mode::Drop));
        assert_eq!(mode("cart"), Some(Mode::Room));
    }
}
