//! Takes out of a text what nobody else should read: logins, tokens, and for a report also who one is.

use std::borrow::Cow;

use crate::{host::address::without_logins, report::secrets};

/// What stands in place of a secret.
const HIDDEN: &str = "***";
/// Words at the end of names whose values are secrets.
const SECRET_NAMES: [&str; 8] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credentials",
    "apikey",
    "key",
];

/// How tokens of well-known services, private keys and JSON Web Tokens begin.
const TOKENS: [&str; 10] = [
    "ghp_",
    "gho_",
    "ghs_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "eyJ",
    "dckr_pat_",
];
const SHORTEST_TOKEN: usize = 16;

/// The text without secrets: values that were hidden, logins in URLs, and what looks like a token.
pub(super) fn without_secrets(text: &str) -> String {
    let text = secrets::without(text);
    let mut out = String::with_capacity(text.len());
    let mut before = String::new();
    for piece in text.split_inclusive(is_between) {
        let word = piece.strip_suffix(is_between).unwrap_or(piece);
        let end = &piece[word.len()..];
        out.push_str(&safe(word, &before));
        out.push_str(end);
        // As in JSON, where the colon comes after the quote.
        if word == ":" {
            before.push(':');
        } else if !word.is_empty() {
            before = word.to_ascii_lowercase();
        }
    }
    out
}

fn is_between(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '`' | '(' | ')')
}

/// One word, which stands after another one in lower case.
fn safe(word: &str, before: &str) -> String {
    if matches!(before, "bearer" | "basic") || (before.starts_with("--") && is_secret_name(before))
    {
        return hidden(word);
    }
    if before.ends_with(':') && is_secret_name(before.trim_end_matches(':')) {
        return hidden(word);
    }
    let is_token = |text: &str| {
        text.len() >= SHORTEST_TOKEN && TOKENS.iter().any(|token| text.starts_with(token))
    };
    if is_token(word) {
        return HIDDEN.to_string();
    }
    let stripped = without_logins(word, &format!("{HIDDEN}@"));
    // Only a URL has a query.
    if matches!(stripped, Cow::Owned(_)) || word.contains("://") {
        return match stripped.split_once('?') {
            Some((place, _)) => format!("{place}?{HIDDEN}"),
            None => stripped.into_owned(),
        };
    }
    match word.split_once('=') {
        Some((name, value)) if is_secret_name(name) || is_token(value) => {
            format!("{name}={}", hidden(value))
        }
        _ => word.to_string(),
    }
}

fn hidden(value: &str) -> String {
    match value.is_empty() {
        true => String::new(),
        false => HIDDEN.to_string(),
    }
}

/// Whether the value of a variable, an option or a field of that name is a secret.
fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_NAMES.iter().any(|secret| {
        let before = name.strip_suffix(secret);
        before.is_some_and(|before| before.is_empty() || !before.ends_with(char::is_alphanumeric))
    })
}

/// Hides the values of variables of the environment whose names say that they are secrets.
pub(super) fn hide_environment() {
    for (name, value) in std::env::vars_os() {
        if is_secret_name(&name.to_string_lossy()) {
            secrets::hide(&value.to_string_lossy(), HIDDEN);
        }
    }
}

/// A text for others: without secrets, and without the names of users in paths.
pub fn without_names(text: &str, home: Option<&str>, user: Option<&str>) -> String {
    let mut text = without_secrets(text);
    if let Some(home) = home.filter(|home| home.len() > 1) {
        text = text.replace(home, "~");
    }
    for above in ["/home/", "/Users/", "/run/user/"] {
        text = replace_component(&text, above);
    }
    if let Some(user) = user.filter(|user| *user != "root") {
        text = replace_word(&text, user, "<user>");
    }
    text
}

/// Puts `<user>` in place of what comes after `above` in paths.
fn replace_component(text: &str, above: &str) -> String {
    let mut parts = text.split(above);
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let end = part
            .find(|c: char| c == '/' || c == ':' || c == ';' || is_between(c))
            .unwrap_or(part.len());
        out.push_str(above);
        out.push_str(if end == 0 { "" } else { "<user>" });
        out.push_str(&part[end..]);
    }
    out
}

fn replace_word(text: &str, word: &str, with: &str) -> String {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(word).filter(|_| !word.is_empty()) {
        let (before, found) = rest.split_at(at);
        let after = &found[word.len()..];
        let whole = !is_part(before.chars().next_back().or(out.chars().next_back()))
            && !is_part(after.chars().next());
        out.push_str(before);
        out.push_str(if whole { with } else { word });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_and_tokens_are_hidden() {
        for (given, expected) in [
            (
                "get https://me:pw@host.example/box?sig=abc done",
                "get https://***@host.example/box?*** done",
            ),
            (
                "\"u:p4ssw0rd@127.0.0.1:1\" is not",
                "\"***@127.0.0.1:1\" is not",
            ),
            ("add https:/u:pw@h x", "add https:/***@h x"),
            ("add https//u:pw@h/x?sig=1", "add https//***@h/x?***"),
            ("add https:\\\\u:pw@h", "add https:\\\\***@h"),
            ("\"https:\\\\\\\\u:pw@h\"", "\"https:\\\\\\\\***@h\""),
            ("https://u:p/w@h/x", "https://***@h/x"),
            ("add u:pw@h/x", "add ***@h/x"),
            ("API_TOKEN=abc x", "API_TOKEN=*** x"),
            ("mysql --password hunter2 -e 1", "mysql --password *** -e 1"),
            ("--db-password=hunter2", "--db-password=***"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
            ("{\"token\": \"abc\"}", "{\"token\": \"***\"}"),
            ("push ghp_0123456789abcdef", "push ***"),
            ("x=ghp_0123456789abcdef", "x=***"),
            ("'password: hunter2'", "'password: ***'"),
        ] {
            assert_eq!(without_secrets(given), expected);
        }
    }

    #[test]
    fn honest_text_is_as_it_was() {
        for text in [
            "2026-11-29T09:00:00Z DEBUG machine{name=web}: stead::host: run `ssh -F /a/b web true`\n",
            "monkey=1 keyboard=us AKIA ghp_ https://host/path#part",
            "pull oci://h:5000/a:x@sha256:12 debian:12@sha256:12 git@github.com:me/x stead@127.0.0.1:22\n",
            "lock \"images\" is held by `stead up` (pid 12)",
        ] {
            assert_eq!(without_secrets(text), text);
        }
    }

    #[test]
    fn hidden_values_are_found_within_words() {
        let value = "longer-test-secret-value\nsecond-test-secret-line\nabc";
        secrets::hide(value, HIDDEN);
        assert_eq!(
            without_secrets("a=longer-test-secret-value; xsecond-test-secret-line abc"),
            "a=***; x*** abc"
        );
    }

    #[test]
    fn who_one_is_does_not_go_into_a_report() {
        let text =
            "/home/anna/shop of anna: ~ /home/bert/x:/home/anna2 /run/user/1000/libvirt annabel";
        assert_eq!(
            without_names(text, Some("/home/anna"), Some("anna")),
            "~/shop of <user>: ~ /home/<user>/x:~2 /run/user/<user>/libvirt annabel"
        );
        assert_eq!(
            without_names("/root/x root", Some("/root"), Some("root")),
            "~/x root"
        );
    }
}
