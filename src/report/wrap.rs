//! Breaks text at words, for terminals.

/// Splits a text into lines of at most `width` characters, at spaces. A word that is longer
/// than a line has one of its own.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut length = 0;
    for word in text.split(' ') {
        let count = word.chars().count();
        let is_full = length > 0 && length + 1 + count > width;
        if is_full {
            lines.push(String::new());
            length = 0;
        }
        if let Some(line) = lines.last_mut() {
            if length > 0 {
                line.push(' ');
                length += 1;
            }
            line.push_str(word);
            length += count;
        }
    }
    lines
}

/// Writes a line of text for a terminal of that width. What does not fit is on further lines, indented by two spaces.
pub fn line_within(text: &str, width: Option<usize>) -> String {
    let lines = match width {
        // In less, no line says anything.
        Some(width) if width > 20 && text.chars().count() > width => wrapped(text, width - 2),
        _ => vec![text.to_string()],
    };
    format!("{}\n", lines.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_words() {
        let text = "web: its folders have been watched since 3 hours ago";
        assert_eq!(line_within(text, None), format!("{text}\n"));
        assert_eq!(line_within(text, Some(80)), format!("{text}\n"));
        assert_eq!(
            line_within(text, Some(26)),
            "web: its folders have\n  been watched since 3\n  hours ago\n"
        );
        assert_eq!(
            wrapped("a /srv/a/long/path b", 8),
            ["a", "/srv/a/long/path", "b"]
        );
    }
}
