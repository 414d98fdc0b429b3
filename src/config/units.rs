//! Numbers with a unit, as settings write them: `25s`, `500ms`, `5m`, `64KiB`.
//!
//! A value is one whole number and one unit, nothing between them; sizes may be plain bytes. What is written by
//! [`show_duration`] and [`show_bytes`] reads back as the same value.

use std::time::Duration;

/// Largest first; the number is the unit in milliseconds.
const DURATIONS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Largest first; the number is the unit in bytes.
const SIZES: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

/// A duration such as `25s`; `None` where it is not one, or more than fits.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    parse(text, DURATIONS).map(Duration::from_millis)
}

/// A size such as `64KiB` or `65536`, in bytes; `None` where it is not one, or more than fits.
pub fn parse_bytes(text: &str) -> Option<usize> {
    parse(text, SIZES).and_then(|n| usize::try_from(n).ok())
}

/// As [`parse_duration`] reads it. Less than a millisecond is not shown.
pub fn show_duration(d: Duration) -> String {
    match u64::try_from(d.as_millis()).unwrap_or(u64::MAX) {
        0 => "0s".to_owned(),
        n => show(n, DURATIONS),
    }
}

/// As [`parse_bytes`] reads it.
pub fn show_bytes(n: usize) -> String {
    show(n as u64, SIZES)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

fn show(n: u64, units: &[(&str, u64)]) -> String {
    let whole = units.iter().find(|(_, scale)| n >= *scale && n.is_multiple_of(*scale));
    let (unit, scale) = whole.unwrap_or(&("", 1));
    format!("{}{unit}", n / scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_unit_is_read() {
        for (text, ms) in
            [("0", 0), ("0s", 0), ("500ms", 500), ("25s", 25_000), ("5m", 300_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(parse_duration("7d"), Some(Duration::from_secs(7 * 86_400)));
        for (text, bytes) in [("0", 0), ("100", 100), ("64KiB", 65_536), ("1MiB", 1 << 20), ("1GiB", 1 << 30)]
        {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for bad in [
            "",
            "s",
            "25",
            "-1s",
            "+1s",
            "1.5s",
            "25 s",
            "25S",
            "25sec",
            " 25s",
            "1h30m",
            "99999999999999999999s",
        ] {
            assert_eq!(parse_duration(bad), None, "{bad:?}");
        }
        for bad in
            ["", "KiB", "64KB", "64k", "64 KiB", "-1", "1.5MiB", "99999999999999999999", "99999999999999GiB"]
        {
            assert_eq!(parse_bytes(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(ms in 0..u64::MAX / 2, bytes in any::<usize>()) {
            let d = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&show_duration(d)), Some(d));
            prop_assert_eq!(parse_bytes(&show_bytes(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,12}") {
            let _ = (parse_duration(&text), parse_bytes(&text));
        }
    }
}
