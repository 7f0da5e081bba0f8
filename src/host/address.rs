//! Addresses as somebody typed them: without what may be secret, also where the address is mistyped.

use std::borrow::Cow;

/// Returns an address for errors, without login, query and fragment. Unlike `fetch::shown`, it takes any text.
pub fn shown(text: &str) -> Cow<'_, str> {
    // The name of a file may have a `?`.
    let is_path = (["/", "./", "../", "~/"].iter()).any(|start| text.starts_with(start));
    let text = without_logins(text, "");
    if is_path {
        return text;
    }
    match text.find(['?', '#']) {
        None => text,
        Some(at) if text[at..].starts_with('#') => Cow::Owned(text[..at].to_string()),
        Some(at) => Cow::Owned(format!("{}?…", &text[..at])),
    }
}

/// Whether an address has a login in it.
pub fn has_login(text: &str) -> bool {
    matches!(without_logins(text, ""), Cow::Owned(_))
}

/// Puts `instead` in place of each `USER:PASSWORD@`, and of each `USER@` after a scheme.
pub fn without_logins<'a>(text: &'a str, instead: &str) -> Cow<'a, str> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((start, end)) = login(rest) {
        out.push_str(&rest[..start]);
        out.push_str(instead);
        rest = &rest[end..];
    }
    if rest.len() == text.len() {
        return Cow::Borrowed(text);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Returns where the first login starts, and where its `@` ends.
fn login(text: &str) -> Option<(usize, usize)> {
    let mut start = 0;
    let mut host = false;
    let mut in_path = false;
    for part in text.split_inclusive(['/', '\\']) {
        let part_end = start + part.len();
        let name = part.trim_end_matches(['/', '\\']);
        let place = name.split(['?', '#']).next().unwrap_or(name);
        if in_path && place != name {
            // The rest is a query, which is secret as a whole.
            return None;
        }
        // A password may have a slash or a `?`. A port is a number.
        let no_port = !place.starts_with('[')
            && (place.split_once(':'))
                .is_some_and(|(_, port)| port.chars().any(|c| !c.is_ascii_digit()));
        if let Some(at) = last_at(name) {
            let is_login = match host {
                true => place == name || no_port,
                false => name[..at].contains(':'),
            };
            if is_login {
                return Some((start, start + at + 1));
            }
        } else if host
            && no_port
            && let Some(at) = last_at(&text[part_end..])
        {
            return Some((start, part_end + at + 1));
        }
        in_path |= host && !name.is_empty() && text[..start].ends_with("://");
        let rest = &text[part_end..];
        host = text[..part_end].ends_with("://")
            || (host && name.is_empty())
            || (start == 0 && is_scheme(name, rest.starts_with(['/', '\\'])));
        start = part_end;
    }
    None
}

/// Whether a host follows, as after `https:/`, `https:\\` and `https//`, which stand for `https://`.
fn is_scheme(name: &str, twice: bool) -> bool {
    match name.strip_suffix(':') {
        Some(name) => matches!(name, "http" | "https" | "oci"),
        None => twice && matches!(name, "http" | "https" | "oci"),
    }
}

/// Returns the last `@` that does not begin a digest, as in `NAME:TAG@sha256:…`.
fn last_at(text: &str) -> Option<usize> {
    (text.rmatch_indices('@'))
        .map(|(at, _)| at)
        .find(|at| !is_digest(&text[at + 1..]))
}

fn is_digest(text: &str) -> bool {
    text.starts_with("sha256:") || text.starts_with("sha512:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_typed_addresses_are_not_shown() {
        for (given, expected) in [
            ("https://u:pw@h/x?token=abc#part", "https://h/x?…"),
            ("https://u:pw@h/x#secret", "https://h/x"),
            ("https://token@h/x", "https://h/x"),
            ("qemu+tls://u:pw@h/system", "qemu+tls://h/system"),
            ("https:/u:pw@h/x", "https:/h/x"),
            ("https:/token@h/x", "https:/h/x"),
            ("https//u:pw@h/x?sig=1", "https//h/x?…"),
            ("https//token@h/x", "https//h/x"),
            ("https:\\\\u:pw@h", "https:\\\\h"),
            ("https:u:pw@h", "h"),
            ("htps://u:pw@h", "htps://h"),
            ("u:p4ssw0rd@127.0.0.1:1", "127.0.0.1:1"),
            (":pw@h/x", "h/x"),
            ("https://u:p@ss@h/x", "https://h/x"),
            ("https://u:p/w@h/x", "https://h/x"),
            ("https://u:p?w@h/x?y", "https://h/x?…"),
            ("https://u:p#w@h/x#y", "https://h/x"),
            ("oci://u:pw@h/a:x@sha256:12", "oci://h/a:x@sha256:12"),
            ("/p/https:/u:pw@h/x", "/p/https:/h/x"),
            ("a/b:https://token@h/x", "a/b:https://h/x"),
            ("https://h/x?token=abc&mail=a@b", "https://h/x?…"),
            ("https://h?mail=a@b", "https://h?…"),
            ("https://h:80/x?y=a:b@c", "https://h:80/x?…"),
        ] {
            assert_eq!(shown(given), expected, "{given}");
        }
    }

    #[test]
    fn honest_addresses_are_as_they_were() {
        for text in [
            "debian-12:12.5",
            "sha256:00",
            "./a@b",
            "oci://h:5000/a:x@sha256:12",
            "h/a:x@sha512:12",
            "https://h:8080/a/b@c",
            "https://[::1]:80/a@b",
            "git@github.com:me/x",
            "root@host:/a@b",
            "http/a@b",
            "./a?b#c",
            "qemu:///system",
        ] {
            assert_eq!(shown(text), text);
            assert!(!has_login(text), "{text}");
        }
    }
}
