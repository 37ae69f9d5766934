//! Requests of clients that come to a node which does not have their session: why a load balancer needs no stickiness.
//!
//! The id of a session begins with the tag of its node. `forward` passes a request on to that node, `listener` takes what
//! other nodes pass on, `stamp` is why it believes them, `tunnel` is a WebSocket on its way, and `address` finds out where
//! the others can reach this node. What nodes know of each other comes from the adapter. Nothing here knows rooms, or
//! judges a client.

mod address;
mod forward;
mod listener;
mod stamp;
mod tunnel;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use roomcast_adapter::{AdapterFactory, Reach, ReachKey};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use self::forward::{Ending, Forwarder};
use self::listener::Owner;
use super::Io;
use super::listener::{self as accepting, serve_nodes};
use crate::config::{Config, Peer};
use crate::metrics::Metrics;
use crate::transport::Forward;

/// Why a node cannot be reached by the others.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeersError {
    /// The address cannot be bound.
    #[error("cannot listen on {address} (peer.listen): {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// It is not known at which address the others would reach this node.
    #[error(
        "no address at which other nodes reach this one was found: set `peer.listen` or `peer.advertise`"
    )]
    NoAddress,
    /// The operating system has no randomness.
    #[error("no randomness: {0}")]
    Random(getrandom::Error),
}

impl PeersError {
    /// A stable name for logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "listen",
            Self::NoAddress => "no_address",
            Self::Random(_) => "no_randomness",
        }
    }
}

/// A node among others: it passes on requests for their sessions, and takes those for its own.
///
/// The gateway has one by itself. A program that embeds the server over a cluster's adapter can have one too:
///
/// ```no_run
/// use std::sync::Arc;
///
/// use roomcast::adapter::AdapterFactory;
/// use roomcast::config::Config;
/// use roomcast::{Io, Peers};
///
/// # async fn example(factory: Arc<dyn AdapterFactory>) -> Result<(), Box<dyn std::error::Error>> {
/// let mut config = Config::default();
/// config.peer.listen = Some("10.1.2.3:3002".parse()?);
/// let peers = Peers::bind(&config, &factory).await?;
/// let io = Io::builder().config(config).adapter(factory).peers(peers).build();
/// // Before clients come: the other nodes are told.
/// io.serve_peers().await;
/// # Ok(())
/// # }
/// ```
pub struct Peers {
    config: Config,
    factory: Arc<dyn AdapterFactory>,
    listener: TcpListener,
    reach: Reach,
}

impl Peers {
    /// Binds the listener for the other nodes (`peer` of the configuration; without `peer.listen`, a free port at the
    /// address from which this node reaches the broker of `adapter.url`). Nobody is told of it yet.
    ///
    /// # Errors
    ///
    /// An address that cannot be bound, or none that is known.
    pub async fn bind(config: &Config, factory: &Arc<dyn AdapterFactory>) -> Result<Self, PeersError> {
        let mut key = [0; ReachKey::LEN];
        getrandom::fill(&mut key).map_err(PeersError::Random)?;
        let towards_broker = match &config.adapter.url {
            Some(url) if asks_for_the_way(&config.peer) => address::towards_broker(url.expose()).await,
            _ => None,
        };
        let wanted = config.peer.listen.or_else(|| Some((towards_broker?, 0).into()));
        let wanted = wanted.ok_or(PeersError::NoAddress)?;
        let bound = accepting::bind(wanted).and_then(|listener| {
            let local = listener.local_addr()?;
            Ok((listener, local))
        });
        let (listener, local) = bound.map_err(|error| PeersError::Listen { address: wanted, error })?;
        let address = advertised(&config.peer, local, towards_broker).ok_or(PeersError::NoAddress)?;
        let reach = Reach { address, key: ReachKey::new(key) };
        Ok(Self { config: config.clone(), factory: Arc::clone(factory), listener, reach })
    }

    /// Who passes requests on, and what is left to be begun once there is a server that answers them.
    pub(super) fn split(self, metrics: &Arc<Metrics>) -> (Arc<dyn Forward>, Link) {
        let (ending, ends) = watch::channel(Ending::Not);
        let factory = Arc::clone(&self.factory);
        let forwarder = Forwarder::new(&self.config, factory, Arc::clone(metrics), ends);
        let places = forwarder.places();
        let max = places.available_permits();
        (Arc::new(forwarder), Link { waiting: Mutex::new(Some(self)), ending, places, max })
    }
}

/// Whether the settings leave open by which address the others reach this node.
fn asks_for_the_way(config: &Peer) -> bool {
    match config.listen {
        Some(listen) => listen.ip().is_unspecified() && config.advertise.is_none(),
        None => true,
    }
}

/// What the others are told.
fn advertised(config: &Peer, local: SocketAddr, towards_broker: Option<IpAddr>) -> Option<SocketAddr> {
    if let Some((ip, port)) = config.advertise.as_deref().and_then(Peer::advertised) {
        return Some((ip, port.unwrap_or(local.port())).into());
    }
    match local.ip() {
        ip if ip.is_unspecified() => Some((towards_broker?, local.port()).into()),
        ip => Some((ip, local.port()).into()),
    }
}

/// A server's tie to the other nodes.
pub(super) struct Link {
    /// Until it is begun.
    waiting: Mutex<Option<Peers>>,
    ending: watch::Sender<Ending>,
    places: Arc<Semaphore>,
    max: usize,
}

impl Link {
    /// Requests and WebSockets that are being passed on.
    pub(super) fn passed_on(&self) -> usize {
        self.max.saturating_sub(self.places.available_permits())
    }

    /// Takes requests of other nodes, and tells them so. Once.
    pub(super) async fn begin(&self, io: &Io) {
        let Some(peers) = self.waiting.lock().take() else { return };
        let Peers { config, factory, listener, reach } = peers;
        let local = listener.local_addr().unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into());
        tracing::info!(listen = %local, advertise = %reach.address, "taking requests of other nodes");
        let owner = Arc::new(Owner::new(io, &config.peer, reach.key.clone()));
        let mut ending = self.ending.subscribe();
        tokio::spawn(async move {
            let ended = async move {
                let _ = ending.wait_for(|ending| *ending == Ending::Now).await;
            };
            let (write_timeout, metrics) = (config.engine.silence(), Arc::clone(owner.metrics()));
            let answer = move |request, from| {
                let owner = Arc::clone(&owner);
                async move { owner.answer(request, from).await }
            };
            let max_pending = config.peer.max_pending_connections;
            serve_nodes(listener, max_pending, write_timeout, metrics, answer, ended).await;
        });
        factory.announce_reach(reach).await;
    }

    /// Ends the WebSockets and the polls that are passed on, spread over some time. They come back, to other nodes.
    pub(super) fn release(&self, within: Duration) {
        self.ending.send_replace(Ending::Within { since: Instant::now(), time: within });
    }

    /// Takes no more requests, and lets go of those that are being passed on.
    pub(super) fn end(&self) {
        self.ending.send_replace(Ending::Now);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests;
