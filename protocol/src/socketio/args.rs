//! The arguments of an event or of an ack.
//!
//! Owns the text of the arguments and their attachments. A gateway relays most arguments without looking at them, so
//! they are kept as the JSON text in which they came, already validated, and decoded only for whoever asks.

use std::fmt;

use base64::Engine as _;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::placeholders::{self, Placeholder};
use super::to_json;

/// Why arguments could not be read as, or written from, a Rust type.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArgsError {
    /// The text is not a JSON array.
    #[error("arguments are not a JSON array")]
    NotAnArray,
    /// An argument has another shape than the type asked for, or a value cannot be written as JSON.
    #[error("argument does not fit: {0}")]
    Json(#[from] serde_json::Error),
    /// An argument that holds binary has another shape than the type asked for.
    #[error("binary argument does not fit: {0}")]
    Binary(#[from] rmpv::ext::Error),
    /// A binary placeholder names an attachment that does not exist.
    #[error("a placeholder names no attachment")]
    IllegalPlaceholder,
}

impl ArgsError {
    /// A stable name for logs, metrics and ack errors.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAnArray => "not_an_array",
            Self::Json(_) | Self::Binary(_) => "invalid_arguments",
            Self::IllegalPlaceholder => "illegal_placeholder",
        }
    }
}

/// The arguments of one event or ack: the elements of a JSON array, and the binary attachments they refer to.
///
/// Cloning is cheap: text and attachments are shared.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Args {
    /// The elements, comma separated, without the brackets: what is left of `["name",1,{}]` is `1,{}`.
    elements: Bytes,
    /// Binary parts, referred to by `{"_placeholder":true,"num":<index>}` in the text.
    attachments: Vec<Bytes>,
}

impl Args {
    /// No arguments.
    pub fn none() -> Self {
        Self::default()
    }

    /// Takes validated text. `elements` must be the inside of a JSON array, and every placeholder must be in range.
    pub(crate) fn from_validated(elements: Bytes, attachments: Vec<Bytes>) -> Self {
        Self { elements, attachments }
    }

    /// Takes validated text and what its placeholders refer to. A sender may leave attachments unused, or use them in any
    /// order and often: what is relayed has those that are used, each once, in the order of their first use.
    pub(crate) fn from_placeholders(elements: Bytes, attachments: Vec<Bytes>) -> Result<Self, ArgsError> {
        let text = std::str::from_utf8(&elements).map_err(|_| ArgsError::NotAnArray)?;
        let found = placeholders::find(text, attachments.len()).map_err(|_| ArgsError::IllegalPlaceholder)?;
        let mut used: Vec<usize> = Vec::new();
        for placeholder in &found {
            if !used.contains(&placeholder.index) {
                used.push(placeholder.index);
            }
        }
        if used.iter().copied().eq(0..attachments.len()) {
            return Ok(Self { elements, attachments });
        }
        let mut renumbered = String::with_capacity(text.len());
        let mut copied = 0;
        for Placeholder { range, index } in found {
            renumbered.push_str(&text[copied..range.start]);
            let number = used.iter().position(|used| *used == index).unwrap_or_default();
            renumbered.push_str(&format!(r#"{{"_placeholder":true,"num":{number}}}"#));
            copied = range.end;
        }
        renumbered.push_str(&text[copied..]);
        let attachments = used.into_iter().map(|index| attachments[index].clone()).collect();
        Ok(Self { elements: renumbered.into(), attachments })
    }

    /// Reads a JSON array, such as the `args` of an HTTP call. `attachments` are what its placeholders refer to.
    pub fn from_json_array(json: &str, attachments: Vec<Bytes>) -> Result<Self, ArgsError> {
        let json = json.trim_matches([' ', '\t', '\r', '\n']);
        serde_json::from_str::<serde::de::IgnoredAny>(json)?;
        let inner =
            json.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).ok_or(ArgsError::NotAnArray)?;
        let inner = inner.trim_matches([' ', '\t', '\r', '\n']);
        let elements = Bytes::copy_from_slice(inner.as_bytes());
        if attachments.is_empty() {
            return Ok(Self { elements, attachments });
        }
        Self::from_placeholders(elements, attachments)
    }

    /// Writes a value as arguments. A tuple is one argument per element and `()` is none; everything else is one
    /// argument. (serde does not tell a fixed-size array from a tuple: pass a slice or a `Vec` for one array argument.)
    ///
    /// Whatever serializes as bytes ([`bytes::Bytes`], `serde_bytes`) becomes a binary attachment.
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<Self, ArgsError> {
        let (elements, attachments) = to_json::elements(value)?;
        Ok(Self { elements: elements.into(), attachments })
    }

    /// True when there is no argument.
    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// The number of arguments.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// The elements as JSON text, comma separated, without brackets.
    pub fn elements(&self) -> &str {
        std::str::from_utf8(&self.elements).expect("arguments were validated as UTF-8")
    }

    /// The binary attachments.
    pub fn attachments(&self) -> &[Bytes] {
        &self.attachments
    }

    /// Memory held, in bytes, not counting the struct.
    pub fn byte_len(&self) -> usize {
        self.elements.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }

    /// The JSON text of each argument. Binary shows as its placeholder.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        Elements { rest: self.elements() }
    }

