//! Keys that verify tokens: from a secret, from PEM, from a JWK set.
//!
//! Owns which keys are good enough, and that each is for one algorithm: a token's header chooses among keys, never how a
//! key is used. So a public key can never be taken for the secret of HS256.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

use super::error::KeyError;
use crate::config::{Jwt, JwtAlgorithm};

/// RFC 7518, section 3.2: a key of the size of the hash or larger.
pub(crate) const MIN_SECRET: usize = 32;
/// RFC 7518, section 3.3.
pub(crate) const MIN_RSA_BITS: usize = 2048;
/// The largest RSA key: verifying takes time that grows with it.
const MAX_RSA_BITS: usize = 8192;
/// Keys that are taken out of one JWK set or PEM file.
const MAX_KEYS: usize = 100;

/// A key and the one algorithm that it is for.
#[derive(Clone)]
pub(crate) struct Key {
    /// Its name in the issuer's set.
    pub(crate) id: Option<Box<str>>,
    pub(crate) algorithm: JwtAlgorithm,
    key: DecodingKey,
}

impl Key {
    /// Whether a signature is this key's.
    pub(crate) fn verifies(&self, message: &[u8], signature: &str) -> bool {
        let algorithm = match self.algorithm {
            JwtAlgorithm::Hs256 => Algorithm::HS256,
            JwtAlgorithm::Rs256 => Algorithm::RS256,
            JwtAlgorithm::Es256 => Algorithm::ES256,
            JwtAlgorithm::EdDsa => Algorithm::EdDSA,
        };
        jsonwebtoken::crypto::verify(signature, message, &self.key, algorithm).unwrap_or(false)
    }
}

/// The keys that stand in the configuration itself. An error names the setting.
pub(super) fn static_keys(jwt: &Jwt) -> Result<Vec<Key>, (&'static str, KeyError)> {
    let mut keys = Vec::new();
    if let Some(secret) = &jwt.secret {
        let secret = secret.expose().as_bytes();
        if secret.len() < MIN_SECRET {
            return Err(("secret", KeyError::ShortSecret));
        }
        let key = DecodingKey::from_secret(secret);
        keys.push(Key { id: None, algorithm: JwtAlgorithm::Hs256, key });
    }
    if let Some(pem) = &jwt.public_key {
        keys.extend(from_pem(pem).map_err(|error| ("public_key", error))?);
    }
    Ok(keys)
}

/// Whether the keys that stand in the configuration can be used.
pub(crate) fn check_static_keys(jwt: &Jwt) -> Result<(), (&'static str, KeyError)> {
    static_keys(jwt).map(drop)
}

/// The keys of a PEM text, one for each block.
fn from_pem(text: &str) -> Result<Vec<Key>, KeyError> {
    const BEGIN: &str = "-----BEGIN ";
    // An environment variable may have its line breaks escaped.
    let text = text.replace("\\n", "\n");
    let blocks: Vec<_> = text.match_indices(BEGIN).map(|(at, _)| at).take(MAX_KEYS).collect();
    if blocks.is_empty() {
        return Err(KeyError::NotPem);
    }
    let ends = blocks.iter().skip(1).copied().chain([text.len()]);
    blocks.iter().zip(ends).map(|(begin, end)| block(text.get(*begin..end).unwrap_or_default())).collect()
}

fn block(pem: &str) -> Result<Key, KeyError> {
    if pem.lines().next().is_some_and(|line| line.contains("PRIVATE KEY")) {
        return Err(KeyError::Private);
    }
    let bytes = pem.as_bytes();
    let (algorithm, key) = if let Ok(key) = DecodingKey::from_rsa_pem(bytes) {
        let modulus = key.try_get_as_bytes().ok().and_then(modulus_of).ok_or(KeyError::NotPem)?;
        check_rsa(modulus)?;
        (JwtAlgorithm::Rs256, key)
    } else if let Ok(key) = DecodingKey::from_ec_pem(bytes) {
        // An uncompressed point of P-256; other curves have other lengths.
        let is_p256 =
            key.try_get_as_bytes().is_ok_and(|point| point.len() == 65 && point.first() == Some(&4));
        (JwtAlgorithm::Es256, Some(key).filter(|_| is_p256).ok_or(KeyError::Kind)?)
    } else if let Ok(key) = DecodingKey::from_ed_pem(bytes) {
        let is_ed25519 = key.try_get_as_bytes().is_ok_and(|point| point.len() == 32);
        (JwtAlgorithm::EdDsa, Some(key).filter(|_| is_ed25519).ok_or(KeyError::Kind)?)
    } else {
        return Err(KeyError::NotPem);
    };
    Ok(Key { id: None, algorithm, key })
}

/// The modulus in a DER `RSAPublicKey` (RFC 8017, appendix A.1.1): the first INTEGER of a SEQUENCE.
fn modulus_of(der: &[u8]) -> Option<&[u8]> {
    let (0x30, sequence) = element(der)? else { return None };
    let (0x02, modulus) = element(sequence)? else { return None };
    Some(modulus)
}

/// The tag and the content of the DER element that some bytes begin with.
fn element(der: &[u8]) -> Option<(u8, &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(long - 0x80))?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    Some((*tag, rest.get(..length)?))
}

fn check_rsa(modulus: &[u8]) -> Result<(), KeyError> {
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let bytes = modulus.len() - zeros;
    let head = modulus.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    match bytes * 8 - head.min(bytes * 8) {
        bits if bits < MIN_RSA_BITS => Err(KeyError::WeakRsa),
        bits if bits > MAX_RSA_BITS => Err(KeyError::Kind),
        _ => Ok(()),
    }
}

/// The usable keys of a JWK set (RFC 7517): an issuer may also have keys for other purposes and of other kinds, which are
/// passed over. An error says that it is no set.
pub(super) fn from_jwks(json: &[u8]) -> Result<Vec<Key>, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(json)?;
    let jwks = set.keys.into_iter().take(MAX_KEYS).filter_map(|jwk| serde_json::from_value::<Jwk>(jwk).ok());
    Ok(jwks.filter_map(|jwk| from_jwk(&jwk)).collect())
}

fn from_jwk(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    if common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = decode(&rsa.n)?;
            check_rsa(&modulus).ok()?;
            JwtAlgorithm::Rs256
        }
        AlgorithmParameters::EllipticCurve(ec) if ec.curve == EllipticCurve::P256 => {
            (decode(&ec.x)?.len() == 32 && decode(&ec.y)?.len() == 32).then_some(JwtAlgorithm::Es256)?
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            (decode(&pair.x)?.len() == 32).then_some(JwtAlgorithm::EdDsa)?
        }
        // A secret that is published is none.
        _ => return None,
    };
    if common.key_algorithm.is_some_and(|named| named.to_string() != algorithm.as_str()) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(Key { id: common.key_id.as_deref().map(Into::into), algorithm, key })
}

fn decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()
}
