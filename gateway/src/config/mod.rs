//! The configuration: one file, the environment over it, flags over that.
//!
//! Owns every setting with its default and its documentation, how they are loaded, and what must hold between them.
//! It binds no port and opens no connection: a [`Config`] is plain data that has been checked.

#![allow(rustdoc::bare_urls, reason = "the same text stands in the commented configuration file")]

mod adapter;
mod api;
mod auth;
mod backend;
mod backend_checks;
mod cookie;
mod cors;
mod engine;
mod error;
mod ingest;
mod ingest_checks;
mod limits;
mod load;
mod log;
mod mailbox;
mod namespace;
mod pattern;
mod peer;
mod peer_checks;
mod public;
mod reference;
mod reload;
mod route;
mod schema;
mod secret;
mod section;
mod trace;
mod units;
mod unknown;
mod validate;

pub use adapter::{Adapter, AdapterKind, Nats, Outbox, Redis, RedisPubSub, Tls};
pub use api::{Api, ApiJwt, ApiKey, ApiScope};

pub use auth::{Auth, Jwt, JwtAlgorithm};
pub use backend::Backend;
pub(crate) use backend_checks::signing_key;
pub use cookie::{Cookie, SameSite};
pub use cors::Cors;
pub use engine::{Engine, HttpCompression, PerMessageDeflate, Transport};
pub use error::{ConfigError, Place, Problem};
pub use ingest::{Ingest, IngestEmitter, IngestNats, IngestRedis, IngestStream};
pub use limits::Limits;
pub use load::{Loaded, Override, Sources};
pub use log::{Log, LogFormat};
pub use mailbox::Mailbox;
pub(crate) use namespace::is_user_room;
pub use namespace::{Access, Namespace, RoomRule};
pub use pattern::RoomPattern;
pub use peer::Peer;
pub use public::Public;
pub(crate) use public::is_same_origin;
#[cfg(test)]
pub(crate) use reference::golden;
pub use reload::Reload;
pub use route::{Mode, Route};
pub use secret::{Secret, SecretError, SecretUrl};
pub use section::{Key, Kind};
pub use trace::Trace;
pub(crate) use validate::is_reserved_event;

use section::section;

section! {
    /// Roomcast's settings, with their defaults.
    ///
    /// Each can also be an environment variable, such as ROOMCAST__PUBLIC__LISTEN for public.listen; lists with commas. An
    /// empty variable counts as not set. Flags go over the environment, the environment over this file. A key that is not
    /// known is an error.
    pub struct Config {}
    tables {
        public: Public,
        api: Api,
        adapter: Adapter,
        peer: Peer,
        ingest: Ingest,
        engine: Engine,
        cors: Cors,
        cookie: Cookie,
        mailbox: Mailbox,
        auth: Auth,
        limits: Limits,
        log: Log,
        trace: Trace,
        reload: Reload,
    }
    lists {
        namespaces as "namespace": Namespace = vec![Namespace::named("/")],
    }
    maps {
        backends as "backend": Backend,
    }
}

impl Config {
    /// Everything that must hold between the values. A [`Config`] that came from [`Config::load`] has no problems; one
    /// that was put together in code should be asked.
    pub fn problems(&self) -> Vec<Problem> {
        validate::problems(self)
    }
}
