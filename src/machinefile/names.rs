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

/// Whether programs take a label for an address, and so never ask for its name: `10` is 0.0.0.10 (inet_aton(3)), and
/// `localhost` this computer (RFC 6761 §6.3).
pub(super) fn stands_for_other(label: &str) -> bool {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    label == "localhost" || is_number(label) || label.strip_prefix("0x").is_some_and(is_hex)
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
        for address in ["10", "0x1f", "0", "localhost"] {
            assert!(stands_for_other(address), "{address}");
        }
        for name in ["10a", "x10", "0y1", "10-1", "localhost-1"] {
            assert!(!stands_for_other(name), "{name}");
        }
        assert!(is_hostname("web.shop.test") && !is_hostname("web..test"));
    }
}
