//! Who calls, and what they may do. Owns the scopes; how a caller proves who it is, is the transport's.

use crate::backend::{Code, Problem};

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// To emit, and to ask clients for acks.
    Emit,
    /// To read rooms, sockets and nodes.
    Read,
    /// To move and disconnect sockets, revoke tokens and drain nodes.
    Admin,
}

impl Scope {
    /// Every scope.
    pub(crate) const ALL: [Self; 3] = [Self::Emit, Self::Read, Self::Admin];

    /// The name in the configuration and in tokens.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Emit => "emit",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// A caller, known and with its rights.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    scopes: Vec<Scope>,
}

impl Caller {
    /// Somebody who may do everything: who holds a key without limits, or is on loopback where there are no keys.
    pub(crate) fn unlimited() -> Self {
        Self { scopes: Scope::ALL.to_vec() }
    }

    pub(super) fn check(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        Err(Problem::new(Code::Forbidden, format!("this needs the scope \"{}\"", scope.as_str())))
    }
}
