//! Rust values to the JSON of a packet: binary is taken out into attachments, and a tuple becomes several arguments.

use std::io;

use bytes::Bytes;
use serde::Serialize;
use serde::ser::{self, Impossible, Serializer};
use serde_json::ser::{CompactFormatter, Formatter};

/// The elements of the argument array that `value` stands for, and its attachments.
pub(super) fn elements<T: Serialize + ?Sized>(value: &T) -> Result<(Vec<u8>, Vec<Bytes>), serde_json::Error> {
    let mut json = Vec::with_capacity(128);
    let mut formatter = ExtractBinary { attachments: Vec::new() };
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut json, &mut formatter))?;
    if value.serialize(IsTuple).is_ok_and(|()| true) {
        // `[a,b]` was written for a tuple and `null` for the unit: its elements are what is inside.
        let inner = if json == b"null" { Vec::new() } else { json[1..json.len() - 1].to_vec() };
        return Ok((inner, formatter.attachments));
    }
    Ok((json, formatter.attachments))
}

/// Writes a placeholder where a value serializes as bytes, and keeps the bytes.
struct ExtractBinary {
    attachments: Vec<Bytes>,
}

impl Formatter for &mut ExtractBinary {
    fn write_byte_array<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: &[u8]) -> io::Result<()> {
        write!(writer, r#"{{"_placeholder":true,"num":{}}}"#, self.attachments.len())?;
        self.attachments.push(Bytes::copy_from_slice(value));
        Ok(())
    }

    fn write_null<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        CompactFormatter.write_null(writer)
    }
}

/// A serializer that writes nothing: `Ok` for a tuple or the unit, `Err` for everything else.
struct IsTuple;

/// "Not a tuple": an answer, not a failure.
#[derive(Debug)]
struct NotATuple;

impl std::fmt::Display for NotATuple {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not a tuple")
    }
}

impl std::error::Error for NotATuple {}

impl ser::Error for NotATuple {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self
    }
}

/// Accepts the elements of a tuple without looking at them.
struct TupleElements;

impl ser::SerializeTuple for TupleElements {
    type Ok = ();
    type Error = NotATuple;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), NotATuple> {
        Ok(())
    }

    fn end(self) -> Result<(), NotATuple> {
        Ok(())
    }
}

macro_rules! not_a_tuple {
    ($($method:ident($type:ty)),* $(,)?) => {
        $(fn $method(self, _: $type) -> Result<(), NotATuple> { Err(NotATuple) })*
    };
}

impl Serializer for IsTuple {
    type Ok = ();
    type Error = NotATuple;
    type SerializeSeq = Impossible<(), NotATuple>;
    type SerializeTuple = TupleElements;
    type SerializeTupleStruct = Impossible<(), NotATuple>;
    type SerializeTupleVariant = Impossible<(), NotATuple>;
    type SerializeMap = Impossible<(), NotATuple>;
    type SerializeStruct = Impossible<(), NotATuple>;
    type SerializeStructVariant = Impossible<(), NotATuple>;

    not_a_tuple! {
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64), serialize_f32(f32),
        serialize_f64(f64), serialize_char(char), serialize_str(&str), serialize_bytes(&[u8]),
        serialize_unit_struct(&'static str),
    }

    fn serialize_unit(self) -> Result<(), NotATuple> {
        Ok(())
    }

    fn serialize_tuple(self, _: usize) -> Result<TupleElements, NotATuple> {
        Ok(TupleElements)
    }

    fn serialize_none(self) -> Result<(), NotATuple> {
        Err(NotATuple)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), NotATuple> {
        Err(NotATuple)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), NotATuple> {
        Err(NotATuple)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: &T,
    ) -> Result<(), NotATuple> {
        Err(NotATuple)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), NotATuple> {
        Err(NotATuple)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, NotATuple> {
        Err(NotATuple)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, NotATuple> {
        Err(NotATuple)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NotATuple> {
        Err(NotATuple)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, NotATuple> {
        Err(NotATuple)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, NotATuple> {
        Err(NotATuple)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, NotATuple> {
        Err(NotATuple)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T: Serialize>(value: T) -> String {
        String::from_utf8(elements(&value).unwrap().0).unwrap()
    }

    #[test]
    fn tuples_are_several_arguments_and_everything_else_is_one() {
        assert_eq!(text(()), "");
        assert_eq!(text((1, "a")), r#"1,"a""#);
        assert_eq!(text("a"), r#""a""#);
        assert_eq!(text(vec![1, 2]), "[1,2]");
        assert_eq!(text(Some((1, 2))), "[1,2]");
        assert_eq!(text(None::<u8>), "null");
        assert_eq!(text(serde_json::json!({"a": [1]})), r#"{"a":[1]}"#);
    }
}
