//! Finds out which line of a script failed, if that can be known: from the record that bash's traps wrote,
//! or from the last message of the interpreter.

/// Returns the program that interprets a script, with its options: from the Machinefile, or from the `#!`
/// line as the kernel reads it (execve(2)): a path, and the rest as one word. Without either it is `sh
/// -e`, which stops at the first command that fails.
pub(super) fn interpreter(script: &[u8], given: Option<&[String]>) -> Vec<String> {
    if let Some(words) = given {
        return words.to_vec();
    }
    let first = script
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = String::from_utf8_lossy(first.strip_prefix(b"#!").unwrap_or_default());
    let line = line.trim();
    match line.split_once([' ', '\t']) {
        _ if line.is_empty() => vec!["sh".into(), "-e".into()],
        None => vec![line.to_string()],
        Some((program, option)) => vec![program.to_string(), option.trim().to_string()],
    }
}

/// Returns the program's name and options, also if env(1) starts it.
fn program(interpreter: &[String]) -> (&str, Vec<&str>) {
    let mut words = interpreter
        .iter()
        .flat_map(|word| word.split_whitespace())
        .filter(|word| *word != "-S")
        .map(|word| word.rsplit('/').next().unwrap_or_default());
    match words.next().unwrap_or_default() {
        "env" => (words.next().unwrap_or_default(), words.collect()),
        name => (name, words.collect()),
    }
}

/// Words in a script that might behave differently with stead's traps: other traps, and variables that
/// traps change.
const TELLTALES: [&str; 8] = [
    "trap",
    "$_",
    "${_",
    "$-",
    "errtrace",
    "BASH_ENV",
    "BASH_COMMAND",
    "SHELLOPTS",
];

/// Whether bash can record where this script fails without a difference that the script could see.
pub(super) fn can_be_traced(interpreter: &[String], script: &[u8]) -> bool {
    let (name, options) = program(interpreter);
    name == "bash"
        && options.iter().all(|option| {
            matches!(*option, "pipefail" | "errexit" | "nounset")
                || option
                    .strip_prefix('-')
                    .is_some_and(|letters| letters.chars().all(|c| "euof".contains(c)))
        })
        && !TELLTALES
            .iter()
            .any(|word| memchr::memmem::find(script, word.as_bytes()).is_some())
}

/// Returns the line that failed, counted from 1. `at` is what bash recorded, `path` is the script's path in
/// the guest, `said` are the last lines of standard error.
pub(super) fn failing_line(
    script: &str,
    interpreter: &[String],
    path: &str,
    at: &[String],
    said: &[String],
    code: i32,
) -> Option<usize> {
    let noted = at.first().and_then(|at| noted(script, path, at));
    let last = said.last().map_or("", String::as_str);
    let (name, _) = program(interpreter);
    noted.or_else(|| match name {
        "sh" | "dash" | "bash" | "ash" | "ksh" | "zsh" => told_by_shell(path, last, code),
        _ if name.starts_with("python") => told_by_python(path, said, code),
        _ => None,
    })
}

/// Parses bash's record: `err LINE FILE`, `call LINE FILE COMMAND` or `command 0 FILE COMMAND`.
fn noted(script: &str, path: &str, at: &str) -> Option<usize> {
    let (kind, rest) = at.split_once(' ')?;
    let (line, rest) = rest.split_once(' ')?;
    let line: usize = line.parse().ok()?;
    let command = rest.strip_prefix(path)?;
    match kind {
        "err" if command.is_empty() => Some(line),
        // The line of the call to a function that ended the script, such as `die "no such file"`.
        "call" if is_exit(command) => Some(line),
        // bash does not report the line of an `exit`. If the script has only one like it, it is that one.
        "command" if is_exit(command) => {
            let command = command.trim();
            let mut found = script
                .lines()
                .enumerate()
                .filter(|(_, text)| text.contains(command));
            let (n, _) = found.next()?;
            found.next().is_none().then_some(n + 1)
        }
        _ => None,
    }
}

fn is_exit(command: &str) -> bool {
    command.split_whitespace().next() == Some("exit")
}

/// Parses a message with which a shell gives up, or of the command whose exit code became the script's:
/// `PATH: 3: x: parameter not set` (dash), `PATH: line 3: x: unbound variable` (bash).
fn told_by_shell(path: &str, last: &str, code: i32) -> Option<usize> {
    let rest = last.strip_prefix(path)?.strip_prefix(": ")?;
    let rest = rest.strip_prefix("line ").unwrap_or(rest);
    let (line, message) = rest.split_once(": ")?;
    let fits = match code {
        127 => message.ends_with("not found") || message.ends_with("No such file or directory"),
        126 => message.ends_with("Permission denied"),
        1 => message.ends_with("unbound variable"),
        2 => {
            message.ends_with("parameter not set")
                || message.to_ascii_lowercase().contains("syntax error")
        }
        _ => false,
    };
    if fits { line.parse().ok() } else { None }
}

