//! Deterministic CBOR (RFC 8949 section 4.2.1), the encoding of everything that this project hashes or frames.
//!
//! One value has one encoding: definite lengths, shortest integers, map keys in ascending order, UTF-8 text, no tags, no
//! floats. [`Reader`] refuses anything else, so decoding followed by encoding gives the same bytes.

mod reader;
mod writer;

pub use reader::{CborError, MapReader, Reader};
pub use writer::Writer;

/// Major types of RFC 8949 section 3.1, as far as this project uses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Major {
    Unsigned = 0,
    Bytes = 2,
    Text = 3,
    Array = 4,
    Map = 5,
    Simple = 7,
}

const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_writer_gives_the_encodings_of_rfc_8949_appendix_a() {
        for (value, hex) in [
            (0, "00"),
            (23, "17"),
            (24, "1818"),
            (255, "18ff"),
            (256, "190100"),
            (65_535, "19ffff"),
            (65_536, "1a00010000"),
            (u64::from(u32::MAX) + 1, "1b0000000100000000"),
        ] {
            let mut out = Writer::new();
            out.uint(value);
            assert_eq!(hex::encode(out.into_bytes()), hex);
        }
        let mut out = Writer::new();
        out.map(2);
        out.uint(1).text("a");
        out.uint(2).array(2);
        out.bool(true).bytes(&[1, 2]);
        assert_eq!(hex::encode(out.into_bytes()), "a20161610282f5420102");
    }

    #[test]
    fn what_has_a_second_encoding_is_refused() {
        for (why, hex) in [
            ("integer not shortest", "1817"),
            ("integer not shortest, 16 bits", "190017"),
            ("integer not shortest, 64 bits", "1b00000000ffffffff"),
            ("indefinite bytes", "5f4101ff"),
            ("indefinite map", "bf0001ff"),
            ("negative", "20"),
            ("tag", "c000"),
            ("null", "f6"),
            ("float", "f90000"),
            ("reserved length", "1c"),
            ("trailing byte", "0000"),
            ("nothing", ""),
        ] {
            let bytes = hex::decode(hex).unwrap();
            let mut reader = Reader::new(&bytes);
            let read = reader.uint().and_then(|_| reader.end());
            assert!(read.is_err(), "{why}");
        }
    }

    #[test]
    fn map_keys_out_of_order_repeated_or_unknown_are_refused() {
        for hex in ["a201010000", "a201010102", "a20001"] {
            let bytes = hex::decode(hex).unwrap();
            let mut reader = Reader::new(&bytes);
            let all = reader.int_map(4).and_then(|mut map| {
                while let Some(_key) = map.next_key()? {
                    map.value().uint()?;
                }
                Ok(())
            });
            assert!(all.is_err(), "{hex}");
        }
    }

    #[test]
    fn a_declared_length_is_never_believed() {
        let bytes = hex::decode("5bffffffffffffffff00").unwrap();
        assert_eq!(Reader::new(&bytes).bytes(usize::MAX), Err(CborError::Truncated));
        let bytes = hex::decode("9bffffffffffffffff").unwrap();
        assert_eq!(Reader::new(&bytes).array(100), Err(CborError::TooLong));
    }

    proptest! {
        #[test]
        fn whatever_the_reader_accepts_the_writer_gives_back(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(value) = reader.uint() {
                let mut again = Writer::new();
                again.uint(value);
                prop_assert_eq!(again.as_slice(), &bytes[..again.as_slice().len()]);
            }
        }
    }
}
