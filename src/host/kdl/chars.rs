//! Characters and values of KDL v2 (kdl.dev/spec).

/// The longest text that a help quotes, in characters.
const LONGEST: usize = 60;

/// Whether this is a `newline` of the specification. CR LF counts as two here, which makes no difference.
pub(super) fn is_newline(c: char) -> bool {
    matches!(
        c,
        '\r' | '\n' | '\u{85}' | '\u{b}' | '\u{c}' | '\u{2028}' | '\u{2029}'
    )
}

/// Whether this is a `unicode-space` of the specification.
pub(super) fn is_space(c: char) -> bool {
    matches!(
        c,
        '\t' | ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'
            ..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
    )
}

/// Whether a document must not contain this, not even in a string: control characters, and characters that
/// change the direction of text.
pub(super) fn is_forbidden(c: char) -> bool {
    matches!(
        c,
        '\0'..='\u{8}'
            | '\u{e}'..='\u{1f}'
            | '\u{200e}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}'
    )
}

/// Whether KDL allows this in a word, although it cannot be seen.
pub(super) fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{7f}'
            | '\u{80}'..='\u{84}'
            | '\u{86}'..='\u{9f}'
            | '\u{ad}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200d}'
            | '\u{2060}'..='\u{2064}'
    )
}

/// Whether this may be part of a word without quotes.
pub(super) fn is_word(c: char) -> bool {
    !is_newline(c)
        && !is_space(c)
        && !is_forbidden(c)
        && !matches!(
            c,
            '\\' | '/' | '(' | ')' | '{' | '}' | '[' | ']' | ';' | '"' | '#' | '='
        )
}

/// Returns the mark that closes this one, in other languages and in word processors.
pub(super) fn closing_quote(c: char) -> Option<char> {
    match c {
        '\'' => Some('\''),
        '`' => Some('`'),
        '\u{201c}' | '\u{201d}' | '\u{201f}' => Some('\u{201d}'),
        '\u{201e}' => Some('\u{201c}'),
        '\u{2018}' | '\u{2019}' | '\u{201b}' => Some('\u{2019}'),
        '\u{201a}' => Some('\u{2018}'),
        '\u{ab}' => Some('\u{bb}'),
        '\u{bb}' => Some('\u{ab}'),
        _ => None,
    }
}

/// Whether this is a keyword. KDL writes it with a `#` before it.
pub(super) fn is_keyword(word: &str) -> bool {
    matches!(word, "true" | "false" | "null" | "inf" | "-inf" | "nan")
}

/// Returns the keyword that a word of YAML, TOML, Ruby or Python means.
pub(super) fn meant_keyword(word: &str) -> Option<&'static str> {
    match word.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Some("#true"),
        "false" | "no" | "off" => Some("#false"),
        "null" | "nil" => Some("#null"),
        "inf" => Some("#inf"),
        "-inf" => Some("#-inf"),
        "nan" => Some("#nan"),
        _ => None,
    }
}

/// Whether a word begins as numbers do. It must then be a number.
pub(super) fn begins_number(word: &str) -> bool {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    let digits = unsigned.strip_prefix('.').unwrap_or(unsigned);
    digits.starts_with(|c: char| c.is_ascii_digit())
}

/// Whether a word is a number. The parser has 128 bits for each part of it.
pub(super) fn is_number(word: &str) -> bool {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        let digits = (unsigned.strip_prefix(prefix))
            .or_else(|| unsigned.strip_prefix(prefix.to_ascii_uppercase().as_str()));
        if let Some(digits) = digits {
            return is_digits(digits, radix);
        }
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    is_digits(whole, 10)
        && fraction.is_none_or(|digits| is_digits(digits, 10))
        && exponent
            .is_none_or(|digits| is_digits(digits.strip_prefix(['+', '-']).unwrap_or(digits), 10))
}

