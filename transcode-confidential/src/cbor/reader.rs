use thiserror::Error;

use super::{FALSE, Major, TRUE};

/// Why some bytes are not the deterministic CBOR that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CborError {
    /// The input ends inside an item.
    #[error("the input ends inside an item")]
    Truncated,
    /// An item of another type stands where this one was expected.
    #[error("an item of another type was expected")]
    Type,
    /// An encoding that RFC 8949 section 4.2.1 does not allow: indefinite, not shortest, a tag, a float.
    #[error("the encoding is not deterministic")]
    NotDeterministic,
    /// A text string that is not UTF-8.
    #[error("a text is not UTF-8")]
    Utf8,
    /// A string, array or map longer than its limit.
    #[error("an item is longer than its limit")]
    TooLong,
    /// Map keys repeat or do not ascend.
    #[error("map keys repeat or do not ascend")]
    KeyOrder,
    /// A map key that the format does not know.
    #[error("unknown map key {0}")]
    UnknownKey(u64),
    /// A required map key is missing.
    #[error("required map key {0} is missing")]
    MissingKey(u64),
    /// A value outside the range that its meaning allows.
    #[error("a value is out of range")]
    Range,
    /// Bytes follow the end of the value.
    #[error("bytes follow the end of the value")]
    Trailing,
}

/// Reads deterministic CBOR from a slice, without copying and without trusting a declared length.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub const fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// [`CborError`]: another type, not the shortest encoding, or the end of the input.
    #[inline(always)]
    pub fn uint(&mut self) -> Result<u64, CborError> {
        self.head(Major::Unsigned)
    }

    /// An unsigned integer that fits `T`.
    ///
    /// # Errors
    /// As [`Reader::uint`]; [`CborError::Range`] for what does not fit.
    #[inline(always)]
    pub fn number<T: TryFrom<u64>>(&mut self) -> Result<T, CborError> {
        T::try_from(self.uint()?).map_err(|_| CborError::Range)
    }

    /// A byte string of at most `limit` bytes.
    ///
    /// # Errors
    /// [`CborError`]: another type, not the shortest head, longer than `limit`, or the end of the input.
    #[inline(always)]
    pub fn bytes(&mut self, limit: usize) -> Result<&'a [u8], CborError> {
        let length = self.length(Major::Bytes, limit)?;
        self.take(length)
    }

    /// A byte string of exactly `N` bytes.
    ///
    /// # Errors
    /// As [`Reader::bytes`]; [`CborError::Range`] for another length.
    #[inline(always)]
    pub fn array_of<const N: usize>(&mut self) -> Result<[u8; N], CborError> {
        // Digests and keys have heads of two bytes.
        if N >= 24
            && let Some(([0x58, length], rest)) = self.rest.split_first_chunk()
            && usize::from(*length) == N
            && let Some((bytes, rest)) = rest.split_first_chunk()
        {
            self.rest = rest;
            return Ok(*bytes);
        }
        <[u8; N]>::try_from(self.bytes(N)?).map_err(|_| CborError::Range)
    }

    /// A text string of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Reader::bytes`]; [`CborError::Utf8`].
    #[inline(always)]
    pub fn text(&mut self, limit: usize) -> Result<&'a str, CborError> {
        let length = self.length(Major::Text, limit)?;
        std::str::from_utf8(self.take(length)?).map_err(|_| CborError::Utf8)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// [`CborError::Type`] or [`CborError::Truncated`].
    #[inline(always)]
    pub fn bool(&mut self) -> Result<bool, CborError> {
        match self.take(1)? {
            [FALSE] => Ok(false),
            [TRUE] => Ok(true),
            _ => Err(CborError::Type),
        }
    }

    /// The head of an array; gives the number of items that follow.
    ///
    /// # Errors
    /// [`CborError`]: another type, not the shortest head, more items than `limit`, or the end of the input.
    pub fn array(&mut self, limit: usize) -> Result<usize, CborError> {
        self.length(Major::Array, limit)
    }

    /// The head of a map with unsigned integer keys, at most `limit` of them.
    ///
    /// # Errors
    /// As [`Reader::array`].
    #[inline(always)]
    pub fn int_map(&mut self, limit: usize) -> Result<MapReader<'_, 'a>, CborError> {
        let pairs = self.length(Major::Map, limit)?;
        Ok(MapReader { reader: self, left: pairs, last: None, next: None })
    }

    /// Succeeds where every byte was read.
    ///
    /// # Errors
    /// [`CborError::Trailing`].
    pub const fn end(&self) -> Result<(), CborError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CborError::Trailing) }
    }

    /// The bytes not yet read.
    pub const fn remaining(&self) -> &'a [u8] {
        self.rest
    }

    #[inline(always)]
    fn length(&mut self, major: Major, limit: usize) -> Result<usize, CborError> {
        match usize::try_from(self.head(major)?) {
            Ok(length) if length <= limit => Ok(length),
            _ => Err(CborError::TooLong),
        }
    }

    #[inline(always)]
    fn take(&mut self, count: usize) -> Result<&'a [u8], CborError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(CborError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Most heads are one byte: keys, small numbers, short texts.
    #[inline(always)]
    fn head(&mut self, expected: Major) -> Result<u64, CborError> {
        let (&first, rest) = self.rest.split_first().ok_or(CborError::Truncated)?;
        self.rest = rest;
        if first >> 5 != expected as u8 {
            return Err(if first >> 5 == Major::Simple as u8 || first >> 5 == 6 {
                CborError::NotDeterministic
            } else {
                CborError::Type
            });
        }
        match (first & 0x1f, self.rest) {
            (small @ 0..=23, _) => Ok(u64::from(small)),
            (24, [value @ 24..=255, rest @ ..]) => {
                self.rest = rest;
                Ok(u64::from(*value))
            }
            (width, _) => self.long_head(width),
        }
    }

    #[inline(never)]
    fn long_head(&mut self, width: u8) -> Result<u64, CborError> {
        let (value, shortest) = match width {
            24 => (self.big_endian::<1>()?, 24),
            25 => (self.big_endian::<2>()?, 0x100),
            26 => (self.big_endian::<4>()?, 0x1_0000),
            27 => (self.big_endian::<8>()?, 0x1_0000_0000),
            _ => return Err(CborError::NotDeterministic),
        };
        if value < shortest { Err(CborError::NotDeterministic) } else { Ok(value) }
    }

    fn big_endian<const N: usize>(&mut self) -> Result<u64, CborError> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(CborError::Truncated)?;
        self.rest = rest;
        Ok(bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }
}

