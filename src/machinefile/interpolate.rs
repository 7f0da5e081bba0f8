//! Replaces `${env.NAME}` and `${env.NAME:-default}` in strings. `$${` is a plain `${`.

use crate::report::bytes;

use super::Environment;

/// How long a text may become, in bytes.
const LONGEST: usize = 1 << 20;

/// Returns the text with values in place of variables.
///
/// # Errors
/// What is wrong, and what to do.
pub(super) fn interpolate(text: &str, env: Environment<'_>) -> Result<String, (String, String)> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        // Only `${env.` is ours: shell scripts are full of other `${…}`.
        let Some(after) = rest[at..].strip_prefix("${env.") else {
            out.push_str(&rest[..at + 2]);
            rest = &rest[at + 2..];
            continue;
        };
        out.push_str(&rest[..at]);
        let Some(end) = after.find('}') else {
            return Err((
                "`${env.` has no closing `}`".into(),
                "write ${env.NAME} or ${env.NAME:-default}; for these characters themselves, $${env."
                    .into(),
            ));
        };
        let inside = &after[..end];
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            return Err((
                format!("{name:?} is not a valid name of an environment variable"),
                "write ${env.NAME} or ${env.NAME:-default}".into(),
            ));
        }
        // As in a shell, `:-` also replaces an empty variable.
        match (env(name), default) {
            (Some(value), None) => out.push_str(&value),
            (Some(value), Some(_)) if !value.is_empty() => out.push_str(&value),
            (_, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err((
                    format!("the environment variable {name} is not set"),
                    format!("set it, or add a default: ${{env.{name}:-…}}"),
                ));
            }
        }
        if out.len() > LONGEST {
            return Err((
                format!(
                    "with the values of its variables, this text is longer than {}",
                    bytes(LONGEST as u64)
                ),
                "use each variable once, or pass it to the guest as a file".into(),
            ));
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> Result<String, String> {
        interpolate(text, &|name| match name {
            "HOME" => Some("/home/a".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
        .map_err(|(message, _)| message)
    }

    #[test]
    fn variables_are_put_in() {
        assert_eq!(with("a ${env.HOME}/b").unwrap(), "a /home/a/b");
        assert_eq!(with("${env.NOPE:-x}${env.EMPTY:-y}").unwrap(), "xy");
        assert_eq!(
            with("$${env.HOME} ${SHELL} $1 $").unwrap(),
            "${env.HOME} ${SHELL} $1 $"
        );
        assert!(with("${env.NOPE}").unwrap_err().contains("NOPE"));
        assert!(with("${env.HOME").unwrap_err().contains("closing"));
        let many = "${env.HOME}".repeat(200_000);
        assert!(with(&many).unwrap_err().contains("longer than 1.0 MiB"));
    }
}
