//! MessagePack as Socket.IO's servers write it, read in place.
//!
//! Owns what a value becomes in JSON, so that a client gets what it would get from a server in JavaScript: dates are ISO
//! strings, `undefined` and NaN are null, binary is an attachment. Nothing is allocated by what a message merely claims: a
//! length is believed when its bytes are there. Must not know what a message means.

use bytes::Bytes;

/// Lists within lists; clients' own parsers have such a bound too.
const MAX_DEPTH: usize = 100;
/// The furthest a date of JavaScript goes from 1970, in milliseconds.
const MAX_DATE: f64 = 8.64e15;

/// What is no MessagePack, or not what was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

type Read<T> = Result<T, Malformed>;

/// One value, or the head of a list.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    Nil,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    Str(Bytes),
    Bin(Bytes),
    /// `fixed` where the length is a part of the type: older writers tell `undefined` and dates from buffers by that.
    Ext {
        kind: i8,
        fixed: bool,
        data: Bytes,
    },
    Array(usize),
    Map(usize),
}

/// Reads values one after the other.
pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, length: usize) -> Read<Bytes> {
        if length > self.rest.len() { Err(Malformed) } else { Ok(self.rest.split_to(length)) }
    }

    fn number<const N: usize>(&mut self) -> Read<[u8; N]> {
        let bytes = self.take(N)?;
        bytes.as_ref().try_into().map_err(|_| Malformed)
    }

    /// A length of so many bytes.
    fn length(&mut self, width: usize) -> Read<usize> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }

    fn ext(&mut self, length: usize, fixed: bool) -> Read<Item> {
        let [kind] = self.number()?;
        Ok(Item::Ext { kind: kind as i8, fixed, data: self.take(length)? })
    }

    pub(super) fn next(&mut self) -> Read<Item> {
        let [head] = self.number()?;
        let low = usize::from(head);
        Ok(match head {
            0x00..=0x7f => Item::Int(i64::from(head)),
            0x80..=0x8f => Item::Map(low & 0x0f),
            0x90..=0x9f => Item::Array(low & 0x0f),
            0xa0..=0xbf => Item::Str(self.take(low & 0x1f)?),
            0xc0 => Item::Nil,
            0xc1 => return Err(Malformed),
            0xc2 => Item::Bool(false),
            0xc3 => Item::Bool(true),
            0xc4..=0xc6 => {
                let length = self.length(1 << (head - 0xc4))?;
                Item::Bin(self.take(length)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(1 << (head - 0xc7))?;
                self.ext(length, false)?
            }
            0xca => Item::Float(f64::from(f32::from_be_bytes(self.number()?))),
            0xcb => Item::Float(f64::from_be_bytes(self.number()?)),
            0xcc => Item::Uint(u64::from(u8::from_be_bytes(self.number()?))),
            0xcd => Item::Uint(u64::from(u16::from_be_bytes(self.number()?))),
            0xce => Item::Uint(u64::from(u32::from_be_bytes(self.number()?))),
            0xcf => Item::Uint(u64::from_be_bytes(self.number()?)),
            0xd0 => Item::Int(i64::from(i8::from_be_bytes(self.number()?))),
            0xd1 => Item::Int(i64::from(i16::from_be_bytes(self.number()?))),
            0xd2 => Item::Int(i64::from(i32::from_be_bytes(self.number()?))),
            0xd3 => Item::Int(i64::from_be_bytes(self.number()?)),
            0xd4..=0xd8 => self.ext(1 << (head - 0xd4), true)?,
            0xd9..=0xdb => {
                let length = self.length(1 << (head - 0xd9))?;
                Item::Str(self.take(length)?)
            }
            0xdc | 0xdd => Item::Array(self.length(2 << (head - 0xdc))?),
            0xde | 0xdf => Item::Map(self.length(2 << (head - 0xde))?),
            0xe0..=0xff => Item::Int(i64::from(head as i8)),
        })
    }

    pub(super) fn map(&mut self) -> Read<usize> {
        match self.next()? {
            Item::Map(length) => Ok(length),
            _ => Err(Malformed),
        }
    }

    pub(super) fn array(&mut self) -> Read<usize> {
        match self.next()? {
            Item::Array(length) => Ok(length),
            _ => Err(Malformed),
        }
    }

    /// The key of a map.
    pub(super) fn key(&mut self) -> Read<String> {
        self.next()?.name().ok_or(Malformed)
    }

    /// Passes over a whole value.
    pub(super) fn skip(&mut self) -> Read<()> {
        // What is still to come, at every level: claims are added up, never allocated.
        let mut open: u64 = 1;
        while open > 0 {
            open -= 1;
            open = match self.next()? {
                Item::Array(length) => open.saturating_add(length as u64),
                Item::Map(length) => open.saturating_add(2 * length as u64),
                _ => open,
            };
        }
        Ok(())
    }
}

