//! What must hold of how nodes reach each other. Owns the checks, changes nothing.

use super::validate::{form, zeros};
use super::{Config, Peer, Problem};

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    let peer = &config.peer;
    if let Some(listen) = peer.listen.filter(|listen| listen.port() != 0)
        && [config.public.listen, config.api.listen].contains(&listen)
    {
        problems.push(Problem::SameAddress(listen));
    }
    if let Some(text) = &peer.advertise {
        let is_one = |(ip, port): (std::net::IpAddr, Option<u16>)| {
            !ip.is_unspecified() && !ip.is_multicast() && port != Some(0)
        };
        if !Peer::advertised(text).is_some_and(is_one) {
            problems.push(form(
                "peer.advertise",
                text,
                "an address at which other nodes reach this one, such as \"10.1.2.3\" or \"10.1.2.3:3002\"",
            ));
        }
    }
    problems.extend(zeros([
        ("peer.max_requests", peer.max_requests == 0),
        ("peer.max_pending_connections", peer.max_pending_connections == 0),
        ("peer.connect_timeout", peer.connect_timeout.is_zero()),
        ("peer.clock_skew", peer.clock_skew.is_zero()),
    ]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_such_as_others_can_reach() {
        let problems = |change: fn(&mut Peer)| {
            let mut config = Config::default();
            change(&mut config.peer);
            config.problems().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        for good in ["10.1.2.3", "10.1.2.3:3002", "fd00::1", "[fd00::1]:3002"] {
            assert!(Peer::advertised(good).is_some(), "{good}");
        }
        assert_eq!(problems(|peer| peer.advertise = Some("fd00::1".to_owned())), "");
        for bad in ["", "node-1", "10.1.2.3:0", "0.0.0.0", "[::]:3002", "224.0.0.1"] {
            let mut config = Config::default();
            config.peer.advertise = Some(bad.to_owned());
            assert!(config.problems()[0].to_string().contains("`peer.advertise`"), "{bad}");
        }
        assert!(
            problems(|peer| peer.listen = Some(([127, 0, 0, 1], 3001).into())).contains("127.0.0.1:3001")
        );
        assert!(problems(|peer| peer.max_requests = 0).contains("`peer.max_requests`"));
        assert!(problems(|peer| peer.max_pending_connections = 0).contains("`peer.max_pending_connections`"));
        assert!(problems(|peer| peer.clock_skew = std::time::Duration::ZERO).contains("`peer.clock_skew`"));
    }
}
