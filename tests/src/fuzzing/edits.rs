//! Inputs as edits of something genuine: the way past check sums and signatures that random bytes never get behind.

/// Reads numbers off an input; zeros when it is used up.
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn short(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.byte(), self.byte()]))
    }

    pub(super) fn long(&mut self) -> u64 {
        u64::from_be_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// A number below `limit`, which is not 0.
    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.short() % limit
    }

    pub(super) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `genuine` after the edits that `input` describes.
pub(super) fn edited(genuine: &[u8], input: &[u8]) -> Vec<u8> {
    let mut edits = Cursor(input);
    let mut bytes = genuine.to_vec();
    while !edits.is_empty() && bytes.len() <= 4 * genuine.len() {
        let (kind, at) = (edits.byte(), edits.below(bytes.len() + 1));
        let count = usize::from(edits.byte()).min(bytes.len() - at);
        match kind % 6 {
            0 if at < bytes.len() => bytes[at] ^= edits.byte(),
            1 => drop(bytes.drain(at..at + count)),
            2 => {
                let inserted = edits.take(count.min(16)).to_vec();
                drop(bytes.splice(at..at, inserted));
            }
            3 => {
                let again = bytes[at..at + count].to_vec();
                drop(bytes.splice(at..at, again));
            }
            4 => bytes.truncate(at),
            _ => {
                let moved: Vec<_> = bytes.drain(at..at + count).collect();
                let to = edits.below(bytes.len() + 1);
                drop(bytes.splice(to..to, moved));
            }
        }
    }
    bytes
}
