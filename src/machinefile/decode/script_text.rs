//! Finds scripts of a Machinefile that do not say what their author wrote: an escape of KDL changes them, or a
//! here-document in them has no end.

use crate::machinefile::{diagnostics::Spanned, node::Node};

/// Warns of what would surprise in a script. `written` is it with the variables replaced.
pub(super) fn check(node: &mut Node<'_>, script: &Spanned<String>) {
    let source = &script.span.source.text;
    let start = script.span.range.offset();
    let written = source
        .get(start..start + script.span.range.len())
        .unwrap_or_default();
    let indentation = written.len() - written.trim_start().len();
    let written = written.trim_start();
    if let Some(escape) = changed(written) {
        let raw = match written.starts_with(LINES) {
            true => "begin the text with `#\"\"\"` and end it with `\"\"\"#`",
            false => "write the text as #\"…\"#",
        };
        let place = script.span.part(indentation + escape.at, escape.text.len());
        node.warn(
            &place,
            format!(
                "`{}` in a script is {}, because KDL reads it first; {raw}, where a backslash is a backslash",
                escape.text, escape.becomes
            ),
        );
    }
    if let Some(word) = without_end(&script.value) {
        node.warn(
            &script.span,
            format!(
                "the here-document `<<{word}` has no end, because the line `{word}` has spaces before it; indent that line as the closing `{LINES}`"
            ),
        );
    }
}

/// Begins and ends a text of several lines.
const LINES: &str = "\"\"\"";

/// An escape that changes a script.
#[derive(Debug, PartialEq)]
struct Escape {
    /// In bytes from the text's first quote on.
    at: usize,
    text: String,
    becomes: &'static str,
}

/// Which of the shell's quotes are open.
#[derive(Clone, Copy, PartialEq)]
enum Quotes {
    None,
    Single,
    Double,
}

impl Quotes {
    fn at_single(self) -> Self {
        match self {
            Quotes::None => Quotes::Single,
            Quotes::Single => Quotes::None,
            Quotes::Double => Quotes::Double,
        }
    }

    fn at_double(self) -> Self {
        match self {
            Quotes::None => Quotes::Double,
            Quotes::Double => Quotes::None,
            Quotes::Single => Quotes::Single,
        }
    }
}

/// Returns the first escape in a text, as a Machinefile has it, that gives a shell something else than the same text in
/// a file. What only KDL could mean is no such escape: `\\`, `\u{…}`, `\"` in a text of one line, and `\n` there where
/// the shell has no quotes open.
fn changed(written: &str) -> Option<Escape> {
    let is_lines = written.starts_with(LINES);
    let quotes = match is_lines {
        true => LINES,
        false => "\"",
    };
    let text = written.strip_prefix(quotes)?.strip_suffix(quotes)?;
    // The spaces before the closing quotes are no part of any line.
    let closing = text.rsplit('\n').next().unwrap_or_default().len();
    let mut open = Quotes::None;
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let after = &text[at + c.len_utf8()..];
        if c != '\\' {
            open = match c {
                '\'' => open.at_single(),
                '"' => open.at_double(),
                _ => open,
            };
            at += c.len_utf8();
            continue;
        }
        let next = after.chars().next()?;
        let spaces = after.len() - after.trim_start().len();
        let is_last = text[..at].ends_with('"') || after[next.len_utf8()..].starts_with('"');
        let becomes = match next {
            '\\' => {
                // The backslash that is left takes the meaning of the next quote.
                at += match (open, &after[1..]) {
                    (Quotes::None, rest) if rest.starts_with('\'') => 1,
                    (Quotes::None | Quotes::Double, rest) if rest.starts_with("\\\"") => 2,
                    _ => 0,
                };
                None
            }
            '"' if is_lines && !is_last => Some("a quote alone"),
            '"' => {
                open = open.at_double();
                None
            }
            't' => Some("a tab"),
            's' => Some("a space"),
            'b' => Some("a backspace"),
            'f' => Some("a form feed"),
            'r' => Some("a carriage return"),
            'n' if is_lines || open != Quotes::None => Some("a new line"),
            _ if spaces > 0 => {
                let skipped = &after[..spaces];
                let lines = skipped.matches('\n').count();
                let indentation = skipped.rsplit('\n').next().unwrap_or_default().len();
                let is_apart = text[..at].ends_with(char::is_whitespace) && open == Quotes::None;
                let is_joined = lines == 1
                    && open != Quotes::Single
                    && (is_apart || !is_lines || indentation <= closing);
                match lines {
                    _ if is_joined => None,
                    0 => Some("nothing, and the spaces after it are gone"),
                    _ => Some("nothing, and the lines are joined without the spaces between them"),
                }
            }
            _ => None,
        };
        if let Some(becomes) = becomes {
            let text = match next {
                next if next.is_whitespace() => "\\".to_string(),
                next => format!("\\{next}"),
            };
            return Some(Escape {
                at: quotes.len() + at,
                text,
                becomes,
            });
        }
        at += 1 + match spaces {
            0 => next.len_utf8(),
            spaces => spaces,
        };
    }
    None
}

