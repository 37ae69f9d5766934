//! Signatures of the Standard Webhooks specification: HMAC-SHA256 over id, time and body, one for each secret.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::config::{Secret, signing_key};

/// The keys of a backend: the present one, and others while secrets are being replaced.
#[derive(Clone)]
pub(super) struct Signer {
    keys: Vec<Hmac<Sha256>>,
}

impl Signer {
    /// Secrets that cannot be read were told of by the check of the configuration.
    pub(super) fn new(secrets: &[Secret]) -> Self {
        let keys = secrets.iter().filter_map(signing_key);
        Self { keys: keys.filter_map(|key| Hmac::new_from_slice(&key).ok()).collect() }
    }

    /// The value of `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let signatures = self.keys.iter().map(|key| {
            let mut mac = key.clone();
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

/// A new `webhook-id`: the same for every attempt of one request.
pub(super) fn message_id() -> String {
    let random: [u8; 15] = rand::random();
    format!("msg_{}", URL_SAFE_NO_PAD.encode(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification ("Signature scheme" in its reference libraries' tests).
    #[test]
    fn signs_as_the_specification_says() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signer = Signer::new(std::slice::from_ref(&secret));
        let body = br#"{"test": 2432232314}"#;
        let signed = signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let other = Secret::new("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
        let both = Signer::new(&[other, secret]).sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert!(both.split(' ').count() == 2 && both.ends_with(&signed));
    }

    #[test]
    fn ids_can_stand_in_a_header_and_have_no_full_stop() {
        let id = message_id();
        assert!(id.starts_with("msg_") && id.len() == 24);
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)));
        assert_ne!(id, message_id());
    }
}
