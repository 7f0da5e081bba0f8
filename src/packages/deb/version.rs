//! Versions of Debian packages, compared as dpkg does: deb-version(7).

use std::cmp::Ordering;

/// Compares by epoch, then upstream version, then revision.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (parts(a), parts(b));
    // Epochs may have any number of digits.
    fragment(a.0, b.0)
        .then_with(|| fragment(a.1, b.1))
        .then_with(|| fragment(a.2, b.2))
}

/// Returns epoch, upstream version and revision. A missing epoch or revision counts as 0.
fn parts(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Compares, in turn, runs of other characters than digits by [`weight`], and runs of digits as numbers.
fn fragment(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        while starts_other(a) || starts_other(b) {
            let order = weight(a.first()).cmp(&weight(b.first()));
            if order != Ordering::Equal {
                return order;
            }
            // Equal weights mean equal characters.
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (number_a, number_b) = (digits(&mut a), digits(&mut b));
        let order = number_a
            .len()
            .cmp(&number_b.len())
            .then_with(|| number_a.cmp(number_b));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

fn starts_other(text: &[u8]) -> bool {
    text.first().is_some_and(|byte| !byte.is_ascii_digit())
}

/// Returns the order of a character: a tilde comes before the end, the end before letters, letters before the rest.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(b'~') => -1,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    }
}

/// Removes the digits at the front, and returns them without leading zeros.
fn digits<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    *text = rest;
    let zeros = number.iter().take_while(|byte| **byte == b'0').count();
    &number[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_dpkg_compares() {
        // Each is older than the next; checked with `dpkg --compare-versions`.
        let rising = [
            "0~~",
            "0~",
            "0",
            "0.1~rc1-1",
            "0.1-1",
            "0.1-1+b1",
            "0.1-1.1",
            "0.1a-1",
            "0.1+dfsg-1",
            "0.1.0-1",
            "0.2",
            "0.10",
            "6.1.9-1",
            "6.1.99-1",
            "6.1.170-3",
            "6.1.192-2",
            "6.12.111-1~deb12u1",
            "6.12.111-1",
            "1:0.1",
            "2:0",
            "10:0",
        ];
        for (n, older) in rising.iter().enumerate() {
            for (m, newer) in rising.iter().enumerate() {
                assert_eq!(compare(older, newer), n.cmp(&m), "{older} {newer}");
            }
        }
    }

    #[test]
    fn equal_versions_are_recognised() {
        for (a, b) in [
            ("1.0", "1.0-0"),
            ("0:1.0", "1.0"),
            ("1.01", "1.1"),
            ("1.0-01", "1.0-1"),
            ("", ""),
            ("", "0"),
        ] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }
}
