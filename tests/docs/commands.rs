//! Commands in the documentation, as stead's own parser reads them.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::pages::{Page, code_spans};

/// Words that a shell takes for itself.
const OPERATORS: [&str; 8] = ["&&", "||", "|", ";", ">", ">>", "<", "&"];

/// The commands of stead in a line of a shell, word by word.
fn commands(line: &str) -> Vec<Vec<String>> {
    let words = shlex::split(line).unwrap_or_else(|| panic!("quotes without an end: {line}"));
    let mut all = vec![Vec::new()];
    for word in words {
        if OPERATORS.contains(&word.as_str()) {
            all.push(Vec::new());
        } else if let Some(word) = word.strip_suffix(';') {
            all.last_mut().unwrap().push(word.to_string());
            all.push(Vec::new());
        } else {
            all.last_mut().unwrap().push(word);
        }
    }
    // What a variable is set to, and who runs it, come before a command.
    for command in &mut all {
        let before = (command.iter())
            .take_while(|word| ["sudo", "time"].contains(&word.as_str()) || word.contains('='))
            .count();
        command.drain(..before);
    }
    all.retain(|words| words.first().is_some_and(|word| word == "stead"));
    all
}

/// Why stead does not know a command. One in a sentence may leave out what has to be there (`stead kernel capture`),
/// or have a word in capitals for it (`stead box pack web --format FORMAT`).
fn objection(words: &[String], in_a_sentence: bool) -> Option<String> {
    let error = stead::cli::command()
        .try_get_matches_from(words)
        .err()
        .filter(|error| {
            !matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            )
        })?;
    let unfinished = match error.kind() {
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => true,
        ErrorKind::InvalidValue => match error.get(ContextKind::InvalidValue) {
            Some(ContextValue::String(value)) => {
                value == "…" || value.chars().all(|c| c.is_ascii_uppercase())
            }
            _ => false,
        },
        _ => false,
    };
    (!(unfinished && in_a_sentence)).then(|| error.to_string())
}

/// The lines of a page's fences that are typed in a shell, those that go on joined.
fn typed(page: &Page) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    for fence in page.fences() {
        let prompt = match fence.info.as_str() {
            "sh" => "",
            "console" | "text" => "$ ",
            _ => continue,
        };
        let mut open: Option<(usize, String)> = None;
        for (n, line) in fence.text.lines().enumerate() {
            let (at, mut text) = match open.take() {
                Some((at, before)) => (at, format!("{before} {}", line.trim())),
                None => match line.strip_prefix(prompt) {
                    Some(line) if !line.starts_with('#') => (fence.line + n, line.to_string()),
                    _ => continue,
                },
            };
            if text.ends_with('\\') {
                text.pop();
                open = Some((at, text));
            } else {
                lines.push((at, text));
            }
        }
    }
    lines
}

#[test]
fn a_command_that_stead_does_not_have_is_seen() {
    for wrong in [
        "stead upp",
        "cd shop && stead up --no-such-option",
        "stead status; sudo stead kernel",
    ] {
        let said: Vec<_> = (commands(wrong).iter())
            .filter_map(|words| objection(words, false))
            .collect();
        assert_eq!(said.len(), 1, "{wrong}: {said:?}");
    }
    for right in [
        "stead up --locked # for CI",
        "stead exec web -- ls -l | wc -l",
        "STEAD_DATA_DIR=/x stead --version",
        "virsh list --all",
    ] {
        for words in commands(right) {
            assert_eq!(objection(&words, false), None, "{right}");
        }
    }
    assert_eq!(commands("stead halt && stead up; ls").len(), 2);
    for unfinished in [
        "stead kernel capture",
        "stead sync --back",
        "stead box pack web --format FORMAT",
    ] {
        let words = commands(unfinished).remove(0);
        assert!(objection(&words, false).is_some(), "{unfinished}");
        assert_eq!(objection(&words, true), None, "{unfinished}");
    }
    let words = commands("stead box pack web --format iso").remove(0);
    assert!(objection(&words, true).is_some());
}

#[test]
fn stead_has_every_command_of_the_documentation() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in Page::documentation() {
        let mut check = |line: usize, text: &str, in_a_sentence: bool| {
            for words in commands(text) {
                seen += 1;
                if let Some(why) = objection(&words, in_a_sentence) {
                    wrong.push(format!("{}:{line}: {text}\n{why}", page.path.display()));
                }
            }
        };
        for (line, text) in typed(&page) {
            check(line, &text, false);
        }
        for (line, text) in page.paragraphs() {
            for span in code_spans(&text).0 {
                if span.starts_with("stead ") {
                    check(line, span, true);
                }
            }
        }
    }
    assert!(seen > 200, "found only {seen} commands");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
