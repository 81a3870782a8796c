//! Durations and sizes as people write them.

use std::time::Duration;

use serde::{Deserialize as _, Deserializer, de::Error as _};

/// `500ms`, `30s`, `5m`, `1h`: a whole number and a unit, more than zero, at most a week.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text)
        .ok_or_else(|| D::Error::custom(format!("{text:?} is no duration such as 500ms, 30s, 5m or 1h")))
}

/// `12h`, `30d`: a whole number and a unit, more than zero, at most ten years.
pub(super) fn age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_age(&text).map(Some).ok_or_else(|| D::Error::custom(format!("{text:?} is no age such as 30s, 12h or 30d")))
}

/// `65536`, `512KiB`, `64MiB`, `1GiB`, as text or as a number of bytes.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Size {
        Bytes(u64),
        Text(String),
    }
    match Size::deserialize(deserializer)? {
        Size::Bytes(bytes) => Ok(bytes),
        Size::Text(text) => {
            parse_size(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no size such as 512KiB or 64MiB")))
        }
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let total = number.checked_mul(milliseconds)?;
    (1..=7 * 24 * 3_600_000).contains(&total).then(|| Duration::from_millis(total))
}

fn parse_age(text: &str) -> Option<Duration> {
    match split(text)? {
        (days, "d") => (1..=3650).contains(&days).then(|| Duration::from_secs(days * 86_400)),
        _ => parse_duration(text),
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(bytes)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    Some((number.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_a_unit_and_an_end() {
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("2h"), Some(Duration::from_secs(7200)));
        assert_eq!(parse_age("30d"), Some(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_age("2h"), parse_duration("2h"));
        assert_eq!((parse_age("0d"), parse_age("3651d"), parse_age("d")), (None, None, None));
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("10"), Some(10));
        for bad in ["", "s", "10", "0s", "-1s", "1d", "1.5s", "9999999999999999999h", "200h", "1 s"] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
        for bad in ["", "MiB", "1MB", "1 MiB", "-1", "99999999999999999GiB"] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }
}
