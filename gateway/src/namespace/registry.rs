//! The namespaces of a node: static ones, and those that a pattern or a function makes on demand.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;
use roomcast_adapter::AdapterFactory;

use super::code::{Code, CodeHandler};
use super::listeners::Listeners;
use super::namespace::{Namespace, NamespaceInner};
use crate::handler::NamespaceHandler;
use crate::metrics::Metrics;

/// Decides whether a namespace that nobody has made may be made: its name and the auth payload (a JSON object).
pub(crate) type Matcher = Arc<dyn Fn(&str, &str) -> bool + Send + Sync>;
type NewNamespaceListener = Arc<dyn Fn(&Namespace) + Send + Sync>;

/// Namespaces made on demand that a node keeps at most; clients name them.
pub(crate) const MAX_DYNAMIC_NAMESPACES: usize = 10_000;

struct Parent {
    matches: Matcher,
    code: Arc<Code>,
    handler: RwLock<Option<Arc<dyn NamespaceHandler>>>,
}

#[derive(Default)]
struct Known {
    by_name: HashMap<Arc<str>, Arc<NamespaceInner>>,
    dynamic: usize,
}

pub(crate) struct Registry {
    factory: Arc<dyn AdapterFactory>,
    metrics: Arc<Metrics>,
    max_rooms_per_socket: usize,
    known: RwLock<Known>,
    parents: RwLock<Vec<Arc<Parent>>>,
    on_new: RwLock<Vec<NewNamespaceListener>>,
}

impl Registry {
    pub(crate) fn new(
        factory: Arc<dyn AdapterFactory>,
        metrics: Arc<Metrics>,
        max_rooms_per_socket: usize,
    ) -> Self {
        Self {
            factory,
            metrics,
            max_rooms_per_socket,
            known: RwLock::default(),
            parents: RwLock::default(),
            on_new: RwLock::default(),
        }
    }

    pub(crate) fn factory(&self) -> &Arc<dyn AdapterFactory> {
        &self.factory
    }

    /// A static namespace, made if it is not there.
    pub(crate) fn of(&self, name: &str) -> Namespace {
        let name = if name.starts_with('/') { name.to_owned() } else { format!("/{name}") };
        if let Some(known) = self.get(&name) {
            return known;
        }
        let mut known = self.known.write();
        let entry = known.by_name.entry(name.as_str().into());
        let inner = entry.or_insert_with(|| self.make(&name, Arc::default()));
        Namespace::from_inner(Arc::clone(inner))
    }

    /// A namespace that is there.
    pub(crate) fn get(&self, name: &str) -> Option<Namespace> {
        self.known.read().by_name.get(name).map(|inner| Namespace::from_inner(Arc::clone(inner)))
    }

    pub(crate) fn names(&self) -> Vec<Arc<str>> {
        self.known.read().by_name.keys().cloned().collect()
    }

    /// The namespace that a client asks for: one that is there, or one that a parent lets it have.
    pub(crate) fn find(&self, name: &str, auth: &str) -> Option<Arc<NamespaceInner>> {
        if let Some(inner) = self.known.read().by_name.get(name) {
            return Some(Arc::clone(inner));
        }
        let parents = self.parents.read().clone();
        let parent = parents.iter().find(|parent| (parent.matches)(name, auth))?;
        self.adopt(name, parent)
    }

    fn adopt(&self, name: &str, parent: &Parent) -> Option<Arc<NamespaceInner>> {
        let mut known = self.known.write();
        if let Some(inner) = known.by_name.get(name) {
            return Some(Arc::clone(inner));
        }
        if known.dynamic >= MAX_DYNAMIC_NAMESPACES {
            tracing::warn!(limit = MAX_DYNAMIC_NAMESPACES, "too many dynamic namespaces: one was refused");
            return None;
        }
        let inner = self.make(name, Arc::clone(&parent.code));
        let namespace = Namespace::from_inner(Arc::clone(&inner));
        if let Some(handler) = &*parent.handler.read() {
            namespace.set_handler(Arc::clone(handler));
        }
        known.by_name.insert(Arc::clone(inner.name()), Arc::clone(&inner));
        known.dynamic += 1;
        drop(known);
        // A listener may add another one: the lock is not held while it runs.
        let listeners = self.on_new.read().clone();
        for listener in listeners {
            listener(&namespace);
        }
        Some(inner)
    }

    fn make(&self, name: &str, code: Arc<Code>) -> Arc<NamespaceInner> {
        NamespaceInner::new(name, &*self.factory, code, self.max_rooms_per_socket, &self.metrics)
    }

    pub(crate) fn add_parent(&self, matches: Matcher) -> ParentNamespace {
        let parent = Arc::new(Parent { matches, code: Arc::default(), handler: RwLock::new(None) });
        self.parents.write().push(Arc::clone(&parent));
        ParentNamespace { parent }
    }

    pub(crate) fn on_new(&self, listener: impl Fn(&Namespace) + Send + Sync + 'static) {
        self.on_new.write().push(Arc::new(listener));
    }
}

/// All namespaces that a pattern or a function makes: what is attached here is attached to each of them.
#[derive(Clone)]
pub struct ParentNamespace {
    parent: Arc<Parent>,
}

impl ParentNamespace {
    /// Called for each socket that joins one of the namespaces: see [`Namespace::on_connect`].
    pub fn on_connect<F, Fut>(&self, listener: F) -> &Self
    where
        F: Fn(super::Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.parent.code.add_on_connect(listener);
        self
    }

    /// Adds a middleware: see [`Namespace::use_middleware`].
    pub fn use_middleware<F, Fut>(&self, middleware: F) -> &Self
    where
        F: Fn(super::Socket) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), crate::Refusal>> + Send + 'static,
    {
        self.parent.code.add_middleware(middleware);
        self
    }

    pub(super) fn with_listeners<R>(&self, change: impl FnOnce(&mut Listeners) -> R) -> R {
        self.parent.code.with_listeners(change)
    }

    /// Replaces the handler of the namespaces that are made from now on.
    pub fn set_handler(&self, handler: Arc<dyn NamespaceHandler>) -> &Self {
        *self.parent.handler.write() = Some(handler);
        self
    }

    /// The handler that calls what was attached here, to be wrapped by one of your own.
    pub fn code_handler(&self) -> Arc<dyn NamespaceHandler> {
        Arc::new(CodeHandler(Arc::clone(&self.parent.code)))
    }
}