/// Returns the word that should end a here-document, if only a line with spaces before it has it.
fn without_end(script: &str) -> Option<&str> {
    let mut lines = script.lines();
    while let Some(line) = lines.next() {
        let Some((is_dash, word)) = here_document(line) else {
            continue;
        };
        let ends = |line: &str| match is_dash {
            true => line.trim_start_matches('\t') == word,
            false => line == word,
        };
        let rest = lines.clone();
        if !lines.any(ends) {
            return rest.clone().any(|line| line.trim() == word).then_some(word);
        }
    }
    None
}

/// Returns whether a here-document that begins in this line may have tabs before its end, and the word that ends it.
fn here_document(line: &str) -> Option<(bool, &str)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (before, after) = line.split_once("<<")?;
    // `<<<` takes its text from the same line, `1<<2` and `# <<` are none.
    if after.starts_with('<') || before.trim_start().starts_with('#') || before.contains("((") {
        return None;
    }
    let is_dash = after.starts_with('-');
    let after = after.trim_start_matches('-').trim_start();
    let after = after.trim_start_matches(['\'', '"', '\\']);
    let end = after.find(|c| !is_word(c)).unwrap_or(after.len());
    let word = &after[..end];
    word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        .then_some((is_dash, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_that_change_a_script_are_found() {
        for (written, found) in [
            (r#""printf 'a\tb'""#, Some((r"\t", 10))),
            (r#""grep '\sx' f""#, Some((r"\s", 7))),
            (r#""grep '\bx\b' f""#, Some((r"\b", 7))),
            (r#""sed 's/a/b\nc/' f""#, Some((r"\n", 11))),
            (r#""tr -d '\r' <f""#, Some((r"\r", 8))),
            (r#""cat My\ File""#, Some((r"\", 7))),
            (r#""echo \"a\nb\"""#, Some((r"\n", 9))),
            (
                "\"\"\"\n    echo \"say \\\"hi\\\"\"\n    \"\"\"",
                Some((r#"\""#, 18)),
            ),
            ("\"\"\"\n    printf 'x\\n'\n    \"\"\"", Some((r"\n", 17))),
            (
                "\"\"\"\n    echo a\\\n      b\n    \"\"\"",
                Some((r"\", 14)),
            ),
            (
                "\"\"\"\n    echo 'a \\\n    b'\n    \"\"\"",
                Some((r"\", 16)),
            ),
            (
                "\"\"\"\n    echo a \\\n\n    b\n    \"\"\"",
                Some((r"\", 15)),
            ),
            // What was meant.
            (r##"#"printf 'a\tb'"#"##, None),
            (r#""set -e\necho 'a'\necho b""#, None),
            (r#""echo \"$STEAD_MACHINE starts\"""#, None),
            (r#""sed 's/a\\.b/x/' f""#, None),
            (r#""echo It\\'s\necho \\\"\necho b""#, None),
            (r#""echo \u{e9}""#, None),
            (
                "\"\"\"\n    apt-get install \\\n        curl\n    \"\"\"",
                None,
            ),
            ("\"\"\"\n    echo a\\\n    b\n    \"\"\"", None),
            ("\"\"\"\n    python -c \\\"\"\"x\"\"\n    \"\"\"", None),
            ("word", None),
            ("\"", None),
        ] {
            let escape = changed(written);
            let escape = escape.as_ref().map(|it| (it.text.as_str(), it.at));
            assert_eq!(escape, found, "{written}");
        }
    }

    #[test]
    fn here_documents_without_an_end_are_found() {
        for (script, word) in [
            ("cat <<EOF >/x\n  a\n  EOF\necho b\n", Some("EOF")),
            ("cat <<-'END'\n    a\n    END\n", Some("END")),
            ("cat <<A\nA\ncat <<\"B\"\n  B\n", Some("B")),
            ("cat <<EOF\na\nEOF\n", None),
            ("cat <<-EOF\n\ta\n\tEOF\n", None),
            ("cat <<<EOF\n EOF\n", None),
            ("echo $((1<<B))\n B\n", None),
            ("# cat <<EOF\n EOF\n", None),
            // sh ends it with the script, and says so.
            ("cat <<EOF\na\n", None),
        ] {
            assert_eq!(without_end(script), word, "{script}");
        }
    }
}
