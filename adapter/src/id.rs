//! Ids of nodes and sockets.
//!
//! Every id that a node gives out begins with the node's tag, so that any node can tell who owns it: an emit to one
//! socket is one hop. An id stays what clients and adapters of Socket.IO expect, 20 characters of `[A-Za-z0-9_-]`.

use std::fmt;
use std::str::FromStr;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The first four characters of every id that one node gives out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeTag([u8; 4]);

impl NodeTag {
    /// The length of a tag in characters.
    pub const LEN: usize = 4;

    /// Makes a tag of 24 random bits.
    pub fn from_random(random: [u8; 3]) -> Self {
        let mut tag = [0; 4];
        encode(&random, &mut tag);
        Self(tag)
    }

    /// The tag as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the alphabet is ASCII")
    }
}

/// The id of a socket or of an Engine.IO session: 24 bits of node tag and 96 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId([u8; 20]);

impl SocketId {
    /// The length of an id in characters.
    pub const LEN: usize = 20;

    /// Makes an id of the node with this tag. The random bytes must come from a secure source: an Engine.IO id is a
    /// bearer secret (CVE-2017-16031).
    pub fn new(node: NodeTag, random: [u8; 12]) -> Self {
        let mut id = [0; 20];
        id[..4].copy_from_slice(&node.0);
        encode(&random, &mut id[4..]);
        Self(id)
    }

    /// The node that gave out this id.
    pub fn node(&self) -> NodeTag {
        NodeTag([self.0[0], self.0[1], self.0[2], self.0[3]])
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the alphabet is ASCII")
    }
}

/// Writes three bytes as four characters of URL-safe base64.
fn encode(bytes: &[u8], out: &mut [u8]) {
    for (bytes, out) in bytes.chunks_exact(3).zip(out.chunks_exact_mut(4)) {
        let bits = u32::from(bytes[0]) << 16 | u32::from(bytes[1]) << 8 | u32::from(bytes[2]);
        for (index, character) in out.iter_mut().enumerate() {
            *character = ALPHABET[(bits >> (18 - 6 * index) & 63) as usize];
        }
    }
}

/// Text that is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id")]
pub struct ParseIdError;

fn parse<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let bytes: [u8; N] = text.as_bytes().try_into().map_err(|_| ParseIdError)?;
    let valid = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    valid.then_some(bytes).ok_or(ParseIdError)
}

impl FromStr for SocketId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse(text).map(Self)
    }
}

impl FromStr for NodeTag {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        parse(text).map(Self)
    }
}

macro_rules! text_form {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

text_form!(NodeTag, SocketId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_node() {
        let node = NodeTag::from_random([0xfb, 0xff, 0x00]);
        let id = SocketId::new(node, *b"\x00\x01\x02\xff\xfe\xfd\x10\x20\x30\x40\x50\x60");
        assert_eq!(node.as_str(), "-_8A");
        assert_eq!(id.as_str(), "-_8AAAEC__79ECAwQFBg");
        assert_eq!(id.node(), node);
        assert_eq!(id.as_str().parse(), Ok(id));
        assert_eq!("-_8AAAEC__79ECAwQFB".parse::<SocketId>(), Err(ParseIdError));
        assert_eq!("-_8AAAEC__79ECAwQF#g".parse::<SocketId>(), Err(ParseIdError));
    }
}
