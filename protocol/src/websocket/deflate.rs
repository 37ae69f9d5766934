//! permessage-deflate (RFC 7692 section 7.2).
//!
//! Owns compression and decompression of single messages. Neither side keeps its window from one message to the next
//! (both `no_context_takeover` parameters are always negotiated), so that one [`Deflater`] and one [`Inflater`] per thread
//! serve all its connections and a compressed frame can be sent to many. It must not hold more output than the bound.

use std::fmt;

use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::encoder::{MAX_SERVER_HEADER, write_header};
use super::error::Error;
use super::frame::OpCode;
use super::utf8::growth;

/// What ends a flushed DEFLATE block and is not sent (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The tail, and an empty final block. The decompressor reports the end of a final block, and only that shows that a
/// message did not stop in the middle of a block.
const TAIL_AND_END: [u8; 6] = [0x00, 0x00, 0xff, 0xff, 0x03, 0x00];

/// A sender may end blocks as final (RFC 7692 section 7.2.3.4), which costs us a reset each. More than this in one message
/// is not compression.
const MAX_FINAL_BLOCKS: u32 = 64;

/// Output of up to this many bytes is kept between messages.
const KEPT_OUTPUT: usize = 64 * 1024;

/// Compresses messages; about 260 KiB with a window of 15 bits, so share it.
pub struct Deflater {
    compress: Compress,
    output: Vec<u8>,
    window_bits: u8,
}

impl Deflater {
    /// A compressor of `level` 0 to 9 and a window of `window_bits` 9 to 15; values outside are brought into range.
    pub fn new(level: u32, window_bits: u8) -> Self {
        let window_bits = window_bits.clamp(9, 15);
        let compress = Compress::new_with_window_bits(Compression::new(level.min(9)), false, window_bits);
        Self { compress, output: Vec::new(), window_bits }
    }

    /// The base-2 logarithm of the window, 9 to 15: who negotiated less cannot read what this compresses.
    pub fn window_bits(&self) -> u8 {
        self.window_bits
    }

    /// The payload of a compressed frame that holds `payload`.
    pub fn deflate(&mut self, payload: &[u8]) -> &[u8] {
        self.compress.reset();
        self.output.clear();
        self.output.shrink_to(KEPT_OUTPUT);
        let mut input = payload;
        loop {
            self.output.reserve(64 + input.len() / 2);
            let before = self.compress.total_in();
            self.compress
                .compress_vec(input, &mut self.output, FlushCompress::Sync)
                .expect("a compressor that was reset accepts any input");
            input = &input[(self.compress.total_in() - before) as usize..];
            // With room to spare the flush is complete.
            if input.is_empty() && self.output.len() < self.output.capacity() {
                break;
            }
        }
        self.output.strip_suffix(&TAIL).expect("a sync flush ends with the tail")
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").field("window_bits", &self.window_bits).finish_non_exhaustive()
    }
}

/// A whole unmasked compressed frame, as a server sends it: RSV1 is set (RFC 7692 section 7.2.3.1). `opcode` is text or
/// binary; control frames are never compressed.
pub fn deflated_frame(deflater: &mut Deflater, opcode: OpCode, payload: &[u8]) -> Bytes {
    let payload = deflater.deflate(payload);
    let mut out = Vec::with_capacity(MAX_SERVER_HEADER + payload.len());
    write_header(&mut out, opcode, true, true, payload.len());
    out.extend_from_slice(payload);
    out.shrink_to_fit();
    out.into()
}

/// Decompresses messages; about 48 KiB and the last output, so share it.
pub struct Inflater {
    decompress: Decompress,
    output: Vec<u8>,
}

impl Inflater {
    /// A decompressor that reads every window size.
    pub fn new() -> Self {
        Self { decompress: Decompress::new(false), output: Vec::new() }
    }

    /// The message in the payload of a compressed frame, or of all frames of a fragmented message.
    ///
    /// # Errors
    ///
    /// [`Error::MessageTooBig`] as soon as the output exceeds `max_message` bytes, [`Error::InvalidDeflate`] if the payload
    /// is not DEFLATE or stops within a block.
    pub fn inflate(&mut self, payload: &[u8], max_message: usize) -> Result<&[u8], Error> {
        self.trim();
        self.output.clear();
        self.decompress.reset(false);
        let mut final_blocks = 0;
        let mut rest = payload;
        while self.push(&mut rest, max_message)? == Status::StreamEnd {
            if rest.is_empty() {
                // A final block without the empty block that should follow it; what there is, is whole.
                return Ok(&self.output);
            }
            final_blocks += 1;
            if final_blocks > MAX_FINAL_BLOCKS {
                return Err(Error::InvalidDeflate);
            }
            self.decompress.reset(false);
        }
        let mut end = &TAIL_AND_END[..];
        match self.push(&mut end, max_message)? {
            Status::StreamEnd if end.is_empty() => Ok(&self.output),
            _ => Err(Error::InvalidDeflate),
        }
    }

