//! The configuration: one file, the environment over it, flags over that.
//!
//! Owns every setting with its default and its documentation, how they are loaded, and what must hold between them.
//! It binds no port and opens no connection: a [`Config`] is plain data that has been checked.

#![allow(rustdoc::bare_urls, reason = "the same text stands in the commented configuration file")]

mod adapter;
mod admission;
mod api;
mod auth;
mod backend;
mod backend_checks;
mod cookie;
mod cors;
mod drain;
mod engine;
mod error;
mod ingest;
mod ingest_checks;
mod lifecycle_checks;
mod limits;
mod listener;
mod listener_checks;
mod load;
mod log;
mod mailbox;
mod memory;
mod namespace;
mod otel;
mod pattern;
mod peer;
mod peer_checks;
mod public;
mod rebalance;
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
pub use admission::Admission;
pub use api::{Api, ApiJwt, ApiKey, ApiScope};

pub use auth::{Auth, Jwt, JwtAlgorithm};
pub use backend::Backend;
pub(crate) use backend_checks::signing_key;
pub use cookie::{Cookie, SameSite};
pub use cors::Cors;
pub use drain::Drain;
pub use engine::{Engine, HttpCompression, PerMessageDeflate, Transport};
pub use error::{ConfigError, Place, Problem};
pub use ingest::{Ingest, IngestEmitter, IngestNats, IngestRedis, IngestStream};
pub use limits::Limits;
pub use listener::{ClientCertificates, ForwardedHeader, ListenerTls, Network, ProxyProtocol, TlsVersion};
pub use load::{Loaded, Override, Sources};
pub use log::{Log, LogFormat};
pub use mailbox::Mailbox;
pub use memory::MemoryLimit;
pub(crate) use namespace::is_user_room;
pub use namespace::{Access, Namespace, RoomRule};
pub use pattern::RoomPattern;
pub use peer::Peer;
pub use public::Public;
pub(crate) use public::is_same_origin;
pub use rebalance::Rebalance;
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
        admission: Admission,
        drain: Drain,
        rebalance: Rebalance,
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
