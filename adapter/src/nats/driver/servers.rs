//! The servers that are known: those of the URL, and those that servers announce.
//!
//! A server greets whoever connects with its INFO, before credentials. So [`peek`] asks who is behind an address without a
//! client: which server, of which cluster, and whom else it knows. With TLS it takes a client, because a server logs an
//! error when somebody leaves before the handshake. All addresses are asked at once; one that hangs costs a moment,
//! not the time for connecting.
//!
//! Must not keep a connection.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use async_nats::{ServerAddr, ServerInfo};
use futures_util::{FutureExt, StreamExt, future, stream::FuturesUnordered};
use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::{TcpStream, lookup_host},
    time::{self, Instant},
};

use super::access::Access;
use crate::cluster::BusError;

/// Addresses beyond these are not looked at.
const MAX_ADDRESSES: usize = 64;
/// How many servers may stand behind one name.
const MAX_PER_NAME: usize = 16;
/// Who does not answer so many times in a row is not reached from here.
const UNREACHABLE: u32 = 2;
/// The longest INFO that is read.
const MAX_INFO: u64 = 64 * 1024;

/// Known addresses, over all links of a bus.
pub(super) struct Servers {
    known: Mutex<Vec<Known>>,
    access: Arc<Access>,
}

/// Who is asked, and how long is waited.
pub(super) enum Haste<'a> {
    /// All, without waiting for those that were silent the last time.
    Link,
    /// The own server, those that are not among these, and what has never answered.
    Look { own: &'a str, held: &'a FxHashSet<String> },
}

#[derive(Clone)]
struct Known {
    address: ServerAddr,
    /// From the URL. The others were announced by a server, and are forgotten when they are silent.
    is_configured: bool,
    /// An answering server announced it the last time.
    is_announced: bool,
    /// How many times in a row it did not answer.
    silences: u32,
    /// Who answered the last time.
    server: Option<String>,
    /// Whoever answered speaks TLS.
    is_tls: bool,
}

impl Known {
    fn new(address: &ServerAddr, is_configured: bool) -> Self {
        Self {
            address: address.clone(),
            is_configured,
            is_announced: false,
            silences: 0,
            server: None,
            is_tls: false,
        }
    }
}

/// What a server says of itself.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(default)]
pub(super) struct Greeting {
    pub(super) server_id: String,
    pub(super) cluster: Option<String>,
    pub(super) tls_required: bool,
    ldm: bool,
    connect_urls: Vec<String>,
}

impl From<ServerInfo> for Greeting {
    fn from(info: ServerInfo) -> Self {
        Self {
            server_id: info.server_id,
            cluster: info.cluster,
            tls_required: info.tls_required,
            ldm: info.lame_duck_mode,
            connect_urls: info.connect_urls,
        }
    }
}

/// A server that answers.
#[derive(Debug, Clone)]
pub(super) struct Answering {
    /// Where to connect to it.
    pub(super) address: ServerAddr,
    pub(super) greeting: Greeting,
    is_configured: bool,
}

/// What became of a question to one address of the list.
struct Asked {
    of: ServerAddr,
    /// A name may stand for several servers.
    answers: Vec<(ServerAddr, Greeting)>,
    error: BusError,
}

impl Servers {
    pub(super) fn new(configured: &[ServerAddr], access: Arc<Access>) -> Self {
        let known = configured.iter().take(MAX_ADDRESSES).map(|address| Known::new(address, true));
        Self { known: Mutex::new(known.collect()), access }
    }

    /// Asks addresses, and those that are announced meanwhile. They have `grace` from the first answer on, and `limit` if
    /// there is none. The servers come once each, in the order in which they should be tried: those of the URL first, and
    /// those last that are leaving.
    pub(super) async fn answering(
        &self,
        limit: Duration,
        grace: Duration,
        haste: Haste<'_>,
    ) -> Result<Vec<Answering>, BusError> {
        let mut asking = FuturesUnordered::new();
        let (mut asked, mut open) = (Vec::new(), Vec::new());
        let (mut answering, mut announced) = (Vec::new(), Vec::new());
        let mut until = Instant::now() + limit;
        let mut error = nobody();
        loop {
            for known in self.asked_in(&haste) {
                if !asked.contains(&known.address) {
                    asked.push(known.address.clone());
                    asking.push(ask(known.clone(), Arc::clone(&self.access)).boxed());
                    open.push(known);
                }
            }
            let is_enough = matches!(haste, Haste::Link)
                && !answering.is_empty()
                && open.iter().all(|known: &Known| known.silences > 0);
            if open.is_empty() || is_enough {
                break;
            }
            let Ok(Some(one)) = time::timeout_at(until, asking.next()).await else {
                open.iter().for_each(|known| self.note(&known.address, None));
                break;
            };
            let known = open.iter().position(|known| known.address == one.of).map(|at| open.swap_remove(at));
            self.note(&one.of, one.answers.first().map(|(_, greeting)| greeting));
            // A refusal says more than that somebody else is not there.
            if matches!(error, BusError::Unavailable(_)) {
                error = one.error;
            }
            for (address, greeting) in one.answers {
                announced.extend(self.learn(&greeting.connect_urls));
                let is_configured = known.as_ref().is_some_and(|known| known.is_configured);
                answering.push(Answering { address, greeting, is_configured });
                until = until.min(Instant::now() + grace);
            }
        }
        if answering.is_empty() {
            return Err(error);
        }
        self.known.lock().retain_mut(|known| {
            known.is_announced = announced.contains(&known.address);
            known.is_configured || known.is_announced || known.silences == 0
        });
        let chance = |_: &Answering| getrandom::u64().unwrap_or_default();
        answering.sort_by_cached_key(|one| (one.greeting.ldm, !one.is_configured, chance(one)));
        let mut seen = FxHashSet::default();
        answering.retain(|one| seen.insert(one.greeting.server_id.clone()));
        Ok(answering)
    }

