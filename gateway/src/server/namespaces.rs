//! The namespaces that the gateway itself serves, and the rules that they have at a time.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Io;
use crate::backend::clients::{ClientHandler, Clients};
use crate::backend::events::Events;
use crate::config::Config;

/// The namespaces of the configuration and their handlers.
pub(super) struct Namespaces {
    io: Io,
    clients: Arc<Clients>,
    events: Arc<Events>,
    handlers: Mutex<HashMap<String, Arc<ClientHandler>>>,
}

impl Namespaces {
    pub(super) fn new(io: Io, clients: Arc<Clients>, events: Arc<Events>) -> Self {
        Self { io, clients, events, handlers: Mutex::default() }
    }

    /// Gives every namespace its rules. One that is no longer configured keeps those it had until a restart.
    pub(super) fn reload(&self, config: &Config) {
        let mut handlers = self.handlers.lock();
        for rules in &config.namespaces {
            if let Some(handler) = handlers.get(&rules.name) {
                handler.reload(rules);
                continue;
            }
            let (clients, events) = (Arc::clone(&self.clients), Arc::clone(&self.events));
            let handler = Arc::new(ClientHandler::new(rules.clone(), clients, events));
            handlers.insert(rules.name.clone(), Arc::clone(&handler));
            self.io.of(&rules.name).set_handler(handler);
        }
    }
}
