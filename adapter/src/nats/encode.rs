//! Subjects of the cluster as subjects of NATS. Pure; knows no connection.
//!
//! A NATS subject is a list of tokens with dots between; a token is not empty and contains no dot, wildcard, white space
//! or control character. The rule:
//!
//! - `head/tail`, split at the first slash, becomes `<prefix>.<token(head)>.<token(tail)>`, and a subject without a slash
//!   becomes `<prefix>.%-.<token(subject)>`. There are always two tokens behind the prefix, so deployments with the
//!   prefixes `a` and `a.b` never meet.
//! - In a token, letters, digits and `-_/:=@+~` stand for themselves and every other byte of the UTF-8 text is `%` and two
//!   capital hexadecimal digits. An empty text is `%`.
//! - A token that would be longer than 200 characters is cut to at most 128, never within an escape, and continues with
//!   `%~` and the SHA-256 of the whole text in hexadecimal.
//!
//! `%` is never followed by `-`, `~` or the end otherwise. So different subjects have different encodings, as far as SHA-256
//! has no collisions. Nothing is decoded: a subscription remembers the subject that it was made for.

use sha2::{Digest, Sha256};

use crate::cluster::BusError;

/// The longest token that is written out.
const MAX_TOKEN: usize = 200;
/// How much of a longer one is kept for those who read it.
const KEPT: usize = 128;
/// The head of a subject without a slash.
const NO_HEAD: &str = "%-";
const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Encodes subjects under one prefix.
#[derive(Debug, Clone)]
pub(super) struct Subjects {
    prefix: String,
}

impl Subjects {
    pub(super) fn new(prefix: &str) -> Result<Self, BusError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let token = |token: &str| !token.is_empty() && token.bytes().all(allowed);
        if prefix.len() > 100 || !prefix.split('.').all(token) {
            let text = format!(
                "the prefix {prefix:?} must be 1 to 100 letters, digits, `_` and `-`, with single dots between"
            );
            return Err(BusError::Configuration(text));
        }
        Ok(Self { prefix: prefix.to_owned() })
    }

    pub(super) fn encode(&self, subject: &str) -> String {
        let mut out = String::with_capacity(self.prefix.len() + subject.len() + 8);
        out.push_str(&self.prefix);
        out.push('.');
        let tail = match subject.split_once('/') {
            Some((head, tail)) => {
                push_token(&mut out, head);
                tail
            }
            None => {
                out.push_str(NO_HEAD);
                subject
            }
        };
        out.push('.');
        push_token(&mut out, tail);
        out
    }

    /// Where the client's own inboxes are. No encoded subject begins so.
    pub(super) fn inbox(&self) -> String {
        format!("{}.%inbox", self.prefix)
    }
}

/// A text as one token of a subject, by the rule of this module.
pub fn subject_token(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_token(&mut out, text);
    out
}

fn push_token(out: &mut String, text: &str) {
    let start = out.len();
    if text.is_empty() {
        out.push('%');
        return;
    }
    let mut kept = start;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_/:=@+~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            push_hex(out, byte);
        }
        let length = out.len() - start;
        if length <= KEPT {
            kept = out.len();
        } else if length > MAX_TOKEN {
            out.truncate(kept);
            out.push_str("%~");
            Sha256::digest(text.as_bytes()).iter().for_each(|byte| push_hex(out, *byte));
            return;
        }
    }
}

fn push_hex(out: &mut String, byte: u8) {
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(subject: &str) -> String {
        Subjects::new("roomcast").expect("a good prefix").encode(subject)
    }

    #[test]
    fn golden() {
        for (subject, encoded) in [
            ("room/lobby", "roomcast.room.lobby"),
            ("room/a/b", "roomcast.room.a/b"),
            ("room/a.b", "roomcast.room.a%2Eb"),
            ("room/*", "roomcast.room.%2A"),
            ("room/>", "roomcast.room.%3E"),
            ("room/two words\r\n", "roomcast.room.two%20words%0D%0A"),
            ("room/100%", "roomcast.room.100%25"),
            ("room/%2E", "roomcast.room.%252E"),
            ("room/\u{e4}\u{1f600}", "roomcast.room.%C3%A4%F0%9F%98%80"),
            ("room/\0", "roomcast.room.%00"),
            ("room/", "roomcast.room.%"),
            ("/room", "roomcast.%.room"),
            ("/", "roomcast.%.%"),
            ("", "roomcast.%-.%"),
            ("nodes", "roomcast.%-.nodes"),
            ("$SYS/x", "roomcast.%24SYS.x"),
        ] {
            assert_eq!(encode(subject), encoded, "{subject:?}");
        }
    }

    #[test]
    fn golden_long() {
        let exact = "x".repeat(200);
        assert_eq!(encode(&format!("room/{exact}")), format!("roomcast.room.{exact}"));
        let long = "x".repeat(201);
        let hash = "84A0678C90937F5DCF9994D5866668DA6B995109C8AD845410559B48A4ECAFED";
        assert_eq!(encode(&format!("room/{long}")), format!("roomcast.room.{}%~{hash}", "x".repeat(128)));
        // 127 characters and an escape do not fit into 128.
        let cut = encode(&format!("room/{}{}", "x".repeat(127), ".".repeat(80)));
        assert!(cut.starts_with(&format!("roomcast.room.{}%~", "x".repeat(127))), "{cut}");
    }

    #[test]
    fn prefixes() {
        assert!(Subjects::new("prod.roomcast-1").is_ok());
        for prefix in ["", ".a", "a.", "a..b", "a.*", ">", "a b", "$SYS", "a%", &"x".repeat(101)] {
            assert!(matches!(Subjects::new(prefix), Err(BusError::Configuration(_))), "{prefix:?}");
        }
    }

    fn subject() -> impl Strategy<Value = String> {
        // Few letters, so that similar subjects meet, and long ones.
        prop_oneof![any::<String>(), "[a./%~2E\\-]{0,6}", "[a.]{120,260}", "[a.]{60}/[a.]{190,210}"]
    }

    proptest! {
        #[test]
        fn different_subjects_stay_different(a in subject(), b in subject()) {
            prop_assert_eq!(a == b, encode(&a) == encode(&b));
        }

        #[test]
        fn other_prefixes_never_meet(a in subject(), b in subject()) {
            let (outer, inner) = (Subjects::new("p").expect("good"), Subjects::new("p.a").expect("good"));
            prop_assert_ne!(outer.encode(&a), inner.encode(&b));
        }

        #[test]
        fn encodings_are_valid_and_bounded(a in subject()) {
            let encoded = encode(&a);
            prop_assert!(encoded.len() <= "roomcast".len() + 2 * (1 + MAX_TOKEN));
            prop_assert_eq!(encoded.split('.').count(), 3);
            prop_assert!(encoded.split('.').all(|token| !token.is_empty()));
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*' && byte != b'>'));
            prop_assert!(!encoded.starts_with("roomcast.%inbox"));
        }
    }
}
