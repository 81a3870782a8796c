//! The structural scanner: everything about the shape of a document is decided here, before any field has a meaning.
//!
//! It guarantees, for whatever it lets through: at most [`MAX_DEPTH`] levels and [`MAX_ITEMS`] items; definite lengths,
//! but for the one map that may be indefinite; the shortest form of every length and integer; only unsigned integers,
//! byte strings, UTF-8 text, arrays, maps and null; map keys that are integers or text and do not repeat; and no byte
//! after the end. Nothing is allocated from a declared length.

use super::refusal::StructureFault;

/// The payload map, and the register map or certificate list within it; one to spare would be one too many.
pub(super) const MAX_DEPTH: usize = 2;

/// A genuine document has about 60 items; one with every register and field has about 100.
pub(super) const MAX_ITEMS: usize = 160;

/// One item of CBOR, borrowed from the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Unsigned(u64),
    Bytes(&'a [u8]),
    Text(&'a str),
    Array(Vec<Item<'a>>),
    Map(Vec<(Item<'a>, Item<'a>)>),
    Null,
}

/// Which form of length the outermost map may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outermost {
    Definite,
    /// Since August 2025 the NSM writes the payload as `bf ... ff`.
    MapMayBeIndefinite,
}

/// The first fault and the byte at which the item that has it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) offset: usize,
    pub(super) fault: StructureFault,
}

/// Reads exactly one item that fills the whole input.
pub(super) fn scan(input: &[u8], outermost: Outermost) -> Result<Item<'_>, Fault> {
    let mut scanner = Scanner { input, offset: 0, items_left: MAX_ITEMS };
    let item = scanner.item(0, outermost)?;
    if scanner.offset == input.len() { Ok(item) } else { Err(scanner.fault(StructureFault::TrailingBytes)) }
}

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const NULL: u8 = 0xf6;
const BREAK: u8 = 0xff;

struct Scanner<'a> {
    input: &'a [u8],
    offset: usize,
    items_left: usize,
}

enum Length {
    Definite(u64),
    Indefinite,
}