fn is_digits(text: &str, radix: u32) -> bool {
    text.starts_with(|c: char| c.is_digit(radix))
        && text.chars().all(|c| c == '_' || c.is_digit(radix))
        && i128::from_str_radix(&text.replace('_', ""), radix).is_ok()
}

/// Writes a text as a string in quotes. `None` if it is too long to be shown.
pub(super) fn in_quotes(text: &str) -> Option<String> {
    let plain = !text.contains(|c| is_newline(c) || is_forbidden(c) || is_invisible(c));
    (plain && text.chars().nth(LONGEST).is_none()).then(|| match () {
        () if text.contains('\\') && !text.contains("\"#") => format!("#\"{text}\"#"),
        () => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    })
}

/// Cuts a text for a message.
pub(super) fn clipped(text: &str) -> String {
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Writes as KDL what follows `name =` or `name:`. `None` if its meaning is not clear.
pub(super) fn as_values(written: &str) -> Option<String> {
    let written = written.trim_matches(|c| is_space(c) || is_newline(c));
    let written = written.trim_end_matches([',', ';']).trim_end();
    if written.is_empty() || written.chars().nth(LONGEST).is_some() {
        return None;
    }
    if let Some(list) = written.strip_prefix('[') {
        let list = list.strip_suffix(']')?;
        if list.contains(['[', ']', '{', '}']) {
            return None;
        }
        let values: Option<Vec<String>> = list.split(',').map(as_value).collect();
        return Some(values?.join(" "));
    }
    if written == "{" {
        return Some(written.into());
    }
    as_value(written)
}

fn as_value(written: &str) -> Option<String> {
    let written = written.trim();
    if let Some(keyword) = meant_keyword(written.strip_prefix('#').unwrap_or(written)) {
        return Some(keyword.into());
    }
    let inner = |open: char, close: char| {
        let text = written.strip_prefix(open)?.strip_suffix(close)?;
        (!text.contains([open, close])).then_some(text)
    };
    if let Some(text) = inner('"', '"') {
        return Some(format!("\"{text}\""));
    }
    if let Some(close) = written.chars().next().and_then(closing_quote) {
        return in_quotes(inner(written.chars().next()?, close)?);
    }
    let bare = |c| !is_space(c) && !matches!(c, '"' | '\'' | '{' | '}' | '[' | ']' | '(' | ')');
    match () {
        () if is_number(written) => Some(written.into()),
        () if !written.is_empty() && written.chars().all(bare) => in_quotes(written),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_known() {
        for word in [
            "0", "12", "-1", "+1", "1_000", "1.5", "1e9", "1.5E-4", "0xff", "-0b1_0", "0o17",
        ] {
            assert!(begins_number(word) && is_number(word), "{word}");
        }
        for word in [
            "2GiB", "10%", "8080:80", "1.", "1.2.3", "0x", "1e", ".5", "0b2",
        ] {
            assert!(begins_number(word) && !is_number(word), "{word}");
        }
        assert!(!is_number(&"9".repeat(40)));
        assert!(!begins_number("-x") && !begins_number("..") && !begins_number("a1"));
    }

    #[test]
    fn what_others_write_becomes_values() {
        for (written, values) in [
            (" \"debian-12\"", Some("\"debian-12\"")),
            ("debian/12,", Some("\"debian/12\"")),
            ("'a b'", Some("\"a b\"")),
            ("“a b”", Some("\"a b\"")),
            ("2", Some("2")),
            ("2048MB", Some("\"2048MB\"")),
            ("true", Some("#true")),
            ("off", Some("#false")),
            ("[\"a\", 'b', c]", Some("\"a\" \"b\" \"c\"")),
            ("{", Some("{")),
            ("C:\\x", Some("#\"C:\\x\"#")),
            ("{ a = 1 }", None),
            ("\"a\" + \"b\"", None),
            ("", None),
        ] {
            assert_eq!(as_values(written).as_deref(), values, "{written}");
        }
    }
}
