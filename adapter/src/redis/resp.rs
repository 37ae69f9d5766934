//! RESP, the protocol of Redis: commands to bytes, and bytes to answers.
//!
//! Owns the bounds of what a server may send. Knows RESP3 and, because Sentinels are asked without a greeting, RESP2.
//! Must not know a command.

use bytes::{Buf, Bytes, BytesMut};

/// The longest answer, payload included.
const MAX_FRAME: usize = 64 * 1024 * 1024;
/// Lists within lists; CLUSTER SLOTS needs four.
const MAX_DEPTH: usize = 8;
/// The longest line that is not a payload: the first of an answer, or an error.
const MAX_LINE: usize = 64 * 1024;
/// From this length on an answer is not copied out of the read buffer. A small one is: it would keep the whole buffer
/// alive for as long as a slow client keeps the message.
const SHARED_FROM: usize = 16 * 1024;

/// One answer, or one thing that came unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Text or bytes of any form.
    Bytes(Bytes),
    /// An error, its code first.
    Error(String),
    /// A number.
    Integer(i64),
    /// Nothing.
    Null,
    /// An array, a set, or a map with keys and values in turn.
    List(Vec<Frame>),
    /// What came unasked.
    Push(Vec<Frame>),
}

impl Frame {
    /// It as text, when it is some.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Its elements, when it is a list.
    pub fn list(&self) -> Option<&[Frame]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// It as a number, also when it came as text.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Bytes(_) => self.text()?.parse().ok(),
            _ => None,
        }
    }
}

