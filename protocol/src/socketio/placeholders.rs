//! Binary placeholders in JSON text: `{"_placeholder":true,"num":0}`.
//!
//! Finds them without building a value, so that all JSON that JavaScript reads can carry binary: lone surrogates, numbers
//! beyond a double, and nesting of any depth. The text must be valid JSON.

use std::ops::Range;

/// A placeholder: where it stands, and the attachment that it names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Placeholder {
    pub(super) range: Range<usize>,
    pub(super) index: usize,
}

/// A placeholder that names no attachment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Illegal;

/// An object or array that is open.
struct Open {
    start: usize,
    is_object: bool,
    is_placeholder: bool,
    index: Option<usize>,
}

/// The placeholders of a text, in order. Each must name one of `attachments` attachments (socket.io-parser, `binary.ts`).
pub(super) fn find(text: &str, attachments: usize) -> Result<Vec<Placeholder>, Illegal> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => {
                open.push(Open { start: at, is_object: byte == b'{', is_placeholder: false, index: None });
            }
            b'}' | b']' => {
                if let Some(Open { start, is_placeholder: true, index, .. }) = open.pop() {
                    let index = index.filter(|index| *index < attachments).ok_or(Illegal)?;
                    // What stands inside a placeholder is nobody's.
                    while found.last().is_some_and(|inner: &Placeholder| inner.range.start > start) {
                        found.pop();
                    }
                    found.push(Placeholder { range: start..at + 1, index });
                }
            }
            b'"' => {
                let end = end_of_string(bytes, at);
                if let Some(object) = open.last_mut().filter(|open| open.is_object) {
                    read_member(text, at..end, object);
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Ok(found)
}

/// The index after the closing quote of the string that begins at `at`.
fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while let Some(&byte) = bytes.get(end) {
        match byte {
            b'\\' => end += 2,
            b'"' => return end + 1,
            _ => end += 1,
        }
    }
    bytes.len()
}

/// Notes what a member of an object says about it, if the string is a key. The last of two equal keys counts.
fn read_member(text: &str, key: Range<usize>, object: &mut Open) {
    let rest = text.get(key.end..).unwrap_or_default().trim_ascii_start();
    let Some(value) = rest.strip_prefix(':') else { return };
    let value = value.trim_ascii_start();
    let value = &value[..value.find([',', '}', ' ', '\t', '\r', '\n']).unwrap_or(value.len())];
    match key_of(&text[key]).as_deref() {
        Some("_placeholder") => object.is_placeholder = value == "true",
        Some("num") => object.index = index_of(value),
        _ => {}
    }
}

/// The name that a key stands for; `None` if it cannot be one of ours.
fn key_of(quoted: &str) -> Option<std::borrow::Cow<'_, str>> {
    if quoted.contains('\\') {
        return serde_json::from_str(quoted).ok().map(std::borrow::Cow::Owned);
    }
    quoted.get(1..quoted.len().saturating_sub(1)).map(std::borrow::Cow::Borrowed)
}

/// An index as JavaScript would take it: `0`, and also `0.0` and `0e0`.
fn index_of(number: &str) -> Option<usize> {
    let is_number = number.starts_with(|c: char| c.is_ascii_digit() || c == '-');
    let number: f64 = if is_number { number.parse().ok()? } else { return None };
    let in_range = number >= 0.0 && number.fract() == 0.0 && number < f64::from(u32::MAX);
    in_range.then_some(number as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indexes(text: &str, attachments: usize) -> Result<Vec<usize>, Illegal> {
        find(text, attachments).map(|found| found.into_iter().map(|placeholder| placeholder.index).collect())
    }

    #[test]
    fn finds_placeholders_wherever_they_stand() {
        let text = r#"{"_placeholder":true,"num":1},[{"a":{"num": 0.0 , "_placeholder" : true}}],"{\"_placeholder\":true}""#;
        assert_eq!(indexes(text, 2), Ok(vec![1, 0]));
        assert_eq!(&text[find(text, 2).unwrap()[0].range.clone()], r#"{"_placeholder":true,"num":1}"#);
        assert_eq!(
            indexes(r#"{"_placeholder":false,"num":9},["_placeholder",true],{"num":5}"#, 0),
            Ok(vec![])
        );
        assert_eq!(
            indexes(r#"{"_placeholder":true,"num":0,"x":{"_placeholder":true,"num":0}}"#, 1),
            Ok(vec![0])
        );
    }

    #[test]
    fn reads_what_only_javascript_reads() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let text = format!(r#""\ud800",1e400,{deep},{{"_placeholder":true,"num":0}}"#);
        assert_eq!(indexes(&text, 1), Ok(vec![0]));
    }

    #[test]
    fn names_that_are_no_attachment_are_illegal() {
        for num in ["1", "-1", "0.5", r#""0""#, r#""__proto__""#, "null", "1e99", "{}", "[0]", "true"] {
            let text = format!(r#"[{{"_placeholder":true,"num":{num}}}]"#);
            assert_eq!(indexes(&text, 1), Err(Illegal), "{num}");
        }
        assert_eq!(indexes(r#"{"_placeholder":true}"#, 1), Err(Illegal));
        assert_eq!(indexes(r#"{"\u005fplaceholder":true,"n\u0075m":7}"#, 1), Err(Illegal));
        assert_eq!(indexes(r#"{"_placeholder":false,"_placeholder":true,"num":7}"#, 1), Err(Illegal));
    }
}
