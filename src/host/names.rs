//! Names that reach programs of this host, whoever said them: what is a valid one.

/// A user or a group as useradd(8) takes it: nothing in it means anything to a shell, to ssh, to rsync
/// or to a template.
pub fn is_user(name: &str) -> bool {
    name.len() <= 32
        && name
            .chars()
            .next()
            .is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_plain_words() {
        for good in ["root", "_apt", "dev-1", &"a".repeat(32)] {
            assert!(is_user(good), "{good}");
        }
        for bad in [
            "",
            "-oProxyCommand=id",
            "Dev",
            "1a",
            "a b",
            "a\tb",
            "a\n",
            "a;id",
            "a/b",
            "a:b",
            "a@b",
            "{{lookup('pipe','id')}}",
            "a${IFS}b",
            "ü",
            &"a".repeat(33),
        ] {
            assert!(!is_user(bad), "{bad:?}");
        }
    }
}
