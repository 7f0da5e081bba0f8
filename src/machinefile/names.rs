//! Names: what is a valid one, and which was meant.

/// RFC 1123 §2.1 by way of RFC 952: letters, digits and inner dashes, 63 at most; lower case, so
/// that names that differ in case only cannot be two machines.
pub fn is_label(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 63
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Labels joined by dots.
pub fn is_hostname(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

pub use crate::host::names::is_user;

/// The known name that was most likely meant, if any comes near.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.chars().count() / 3).max(1);
    known
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// `a, b or c`.
pub fn one_of(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_string(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Edits (a character in, out, changed, or two swapped) from one name to the other.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        for good in ["web", "web-1", "1a", &"a".repeat(63)] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "Web", "-a", "a-", "a_b", "a.b", "ü", &"a".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
        assert!(is_hostname("web.shop.test") && !is_hostname("web..test"));
    }

    #[test]
    fn near_names_are_found_and_far_ones_not() {
        let known = ["memory", "machine", "cpus"];
        assert_eq!(nearest("memroy", known.into_iter()), Some("memory"));
        assert_eq!(nearest("cpu", known.into_iter()), Some("cpus"));
        assert_eq!(nearest("volume", known.into_iter()), None);
    }
}
