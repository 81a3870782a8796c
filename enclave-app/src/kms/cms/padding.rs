use subtle::{Choice, ConditionallySelectable, ConstantTimeEq, ConstantTimeGreater, CtOption};

const BLOCK: u8 = 16;

/// Length of the content before its PKCS#7 padding (RFC 5652 section 6.3), in time that depends on the length of
/// `blocks` alone.
pub(super) fn unpadded_length(blocks: &[u8]) -> CtOption<usize> {
    let Some((_, last_block)) = blocks.split_last_chunk::<{ BLOCK as usize }>() else {
        return CtOption::new(0, Choice::from(0));
    };
    let [.., count] = *last_block;
    let mut valid = !count.ct_eq(&0) & !count.ct_gt(&BLOCK);
    for (position, byte) in (0..BLOCK).zip(last_block) {
        let is_padding = count.ct_gt(&(BLOCK - 1 - position));
        valid &= !is_padding | byte.ct_eq(&count);
    }
    let count = u8::conditional_select(&0, &count, valid);
    CtOption::new(blocks.len().saturating_sub(usize::from(count)), valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(blocks: &[u8]) -> Option<usize> {
        unpadded_length(blocks).into()
    }

    #[test]
    fn one_to_sixteen_equal_bytes_are_padding() {
        for count in 1..=16u8 {
            let mut blocks = vec![0xee; 48 - usize::from(count)];
            blocks.resize(48, count);
            assert_eq!(length(&blocks), Some(48 - usize::from(count)));
            for at in 48 - usize::from(count)..48 {
                let mut broken = blocks.clone();
                broken[at] ^= 0x40;
                assert_eq!(length(&broken), None, "{count} {at}");
            }
        }
    }

    #[test]
    fn no_count_and_too_large_a_count_are_refused() {
        for count in (17..=255).chain([0]) {
            assert_eq!(length(&[count; 32]), None);
        }
        assert_eq!(length(&[]), None);
        assert_eq!(length(&[1; 15]), None);
    }
}