impl<'a> Scanner<'a> {
    fn item(&mut self, depth: usize, outermost: Outermost) -> Result<Item<'a>, Fault> {
        let start = self.offset;
        let at = |fault| Fault { offset: start, fault };
        self.items_left = self.items_left.checked_sub(1).ok_or(at(StructureFault::TooManyItems))?;
        let first = self.byte()?;
        if first == NULL {
            return Ok(Item::Null);
        }
        let major = first >> 5;
        if !matches!(major, UNSIGNED | BYTES | TEXT | ARRAY | MAP) {
            return Err(at(StructureFault::UnsupportedItem));
        }
        let length = match self.length(first, start)? {
            Length::Definite(length) => length,
            Length::Indefinite if major == MAP && outermost == Outermost::MapMayBeIndefinite => {
                return self.indefinite_map(depth + 1);
            }
            Length::Indefinite if major == UNSIGNED => return Err(at(StructureFault::UnsupportedItem)),
            Length::Indefinite => return Err(at(StructureFault::IndefiniteLength)),
        };
        if matches!(major, ARRAY | MAP) && depth >= MAX_DEPTH {
            return Err(at(StructureFault::TooDeep));
        }
        match major {
            UNSIGNED => Ok(Item::Unsigned(length)),
            BYTES => Ok(Item::Bytes(self.take(length, start)?)),
            TEXT => match std::str::from_utf8(self.take(length, start)?) {
                Ok(text) => Ok(Item::Text(text)),
                Err(_) => Err(at(StructureFault::NotUtf8)),
            },
            ARRAY => {
                let mut items = Vec::new();
                for _ in 0..length {
                    items.push(self.item(depth + 1, Outermost::Definite)?);
                }
                Ok(Item::Array(items))
            }
            _ => {
                let mut pairs = Vec::new();
                for _ in 0..length {
                    self.pair(depth + 1, &mut pairs)?;
                }
                Ok(Item::Map(pairs))
            }
        }
    }

    fn indefinite_map(&mut self, depth: usize) -> Result<Item<'a>, Fault> {
        let mut pairs = Vec::new();
        loop {
            match self.input.get(self.offset) {
                None => return Err(self.fault(StructureFault::MissingBreak)),
                Some(&BREAK) => {
                    self.offset += 1;
                    return Ok(Item::Map(pairs));
                }
                Some(_) => self.pair(depth, &mut pairs)?,
            }
        }
    }

    fn pair(&mut self, depth: usize, pairs: &mut Vec<(Item<'a>, Item<'a>)>) -> Result<(), Fault> {
        let start = self.offset;
        let at = |fault| Fault { offset: start, fault };
        let key = self.item(depth, Outermost::Definite)?;
        if !matches!(key, Item::Unsigned(_) | Item::Text(_)) {
            return Err(at(StructureFault::UnsupportedItem));
        }
        if pairs.iter().any(|(earlier, _)| *earlier == key) {
            return Err(at(StructureFault::DuplicateKey));
        }
        pairs.push((key, self.item(depth, Outermost::Definite)?));
        Ok(())
    }

    fn length(&mut self, first: u8, start: usize) -> Result<Length, Fault> {
        let at = |fault| Fault { offset: start, fault };
        let (width, shortest) = match first & 0x1f {
            small @ 0..=23 => return Ok(Length::Definite(u64::from(small))),
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            31 => return Ok(Length::Indefinite),
            _ => return Err(at(StructureFault::UnsupportedItem)),
        };
        let value = self.take(width, start)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
        if value < shortest { Err(at(StructureFault::NotShortest)) } else { Ok(Length::Definite(value)) }
    }

    fn take(&mut self, length: u64, start: usize) -> Result<&'a [u8], Fault> {
        let truncated = Fault { offset: start, fault: StructureFault::Truncated };
        let rest = self.input.get(self.offset..).unwrap_or_default();
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length)).ok_or(truncated)?;
        self.offset += taken.len();
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        let byte = *self.input.get(self.offset).ok_or(self.fault(StructureFault::Truncated))?;
        self.offset += 1;
        Ok(byte)
    }

    const fn fault(&self, fault: StructureFault) -> Fault {
        Fault { offset: self.offset, fault }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault_of(hex: &str) -> (StructureFault, usize) {
        let bytes = hex::decode(hex).unwrap();
        let Fault { fault, offset } = scan(&bytes, Outermost::MapMayBeIndefinite).expect_err(hex);
        (fault, offset)
    }

    #[test]
    fn each_fault_is_named_with_the_byte_where_its_item_begins() {
        for (hex, fault, offset) in [
            ("", StructureFault::Truncated, 0),
            ("82", StructureFault::Truncated, 1),
            ("8200", StructureFault::Truncated, 2),
            ("824100", StructureFault::Truncated, 3),
            ("82004401", StructureFault::Truncated, 2),
            ("5bffffffffffffffff00", StructureFault::Truncated, 0),
            ("9bffffffffffffffff", StructureFault::Truncated, 9),
            ("0000", StructureFault::TrailingBytes, 1),
            ("a0ff", StructureFault::TrailingBytes, 1),
            ("bfff00", StructureFault::TrailingBytes, 2),
            ("bf0001", StructureFault::MissingBreak, 3),
            ("bf", StructureFault::MissingBreak, 1),
            ("bf00ff", StructureFault::UnsupportedItem, 2),
            ("9f00ff", StructureFault::IndefiniteLength, 0),
            ("a1005f4100ff", StructureFault::IndefiniteLength, 2),
            ("a1007f6161ff", StructureFault::IndefiniteLength, 2),
            ("a100bfff", StructureFault::IndefiniteLength, 2),
            ("bf00bfffff", StructureFault::IndefiniteLength, 2),
            ("a200000000", StructureFault::DuplicateKey, 3),
            ("bf616100616100ff", StructureFault::DuplicateKey, 4),
            ("a100a201000100", StructureFault::DuplicateKey, 5),
            ("1817", StructureFault::NotShortest, 0),
            ("190017", StructureFault::NotShortest, 0),
            ("1b00000000ffffffff", StructureFault::NotShortest, 0),
            ("580100", StructureFault::NotShortest, 0),
            ("8180", StructureFault::UnsupportedItem, usize::MAX),
            ("818180", StructureFault::TooDeep, 2),
            ("61ff", StructureFault::NotUtf8, 0),
            ("20", StructureFault::UnsupportedItem, 0),
            ("c000", StructureFault::UnsupportedItem, 0),
            ("f4", StructureFault::UnsupportedItem, 0),
            ("f7", StructureFault::UnsupportedItem, 0),
            ("f90000", StructureFault::UnsupportedItem, 0),
            ("1c", StructureFault::UnsupportedItem, 0),
            ("1f", StructureFault::UnsupportedItem, 0),
            ("a1f600", StructureFault::UnsupportedItem, 1),
            ("a1410000", StructureFault::UnsupportedItem, 1),
        ] {
            if offset == usize::MAX {
                assert!(scan(&hex::decode(hex).unwrap(), Outermost::Definite).is_ok(), "{hex}");
            } else {
                assert_eq!(fault_of(hex), (fault, offset), "{hex}");
            }
        }
    }

    #[test]
    fn an_indefinite_map_passes_only_outermost_and_only_where_it_was_allowed() {
        let bytes = hex::decode("bf6161f6ff").unwrap();
        let expected = Item::Map(vec![(Item::Text("a"), Item::Null)]);
        assert_eq!(scan(&bytes, Outermost::MapMayBeIndefinite), Ok(expected));
        let refused = scan(&bytes, Outermost::Definite);
        assert_eq!(refused, Err(Fault { offset: 0, fault: StructureFault::IndefiniteLength }));
    }

    #[test]
    fn items_are_counted_over_all_levels() {
        let mut bytes = vec![0x98, 200];
        bytes.extend([0; 200]);
        let refused = scan(&bytes, Outermost::Definite);
        assert_eq!(refused, Err(Fault { offset: MAX_ITEMS + 1, fault: StructureFault::TooManyItems }));
    }

    proptest! {
        #[test]
        fn no_input_makes_it_read_past_the_end_or_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Err(fault) = scan(&bytes, Outermost::MapMayBeIndefinite) {
                prop_assert!(fault.offset <= bytes.len());
            }
        }

        #[test]
        fn one_more_byte_after_an_accepted_item_is_always_refused(bytes in proptest::collection::vec(any::<u8>(), 1..24), more: u8) {
            if scan(&bytes, Outermost::MapMayBeIndefinite).is_ok() {
                let mut longer = bytes;
                longer.push(more);
                prop_assert!(scan(&longer, Outermost::MapMayBeIndefinite).is_err());
            }
        }
    }
}