impl Item {
    /// What names something: text, or a number as JavaScript writes it.
    pub(super) fn name(self) -> Option<String> {
        match self {
            Self::Str(text) => Some(String::from_utf8_lossy(&text).into_owned()),
            Self::Int(number) => Some(number.to_string()),
            Self::Uint(number) => Some(number.to_string()),
            Self::Float(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Whether JavaScript takes it for true.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Uint(number) => *number != 0,
            Self::Float(number) => *number != 0.0 && !number.is_nan(),
            Self::Str(text) => !text.is_empty(),
            Self::Ext { kind: 0, fixed: true, data } => data.len() != 1,
            _ => true,
        }
    }
}

/// JSON text and the binary in it.
#[derive(Default)]
pub(super) struct Json {
    pub(super) text: Vec<u8>,
    pub(super) attachments: Vec<Bytes>,
}

impl Json {
    /// Appends the next value of the reader.
    pub(super) fn push(&mut self, reader: &mut Reader) -> Read<()> {
        self.value(reader, 0)
    }

    fn value(&mut self, reader: &mut Reader, depth: usize) -> Read<()> {
        if depth > MAX_DEPTH {
            return Err(Malformed);
        }
        match reader.next()? {
            Item::Nil => self.raw("null"),
            Item::Bool(value) => self.raw(if value { "true" } else { "false" }),
            Item::Int(number) => self.raw(&number.to_string()),
            Item::Uint(number) => self.raw(&number.to_string()),
            Item::Float(number) => self.float(number)?,
            Item::Str(text) => self.string(&String::from_utf8_lossy(&text))?,
            Item::Bin(bytes) => self.attachment(bytes),
            Item::Ext { kind, fixed, data } => self.ext(kind, fixed, data)?,
            Item::Array(length) => {
                self.raw("[");
                for index in 0..length {
                    self.raw(if index == 0 { "" } else { "," });
                    self.value(reader, depth + 1)?;
                }
                self.raw("]");
            }
            Item::Map(length) => {
                self.raw("{");
                for index in 0..length {
                    self.raw(if index == 0 { "" } else { "," });
                    let key = reader.key()?;
                    self.string(&key)?;
                    self.raw(":");
                    self.value(reader, depth + 1)?;
                }
                self.raw("}");
            }
        }
        Ok(())
    }

    fn raw(&mut self, text: &str) {
        self.text.extend_from_slice(text.as_bytes());
    }

    fn string(&mut self, text: &str) -> Read<()> {
        serde_json::to_writer(&mut self.text, text).map_err(|_| Malformed)
    }

    fn float(&mut self, number: f64) -> Read<()> {
        // A whole number has no point in JavaScript.
        if number.fract() == 0.0 && number.abs() < 1e15 {
            self.raw(&(number as i64).to_string());
            return Ok(());
        }
        // What is not finite becomes null.
        serde_json::to_writer(&mut self.text, &number).map_err(|_| Malformed)
    }