    /// Decodes the argument at `index`. A missing one decodes like `null`, as a missing argument is `undefined` in
    /// JavaScript: `Option<T>` gives `None`, and a type that cannot be null gives an error.
    pub fn get<T: DeserializeOwned>(&self, index: usize) -> Result<T, ArgsError> {
        self.decode(self.iter().nth(index).unwrap_or("null"))
    }

    /// Decodes the JSON text of one argument, with this value's attachments.
    pub fn decode<T: DeserializeOwned>(&self, element: &str) -> Result<T, ArgsError> {
        if self.attachments.is_empty() {
            return Ok(serde_json::from_str(element)?);
        }
        let mut value: rmpv::Value = serde_json::from_str(element)?;
        self.fill_placeholders(&mut value)?;
        Ok(rmpv::ext::from_value(value)?)
    }

    /// The arguments without the first `count`.
    #[must_use]
    pub fn skip(&self, count: usize) -> Self {
        let mut elements = Elements { rest: self.elements() };
        for _ in 0..count {
            elements.next();
        }
        let start = self.elements.len() - elements.rest.len();
        Self { elements: self.elements.slice(start..), attachments: self.attachments.clone() }
    }

    /// The arguments as a JSON array. Binary is written as `{"$bin":"<base64>"}`, which every JSON reader can take.
    pub fn to_json_array(&self) -> Result<serde_json::Value, ArgsError> {
        let mut array: serde_json::Value = serde_json::from_str(&format!("[{}]", self.elements()))?;
        if !self.attachments.is_empty() {
            self.inline_binary(&mut array)?;
        }
        Ok(array)
    }

    /// Reads a JSON array in which `{"$bin":"<base64>"}` stands for binary: the inverse of [`Args::to_json_array`].
    pub fn from_json_values(mut array: Vec<serde_json::Value>) -> Result<Self, ArgsError> {
        let mut attachments = Vec::new();
        array.iter_mut().for_each(|value| extract_binary(value, &mut attachments));
        let json = serde_json::to_string(&array)?;
        let elements = Bytes::copy_from_slice(&json.as_bytes()[1..json.len() - 1]);
        Ok(Self { elements, attachments })
    }

    fn fill_placeholders(&self, value: &mut rmpv::Value) -> Result<(), ArgsError> {
        match value {
            rmpv::Value::Array(items) => items.iter_mut().try_for_each(|item| self.fill_placeholders(item)),
            rmpv::Value::Map(entries) => match placeholder_index(entries) {
                Some(index) => {
                    let attachment = self.attachments.get(index).ok_or(ArgsError::IllegalPlaceholder)?;
                    *value = rmpv::Value::Binary(attachment.to_vec());
                    Ok(())
                }
                None => entries.iter_mut().try_for_each(|(_, item)| self.fill_placeholders(item)),
            },
            _ => Ok(()),
        }
    }

    fn inline_binary(&self, value: &mut serde_json::Value) -> Result<(), ArgsError> {
        match value {
            serde_json::Value::Array(items) => items.iter_mut().try_for_each(|item| self.inline_binary(item)),
            serde_json::Value::Object(map) => {
                if map.get("_placeholder") == Some(&serde_json::Value::Bool(true)) {
                    let attachment = map
                        .get("num")
                        .and_then(index_of_number)
                        .and_then(|index| self.attachments.get(index))
                        .ok_or(ArgsError::IllegalPlaceholder)?;
                    let base64 = base64::engine::general_purpose::STANDARD.encode(attachment);
                    *value = serde_json::json!({ "$bin": base64 });
                    return Ok(());
                }
                map.values_mut().try_for_each(|item| self.inline_binary(item))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Contents are the users' own: logs get sizes.
        f.debug_struct("Args")
            .field("bytes", &self.elements.len())
            .field("attachments", &self.attachments.len())
            .finish()
    }
}

fn extract_binary(value: &mut serde_json::Value, attachments: &mut Vec<Bytes>) {
    match value {
        serde_json::Value::Array(items) => {
            items.iter_mut().for_each(|item| extract_binary(item, attachments));
        }
        serde_json::Value::Object(map) => {
            let decoded = match map.get("$bin") {
                Some(serde_json::Value::String(text)) if map.len() == 1 => {
                    base64::engine::general_purpose::STANDARD.decode(text).ok()
                }
                _ => None,
            };
            if let Some(bytes) = decoded {
                *value = serde_json::json!({ "_placeholder": true, "num": attachments.len() });
                attachments.push(bytes.into());
            } else {
                map.values_mut().for_each(|item| extract_binary(item, attachments));
            }
        }
        _ => {}
    }
}

/// An index as JavaScript would take it: `0`, and also `0.0`.
fn index_of_number(value: &serde_json::Value) -> Option<usize> {
    let number = value.as_f64()?;
    let in_range = number >= 0.0 && number.fract() == 0.0 && number < f64::from(u32::MAX);
    in_range.then_some(number as usize)
}

fn placeholder_index(entries: &[(rmpv::Value, rmpv::Value)]) -> Option<usize> {
    let field =
        |name: &str| entries.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value);
    if field("_placeholder")?.as_bool() != Some(true) {
        return None;
    }
    let number = field("num")?.as_f64()?;
    (number >= 0.0 && number.fract() == 0.0).then_some(number as usize)
}

/// Splits validated JSON elements at the commas of the top level.
struct Elements<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.rest.is_empty() {
            return None;
        }
        let end = end_of_element(self.rest.as_bytes());
        let (element, rest) = self.rest.split_at(end);
        self.rest = rest.strip_prefix(',').unwrap_or(rest);
        Some(element.trim_matches([' ', '\t', '\r', '\n']))
    }
}

