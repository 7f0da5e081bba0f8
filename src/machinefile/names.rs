//! Checks names.

/// RFC 1123 §2.1 by way of RFC 952: letters, digits and inner dashes, 63 at most; lower case, so
/// that names that differ in case only cannot be two machines.
pub(super) fn is_label(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 63
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Whether this is labels joined by dots.
pub(super) fn is_hostname(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
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
}
