//! A bound of memory as people write it: a size, or a share of what there is.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::units;

/// A bound of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryLimit {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of what the process may have.
    Percent(u8),
}

impl MemoryLimit {
    /// The bound in bytes, where the process may have `total`.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => {
                u64::try_from(u128::from(total) * u128::from(percent) / 100).unwrap_or(u64::MAX)
            }
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let Some(number) = text.strip_suffix('%') else {
            let bytes = text.parse().ok().or_else(|| units::parse_bytes(text))?;
            return Some(Self::Bytes(u64::try_from(bytes).unwrap_or(u64::MAX)));
        };
        let percent = number.trim().parse().ok()?;
        (1..=100).contains(&percent).then_some(Self::Percent(percent))
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for MemoryLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bytes(bytes) => serializer.serialize_u64(*bytes),
            Self::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for MemoryLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Limit;

        impl de::Visitor<'_> for Limit {
            type Value = MemoryLimit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"2GiB\", or a share such as \"80%\"")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<MemoryLimit, E> {
                Ok(MemoryLimit::Bytes(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<MemoryLimit, E> {
                let bytes = u64::try_from(bytes);
                bytes.map(MemoryLimit::Bytes).map_err(|_| E::custom("a size is not negative"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<MemoryLimit, E> {
                MemoryLimit::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Limit)
    }
}

impl JsonSchema for MemoryLimit {
    fn schema_name() -> Cow<'static, str> {
        "MemoryLimit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "minimum": 1,
            "pattern": r"^\s*(\d+\s*([kKmMgG]?[iI]?[bB])?|(100|[1-9]\d?)\s*%)\s*$",
            "examples": ["80%", "2GiB"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_are_read_and_written() {
        let cases = [
            ("\"80%\"", MemoryLimit::Percent(80)),
            ("\" 100 %\"", MemoryLimit::Percent(100)),
            ("\"2GiB\"", MemoryLimit::Bytes(2 << 30)),
            ("\"4096\"", MemoryLimit::Bytes(4_096)),
            ("4096", MemoryLimit::Bytes(4_096)),
        ];
        for (text, limit) in cases {
            let read: MemoryLimit = serde_json::from_str(text).unwrap();
            assert_eq!(read, limit);
            assert_eq!(
                serde_json::from_str::<MemoryLimit>(&serde_json::to_string(&read).unwrap()).unwrap(),
                limit
            );
        }
        for text in ["\"0%\"", "\"101%\"", "\"%\"", "\"a lot\"", "-1", "1.5", "true"] {
            assert!(serde_json::from_str::<MemoryLimit>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_share_is_one_of_what_there_is() {
        assert_eq!(MemoryLimit::Percent(80).of(1_000), 800);
        assert_eq!(MemoryLimit::Percent(100).of(u64::MAX), u64::MAX);
        assert_eq!(MemoryLimit::Bytes(5).of(1_000), 5);
    }
}