    /// Frees the output of the last message if it was a big one.
    pub fn trim(&mut self) {
        if self.output.capacity() > KEPT_OUTPUT {
            self.output = Vec::new();
        }
    }

    /// Inflates until the input is used up or a final block ends.
    fn push(&mut self, input: &mut &[u8], max_message: usize) -> Result<Status, Error> {
        // One byte more than allowed shows that there is more.
        let limit = max_message.saturating_add(1);
        loop {
            let len = self.output.len();
            let wanted = (len + 1).max((len + input.len().saturating_mul(2)).min(KEPT_OUTPUT)).min(limit);
            self.output.reserve_exact(growth(len, self.output.capacity(), wanted, limit));
            let before = self.decompress.total_in();
            let status = self
                .decompress
                .decompress_vec(input, &mut self.output, FlushDecompress::Sync)
                .map_err(|_| Error::InvalidDeflate)?;
            *input = &input[(self.decompress.total_in() - before) as usize..];
            if self.output.len() > max_message {
                return Err(Error::MessageTooBig);
            }
            if status == Status::StreamEnd || self.output.len() < self.output.capacity() {
                // Room was left, so all there is to say was said.
                return if input.is_empty() || status == Status::StreamEnd {
                    Ok(status)
                } else {
                    Err(Error::InvalidDeflate)
                };
            }
        }
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("output", &self.output.capacity()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inflate(payload: &[u8]) -> Result<Vec<u8>, Error> {
        Inflater::new().inflate(payload, 1 << 20).map(<[u8]>::to_vec)
    }

    #[test]
    fn rfc_7692_examples() {
        let hello = Ok(b"Hello".to_vec());
        assert_eq!(inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]), hello, "7.2.3.1");
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        assert_eq!(inflate(&stored), hello, "7.2.3.3: no compression");
        assert_eq!(inflate(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00]), hello, "7.2.3.4: final block");
        let two = [0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(inflate(&two), hello, "7.2.3.5: two blocks");
        assert_eq!(inflate(&[0x00]), Ok(Vec::new()), "7.2.3.6: empty message");
        let mut deflater = Deflater::new(6, 15);
        assert_eq!(deflater.deflate(b"Hello"), [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]);
        assert_eq!(deflater.deflate(b""), [0x00]);
    }

    #[test]
    fn every_level_and_window_round_trips() {
        let text: Vec<u8> = (0..20_000_u32).flat_map(|i| (i.wrapping_mul(i) / 77).to_le_bytes()).collect();
        let mut inflater = Inflater::new();
        for window_bits in 9..=15 {
            for level in 0..=9 {
                let mut deflater = Deflater::new(level, window_bits);
                for len in [0, 1, 63, 64, 65, 1000, 65_535, 65_536, text.len()] {
                    let mut small = Decompress::new_with_window_bits(false, window_bits);
                    let deflated = deflater.deflate(&text[..len]).to_vec();
                    assert_eq!(
                        inflater.inflate(&deflated, len),
                        Ok(&text[..len]),
                        "{level} {window_bits} {len}"
                    );
                    // A receiver with just the negotiated window can read it too.
                    let mut out = Vec::with_capacity(len + 10);
                    small.decompress_vec(&deflated, &mut out, FlushDecompress::Sync).unwrap();
                    assert!(out == text[..len], "{level} {window_bits} {len}");
                }
            }
        }
    }

    #[test]
    fn output_is_bounded_while_inflating() {
        let bomb = Deflater::new(9, 15).deflate(&vec![0; 50_000_000]).to_vec();
        assert!(bomb.len() < 60_000);
        let mut inflater = Inflater::new();
        assert_eq!(inflater.inflate(&bomb, 100_000), Err(Error::MessageTooBig));
        assert!(inflater.output.capacity() <= 100_001);
        assert_eq!(inflater.inflate(&bomb, 50_000_000).map(<[u8]>::len), Ok(50_000_000));
        inflater.trim();
        assert_eq!(inflater.output.capacity(), 0);
    }

    #[test]
    fn damage_is_refused() {
        let whole = Deflater::new(6, 15).deflate(b"Hello, hello, hello, yellow").to_vec();
        for end in 0..whole.len() {
            assert_eq!(inflate(&whole[..end]), Err(Error::InvalidDeflate), "cut at {end}");
        }
        assert_eq!(inflate(&[0xff; 20]), Err(Error::InvalidDeflate));
        assert_eq!(
            inflate(&[0x03, 0x00].repeat(1000)),
            Err(Error::InvalidDeflate),
            "final blocks without end"
        );
    }
}
