//! Which requests are let in, in the order of the reference's checks (engine.io, `server.ts`, `verify`).

use http::Method;

use super::{EngineError, Query, Transport};

/// The parts of a request that decide about it.
#[derive(Debug)]
pub struct Request<'a> {
    /// The HTTP method.
    pub method: &'a Method,
    /// The query.
    pub query: &'a Query<'a>,
    /// True when it asks for a WebSocket.
    pub is_upgrade: bool,
}

/// The session that a `sid` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Existing {
    /// Its present transport.
    pub transport: Transport,
}

/// What to do with a request that is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Open a session on this transport. The server's policy (Origin) is still to be asked.
    Handshake(Transport),
    /// A poll of the session.
    Poll,
    /// Data for the session.
    Post,
    /// A WebSocket that wants to take the session over.
    Upgrade,
    /// Neither GET nor POST in a session: HTTP 500 without a body, as the reference answers.
    WrongMethod,
}

/// Judges a request. `find` looks a session up by its id.
pub fn verify(
    request: &Request<'_>,
    transports: &[Transport],
    find: impl FnOnce(&str) -> Option<Existing>,
) -> Result<Verdict, EngineError> {
    let transport = request
        .query
        .transport
        .as_deref()
        .and_then(Transport::from_name)
        .filter(|transport| transports.contains(transport))
        .ok_or(EngineError::UnknownTransport)?;
    let Some(sid) = request.query.sid.as_deref() else {
        return verify_handshake(request, transport);
    };
    let existing = find(sid).ok_or(EngineError::UnknownSid)?;
    if !request.is_upgrade && existing.transport != transport {
        return Err(EngineError::BadRequest);
    }
    if !request.query.is_v4 {
        return Err(EngineError::BadRequest);
    }
    Ok(match (request.is_upgrade, request.method) {
        (true, _) if transport == Transport::WebSocket => Verdict::Upgrade,
        (true, _) => return Err(EngineError::BadRequest),
        (false, &Method::GET) => Verdict::Poll,
        (false, &Method::POST) => Verdict::Post,
        (false, _) => Verdict::WrongMethod,
    })
}

fn verify_handshake(request: &Request<'_>, transport: Transport) -> Result<Verdict, EngineError> {
    if request.method != Method::GET {
        return Err(EngineError::BadHandshakeMethod);
    }
    if request.is_upgrade != (transport == Transport::WebSocket) {
        return Err(EngineError::BadRequest);
    }
    if !request.query.is_v4 {
        return Err(EngineError::UnsupportedProtocolVersion);
    }
    Ok(Verdict::Handshake(transport))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Transport; 2] = [Transport::Polling, Transport::WebSocket];

    fn judge(method: &Method, query: &str, is_upgrade: bool) -> Result<Verdict, EngineError> {
        let query = Query::parse(query);
        let request = Request { method, query: &query, is_upgrade };
        verify(&request, &BOTH, |sid| match sid {
            "p" => Some(Existing { transport: Transport::Polling }),
            "w" => Some(Existing { transport: Transport::WebSocket }),
            _ => None,
        })
    }

    #[test]
    fn refuses_as_the_reference_does() {
        use EngineError::*;
        let get = |query: &str| judge(&Method::GET, query, false).unwrap_err();
        assert_eq!(get("transport=polling"), UnsupportedProtocolVersion);
        assert_eq!(get("EIO=3&transport=polling"), UnsupportedProtocolVersion);
        for transport in ["abc", "__proto__", "constructor", "webtransport", ""] {
            assert_eq!(get(&format!("EIO=4&transport={transport}")), UnknownTransport);
        }
        assert_eq!(get("EIO=4"), UnknownTransport);
        assert_eq!(get("EIO=4&transport=polling&sid=nope"), UnknownSid);
        assert_eq!(get("EIO=4&transport=polling&sid=__proto__"), UnknownSid);
        assert_eq!(get("EIO=4&transport=websocket"), BadRequest);
        assert_eq!(get("EIO=4&transport=polling&sid=w"), BadRequest);
        assert_eq!(get("EIO=4&transport=websocket&sid=p"), BadRequest);
        assert_eq!(get("EIO=3&transport=polling&sid=p"), BadRequest);
        assert_eq!(judge(&Method::POST, "EIO=4&transport=polling", false), Err(BadHandshakeMethod));
        assert_eq!(judge(&Method::GET, "EIO=3&transport=websocket&sid=p", true), Err(BadRequest));
    }

    #[test]
    fn lets_in_what_fits() {
        use Verdict::*;
        let judge = |method, query, upgrade| judge(&method, query, upgrade).unwrap();
        assert_eq!(judge(Method::GET, "EIO=4&transport=polling", false), Handshake(Transport::Polling));
        assert_eq!(judge(Method::GET, "EIO=4&transport=websocket", true), Handshake(Transport::WebSocket));
        assert_eq!(judge(Method::GET, "EIO=4&transport=polling&sid=p", false), Poll);
        assert_eq!(judge(Method::POST, "EIO=4&transport=polling&sid=p", false), Post);
        assert_eq!(judge(Method::PUT, "EIO=4&transport=polling&sid=p", false), WrongMethod);
        assert_eq!(judge(Method::GET, "EIO=4&transport=websocket&sid=p", true), Upgrade);
        // A second upgrade is judged by the session, after the WebSocket is open.
        assert_eq!(judge(Method::GET, "EIO=4&transport=websocket&sid=w", true), Upgrade);
    }
}
