//! Who is meant: the selector of every call, from JSON to the adapter's. Owns the rule that "everybody" has to be said.

use std::fmt;

use roomcast_adapter::{Room, Selector, SocketId, Target};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};

use crate::backend::Problem;

/// The positive half: `"all"`, or lists.
#[derive(Debug)]
pub(crate) enum To {
    All,
    Lists(Lists),
}

/// A union of rooms, users and sockets.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Lists {
    /// The members of these rooms.
    rooms: Vec<String>,
    /// All the sockets of these users.
    users: Vec<String>,
    /// These sockets.
    #[schemars(with = "Vec<String>")]
    sockets: Vec<SocketId>,
}

/// Who is meant: "all", or a union of rooms, users and sockets that names somebody.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Selector")]
#[expect(dead_code, reason = "the form of `To` for the schema")]
enum ToForm {
    All(AllWord),
    Lists(Lists),
}

#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "the form of `To` for the schema")]
enum AllWord {
    All,
}

impl JsonSchema for To {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        ToForm::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        ToForm::json_schema(generator)
    }
}

impl To {
    /// All the sockets of a user.
    pub(super) fn user(user: String) -> Self {
        Self::Lists(Lists { users: vec![user], ..Lists::default() })
    }
}

impl<'de> Deserialize<'de> for To {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ToVisitor;

        impl<'de> Visitor<'de> for ToVisitor {
            type Value = To;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"all\" or an object with `rooms`, `users` or `sockets`")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<To, E> {
                match text {
                    "all" => Ok(To::All),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<To, A::Error> {
                Lists::deserialize(MapAccessDeserializer::new(map)).map(To::Lists)
            }
        }

        deserializer.deserialize_any(ToVisitor)
    }
}

impl Lists {
    fn rooms(self, field: &str) -> Result<Vec<Room>, Problem> {
        if self.rooms.iter().chain(&self.users).any(String::is_empty) {
            return Err(Problem::invalid(format!("`{field}` has an empty name")));
        }
        let users = self.users.iter().map(|user| Room::from(format!("user:{user}")));
        let sockets = self.sockets.iter().map(|socket| Room::from(socket.as_str()));
        Ok(self.rooms.into_iter().map(Room::from).chain(users).chain(sockets).collect())
    }
}

/// The adapter's selector. Who is meant has to be said: a bug must not be able to reach everybody.
pub(super) fn selector(to: Option<To>, except: Option<Lists>) -> Result<Selector, Problem> {
    let nobody = || Problem::invalid("`to` names nobody: give `rooms`, `users` or `sockets`, or say \"all\"");
    let to = match to.ok_or_else(nobody)? {
        To::All => Target::All,
        To::Lists(lists) => match lists.rooms("to")? {
            rooms if rooms.is_empty() => return Err(nobody()),
            rooms => Target::Rooms(rooms),
        },
    };
    Ok(Selector { to, except: except.unwrap_or_default().rooms("except")?, local: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Selector, String> {
        let to = serde_json::from_str(json).map_err(|error| error.to_string())?;
        selector(Some(to), None).map_err(|problem| problem.detail)
    }

    #[test]
    fn who_is_meant() {
        assert_eq!(read("\"all\"").unwrap(), Selector::all());
        let some = r#"{"rooms":["order:42"],"users":["u7"],"sockets":["AAAAAAAAAAAAAAAAAAAA"]}"#;
        assert_eq!(read(some).unwrap(), Selector::rooms(["order:42", "user:u7", "AAAAAAAAAAAAAAAAAAAA"]));
    }

    #[test]
    fn nobody_and_nonsense_are_refused() {
        for json in ["{}", r#"{"rooms":[]}"#, r#"{"rooms":[""]}"#, r#"{"users":[""]}"#] {
            assert!(read(json).unwrap_err().starts_with("`to` "), "{json}");
        }
        for json in
            ["\"everybody\"", "[]", "1", r#"{"room":["a"]}"#, r#"{"rooms":"a"}"#, r#"{"sockets":["x"]}"#]
        {
            assert!(read(json).is_err(), "{json}");
        }
        assert!(selector(None, None).is_err());
        assert!(
            selector(Some(To::All), Some(Lists { rooms: vec![String::new()], ..Lists::default() })).is_err()
        );
    }
}
