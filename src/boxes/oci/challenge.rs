//! The authentication that a registry asks for: WWW-Authenticate (RFC 9110 §11.6.1).

/// The supported kinds of authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token from the server at `realm` (distribution specification, "Token Authentication").
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

impl Challenge {
    /// Chooses one of the offered kinds: Bearer before Basic.
    pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut basic = false;
        for header in headers {
            for (scheme, parameters) in parse(header) {
                if scheme.eq_ignore_ascii_case("basic") {
                    basic = true;
                } else if scheme.eq_ignore_ascii_case("bearer") {
                    let parameter = |name: &str| {
                        parameters
                            .iter()
                            .find(|(key, _)| key.eq_ignore_ascii_case(name))
                            .map(|(_, value)| value.clone())
                    };
                    if let Some(realm) = parameter("realm") {
                        return Some(Challenge::Bearer {
                            realm,
                            service: parameter("service"),
                            scope: parameter("scope"),
                        });
                    }
                }
            }
        }
        basic.then_some(Challenge::Basic)
    }
}

type Parameters = Vec<(String, String)>;

/// Parses a list such as `Basic realm="a", Bearer realm="b",scope="c,d"` into schemes with their parameters.
fn parse(header: &str) -> Vec<(String, Parameters)> {
    let mut found: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return found;
        }
        let Some(value) = after.trim_start().strip_prefix('=') else {
            found.push((word.to_string(), Vec::new()));
            rest = after;
            continue;
        };
        let value = value.trim_start();
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = value.find([',', ' ', '\t']).unwrap_or(value.len());
                (value[..end].to_string(), &value[end..])
            }
        };
        if let Some((_, parameters)) = found.last_mut() {
            parameters.push((word.to_string(), value));
        }
        rest = after;
    }
}

/// Returns the unescaped text up to the closing quote, and the rest after it.
fn unquote(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_say() {
        let choose = |text: &str| Challenge::choose(std::iter::once(text));
        assert_eq!(
            choose("Basic realm=\"basic-realm\""),
            Some(Challenge::Basic)
        );
        let hub = choose(
            "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"",
        );
        assert_eq!(
            hub,
            Some(Challenge::Bearer {
                realm: "https://auth.docker.io/token".into(),
                service: Some("registry.docker.io".into()),
                scope: Some("repository:a/b:pull,push".into()),
            })
        );
        assert_eq!(
            choose("basic realm=x, BEARER realm = \"h\\\"i\" , service=s"),
            Some(Challenge::Bearer {
                realm: "h\"i".into(),
                service: Some("s".into()),
                scope: None,
            })
        );
        for nothing in [
            "",
            "Negotiate",
            "Bearer",
            "Digest realm=\"x\"",
            "=\"",
            "Bearer realm",
        ] {
            assert_eq!(choose(nothing), None, "{nothing}");
        }
    }
}
