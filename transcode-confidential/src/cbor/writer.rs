use super::{FALSE, Major, TRUE};

/// Appends deterministic CBOR to a growing buffer. The caller gives map keys in ascending order and as many items as it
/// announced; both are checked by every reader.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Continues a buffer.
    pub const fn after(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// An unsigned integer, major type 0.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        self.head(Major::Unsigned, value)
    }

    /// A byte string, major type 2.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.head(Major::Bytes, value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// A UTF-8 text string, major type 3.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.head(Major::Text, value.len() as u64);
        self.0.extend_from_slice(value.as_bytes());
        self
    }

    /// `true` or `false`.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.0.push(if value { TRUE } else { FALSE });
        self
    }

    /// The head of an array of `items` items, which follow.
    pub fn array(&mut self, items: usize) -> &mut Self {
        self.head(Major::Array, items as u64)
    }

    /// The head of a map of `pairs` pairs, which follow in ascending order of their keys.
    pub fn map(&mut self, pairs: usize) -> &mut Self {
        self.head(Major::Map, pairs as u64)
    }

    /// One or more items that are encoded already.
    pub fn raw(&mut self, encoded: &[u8]) -> &mut Self {
        self.0.extend_from_slice(encoded);
        self
    }

    /// What was written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The buffer.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Most heads are one byte: keys, small numbers, short texts.
    #[inline]
    fn head(&mut self, major: Major, value: u64) -> &mut Self {
        let major = (major as u8) << 5;
        if value <= 23 {
            self.0.push(major | value as u8);
            return self;
        }
        self.long_head(major, value)
    }

    fn long_head(&mut self, major: u8, value: u64) -> &mut Self {
        let be = value.to_be_bytes();
        match value {
            0..=0xff => self.0.extend_from_slice(&[major | 24, be[7]]),
            0x100..=0xffff => self.0.extend_from_slice(&[major | 25, be[6], be[7]]),
            0x1_0000..=0xffff_ffff => self.0.extend_from_slice(&[major | 26, be[4], be[5], be[6], be[7]]),
            _ => {
                self.0.push(major | 27);
                self.0.extend_from_slice(&be);
            }
        }
        self
    }
}
