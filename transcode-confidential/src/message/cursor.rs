use super::error::Malformed;

/// Why parsing stopped before the end of what was to be parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The input must grow to at least this many bytes, counted from its start, before another field can be read.
    Needs(usize),
    /// No further bytes can make this a message.
    Refused(Malformed),
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Self::Refused(malformed)
    }
}

/// Reads big-endian fields from the front of a slice, and says how much is missing where it ends.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0 }
    }

    /// Number of bytes read so far.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) fn u8(&mut self) -> Result<u8, Stop> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Stop> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Stop> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let end = self.at.saturating_add(N);
        let field = self.input.get(self.at..).and_then(|rest| rest.first_chunk::<N>()).ok_or(Stop::Needs(end))?;
        self.at = end;
        Ok(*field)
    }

    pub(super) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.saturating_add(count);
        let field = self.input.get(self.at..end).ok_or(Stop::Needs(end))?;
        self.at = end;
        Ok(field)
    }

    /// A byte string behind its 16-bit length, which may not exceed `limit`.
    pub(super) fn short_bytes(&mut self, limit: usize) -> Result<Option<&'a [u8]>, Stop> {
        let length = usize::from(self.u16()?);
        if length > limit { Ok(None) } else { self.bytes(length).map(Some) }
    }
}
