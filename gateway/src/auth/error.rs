//! Why a token is not believed, and why a key cannot be used. Owns the codes, which clients read.

/// Why a token is not believed. What it shows is what the client is told: no key and no part of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub(crate) enum AuthError {
    #[error("A token is needed: connect with {{auth: {{token}}}}")]
    Missing,
    #[error("The token is no JSON Web Token")]
    Malformed,
    #[error("The token is signed by an algorithm that is not taken")]
    Algorithm,
    #[error("The token is signed with a key that is not known")]
    UnknownKey,
    #[error("The signature of the token is wrong")]
    Signature,
    #[error("The token has no valid `{0}`")]
    Claim(&'static str),
    #[error("The token is not for this audience")]
    Audience,
    #[error("The token is of another issuer")]
    Issuer,
    #[error("The token is not valid yet")]
    NotYetValid,
    #[error("The token has expired")]
    Expired,
    #[error("The token was revoked")]
    Revoked,
    #[error("The token is another user's")]
    OtherUser,
    #[error("The keys of the issuer are not there yet: try again soon")]
    KeysUnavailable,
}

impl AuthError {
    /// The stable code, in `err.data.code` of a `connect_error` and in ack errors.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Malformed
            | Self::Algorithm
            | Self::UnknownKey
            | Self::Signature
            | Self::Claim(_)
            | Self::Audience
            | Self::Issuer
            | Self::NotYetValid => "token_invalid",
            Self::Expired => "token_expired",
            Self::Revoked => "token_revoked",
            Self::OtherUser => "forbidden",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }

    /// The status, in the words of HTTP.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::OtherUser => 403,
            Self::KeysUnavailable => 503,
            _ => 401,
        }
    }
}

/// Why a configured key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("it is no public key in PEM")]
    NotPem,
    #[error("it is a private key: the gateway needs the public one, and nobody else should have this one")]
    Private,
    #[error("it is neither RSA, P-256 nor Ed25519")]
    Kind,
    #[error("an RSA key has fewer than {} bits", super::keys::MIN_RSA_BITS)]
    WeakRsa,
    #[error("a secret has fewer than {} bytes", super::keys::MIN_SECRET)]
    ShortSecret,
}