    fn attachment(&mut self, bytes: Bytes) {
        let number = self.attachments.len();
        self.raw(&format!(r#"{{"_placeholder":true,"num":{number}}}"#));
        self.attachments.push(bytes);
    }

    fn ext(&mut self, kind: i8, fixed: bool, data: Bytes) -> Read<()> {
        match (kind, fixed, data.len()) {
            // `undefined`, a date and a buffer, as older writers have them.
            (0, true, 1) => self.raw("null"),
            (0, true, 8) => {
                let bytes: [u8; 8] = data.as_ref().try_into().map_err(|_| Malformed)?;
                self.date(i64::from_be_bytes(bytes) as f64)?;
            }
            (0, false, _) => self.attachment(data),
            (-1, _, _) => self.date(timestamp(&data).ok_or(Malformed)?)?,
            // As the readers of the reference have it: the type and the bytes.
            _ => {
                self.raw(&format!("[{kind},"));
                self.attachment(data);
                self.raw("]");
            }
        }
        Ok(())
    }

    fn date(&mut self, millis: f64) -> Read<()> {
        match iso_date(millis) {
            Some(text) => self.string(&text),
            None => {
                self.raw("null");
                Ok(())
            }
        }
    }
}

/// Milliseconds since 1970 of the timestamp extension.
fn timestamp(data: &[u8]) -> Option<f64> {
    let millis = |seconds: f64, nanos: f64| (seconds * 1e3 + nanos / 1e6).trunc();
    Some(match data.len() {
        4 => millis(f64::from(u32::from_be_bytes(data.try_into().ok()?)), 0.0),
        8 => {
            let both = u64::from_be_bytes(data.try_into().ok()?);
            millis((both & 0x3_ffff_ffff) as f64, (both >> 34) as f64)
        }
        12 => {
            let (nanos, seconds) = data.split_at(4);
            let nanos = u32::from_be_bytes(nanos.try_into().ok()?);
            millis(i64::from_be_bytes(seconds.try_into().ok()?) as f64, f64::from(nanos))
        }
        _ => return None,
    })
}

/// A date as `toISOString` writes it. None for one that JavaScript has not.
fn iso_date(millis: f64) -> Option<String> {
    if !millis.is_finite() || millis.abs() > MAX_DATE {
        return None;
    }
    let millis = millis as i64;
    let (days, rest) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (hour, minute) = (rest / 3_600_000, rest / 60_000 % 60);
    let (second, milli) = (rest / 1_000 % 60, rest % 1_000);
    let year = match year {
        0..=9_999 => format!("{year:04}"),
        _ => format!("{year:+07}"),
    };
    Some(format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"))
}

/// Year, month and day of a day since 1970, in the Gregorian calendar without a beginning. Counted in eras of 400 years
/// that begin in March, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(bytes: &'static [u8]) -> Read<(String, usize)> {
        let (mut json, mut reader) = (Json::default(), Reader::new(Bytes::from_static(bytes)));
        json.push(&mut reader)?;
        assert!(reader.is_empty());
        Ok((String::from_utf8(json.text).unwrap(), json.attachments.len()))
    }

    #[test]
    fn values() {
        let cases: &[(&'static [u8], &str)] = &[
            (b"\x07", "7"),
            (b"\xff", "-1"),
            (b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff", "18446744073709551615"),
            (b"\xd3\x80\0\0\0\0\0\0\0", "-9223372036854775808"),
            (b"\xcb\x3f\xf8\0\0\0\0\0\0", "1.5"),
            (b"\xcb\x40\0\0\0\0\0\0\0", "2"),
            (b"\xcb\x7f\xf8\0\0\0\0\0\0", "null"),
            (b"\xa3a\"b", r#""a\"b""#),
            (b"\xa2\xff\xfe", "\"\u{fffd}\u{fffd}\""),
            (b"\x93\xc0\xc2\xc3", "[null,false,true]"),
            (b"\x82\xa1a\x01\x02\x90", r#"{"a":1,"2":[]}"#),
            (b"\xd4\0\0", "null"),
            (b"\xd7\0\0\0\0\0\0\0\x03\xe8", "\"1970-01-01T00:00:01.000Z\""),
            (b"\xd6\xff\0\0\0\x01", "\"1970-01-01T00:00:01.000Z\""),
            (b"\xd7\xff\x77\x35\x94\x00\0\0\0\x01", "\"1970-01-01T00:00:01.500Z\""),
            (b"\xc7\x0c\xff\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", "\"1969-12-31T23:59:59.000Z\""),
            (b"\xd7\0\x7f\xff\xff\xff\xff\xff\xff\xff", "null"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(json(bytes), Ok(((*expected).to_owned(), 0)), "{bytes:x?}");
        }
    }

    #[test]
    fn binary_of_new_and_old_writers() {
        let placeholder = r#"{"_placeholder":true,"num":0}"#;
        assert_eq!(json(b"\xc4\x01\x09"), Ok((placeholder.to_owned(), 1)));
        // A buffer of one byte, which is not `undefined`, and one of eight, which is no date.
        assert_eq!(json(b"\xc7\x01\0\x09"), Ok((placeholder.to_owned(), 1)));
        assert_eq!(json(b"\xc7\x08\0\0\0\0\0\0\0\0\0"), Ok((placeholder.to_owned(), 1)));
        assert_eq!(json(b"\xd5\x05ab"), Ok((format!("[5,{placeholder}]"), 1)));
    }

    #[test]
    fn dates_of_all_times() {
        for (millis, text) in [
            (0.0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000.0, "2000-02-29T00:00:00.000Z"),
            (-62_198_755_200_001.0, "-000002-12-31T23:59:59.999Z"),
            (253_402_300_800_000.0, "+010000-01-01T00:00:00.000Z"),
            (8.64e15, "+275760-09-13T00:00:00.000Z"),
            (-8.64e15, "-271821-04-20T00:00:00.000Z"),
        ] {
            assert_eq!(iso_date(millis).as_deref(), Some(text), "{millis}");
        }
        assert_eq!(iso_date(8.64e15 + 1e3), None);
        assert_eq!(iso_date(f64::NAN), None);
    }

    #[test]
    fn claims_are_not_believed() {
        for bytes in [
            &b""[..],
            b"\xc1",
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\xff\xff\xff\xff\x01",
            b"\xc6\xff\xff\xff\xff",
            b"\xd7",
        ] {
            let (mut json, mut reader) = (Json::default(), Reader::new(Bytes::copy_from_slice(bytes)));
            assert_eq!(json.push(&mut reader), Err(Malformed), "{bytes:x?}");
            assert_eq!(Reader::new(Bytes::copy_from_slice(bytes)).skip(), Err(Malformed), "{bytes:x?}");
        }
        let deep = vec![0x91; 100_000];
        assert_eq!(Json::default().push(&mut Reader::new(deep.into())), Err(Malformed));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_json_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let (mut json, mut reader) = (Json::default(), Reader::new(bytes.into()));
            if json.push(&mut reader).is_ok() {
                prop_assert!(serde_json::from_slice::<serde_json::Value>(&json.text).is_ok());
            }
        }
    }
}
