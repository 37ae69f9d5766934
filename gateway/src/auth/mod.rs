//! Tokens: which are believed, and what they say. Owns keys, where they come from, what is checked of a token, and which
//! tokens were revoked.
//!
//! It knows no socket and no room: a token goes in, [`Verified`] or an [`AuthError`] comes out.

mod claims;
mod error;
mod jwks;
mod keys;
mod revocations;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod verifier;

pub(crate) use claims::{Grants, Verified};
pub(crate) use error::{AuthError, KeyError};
pub(crate) use keys::check_static_keys;
pub(crate) use revocations::{Revocation, RevocationTable, Revoked, millis};
pub(crate) use verifier::Verifier;