fn end_of_element(text: &[u8]) -> usize {
    let (mut depth, mut in_string, mut at) = (0_usize, false, 0);
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_the_commas_of_the_top_level_only() {
        let args = Args::from_json_array(r#" ["a,\"]b", [1,2] ,{"k":"}"},null] "#, vec![]).unwrap();
        assert_eq!(args.iter().collect::<Vec<_>>(), [r#""a,\"]b""#, "[1,2]", r#"{"k":"}"}"#, "null"]);
        assert_eq!(args.skip(2).elements(), r#"{"k":"}"},null"#);
        assert_eq!(args.skip(9).len(), 0);
    }

    #[test]
    fn decodes_typed_arguments_and_missing_ones_as_null() {
        let args = Args::from_json_array(r#"["x",7]"#, vec![]).unwrap();
        assert_eq!(args.get::<String>(0).unwrap(), "x");
        assert_eq!(args.get::<u8>(1).unwrap(), 7);
        assert_eq!(args.get::<Option<u8>>(2).unwrap(), None);
        assert!(args.get::<u8>(0).is_err());
    }

    #[test]
    fn binary_comes_out_as_bytes_and_goes_in_as_an_attachment() {
        let payload = Bytes::from_static(b"\x01\x02");
        let args = Args::from_serialize(&("name", &payload)).unwrap();
        assert_eq!(args.elements(), r#""name",{"_placeholder":true,"num":0}"#);
        assert_eq!(args.attachments(), std::slice::from_ref(&payload));
        assert_eq!(args.get::<Bytes>(1).unwrap(), payload);
        assert_eq!(args.get::<String>(0).unwrap(), "name");
    }

    #[test]
    fn binary_in_json_values_is_base64() {
        let args = Args::from_json_values(vec![serde_json::json!({"a": {"$bin": "AQI="}})]).unwrap();
        assert_eq!(args.attachments(), [Bytes::from_static(b"\x01\x02")]);
        assert_eq!(args.to_json_array().unwrap(), serde_json::json!([{"a": {"$bin": "AQI="}}]));
    }

    #[test]
    fn attachments_are_relayed_once_each_and_in_order() {
        let parts = ["a", "b", "c"].map(Bytes::from).to_vec();
        let json = r#"[{"_placeholder":true,"num":2},{"z":1,"a":{"_placeholder":true,"num":0}}]"#;
        let args = Args::from_json_array(json, parts.clone()).unwrap();
        assert_eq!(args.attachments(), [parts[2].clone(), parts[0].clone()]);
        let expected = r#"{"_placeholder":true,"num":0},{"z":1,"a":{"_placeholder":true,"num":1}}"#;
        assert_eq!(args.elements(), expected);
        let twice = r#"[{"_placeholder":true,"num":1},{"_placeholder":true,"num":1}]"#;
        let args = Args::from_json_array(twice, parts.clone()).unwrap();
        assert_eq!(args.attachments(), [parts[1].clone()], "a repeat costs nothing");
        assert_eq!(args.len(), 2);
        let args = Args::from_json_array(
            r#"["\ud800",1e400,{"_placeholder":true,"num":0}]"#,
            vec![parts[0].clone()],
        );
        assert_eq!(args.unwrap().elements(), r#""\ud800",1e400,{"_placeholder":true,"num":0}"#);
    }

    #[test]
    fn placeholders_out_of_range_are_refused() {
        for num in ["1", "-1", "0.5", r#""0""#, r#""__proto__""#, "null", "1e99"] {
            let json = format!(r#"[{{"nested":[{{"_placeholder":true,"num":{num}}}]}}]"#);
            let result = Args::from_json_array(&json, vec![Bytes::from_static(b"x")]);
            assert!(matches!(result, Err(ArgsError::IllegalPlaceholder)), "{num}");
        }
    }
}
