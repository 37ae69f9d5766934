//! At which of its addresses the other nodes can reach a node: the one from which it reaches the broker that they share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{UdpSocket, lookup_host};

/// Any port will do: nothing is sent.
const SOME_PORT: u16 = 6379;

/// The address from which a node reaches the first server of a broker's URL that has a way to it.
pub(super) async fn towards_broker(url: &str) -> Option<IpAddr> {
    for host in hosts(url) {
        let Ok(addresses) = lookup_host((host, SOME_PORT)).await else { continue };
        for address in addresses {
            if let Some(local) = towards(address).await {
                return Some(local);
            }
        }
    }
    None
}

/// The system chooses the address when a datagram socket is connected, which sends nothing.
async fn towards(remote: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    socket.connect(remote).await.ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

/// The hosts of a broker's URL. The adapter has checked its form: hosts with commas between them, or, of NATS, whole URLs.
fn hosts(url: &str) -> Vec<&str> {
    match url.matches("://").count() {
        0 | 1 => hosts_of_one(url).collect(),
        _ => url.split(',').flat_map(hosts_of_one).collect(),
    }
}

fn hosts_of_one(url: &str) -> impl Iterator<Item = &str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let servers = authority.rsplit_once('@').map_or(authority, |(_, servers)| servers);
    servers.split(',').filter_map(|server| {
        let host = match server.strip_prefix('[') {
            Some(rest) => rest.split(']').next(),
            None => server.split(':').next(),
        };
        host.filter(|host| !host.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_every_form_of_url() {
        let found = |url| hosts(url);
        assert_eq!(found("redis://127.0.0.1:6379"), ["127.0.0.1"]);
        assert_eq!(found("rediss://user:p@ss@cache.example/3"), ["cache.example"]);
        assert_eq!(found("redis-cluster://a:1,b,[fd00::1]:2"), ["a", "b", "fd00::1"]);
        assert_eq!(found("redis-sentinel://:x@a,b:1/?sentinelServiceName=m"), ["a", "b"]);
        assert_eq!(found("nats://token@n1:4222,n2"), ["n1", "n2"]);
        assert_eq!(found("nats://a:b@n1:4222,nats://c:d@n2"), ["n1", "n2"]);
        assert_eq!(found("a"), ["a"]);
        assert!(found("redis://").is_empty());
    }

    #[tokio::test]
    async fn a_broker_on_loopback_means_loopback_only() {
        assert_eq!(towards_broker("redis://127.0.0.1:1").await, Some([127, 0, 0, 1].into()));
        assert_eq!(towards_broker("nats://nowhere.invalid:1,127.0.0.1:2").await, Some([127, 0, 0, 1].into()));
        assert_eq!(towards_broker("redis://").await, None);
    }
}
