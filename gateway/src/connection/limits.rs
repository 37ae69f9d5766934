//! Limits on what comes from one address and from one socket. Owns counting them; what they are is configured and may change
//! while clients are connected, and who is refused is told by those who ask.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::time::Instant;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::config;
use crate::metrics::Refusal;

/// Addresses that are remembered at most. Beyond them, those that have no connection are forgotten.
const MAX_ADDRESSES: usize = 100_000;
/// How much of a rate may come at once.
const BURST_SECONDS: u32 = 2;
/// Tokens are counted in thousandths.
const UNIT: u64 = 1_000;

/// So many a second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    per_second: u32,
    burst: u32,
}

impl Rate {
    pub(super) fn new(per_second: u32, burst: Option<u32>) -> Self {
        Self { per_second, burst: burst.unwrap_or(per_second.saturating_mul(BURST_SECONDS)).max(1) }
    }
}

/// A token bucket: what one socket, address or node has left of its rate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    /// In thousandths.
    left: u64,
    /// When that was so, in milliseconds of the node.
    at: u64,
}

impl Bucket {
    pub(super) fn full(rate: Rate, now: u64) -> Self {
        Self { left: u64::from(rate.burst) * UNIT, at: now }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, rate: Rate, now: u64) -> bool {
        // So many a second are as many thousandths a millisecond.
        let gained = now.saturating_sub(self.at).saturating_mul(u64::from(rate.per_second));
        self.left = self.left.saturating_add(gained).min(u64::from(rate.burst) * UNIT);
        self.at = now;
        let enough = self.left >= UNIT;
        if enough {
            self.left -= UNIT;
        }
        enough
    }
}

/// The limits of a node.
pub(crate) struct Limits {
    settings: ArcSwap<config::Limits>,
    addresses: Mutex<Addresses>,
    started: Instant,
}

/// Who has connections, or had some.
struct Addresses {
    known: HashMap<IpAddr, Address>,
    /// At this many, those without a connection are forgotten.
    prune_at: usize,
}

impl Addresses {
    /// Makes room for another. Going through all happens only after as many have come again.
    fn prune(&mut self) {
        if self.known.len() >= self.prune_at {
            self.known.retain(|_, address| address.connections > 0);
            self.prune_at = MAX_ADDRESSES.max(self.known.len() * 2);
        }
    }
}

struct Address {
    connections: u32,
    bucket: Bucket,
}

/// The place of a connection among those of its address, which is given back with [`Limits::leave`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(IpAddr);

impl Limits {
    pub(crate) fn new(settings: config::Limits) -> Self {
        Self {
            settings: ArcSwap::from_pointee(settings),
            addresses: Mutex::new(Addresses { known: HashMap::new(), prune_at: MAX_ADDRESSES }),
            started: Instant::now(),
        }
    }

