use sha2::block_api::compress256;

/// FIPS 180-4 section 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const BLOCK: usize = 64;
/// The bit behind the message, and its length in bits.
const PADDING: usize = 1 + size_of::<u64>();

/// `SHA-256(tag || bytes)`: a leaf (tag 0) or an interior node (tag 1) of the tree.
///
/// What [`sha2::Sha256`] gives, over the same compression function. A streaming hasher that is fed the tag first copies every
/// byte behind it through its own buffer; here the bytes are compressed where they lie.
pub(super) fn tagged_sha256(tag: u8, bytes: &[u8]) -> [u8; 32] {
    let mut state = INITIAL;
    let mut end = [0; 2 * BLOCK];
    let mut filled = 0;
    let mut put = |part: &[u8]| {
        if let Some(room) = end.get_mut(filled..filled + part.len()) {
            room.copy_from_slice(part);
        }
        filled += part.len();
    };
    if bytes.len() < 2 * BLOCK - PADDING {
        put(&[tag]);
        put(bytes);
    } else if let Some((start, rest)) = bytes.split_first_chunk::<{ BLOCK - 1 }>() {
        let mut first = [tag; BLOCK];
        first[1..].copy_from_slice(start);
        let (whole, rest) = rest.as_chunks::<BLOCK>();
        compress256(&mut state, &[first]);
        compress256(&mut state, whole);
        put(rest);
    }
    put(&[0x80]);
    let (blocks, _) = end.as_chunks_mut::<BLOCK>();
    let blocks = if filled <= BLOCK - size_of::<u64>() { blocks.split_at_mut(1).0 } else { blocks };
    if let Some(length) = blocks.last_mut().and_then(|block| block.last_chunk_mut()) {
        *length = (8 * (bytes.len() as u64 + 1)).to_be_bytes();
    }
    compress256(&mut state, blocks);
    let mut digest = [0; 32];
    for (to, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
        *to = word.to_be_bytes();
    }
    digest
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn every_length_gives_what_a_streaming_hasher_gives() {
        let bytes: Vec<u8> = (0..2000_u32).map(|i| (i * 31 % 251) as u8).collect();
        for length in 0..bytes.len() {
            for tag in [0, 1, 0xff] {
                let expected: [u8; 32] =
                    Sha256::new().chain_update([tag]).chain_update(&bytes[..length]).finalize().into();
                assert_eq!(tagged_sha256(tag, &bytes[..length]), expected, "{length} bytes");
            }
        }
    }
}
