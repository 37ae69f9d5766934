//! Masking (RFC 6455 section 5.3).
//!
//! Owns one function: XOR with the four-byte key. It must not know where in a frame the bytes stand; the caller rotates
//! the key.

/// XORs `data` with `key`, the first byte of the one with the first byte of the other.
pub(super) fn apply(data: &mut [u8], key: [u8; 4]) {
    if key == [0; 4] {
        return;
    }
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, tail) = data.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// The key for what follows after `len` bytes that were masked with `key`.
pub(super) fn rotate(mut key: [u8; 4], len: usize) -> [u8; 4] {
    key.rotate_left(len & 3);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_definition_at_every_length_and_split() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        for len in 0..70 {
            let plain: Vec<u8> = (0..len as u8).collect();
            let expected: Vec<u8> = plain.iter().enumerate().map(|(i, byte)| byte ^ key[i % 4]).collect();
            for split in 0..=len {
                let mut data = plain.clone();
                let (head, tail) = data.split_at_mut(split);
                apply(head, key);
                apply(tail, rotate(key, split));
                assert_eq!(data, expected, "length {len}, split at {split}");
            }
        }
    }
}
