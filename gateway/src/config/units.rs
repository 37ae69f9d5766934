//! Durations and sizes as people write them. Owns reading and writing them, knows no key.

use std::fmt;
use std::time::Duration;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserializer, Serializer};

/// Durations: `"25s"`, `"300ms"`, `"1m 30s"`, or a number of milliseconds.
pub(super) mod duration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(Quantity {
            expected: "a duration such as \"25s\", \"300ms\" or \"1m\", or a number of milliseconds",
            parse: |text| humantime::parse_duration(text).ok(),
            number: Duration::from_millis,
        })
    }
}

/// Sizes: `"16MiB"`, `"64kB"`, or a number of bytes.
pub(super) mod bytes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        for (unit, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if *value >= factor && value.is_multiple_of(factor) {
                return serializer.collect_str(&format_args!("{}{unit}", value / factor));
            }
        }
        serializer.serialize_u64(*value as u64)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_any(Quantity {
            expected: "a size such as \"16MiB\" or \"64kB\", or a number of bytes",
            parse: super::parse_bytes,
            number: |number| usize::try_from(number).unwrap_or(usize::MAX),
        })
    }
}

/// A list of texts, or one text for a list of one.
pub(super) fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct OneOrMany;

    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a text or a list of texts")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<String>, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = seq.next_element()? {
                texts.push(text);
            }
            Ok(texts)
        }
    }

    deserializer.deserialize_any(OneOrMany)
}

pub(super) fn parse_bytes(text: &str) -> Option<usize> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let factor: usize = match unit.trim().to_ascii_lowercase().as_str() {
        "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(factor)
}

/// Reads a number, or text with a unit.
struct Quantity<T> {
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
    number: fn(u64) -> T,
}

impl<T> Visitor<'_> for Quantity<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        Ok((self.number)(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        u64::try_from(number)
            .map(self.number)
            .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(number), &self))
    }

    /// The environment has no numbers, so a number may also be quoted.
    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        let text = text.trim();
        match text.parse::<u64>() {
            Ok(number) => Ok((self.number)(number)),
            Err(_) => {
                (self.parse)(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Both {
        #[serde(with = "duration")]
        time: Duration,
        #[serde(with = "bytes")]
        size: usize,
    }

    fn read(time: &str, size: &str) -> Result<Both, toml::de::Error> {
        toml::from_str(&format!("time = {time}\nsize = {size}"))
    }

    #[test]
    fn units_are_read() {
        let cases = [
            ("\"25s\"", "\"16MiB\"", 25_000, 16 << 20),
            ("300", "1_000_000", 300, 1_000_000),
            ("\"1m 30s\"", "\"64 kB\"", 90_000, 64_000),
            ("\"1500\"", "\"4096\"", 1_500, 4_096),
            ("\"300ms\"", "\"2GB\"", 300, 2_000_000_000),
        ];
        for (time, size, millis, bytes) in cases {
            let expected = Both { time: Duration::from_millis(millis), size: bytes };
            assert_eq!(read(time, size).unwrap(), expected);
        }
    }

    #[test]
    fn what_has_no_unit_or_sign_is_refused_with_a_hint() {
        for (time, size) in [("\"25 sheep\"", "1"), ("-1", "1"), ("true", "1")] {
            assert!(read(time, size).unwrap_err().to_string().contains("\"25s\""), "{time}");
        }
        for size in ["\"16 mebi\"", "\"MiB\"", "-1", "\"99999999999999999999GiB\"", "1.5"] {
            assert!(read("1", size).unwrap_err().to_string().contains("\"16MiB\""), "{size}");
        }
    }

    #[test]
    fn they_are_written_as_they_are_read() {
        let both = Both { time: Duration::from_secs(60), size: 1536 };
        assert_eq!(toml::to_string(&both).unwrap(), "time = \"1m\"\nsize = 1536\n");
        assert_eq!(toml::from_str::<Both>(&toml::to_string(&both).unwrap()).unwrap(), both);
    }
}
