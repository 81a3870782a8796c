//! As much of DER as certificates need. Nothing here checks anything: tests use it to write what is wrong, too.

use transcode_confidential::time::Timestamp;

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const UTF8_STRING: u8 = 0x0c;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Tag, length and the concatenation of `parts`.
pub(super) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=0x7f => out.push(short as u8),
        one @ 0x80..=0xff => out.extend([0x81, one as u8]),
        two => out.extend([0x82, (two >> 8) as u8, two as u8]),
    }
    out.extend(content);
    out
}

/// A bit string without unused bits.
pub(super) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    tlv(BIT_STRING, &[&[0], bytes])
}

/// RFC 5280 section 4.1.2.5: UTCTime through 2049, GeneralizedTime from then on.
pub(super) fn time(at: Timestamp) -> Vec<u8> {
    let digits: String = at.to_string().chars().take(19).filter(char::is_ascii_digit).collect();
    if &digits[..4] < "2050" {
        tlv(UTC_TIME, &[&digits.as_bytes()[2..], b"Z"])
    } else {
        tlv(GENERALIZED_TIME, &[digits.as_bytes(), b"Z"])
    }
}