/// What is not RESP, or is too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the protocol of Redis: {0}")]
pub(super) struct Malformed(&'static str);

/// Appends a command.
pub(super) fn command(out: &mut BytesMut, parts: &[&[u8]]) {
    let mut digits = Digits::default();
    let length: usize = parts.iter().map(|part| part.len() + 16).sum();
    out.reserve(length + 16);
    out.extend_from_slice(b"*");
    out.extend_from_slice(digits.of(parts.len()));
    for part in parts {
        out.extend_from_slice(b"\r\n$");
        out.extend_from_slice(digits.of(part.len()));
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

/// A number in decimal, without an allocation.
#[derive(Default)]
struct Digits([u8; 20]);

impl Digits {
    fn of(&mut self, mut number: usize) -> &[u8] {
        let mut start = self.0.len();
        loop {
            start -= 1;
            // The remainder is a digit.
            self.0[start] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return &self.0[start..];
            }
        }
    }
}

/// Takes the next whole frame out of what was read.
pub(super) fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, Malformed> {
    let mut scan = Cursor { bytes: buffer, at: 0 };
    let length = match scan.skip(0) {
        Ok(()) => scan.at,
        Err(Stop::Incomplete(needed)) => {
            // One allocation for a large payload instead of a doubling one.
            buffer.reserve(needed.min(MAX_FRAME).saturating_sub(buffer.len()));
            return Ok(None);
        }
        Err(Stop::Malformed(why)) => return Err(Malformed(why)),
    };
    let taken = |result: Result<Frame, Stop>| match result {
        Ok(frame) => Ok(Some(frame)),
        Err(Stop::Incomplete(_)) => Err(Malformed("a frame that changed")),
        Err(Stop::Malformed(why)) => Err(Malformed(why)),
    };
    if length >= SHARED_FROM {
        let whole = buffer.split_to(length).freeze();
        taken(Cursor { bytes: &whole, at: 0 }.take(&|from, to| whole.slice(from..to)))
    } else {
        let frame = Cursor { bytes: buffer, at: 0 }
            .take(&|from, to| buffer.get(from..to).map(Bytes::copy_from_slice).unwrap_or_default());
        buffer.advance(length);
        taken(frame)
    }
}

enum Stop {
    /// That many bytes at least are needed.
    Incomplete(usize),
    Malformed(&'static str),
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The head of a frame.
enum Head<'a> {
    Line(&'a [u8]),
    /// A payload of this length follows.
    Blob(usize),
    /// This many frames follow.
    Items(usize),
    Null,
}

impl<'a> Cursor<'a> {
    /// The first line of a frame: its type and what it says.
    fn head(&mut self) -> Result<(u8, Head<'a>), Stop> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some(end) = rest.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
            return Err(if rest.len() < MAX_LINE {
                Stop::Incomplete(self.bytes.len() + 1)
            } else {
                Stop::Malformed("a line that is too long")
            });
        };
        let line = rest[..end].strip_suffix(b"\r").ok_or(Stop::Malformed("a line end"))?;
        let (kind, line) = line.split_first().ok_or(Stop::Malformed("an empty line"))?;
        self.at += end + 1;
        let head = match kind {
            b'+' | b'-' | b':' | b'#' | b',' | b'(' => Head::Line(line),
            b'_' => Head::Null,
            b'$' | b'!' | b'=' => length(line, 1)?.map_or(Head::Null, Head::Blob),
            b'*' | b'~' | b'>' => length(line, 1)?.map_or(Head::Null, Head::Items),
            b'%' => length(line, 2)?.map_or(Head::Null, Head::Items),
            _ => return Err(Stop::Malformed("a type that is not known")),
        };
        Ok((*kind, head))
    }

    /// Where a payload ends.
    fn blob(&mut self, length: usize) -> Result<(usize, usize), Stop> {
        let (from, to) = (self.at, self.at + length);
        match self.bytes.get(to..to + 2) {
            Some(b"\r\n") => {
                self.at = to + 2;
                Ok((from, to))
            }
            Some(_) => Err(Stop::Malformed("a payload of another length")),
            None => Err(Stop::Incomplete(to + 2)),
        }
    }

    /// Looks for the end of a frame, without making anything of it.
    fn skip(&mut self, depth: usize) -> Result<(), Stop> {
        if depth > MAX_DEPTH {
            return Err(Stop::Malformed("lists within too many lists"));
        }
        match self.head()?.1 {
            Head::Line(_) | Head::Null => {}
            Head::Blob(length) => drop(self.blob(length)?),
            Head::Items(count) => {
                for _ in 0..count {
                    self.skip(depth + 1)?;
                }
            }
        }
        if self.at > MAX_FRAME {
            return Err(Stop::Malformed("an answer that is too long"));
        }
        Ok(())
    }

    /// Makes a frame of bytes for which `skip` found the end.
    fn take(&mut self, slice: &dyn Fn(usize, usize) -> Bytes) -> Result<Frame, Stop> {
        let start = self.at + 1;
        let (kind, head) = self.head()?;
        let frame = match head {
            Head::Null => Frame::Null,
            Head::Line(line) => match kind {
                b'-' => Frame::Error(String::from_utf8_lossy(line).into_owned()),
                b':' => Frame::Integer(number(line)?),
                b'#' => Frame::Integer(i64::from(line == b"t")),
                _ => Frame::Bytes(slice(start, start + line.len())),
            },
            Head::Blob(length) => {
                let (from, to) = self.blob(length)?;
                match kind {
                    b'!' => {
                        let text = self.bytes.get(from..to).unwrap_or_default();
                        Frame::Error(String::from_utf8_lossy(text).into_owned())
                    }
                    // "txt:" or "mkd:" before the text.
                    b'=' if length >= 4 => Frame::Bytes(slice(from + 4, to)),
                    _ => Frame::Bytes(slice(from, to)),
                }
            }
            Head::Items(count) => {
                // All of them are in the buffer, so their count is bounded by its length.
                let items: Result<Vec<Frame>, Stop> = (0..count).map(|_| self.take(slice)).collect();
                if kind == b'>' { Frame::Push(items?) } else { Frame::List(items?) }
            }
        };
        Ok(frame)
    }
}

/// A length, times a factor; none for -1.
fn length(line: &[u8], factor: usize) -> Result<Option<usize>, Stop> {
    match number(line)? {
        -1 => Ok(None),
        number => match usize::try_from(number) {
            Ok(length) if length <= MAX_FRAME => Ok(Some(length * factor)),
            _ => Err(Stop::Malformed("a length")),
        },
    }
}

fn number(line: &[u8]) -> Result<i64, Stop> {
    std::str::from_utf8(line).ok().and_then(|line| line.parse().ok()).ok_or(Stop::Malformed("a number"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(bytes: &[u8]) -> Result<Option<Frame>, Malformed> {
        decode(&mut BytesMut::from(bytes))
    }

    fn bytes(text: &'static str) -> Frame {
        Frame::Bytes(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn commands_are_arrays_of_bytes() {
        let mut out = BytesMut::new();
        command(&mut out, &[b"PUBLISH", b"a\r\nb", b""]);
        assert_eq!(&out[..], b"*3\r\n$7\r\nPUBLISH\r\n$4\r\na\r\nb\r\n$0\r\n\r\n");
        let mut out = BytesMut::new();
        command(&mut out, &[&[b'x'; 1_234]]);
        assert!(out.starts_with(b"*1\r\n$1234\r\nxx"));
    }

    #[test]
    fn every_form_of_answer() {
        for (input, frame) in [
            (&b"+OK\r\n"[..], bytes("OK")),
            (b"-ERR no\r\n", Frame::Error("ERR no".into())),
            (b"!6\r\nERR no\r\n", Frame::Error("ERR no".into())),
            (b":-12\r\n", Frame::Integer(-12)),
            (b"#t\r\n", Frame::Integer(1)),
            (b",1.5\r\n", bytes("1.5")),
            (b"(123\r\n", bytes("123")),
            (b"$4\r\na\r\nb\r\n", bytes("a\r\nb")),
            (b"=6\r\ntxt:ab\r\n", bytes("ab")),
            (b"$-1\r\n", Frame::Null),
            (b"*-1\r\n", Frame::Null),
            (b"_\r\n", Frame::Null),
            (b"*2\r\n:1\r\n~0\r\n", Frame::List(vec![Frame::Integer(1), Frame::List(vec![])])),
            (b"%1\r\n+a\r\n:1\r\n", Frame::List(vec![bytes("a"), Frame::Integer(1)])),
            (b">2\r\n+message\r\n$1\r\na\r\n", Frame::Push(vec![bytes("message"), bytes("a")])),
        ] {
            assert_eq!(decoded(input), Ok(Some(frame)), "{}", input.escape_ascii());
            for cut in 0..input.len() {
                assert_eq!(decoded(&input[..cut]), Ok(None), "{}", input[..cut].escape_ascii());
            }
        }
    }

    #[test]
    fn what_is_not_the_protocol_is_refused() {
        let nested = b"*1\r\n".repeat(10_000);
        let long = vec![b'+'; MAX_LINE + 1];
        for input in [
            &b"HTTP/1.1 400\r\n"[..],
            b"\r\n",
            b"+OK\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"$99999999999\r\n",
            b"*9223372036854775807\r\n",
            b"$1\r\nabc\r\n",
            b":1e3\r\n",
            &nested,
            &long,
        ] {
            assert!(decoded(input).is_err(), "{}", input[..input.len().min(40)].escape_ascii());
        }
    }

    #[test]
    fn a_large_payload_is_not_copied_and_a_small_one_holds_no_buffer() {
        let mut input = BytesMut::new();
        command(&mut input, &[&vec![b'x'; SHARED_FROM]]);
        command(&mut input, &[b"small"]);
        let start = input.as_ptr() as usize;
        let Ok(Some(Frame::List(large))) = decode(&mut input) else { panic!("a list") };
        let Frame::Bytes(large) = &large[0] else { panic!("bytes") };
        assert_eq!((large.as_ptr() as usize - start, large.len()), (4 + 8, SHARED_FROM));
        let rest = input.as_ptr() as usize;
        let Ok(Some(Frame::List(small))) = decode(&mut input) else { panic!("a list") };
        let Frame::Bytes(small) = &small[0] else { panic!("bytes") };
        assert!(!(rest..rest + 64).contains(&(small.as_ptr() as usize)));
        assert!(input.is_empty());
    }

    proptest! {
        #[test]
        fn anything_is_decoded_or_refused(mut input in proptest::collection::vec(any::<u8>(), 0..200), lists: bool) {
            if lists {
                input.iter_mut().for_each(|byte| *byte = b"*>%$:+-\r\n0123456789"[usize::from(*byte) % 19]);
            }
            let mut buffer = BytesMut::from(&input[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
        }

        #[test]
        fn commands_come_back_however_they_are_cut(
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 1..5),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut whole = BytesMut::new();
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            command(&mut whole, &parts);
            let cut = cut.index(whole.len());
            let mut buffer = BytesMut::from(&whole[..cut]);
            prop_assert_eq!(decode(&mut buffer), Ok(None));
            buffer.extend_from_slice(&whole[cut..]);
            let expected = parts.iter().map(|part| Frame::Bytes(Bytes::copy_from_slice(part))).collect();
            prop_assert_eq!(decode(&mut buffer), Ok(Some(Frame::List(expected))));
        }
    }
}
