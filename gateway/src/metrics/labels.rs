//! The closed sets of label values. Owns their names: a series exists for each from the start, and none can be added by
//! what a client sends.

use roomcast_protocol::socketio::PacketType;

use crate::config::Transport;

/// A closed set of values of one label.
pub trait Label: Copy + 'static {
    /// The name of the label.
    const NAME: &'static str;
    /// All values.
    const ALL: &'static [Self];
    /// The place in `ALL`.
    fn index(self) -> usize;
    /// The value as text.
    fn as_str(self) -> &'static str;
}

macro_rules! labels {
    ($($(#[doc = $doc:literal])* $name:ident($label:literal) { $($(#[doc = $value_doc:literal])* $value:ident = $text:literal,)* })*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[doc = $value_doc])* $value,)*
        }

        impl Label for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$value),*];

            fn index(self) -> usize {
                self as usize
            }

            fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)*
                }
            }
        }
    )*};
}

labels! {
    /// Why a connection or a socket ended: the reasons of Socket.IO, and our own for who reads too slowly.
    CloseReason("reason") {
        /// The connection broke.
        TransportError = "transport_error",
        /// The client closed the connection.
        TransportClose = "transport_close",
        /// The client sent what is against the protocol, or joined no namespace in time.
        ForcedClose = "forced_close",
        /// No pong came.
        PingTimeout = "ping_timeout",
        /// A packet could not be read.
        ParseError = "parse_error",
        /// The node goes away.
        ServerShuttingDown = "server_shutting_down",
        /// The server closed the connection.
        ForcedServerClose = "forced_server_close",
        /// The client left the namespace.
        ClientNamespaceDisconnect = "client_namespace_disconnect",
        /// The server ended the socket.
        ServerNamespaceDisconnect = "server_namespace_disconnect",
        /// Too much waited to be written.
        SlowConsumer = "slow_consumer",
        /// The cluster took this node for dead, and its sockets with it.
        NodeFenced = "node_fenced",
        /// The node had more than its share of the connections.
        Rebalanced = "rebalanced",
    }

    /// Why a handshake was refused: the code that Engine.IO answers with, or what it has no code for.
    Refusal("code") {
        /// Transport unknown.
        UnknownTransport = "0",
        /// Session ID unknown.
        UnknownSid = "1",
        /// Bad handshake method.
        BadMethod = "2",
        /// Bad request.
        BadRequest = "3",
        /// Forbidden.
        Forbidden = "4",
        /// Unsupported protocol version.
        UnsupportedVersion = "5",
        /// The page's origin is not among the configured ones.
        Origin = "origin",
        /// `public.max_connections` are open.
        Limit = "limit",
        /// The node is draining.
        Draining = "draining",
        /// `limits.connections_per_ip` connections of the address are open.
        IpConnections = "ip_connections",
        /// The address connects more often than `limits.connects_per_ip`.
        IpRate = "ip_rate",
        /// The node takes no more than `admission.handshakes_per_second`.
        Rate = "rate",
        /// The process has more than `admission.max_memory`.
        Memory = "memory",
    }

    /// Why a connection was closed so that its client comes back.
    SentAway("cause") {
        /// The node drains.
        Drain = "drain",
        /// The node had more than its share of the connections.
        Rebalance = "rebalance",
    }

    /// Of what a node has as much as it takes.
    Fullness("of") {
        /// `public.max_connections`.
        Connections = "connections",
        /// `admission.max_memory`.
        Memory = "memory",
    }

    /// Where connections come in.
    Listener("listener") {
        /// That of clients.
        Public = "public",
        /// That of backends and operators.
        Api = "api",
        /// That of other nodes.
        Peer = "peer",
    }

    /// Why a connection was closed before it brought a request.
    ConnectionRefusal("reason") {
        /// `public.max_pending_connections` or `api.max_connections` are there.
        Limit = "limit",
        /// A newer one took its place: it had not shown to be a node's, and there were too many such.
        Displaced = "displaced",
        /// Its peer may not speak for others: it is none of `public.trusted_proxies`.
        ProxyUntrusted = "proxy_untrusted",
        /// It began with no header of the PROXY protocol that can be read.
        ProxyMalformed = "proxy_malformed",
        /// The header of the PROXY protocol took too long, or the peer went away.
        ProxyIncomplete = "proxy_incomplete",
        /// The peer does not speak TLS.
        TlsNotSpoken = "tls_not_spoken",
        /// No version, cipher or application protocol that both sides know.
        TlsIncompatible = "tls_incompatible",
        /// A certificate is needed, and there is none.
        TlsCertificateMissing = "tls_certificate_missing",
        /// The certificate of the peer is not believed.
        TlsCertificateInvalid = "tls_certificate_invalid",
        /// The peer gave up: mostly as it does not believe our certificate.
        TlsAlert = "tls_alert",
        /// TLS took longer than `tls.handshake_timeout`.
        TlsTimeout = "tls_timeout",
        /// The peer went away, or broke a rule of TLS.
        TlsFailed = "tls_failed",
    }

    /// Why a client was not let into a namespace, or its session was not extended: the code that it reads.
    AuthRefusal("code") {
        /// There is no token.
        TokenMissing = "token_missing",
        /// The token is not believed.
        TokenInvalid = "token_invalid",
        /// The token has expired.
        TokenExpired = "token_expired",
        /// The token was revoked.
        TokenRevoked = "token_revoked",
        /// The token is another user's.
        Forbidden = "forbidden",
        /// The issuer's keys are not there.
        KeysUnavailable = "keys_unavailable",
        /// The user has `limits.sockets_per_user` sockets.
        TooManySockets = "too_many_sockets",
        /// The token grants more rooms than a socket may be in.
        TooManyRooms = "too_many_rooms",
    }

    /// Why a session of a client ended before its socket did.
    SessionEnd("reason") {
        /// Its token expired.
        Expired = "expired",
        /// Its token was revoked.
        Revoked = "revoked",
    }

    /// What became of asking an issuer for its keys.
    JwksFetch("result") {
        /// There were keys.
        Success = "success",
        /// There were none.
        Failure = "failure",
    }

    /// What became of an upgrade from polling to WebSocket.
    UpgradeResult("result") {
        /// The connection is a WebSocket now.
        Success = "success",
        /// It took too long.
        Timeout = "timeout",
        /// It was refused: a second one, or against the protocol.
        Refused = "refused",
        /// The probing WebSocket or the session went away.
        Abandoned = "abandoned",
    }

    /// What became of a configuration that was read again.
    ReloadResult("result") {
        /// It holds now.
        Taken = "taken",
        /// It has a fault, and nothing changed.
        Refused = "refused",
    }

    /// Why an event did not reach a backend.
    BackendDrop("reason") {
        /// As many events waited as may.
        QueueItems = "queue_items",
        /// As many bytes waited as may.
        QueueBytes = "queue_bytes",
        /// The backend answered 410.
        Gone = "gone",
        /// The node, or the backend, is going away.
        Draining = "draining",
        /// A client's call was not sent while the backend was left alone after failures.
        Breaker = "breaker",
        /// A dead letter was let go for a newer one.
        DeadLetters = "dead_letters",
    }

    /// What became of a request that was passed on to the node that has its session.
    ForwardResult("result") {
        /// That node answered, whatever it said.
        Answered = "answered",
        /// That node took the WebSocket.
        Upgraded = "upgraded",
        /// The client went away before there was an answer, and that node has been told so.
        Aborted = "aborted",
        /// That node cannot be connected to.
        Unreachable = "unreachable",
        /// That node did not answer in time.
        TimedOut = "timed_out",
        /// The connection ended before there was an answer.
        Broken = "broken",
        /// That node did not take it: it says why in `forwards_received_total`.
        Refused = "refused",
        /// As many are under way as may be, here or there.
        Full = "full",
        /// This node is going away.
        Stopping = "stopping",
    }

    /// What became of a request that another node passed on to this one.
    ForwardedResult("result") {
        /// It was answered as any other.
        Served = "served",
        /// The other node is going away, and asked for the answer to a poll that is held.
        Released = "released",
        /// It is of no node: it does not say who passed it on.
        Unsigned = "unsigned",
        /// What it says of who passed it on is not believed.
        Forged = "forged",
        /// It was signed too long ago, or in the future: clocks differ, or somebody repeats it.
        Stale = "stale",
        /// It is for no session of this node.
        Foreign = "foreign",
        /// As many are being answered as may be.
        Full = "full",
    }

    /// Which side of passing on a node is.
    ForwardSide("side") {
        /// The client's request came to it.
        Entry = "entry",
        /// It has the session.
        Owner = "owner",
    }

    /// Why a span did not reach the collector.
    SpanDrop("reason") {
        /// As many as may wait did.
        Queue = "queue",
        /// The collector did not take it.
        Export = "export",
        /// The node was going away.
        Ending = "ending",
    }

    /// The packets of Engine.IO and, in its messages, of Socket.IO.
    PacketKind("type") {
        /// Engine.IO open.
        Open = "open",
        /// Engine.IO close.
        Close = "close",
        /// Engine.IO ping.
        Ping = "ping",
        /// Engine.IO pong.
        Pong = "pong",
        /// Engine.IO upgrade.
        Upgrade = "upgrade",
        /// Engine.IO noop.
        Noop = "noop",
        /// A message of Engine.IO that is no packet of Socket.IO.
        Message = "message",
        /// Socket.IO CONNECT.
        Connect = "connect",
        /// Socket.IO DISCONNECT.
        Disconnect = "disconnect",
        /// Socket.IO EVENT.
        Event = "event",
        /// Socket.IO ACK.
        Ack = "ack",
        /// Socket.IO CONNECT_ERROR.
        ConnectError = "connect_error",
        /// Socket.IO BINARY_EVENT.
        BinaryEvent = "binary_event",
        /// Socket.IO BINARY_ACK.
        BinaryAck = "binary_ack",
    }
}