    /// Announced addresses that do not answer, each once: not the first time, when its server may just have gone.
    pub(super) fn newly_unreachable(&self) -> Vec<String> {
        let mut known = self.known.lock();
        let unreachable =
            known.iter_mut().filter(|known| known.is_announced && known.silences == UNREACHABLE);
        unreachable
            .map(|known| {
                known.silences += 1;
                format!("{}:{}", known.address.host(), known.address.port())
            })
            .collect()
    }

    /// The addresses to ask.
    fn asked_in(&self, haste: &Haste<'_>) -> Vec<Known> {
        let known = self.known.lock();
        let Haste::Look { own, held } = haste else { return known.clone() };
        // Behind a balancer the own server may have no address of its own.
        let is_own = |known: &Known| known.server.as_deref() == Some(*own);
        if !known.iter().any(is_own) {
            return known.clone();
        }
        let is_held = |known: &Known| known.server.as_ref().is_some_and(|server| held.contains(server));
        known.iter().filter(|known| is_own(known) || !is_held(known)).cloned().collect()
    }

    fn note(&self, address: &ServerAddr, answer: Option<&Greeting>) {
        let mut known = self.known.lock();
        let Some(known) = known.iter_mut().find(|known| known.address == *address) else { return };
        match answer {
            Some(greeting) => {
                (known.silences, known.is_tls) = (0, greeting.tls_required);
                known.server = Some(greeting.server_id.clone());
            }
            None if known.silences < UNREACHABLE => known.silences += 1,
            None => {}
        }
    }

    /// Takes announced addresses up, and gives those that can be read.
    fn learn(&self, announced: &[String]) -> Vec<ServerAddr> {
        let addresses: Vec<ServerAddr> = announced.iter().filter_map(|url| url.parse().ok()).collect();
        let mut known = self.known.lock();
        for address in &addresses {
            let is_new = known.iter().all(|known| known.address != *address);
            if is_new && known.len() < MAX_ADDRESSES {
                known.push(Known::new(address, false));
            }
        }
        addresses
    }
}

/// Asks those who stand behind an address.
async fn ask(known: Known, access: Arc<Access>) -> Asked {
    let of = known.address;
    if access.requires_tls() || known.is_tls {
        let greeted = access.greeting(of.clone()).boxed().await;
        let (answers, error) = match greeted {
            Ok(greeting) => (vec![(of.clone(), greeting)], nobody()),
            Err(error) => (Vec::new(), error),
        };
        return Asked { of, answers, error };
    }
    let host = of.host().trim_matches(['[', ']']).to_owned();
    let sockets = match lookup_host((host, of.port())).await {
        Ok(sockets) => sockets.take(MAX_PER_NAME).collect::<Vec<_>>(),
        Err(error) => {
            let error = BusError::Unavailable(format!("{}: {error}", of.host()));
            return Asked { of, answers: Vec::new(), error };
        }
    };
    let greetings = future::join_all(sockets.iter().map(|socket| peek(*socket))).await;
    let (mut answers, mut error) = (Vec::new(), nobody());
    for (socket, greeting) in sockets.into_iter().zip(greetings) {
        match greeting {
            Ok(greeting) => {
                // With TLS the name is needed, because a certificate has it.
                let direct =
                    if greeting.tls_required { None } else { format!("nats://{socket}").parse().ok() };
                answers.push((direct.unwrap_or_else(|| of.clone()), greeting));
            }
            Err(text) => error = BusError::Unavailable(format!("{socket}: {text}")),
        }
    }
    Asked { of, answers, error }
}

fn nobody() -> BusError {
    BusError::Unavailable("nobody answers".into())
}

/// Reads the INFO of a server.
async fn peek(address: SocketAddr) -> io::Result<Greeting> {
    let stream = TcpStream::connect(address).await?;
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_INFO)).read_until(b'\n', &mut line).await?;
    let info = line.strip_prefix(b"INFO ").ok_or_else(|| io::Error::other("this is no NATS server"))?;
    Ok(serde_json::from_slice(info)?)
}