/// Returns the last line of the script in the traceback at the end of the output.
fn told_by_python(path: &str, said: &[String], code: i32) -> Option<usize> {
    let start = said
        .iter()
        .rposition(|line| line == "Traceback (most recent call last):")
        .or_else(|| {
            // A syntax error has no traceback, only the file and the line.
            let file = format!("  File \"{path}\", line ");
            said.iter().rposition(|line| line.starts_with(&file))
        })?;
    let lines = &said[start..];
    // An exception that nothing catches ends Python with exit code 1.
    if code != 1 {
        return None;
    }
    let file = format!("File \"{path}\", line ");
    lines.iter().rev().find_map(|line| {
        let rest = line.trim_start().strip_prefix(&file)?;
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_string).collect()
    }

    #[test]
    fn interpreters_are_those_of_the_first_line() {
        let of = |script: &str| interpreter(script.as_bytes(), None).join("|");
        assert_eq!(of("echo\n"), "sh|-e");
        assert_eq!(of("#!/bin/bash\n"), "/bin/bash");
        assert_eq!(
            of("#! /usr/bin/env -S bash -e \n"),
            "/usr/bin/env|-S bash -e"
        );
        assert_eq!(of("#!\n"), "sh|-e");
        let given = words("python3 -u");
        assert_eq!(interpreter(b"#!/bin/sh\n", Some(&given)), given);
    }

    #[test]
    fn bash_is_traced_where_the_script_cannot_tell() {
        let can = |line: &str, script: &str| {
            can_be_traced(
                &interpreter(format!("#!{line}\n").as_bytes(), None),
                script.as_bytes(),
            )
        };
        for line in [
            "/bin/bash",
            "/bin/bash -eu",
            "/usr/bin/env bash",
            "/usr/bin/env -S bash -e",
        ] {
            assert!(can(line, "false\n"), "{line}");
        }
        for line in [
            "/bin/sh",
            "/bin/bash -x",
            "/bin/bash -p",
            "/usr/bin/python3",
        ] {
            assert!(!can(line, "false\n"), "{line}");
        }
        assert!(!can("/bin/bash", "trap 'echo bye' EXIT\n"));
        assert!(!can("/bin/bash", "mkdir a; cd $_\n"));
    }

    const AT: &str = "/tmp/stead.Ab/in/app.sh";

    #[test]
    fn what_bash_noted_is_the_line() {
        let line = |script: &str, at: &str| {
            failing_line(script, &words("bash"), AT, &[at.replace('@', AT)], &[], 3)
        };
        assert_eq!(line("", "err 14 @"), Some(14));
        assert_eq!(line("", "err 14 /etc/profile"), None);
        assert_eq!(line("", "call 8 @ exit 1"), Some(8));
        assert_eq!(line("a\n exit 3\n", "command 0 @ exit 3"), Some(2));
        assert_eq!(line("exit 3\nexit 3\n", "command 0 @ exit 3"), None);
        assert_eq!(line("a\n", "command 0 @ a"), None);
    }

    #[test]
    fn an_interpreters_last_word_is_taken_only_where_it_fits() {
        let line = |program: &str, said: &[&str], code| {
            let said: Vec<String> = said.iter().map(|line| line.replace('@', AT)).collect();
            failing_line("", &words(program), AT, &[], &said, code)
        };
        assert_eq!(line("sh -e", &["@: 5: nosuch: not found"], 127), Some(5));
        assert_eq!(line("sh -e", &["@: 5: x: parameter not set"], 2), Some(5));
        assert_eq!(
            line("bash", &["@: line 3: x: unbound variable"], 1),
            Some(3)
        );
        // The script went on after this message.
        assert_eq!(line("sh", &["@: 5: nosuch: not found"], 4), None);
        assert_eq!(line("sh", &["@: 5: nosuch: not found", "bye"], 127), None);
        let traceback = [
            "Traceback (most recent call last):",
            "  File \"@\", line 9, in <module>",
            "    main()",
            "  File \"/usr/lib/python3/json.py\", line 3, in load",
            "ValueError: no",
        ];
        assert_eq!(line("/usr/bin/env python3", &traceback, 1), Some(9));
        assert_eq!(line("python3 -u", &traceback, 5), None);
        assert_eq!(line("ruby", &["@:4: no"], 1), None);
    }
}
