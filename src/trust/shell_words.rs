//! Splits the text of a shell into words, without quotes and backslashes. This is not a parser: it also splits texts
//! that are not for a shell, and a quote ends at the latest with its line.

use super::interpreters::{is_runner, last};

/// How many words of a text are read. The rest is left out, and the caller is told.
const MOST: usize = 200_000;

/// A word of a shell, and its role.
#[derive(Debug, Default)]
pub(super) struct Word {
    pub text: String,
    /// It is the first word of a command.
    pub starts: bool,
    /// It is after a word that runs files.
    pub runs: bool,
    /// It is the folder that the shell enters (`cd`).
    pub enters: bool,
    /// It is after a word that names the files of a folder (`ls`).
    pub lists: bool,
    /// It is after a word that runs the files of a folder (`run-parts`).
    pub parts: bool,
    /// It is a file that is written.
    pub writes: bool,
    /// It runs what comes from a pipe.
    pub fed: bool,
}

impl Word {
    /// Returns the name and the value, if the word is an assignment.
    pub(super) fn assigns(&self) -> Option<(&str, &str)> {
        let (name, value) = self.text.split_once('=')?;
        let is_name = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !name.starts_with(|c: char| c.is_ascii_digit());
        is_name.then_some((name, value))
    }
}

/// After these words, a command begins.
const BEFORE: [&str; 17] = [
    "then", "do", "else", "elif", "if", "while", "until", "!", "time", "sudo", "env", "nohup",
    "nice", "exec", "command", "builtin", "{",
];

/// The state before the next word of a command.
#[derive(Default)]
struct State {
    begun: bool,
    runs: bool,
    enters: bool,
    lists: bool,
    parts: bool,
    writes: bool,
    fed: bool,
}

/// Returns the words, and whether these are all of them.
pub(super) fn shell_words(text: &str) -> (Vec<Word>, bool) {
    let mut words = Vec::new();
    let mut state = State::default();
    let mut word = String::new();
    let mut quote = None;
    // Whether there is a word, possibly an empty one.
    let mut any = false;
    let mut chars = text.chars().peekable();
    // The two characters before this one: `$((` is arithmetic.
    let mut before = ['\n'; 2];
    loop {
        let c = chars.next();
        let seen = before;
        before = [before[1], c.unwrap_or('\n')];
        if words.len() >= MOST {
            return (words, false);
        }
        match (c, quote) {
            (Some('\n'), Some(_)) => quote = None,
            (Some(c), Some(q)) if c == q => {
                quote = None;
                continue;
            }
            (Some('\\'), Some('"') | None) => {
                match chars.next() {
                    Some('\n') | None => {}
                    Some(next) => {
                        any = true;
                        word.push(next);
                    }
                }
                continue;
            }
            (Some(c), Some(_)) => {
                word.push(c);
                continue;
            }
            (Some(c @ ('"' | '\'')), None) => {
                quote = Some(c);
                any = true;
                continue;
            }
            (Some('#'), None) if !any => {
                while chars.next_if(|c| *c != '\n').is_some() {}
                continue;
            }
            (Some(c), None) if !(c.is_whitespace() || ";|&()<>".contains(c)) => {
                any = true;
                word.push(c);
                continue;
            }
            _ => {}
        }
        if any {
            words.push(state.take(std::mem::take(&mut word)));
            any = false;
        }
        match c {
            None => return (words, true),
            Some(c @ ('\n' | ';' | '|' | '&' | '(' | ')')) => {
                state = State {
                    begun: c == '(' && seen == ['$', '('],
                    fed: c == '|',
                    ..State::default()
                };
            }
            Some('>') => state.writes = true,
            _ => {}
        }
    }
}

impl State {
    fn take(&mut self, text: String) -> Word {
        let word = Word {
            starts: !self.begun,
            runs: self.runs,
            enters: self.enters,
            lists: self.lists,
            parts: self.parts,
            writes: self.writes,
            fed: self.fed && is_runner(last(&text)),
            text,
        };
        let text = word.text.as_str();
        let option = text.starts_with('-');
        let command_follows =
            BEFORE.contains(&text) || (!self.begun && (word.assigns().is_some() || option));
        self.begun = !command_follows;
        self.writes = false;
        match text {
            "run-parts" => self.parts = true,
            "ls" | "find" => self.lists = true,
            "cd" | "pushd" => self.enters = true,
            "xargs" => self.fed = true,
            "-exec" | "-execdir" => self.runs = true,
            // As in `rm -f`.
            "-f" => {}
            _ if is_runner(last(text)) => self.runs = true,
            // The first word that is not an option is the file or the folder.
            _ if !option => {
                self.runs = false;
                self.enters = false;
            }
            _ => {}
        }
        if self.begun && word.starts && text != "xargs" {
            self.fed = false;
        }
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_without_their_quotes() {
        let texts = |text: &str| -> Vec<String> {
            (shell_words(text).0.into_iter())
                .map(|word| word.text)
                .collect()
        };
        assert_eq!(texts("a \"b c\"'d'\\ e # f\ng"), ["a", "b cd e", "g"]);
        assert_eq!(texts(". \"$(dirname \"$0\")/x\""), [".", "$(dirname $0)/x"]);
        // A quote without an end ends with its line.
        assert_eq!(texts("don't\nx"), ["dont", "x"]);
        let (words, _) = shell_words("if A=1 ./x y >z; then . w; fi");
        let starts: Vec<_> = words
            .iter()
            .filter(|it| it.starts)
            .map(|it| it.text.as_str())
            .collect();
        assert_eq!(starts, ["if", "A=1", "./x", "then", ".", "fi"]);
        let of = |text: &str| words.iter().find(|it| it.text == text).unwrap();
        assert!(of("z").writes && of("w").runs && !of("y").runs);
    }
}