    /// Other limits hold from now on. Connections that were not counted stay so.
    pub(crate) fn reload(&self, settings: config::Limits) {
        self.settings.store(settings.into());
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// Lets a connection of an address in, or says why not. `None`: nobody counts.
    pub(crate) fn enter(&self, address: Option<IpAddr>, now: Instant) -> Result<Option<Place>, Refusal> {
        let settings = self.settings.load();
        let (most, rate) = (settings.connections_per_ip, settings.connects_per_ip);
        let Some(address) = address.filter(|_| most.is_some() || rate.is_some()) else { return Ok(None) };
        let (address, now) = (network_of(address), self.millis(now));
        let rate = rate.map(|rate| Rate::new(rate, None));
        let full = rate.map_or(Bucket { left: 0, at: now }, |rate| Bucket::full(rate, now));
        let mut addresses = self.addresses.lock();
        addresses.prune();
        let entry = addresses.known.entry(address).or_insert(Address { connections: 0, bucket: full });
        if rate.is_some_and(|rate| !entry.bucket.take(rate, now)) {
            return Err(Refusal::IpRate);
        }
        if most.is_some_and(|most| entry.connections >= most) {
            return Err(Refusal::IpConnections);
        }
        entry.connections += 1;
        Ok(Some(Place(address)))
    }

    /// A connection ended.
    pub(crate) fn leave(&self, place: Place) {
        let counts_rate = self.settings.load().connects_per_ip.is_some();
        let addresses = &mut self.addresses.lock().known;
        if let Entry::Occupied(mut entry) = addresses.entry(place.0) {
            let address = entry.get_mut();
            address.connections = address.connections.saturating_sub(1);
            if address.connections == 0 && !counts_rate {
                entry.remove();
            }
        }
        if addresses.capacity() > 1024 && addresses.len() < addresses.capacity() / 8 {
            addresses.shrink_to_fit();
        }
    }

    /// Whether the events of a socket are counted.
    pub(crate) fn counts_events(&self) -> bool {
        self.settings.load().events_per_second.is_some()
    }

    /// Whether a socket may send one more event. Its bucket comes into being with the first one under a limit.
    pub(crate) fn allows_event(&self, bucket: &mut Option<Box<Bucket>>, now: Instant) -> bool {
        let settings = self.settings.load();
        let Some(per_second) = settings.events_per_second else {
            *bucket = None;
            return true;
        };
        let (rate, now) = (Rate::new(per_second, settings.events_burst), self.millis(now));
        bucket.get_or_insert_with(|| Box::new(Bucket::full(rate, now))).take(rate, now)
    }
}

/// What counts as one address: a host has a whole /64 of IPv6.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn nothing_is_counted_without_a_limit() {
        let limits = Limits::new(config::Limits::default());
        assert_eq!(limits.enter(ip("10.0.0.1"), Instant::now()), Ok(None));
        assert!(limits.addresses.lock().known.is_empty());
        let mut bucket = None;
        assert!(limits.allows_event(&mut bucket, Instant::now()) && bucket.is_none());
    }

    #[test]
    fn an_address_has_so_many_connections_at_one_time() {
        let limits = Limits::new(config::Limits { connections_per_ip: Some(2), ..config::Limits::default() });
        let now = Instant::now();
        let first = limits.enter(ip("10.0.0.1"), now).unwrap().unwrap();
        limits.enter(ip("::ffff:10.0.0.1"), now).unwrap();
        assert_eq!(limits.enter(ip("10.0.0.1"), now), Err(Refusal::IpConnections));
        assert!(limits.enter(ip("10.0.0.2"), now).is_ok());
        limits.leave(first);
        let again = limits.enter(ip("10.0.0.1"), now).unwrap().unwrap();
        // Without any limit nobody is counted, but those who were are still let go.
        limits.reload(config::Limits::default());
        assert_eq!(limits.enter(ip("10.0.0.1"), now), Ok(None));
        for address in ["10.0.0.1", "10.0.0.1", "10.0.0.2"] {
            limits.leave(Place(ip(address).unwrap()));
        }
        limits.leave(again);
        assert!(limits.addresses.lock().known.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let limits = Limits::new(config::Limits { connections_per_ip: Some(1), ..config::Limits::default() });
        let now = Instant::now();
        assert!(limits.enter(ip("2001:db8:0:1::1"), now).is_ok());
        assert!(limits.enter(ip("2001:db8:0:1:ffff::2"), now).is_err());
        assert!(limits.enter(ip("2001:db8:0:2::1"), now).is_ok());
    }

    #[test]
    fn an_address_connects_so_often() {
        let limits = Limits::new(config::Limits { connects_per_ip: Some(2), ..config::Limits::default() });
        let now = Instant::now();
        for _ in 0..4 {
            let place = limits.enter(ip("10.0.0.1"), now).unwrap().unwrap();
            limits.leave(place);
        }
        assert_eq!(limits.enter(ip("10.0.0.1"), now), Err(Refusal::IpRate));
        assert!(limits.enter(ip("10.0.0.1"), now + Duration::from_millis(500)).is_ok());
        assert_eq!(
            limits.enter(ip("10.0.0.1"), now + Duration::from_millis(500)),
            Err(Refusal::IpRate),
            "half a second is one"
        );
    }

    #[test]
    fn addresses_without_connections_are_forgotten_when_there_are_too_many() {
        let limits = Limits::new(config::Limits { connects_per_ip: Some(1), ..config::Limits::default() });
        let now = Instant::now();
        limits.enter(ip("10.0.0.1"), now).unwrap();
        for number in 0..MAX_ADDRESSES as u32 {
            let address = IpAddr::V4((0x0b00_0000 + number).into());
            limits.leave(limits.enter(Some(address), now).unwrap().unwrap());
        }
        limits.enter(ip("10.0.0.2"), now).unwrap();
        let addresses = &limits.addresses.lock().known;
        assert!(addresses.len() < MAX_ADDRESSES && addresses.contains_key(&ip("10.0.0.1").unwrap()));
    }

    #[test]
    fn a_socket_sends_so_many_events() {
        let settings = config::Limits {
            events_per_second: Some(10),
            events_burst: Some(3),
            ..config::Limits::default()
        };
        let limits = Limits::new(settings);
        let (mut bucket, now) = (None, Instant::now());
        let mut sends = |after: u64| limits.allows_event(&mut bucket, now + Duration::from_millis(after));
        assert!(sends(0) && sends(0) && sends(0) && !sends(0));
        assert!(!sends(99) && sends(100) && !sends(150) && sends(200));
        // Never more than the burst, however long it was silent.
        assert!(sends(60_000) && sends(60_000) && sends(60_000) && !sends(60_000));
    }
}