/// The pairs of a map, whose keys must ascend.
#[derive(Debug)]
pub struct MapReader<'r, 'a> {
    reader: &'r mut Reader<'a>,
    left: usize,
    last: Option<u64>,
    /// A key that was read and not asked for yet.
    next: Option<u64>,
}

impl<'a> MapReader<'_, 'a> {
    /// The next key, or `None` after the last pair. Read its value with [`MapReader::value`] before the next call.
    ///
    /// # Errors
    /// [`CborError::KeyOrder`], or that of the key as a number.
    #[inline(always)]
    pub fn next_key(&mut self) -> Result<Option<u64>, CborError> {
        let key = self.peek()?;
        self.next = None;
        Ok(key)
    }

    /// Expects `key` as the next key and gives the reader at its value.
    ///
    /// # Errors
    /// [`CborError::MissingKey`], [`CborError::UnknownKey`] for a smaller one, or as [`MapReader::next_key`].
    #[inline(always)]
    pub fn required(&mut self, key: u64) -> Result<&mut Reader<'a>, CborError> {
        if self.short_key() == Some(key) {
            self.pass_short_key(key);
            return Ok(self.reader);
        }
        match self.next_key()? {
            Some(found) if found == key => Ok(self.reader),
            Some(found) if found < key => Err(CborError::UnknownKey(found)),
            _ => Err(CborError::MissingKey(key)),
        }
    }

    /// Gives the reader at the value of `key` where that is the next key, else `None`, and the key is still the next.
    ///
    /// # Errors
    /// As [`MapReader::next_key`].
    #[inline(always)]
    pub fn optional(&mut self, key: u64) -> Result<Option<&mut Reader<'a>>, CborError> {
        match self.short_key() {
            Some(found) if found == key => self.pass_short_key(key),
            Some(_) => return Ok(None),
            None if self.peek()? != Some(key) => return Ok(None),
            None => self.next = None,
        }
        Ok(Some(self.reader))
    }

    /// The reader at the value of the key just read.
    pub const fn value(&mut self) -> &mut Reader<'a> {
        self.reader
    }

    /// Succeeds where every pair was read.
    ///
    /// # Errors
    /// [`CborError::UnknownKey`], or as [`MapReader::next_key`].
    pub fn end(mut self) -> Result<(), CborError> {
        match self.next_key()? {
            None => Ok(()),
            Some(key) => Err(CborError::UnknownKey(key)),
        }
    }

    /// The next key where it is one byte long and ascends, as nearly all do; it is not read yet.
    #[inline(always)]
    fn short_key(&self) -> Option<u64> {
        let &key = self.reader.rest.first()?;
        let key = u64::from(key);
        let waits = self.left > 0 && self.next.is_none();
        (waits && key <= 23 && self.last.is_none_or(|last| last < key)).then_some(key)
    }

    #[inline(always)]
    fn pass_short_key(&mut self, key: u64) {
        self.reader.rest = self.reader.rest.get(1..).unwrap_or_default();
        self.left -= 1;
        self.last = Some(key);
    }

    #[inline(never)]
    fn peek(&mut self) -> Result<Option<u64>, CborError> {
        if self.next.is_some() || self.left == 0 {
            return Ok(self.next);
        }
        self.left -= 1;
        let key = self.reader.uint()?;
        if self.last.is_some_and(|last| key <= last) {
            return Err(CborError::KeyOrder);
        }
        (self.last, self.next) = (Some(key), Some(key));
        Ok(self.next)
    }
}
