//! MessagePack to JSON with `{"$bin":"<base64>"}` for binary, and back. Owns what of the one has no place in the other.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};
use serde_json::{Map, Number, Value};

use super::{Code, Problem};

/// As deep as JSON may be.
const MAX_DEPTH: usize = 128;

/// Writes MessagePack as JSON.
pub(super) fn to_json(bytes: &[u8]) -> Result<Vec<u8>, Problem> {
    let mut deserializer = rmp_serde::Deserializer::new(std::io::Cursor::new(bytes));
    deserializer.set_max_depth(MAX_DEPTH);
    let invalid = |detail: String| Problem::new(Code::InvalidJson, format!("not MessagePack: {detail}"));
    let Json(value) = Json::deserialize(&mut deserializer).map_err(|error| invalid(error.to_string()))?;
    // A body is an object; its length in MessagePack is not known from outside, so what follows is looked for.
    let read = deserializer.position();
    if read != bytes.len() as u64 {
        return Err(invalid("something follows the body".to_owned()));
    }
    serde_json::to_vec(&value).map_err(|error| Problem::new(Code::Internal, error.to_string()))
}

/// Writes JSON as MessagePack.
pub(super) fn from_json(value: &Value) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    rmp_serde::to_vec(&Msgpack(value))
}

/// A value in which binary is `{"$bin":…}`.
struct Json(Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor).map(Json)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what JSON can say, or binary")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        // As JavaScript writes what is no number of JSON.
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<Value, E> {
        Ok(serde_json::json!({ "$bin": STANDARD.encode(value) }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Json(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(Json(key)) = entries.next_key()? {
            let key = match key {
                Value::String(key) => key,
                // As JavaScript writes the keys of an object.
                Value::Number(key) => key.to_string(),
                _ => return Err(A::Error::custom("a key of a map is neither text nor a number")),
            };
            let Json(value) = entries.next_value()?;
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key stands twice in a map"));
            }
        }
        Ok(Value::Object(map))
    }
}

/// A value whose `{"$bin":…}` is binary.
struct Msgpack<'a>(&'a Value);

impl Serialize for Msgpack<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(&Msgpack(item)))?;
                list.end()
            }
            Value::Object(map) => {
                if let Some(bytes) = binary(map) {
                    return serializer.serialize_bytes(&bytes);
                }
                let mut entries = serializer.serialize_map(Some(map.len()))?;
                map.iter().try_for_each(|(key, value)| entries.serialize_entry(key, &Msgpack(value)))?;
                entries.end()
            }
            plain => plain.serialize(serializer),
        }
    }
}

fn binary(map: &Map<String, Value>) -> Option<Vec<u8>> {
    match map.get("$bin") {
        Some(Value::String(text)) if map.len() == 1 => STANDARD.decode(text).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn json_of(bytes: &[u8]) -> Result<Value, String> {
        let json = to_json(bytes).map_err(|problem| problem.detail)?;
        Ok(serde_json::from_slice(&json).unwrap())
    }

    #[test]
    fn binary_comes_and_goes_as_it_is() {
        // {"a":[1,-1,1.5,nil,true],"b":bin 01 02 03}
        let bytes = b"\x82\xa1a\x95\x01\xff\xcb\x3f\xf8\0\0\0\0\0\0\xc0\xc3\xa1b\xc4\x03\x01\x02\x03";
        let json = json!({ "a": [1, -1, 1.5, null, true], "b": { "$bin": "AQID" } });
        assert_eq!(json_of(bytes).unwrap(), json);
        assert_eq!(from_json(&json).unwrap(), bytes);
        assert_eq!(json_of(b"\x81\x07\xa1x").unwrap(), json!({ "7": "x" }));
        // What looks like it and is not.
        let odd = json!({ "$bin": "AQ", "x": 1 });
        assert_eq!(json_of(&from_json(&odd).unwrap()).unwrap(), odd);
    }

    #[test]
    fn nonsense_is_refused() {
        let deep = [[0x91; 200].as_slice(), &[0xc0]].concat();
        for bytes in [
            b"".as_slice(),
            b"\xc1",
            b"\x92\x01",
            b"\x81\xa1a",
            b"\x81\xc0\x01",
            b"\x82\xa1a\x01\xa1a\x02",
            b"\x80\x80",
            b"\xdd\xff\xff\xff\xff",
            b"\xd6\xff\0\0\0\0",
            &deep,
        ] {
            assert!(json_of(bytes).is_err(), "{bytes:x?}");
        }
    }
}
