use sha2::block_api::compress256;

/// FIPS 180-4 section 5.3.3.
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
const BLOCK: usize = 64;
/// The bit behind the message, and its length in bits.
const PADDING: usize = 1 + size_of::<u64>();
/// Below this many bytes two blocks hold tag, bytes and padding, as for a node.
const NODE: usize = 2 * BLOCK - PADDING;
/// Below this many, eight do, as for the leaves of ordinary events.
const LEAF: usize = 8 * BLOCK - PADDING;

/// `SHA-256(tag || bytes)`: a leaf (tag 0) or an interior node (tag 1) of the tree.
///
/// What [`sha2::Sha256`] gives, over the same compression function. A streaming hasher that is fed the tag first copies every
/// byte behind it through its own buffer, a block at a time; here what is short is laid out as a whole, padding and all, and
/// compressed in one go, and what is long is compressed where it lies.
pub(super) fn tagged_sha256(tag: u8, bytes: &[u8]) -> [u8; 32] {
    let mut state = INITIAL;
    match bytes.len() {
        0..NODE => compress_end::<2>(&mut state, &[tag], bytes, bytes.len()),
        NODE..LEAF => compress_end::<8>(&mut state, &[tag], bytes, bytes.len()),
        _ => {
            let mut first = [tag; BLOCK];
            let (start, rest) = bytes.split_at_checked(BLOCK - 1).unwrap_or_default();
            first[1..].copy_from_slice(start);
            let (whole, rest) = rest.as_chunks::<BLOCK>();
            compress256(&mut state, &[first]);
            compress256(&mut state, whole);
            compress_end::<2>(&mut state, &[], rest, bytes.len());
        }
    }
    let mut digest = [0; 32];
    for (to, word) in digest.as_chunks_mut().0.iter_mut().zip(state) {
        *to = word.to_be_bytes();
    }
    digest
}

/// Compresses the end of a message of a tag and `length` bytes: these parts and the padding, which fit `BLOCKS`.
fn compress_end<const BLOCKS: usize>(state: &mut [u32; 8], tag: &[u8], rest: &[u8], length: usize) {
    let mut end = [[0; BLOCK]; BLOCKS];
    let filled = tag.len() + rest.len();
    let bytes = end.as_flattened_mut();
    for (to, from) in [(0, tag), (tag.len(), rest), (filled, &[0x80])] {
        if let Some(room) = bytes.get_mut(to..to + from.len()) {
            room.copy_from_slice(from);
        }
    }
    let blocks = end.get_mut(..(filled + PADDING).div_ceil(BLOCK)).unwrap_or_default();
    if let Some(last) = blocks.last_mut().and_then(|block| block.last_chunk_mut()) {
        *last = (8 * (length as u64 + 1)).to_be_bytes();
    }
    compress256(state, blocks);
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