impl Label for Transport {
    const NAME: &'static str = "transport";
    const ALL: &'static [Self] = &[Self::Polling, Self::Websocket];

    fn index(self) -> usize {
        self as usize
    }

    fn as_str(self) -> &'static str {
        self.as_str()
    }
}

impl From<PacketType> for PacketKind {
    fn from(kind: PacketType) -> Self {
        match kind {
            PacketType::Connect => Self::Connect,
            PacketType::Disconnect => Self::Disconnect,
            PacketType::Event => Self::Event,
            PacketType::Ack => Self::Ack,
            PacketType::ConnectError => Self::ConnectError,
            PacketType::BinaryEvent => Self::BinaryEvent,
            PacketType::BinaryAck => Self::BinaryAck,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places_fit<L: Label>() {
        assert!(L::ALL.iter().enumerate().all(|(index, value)| value.index() == index));
    }

    #[test]
    fn values_stand_at_their_index() {
        places_fit::<Transport>();
        places_fit::<CloseReason>();
        places_fit::<PacketKind>();
        places_fit::<AuthRefusal>();
        places_fit::<SessionEnd>();
        places_fit::<JwksFetch>();
        places_fit::<ForwardResult>();
        places_fit::<ForwardedResult>();
        places_fit::<Listener>();
        places_fit::<ConnectionRefusal>();
        places_fit::<Refusal>();
        places_fit::<SentAway>();
        places_fit::<Fullness>();
    }
}
