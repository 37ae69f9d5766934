//! Incremental UTF-8 validation (RFC 6455 section 8.1).
//!
//! Owns the text of a message that arrives in pieces: pieces are validated once, as they come, so that a bad byte fails
//! at once and a finished message needs no second pass. It must not allocate more than was received, but for the slack of
//! [`growth`].

/// The bytes are not UTF-8, or cannot become UTF-8 whatever follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidUtf8;

/// Validates a whole text.
pub(super) fn validate(bytes: &[u8]) -> Result<&str, InvalidUtf8> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| InvalidUtf8)
}

/// A text under way: what is valid, and the up to three bytes of a character that is not complete yet.
#[derive(Debug, Default)]
pub(super) struct TextBuffer {
    text: String,
    tail: [u8; 4],
    tail_len: u8,
}

impl TextBuffer {
    /// Bytes received.
    pub(super) fn len(&self) -> usize {
        self.text.len() + usize::from(self.tail_len)
    }

    /// Bytes of heap owned.
    pub(super) fn capacity(&self) -> usize {
        self.text.capacity()
    }

    /// Appends a piece of a text that will not grow beyond `limit` bytes.
    pub(super) fn push(&mut self, mut piece: &[u8], limit: usize) -> Result<(), InvalidUtf8> {
        self.text.reserve_exact(growth(
            self.text.len(),
            self.text.capacity(),
            self.len() + piece.len(),
            limit,
        ));
        while self.tail_len > 0 {
            let Some((&byte, following)) = piece.split_first() else { return Ok(()) };
            piece = following;
            self.push_to_tail(byte)?;
        }
        let (whole, tail) = piece.split_at(piece.len() - incomplete_suffix(piece));
        self.text.push_str(validate(whole)?);
        for &byte in tail {
            self.push_to_tail(byte)?;
        }
        Ok(())
    }

    /// The whole text; an error if it ends within a character.
    pub(super) fn finish(&self) -> Result<&str, InvalidUtf8> {
        if self.tail_len == 0 { Ok(&self.text) } else { Err(InvalidUtf8) }
    }

    fn push_to_tail(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
        let len = usize::from(self.tail_len);
        self.tail[len] = byte;
        let tail = &self.tail[..=len];
        match std::str::from_utf8(tail) {
            Ok(character) => {
                self.text.push_str(character);
                self.tail_len = 0;
                Ok(())
            }
            Err(error) if error.error_len().is_none() => {
                self.tail_len += 1;
                Ok(())
            }
            Err(_) => Err(InvalidUtf8),
        }
    }
}

/// How many bytes at the end of `bytes` look like the beginning of a longer character: 0 to 3.
fn incomplete_suffix(bytes: &[u8]) -> usize {
    for (back, &byte) in bytes.iter().rev().take(3).enumerate() {
        let needed = match byte {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
            _ => 1,
        };
        return if needed > back + 1 { back + 1 } else { 0 };
    }
    0
}

/// How much to reserve beyond `len` so that a buffer of `capacity` holds `needed` bytes, knowing that it will never hold
/// more than `limit`.
///
/// Memory follows what was received: capacity doubles up to 1 MiB and grows by a quarter from there, which keeps the cost
/// of many tiny pieces linear and the slack small.
pub(super) fn growth(len: usize, capacity: usize, needed: usize, limit: usize) -> usize {
    const SMALLEST: usize = 64;
    const DOUBLING_ENDS: usize = 1 << 20;
    if needed <= capacity {
        return 0;
    }
    let step = if capacity < DOUBLING_ENDS { capacity } else { (capacity / 4).max(DOUBLING_ENDS) };
    needed.max((capacity + step).max(SMALLEST).min(limit)) - len
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(pieces: &[&[u8]]) -> Result<String, InvalidUtf8> {
        let mut buffer = TextBuffer::default();
        for piece in pieces {
            buffer.push(piece, usize::MAX)?;
        }
        buffer.finish().map(str::to_owned)
    }

    #[test]
    fn every_split_of_a_text_is_valid() {
        let text = "aé€😀z";
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let bytes = text.as_bytes();
                let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                assert_eq!(feed(&pieces).as_deref(), Ok(text));
            }
        }
    }

    #[test]
    fn fails_at_the_first_byte_that_cannot_be_right() {
        // Overlong, surrogate, beyond U+10FFFF, never-valid bytes, stray continuation.
        for bytes in [
            &[0xe0, 0x80][..],
            &[0xed, 0xa0],
            &[0xf4, 0x90],
            &[0xf5],
            &[0xff],
            &[0x80],
            &[0xc0],
            &[0xc3, 0x28],
        ] {
            let mut buffer = TextBuffer::default();
            assert_eq!(buffer.push(bytes, usize::MAX), Err(InvalidUtf8), "{bytes:x?} at once");
            let (last, before) = bytes.split_last().unwrap();
            let mut buffer = TextBuffer::default();
            for byte in before {
                assert_eq!(buffer.push(&[*byte], usize::MAX), Ok(()), "{bytes:x?}");
            }
            assert_eq!(buffer.push(&[*last], usize::MAX), Err(InvalidUtf8), "{bytes:x?} byte by byte");
        }
    }

    #[test]
    fn a_text_must_not_end_within_a_character() {
        assert_eq!(feed(&["€".as_bytes().split_at(2).0]), Err(InvalidUtf8));
    }

    #[test]
    fn growth_is_geometric_and_never_beyond_the_limit() {
        let (mut capacity, mut steps) = (0, 0);
        for needed in 1..=4_000_000 {
            let more = growth(needed - 1, capacity, needed, 4_000_000);
            if more > 0 {
                capacity = needed - 1 + more;
                steps += 1;
            }
            assert!((needed..=(2 * needed).max(64)).contains(&capacity));
        }
        assert_eq!(capacity, 4_000_000);
        assert!(steps < 25, "{steps} reallocations");
    }
}
