//! What Ansible asks: `vars_prompt`, the module `pause`, `--step`, and passwords.

use std::{fs, pin::Pin};

use crate::{
    host::process::{Answers, Asked, Reply},
    machinefile::Playbook,
};

use super::files;

/// The largest file in which the variable of a question is looked up, in bytes.
const LARGEST: u64 = 1 << 20;

/// A `pause` with a time prints this (ansible/plugins/action/pause.py).
const TIMED: &str = "(ctrl+C then 'C' = continue early, ctrl+C then 'A' = abort)";

/// Answers for a playbook.
pub(super) struct PlaybookAnswers<'a> {
    pub playbook: &'a Playbook,
    pub user: &'a dyn Answers,
}

impl Answers for PlaybookAnswers<'_> {
    fn answer<'a>(&'a self, asked: &'a Asked) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        Box::pin(async move {
            let mut asked = asked.clone();
            if asked.by_keys {
                match pause(&asked.before) {
                    Pause::Timed => return Reply::NoQuestion,
                    Pause::Asks(words) => asked.words = words,
                }
            }
            // Ansible takes it where it has no terminal: the author of the play has decided so.
            asked.default = default_of(self.playbook, &asked.words);
            self.user.answer(&asked).await
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Pause {
    /// It ends by itself.
    Timed,
    Asks(String),
}

/// Returns what the module `pause` asks, from the last lines that Ansible printed: the task's name in brackets, and the text.
fn pause(lines: &[String]) -> Pause {
    let timed = lines.iter().rposition(|line| line.contains(TIMED));
    let rest = timed.map(|at| &lines[at + 1..]);
    if rest.is_some_and(|rest| rest.first().is_none_or(|line| line.starts_with('['))) {
        return Pause::Timed;
    }
    let is_name = |line: &String| line.starts_with('[') && line.ends_with(']');
    let text = match lines.iter().rposition(is_name) {
        Some(at) => &lines[at..],
        None => &lines[lines.len().saturating_sub(1)..],
    };
    Pause::Asks(text.join(" ").trim().to_string())
}

/// An entry of `vars_prompt`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct VarPrompt {
    name: String,
    prompt: Option<String>,
    default: Option<String>,
}

impl VarPrompt {
    /// Returns the words in which Ansible asks for it (ansible/utils/display.py, `do_var_prompt`).
    fn words(&self) -> String {
        let prompt = self.prompt.as_deref().unwrap_or(&self.name);
        match &self.default {
            Some(default) => format!("{prompt} [{default}]:"),
            None => format!("{prompt}:"),
        }
    }

    fn asks(&self, words: &str) -> bool {
        words.strip_prefix("confirm ").unwrap_or(words) == self.words()
    }
}

/// Returns the entries of a list of mappings that may be one of `vars_prompt`. Only plain values of one line are read: this is
/// for a hint, and for defaults that Ansible itself repeats in its question.
fn var_prompts(text: &str) -> Vec<VarPrompt> {
    let mut entries: Vec<VarPrompt> = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        let begins = line.strip_prefix("- ");
        if begins.is_some() {
            entries.push(VarPrompt::default());
        }
        let (Some(entry), Some((key, value))) = (
            entries.last_mut(),
            begins.unwrap_or(line).trim().split_once(':'),
        ) else {
            continue;
        };
        let value = unquoted(value.trim()).to_string();
        match key {
            "name" => entry.name = value,
            "prompt" => entry.prompt = Some(value),
            "default" if !value.is_empty() => entry.default = Some(value),
            _ => {}
        }
    }
    entries.retain(|it| !it.name.is_empty());
    entries
}

fn unquoted(value: &str) -> &str {
    ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote))
        .unwrap_or(value)
}

/// Returns the entries of `vars_prompt` in the files of a playbook.
fn all_of(playbook: &Playbook) -> Vec<VarPrompt> {
    let Ok(found) = files::files(playbook) else {
        return Vec::new();
    };
    let paths = found.inside.into_values();
    let texts = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|it| it == "yml" || it == "yaml")
        })
        .filter(|path| fs::metadata(path).is_ok_and(|it| it.len() <= LARGEST))
        .filter_map(|path| fs::read_to_string(path).ok())
        .filter(|text| text.contains("vars_prompt"));
    texts.flat_map(|text| var_prompts(&text)).collect()
}

fn asked_for(playbook: &Playbook, words: &str) -> Option<VarPrompt> {
    let mut prompts = all_of(playbook).into_iter();
    prompts.find(|it| it.asks(words.trim()))
}

/// Returns the questions of a playbook that have a default.
pub(super) fn with_default(playbook: &Playbook) -> Vec<String> {
    (all_of(playbook).iter())
        .filter(|it| it.default.is_some())
        .flat_map(|it| [it.words(), format!("confirm {}", it.words())])
        .collect()
}

fn default_of(playbook: &Playbook, words: &str) -> Option<String> {
    asked_for(playbook, words)?.default
}

/// Returns what to do about a question of Ansible in a guest.
pub(super) fn advice_in_guest(playbook: &Playbook, words: &str) -> String {
    let asked = Asked {
        words: words.to_string(),
        ..Asked::default()
    };
    format!(
        "{}; or use `ansible`, which runs on your computer and asks at your terminal",
        way_without(playbook, &asked)
    )
}

/// Returns what to do about a question that nobody answers.
pub(super) fn advice(playbook: &Playbook, asked: &Asked, again: &str) -> String {
    format!(
        "{}; or run `{again}` on a terminal, and answer",
        way_without(playbook, asked)
    )
}

/// Returns how a playbook runs without the question.
fn way_without(playbook: &Playbook, asked: &Asked) -> String {
    let words = asked.words.to_lowercase();
    let has = |part: &str| words.contains(part);
    if let Some(prompt) = asked_for(playbook, &asked.words) {
        let value = match asked.is_hidden {
            true => format!("\"${{env.{}}}\"", prompt.name.to_uppercase()),
            false => "\"…\"".into(),
        };
        format!(
            "set the variable, and Ansible does not ask: `vars {}={value}` in the braces of `ansible`, or a `vars-file`",
            prompt.name
        )
    } else if asked.by_keys || has("press enter to continue") || words.starts_with('[') {
        "skip the `pause` where nobody is: give its task a `when:` with a variable that `vars` sets, or a tag that `skip-tags` names; with `seconds:` it waits and goes on".into()
    } else if has("perform task:") {
        "remove `--step` from `arguments`".into()
    } else if has("vault password") {
        "put the password into a file, or write a program that prints it, and name it with `vault-password-file`".into()
    } else if has("become password") || has("ssh password") || has("[sudo") {
        "remove what asks for it (`--ask-become-pass`, `--ask-pass`, `become_ask_pass`, `ask_pass`): stead logs in by key, and sudo in its boxes asks for no password; for a user that has one, set `ansible_become_password` in a `vars-file` that ansible-vault encrypted".into()
    } else if has("passphrase") {
        "load the key into your agent first (`ssh-add`)".into()
    } else if has("username for") || has("password for") {
        "give git the login by a credential helper (`git help credentials`), or use an address that SSH reads with a key of your agent".into()
    } else {
        "set what it asks for with `vars` in the braces of `ansible`".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::ansible::files::tests::{playbook, tree};

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(ToString::to_string).collect()
    }

    #[test]
    fn a_pause_with_a_time_is_no_question() {
        let timed = format!("Pausing for 2 seconds\n{TIMED}");
        assert_eq!(pause(&lines(&timed)), Pause::Timed);
        let told = format!("{timed}\n[wait]\nfor the mail:");
        assert_eq!(pause(&lines(&told)), Pause::Timed);
        // A later one asks.
        let later = format!("{timed}\nok: [web]\n\nTASK [sure] ***\n[sure]\nType yes:");
        assert_eq!(
            pause(&lines(&later)),
            Pause::Asks("[sure] Type yes:".into())
        );
    }

    const PLAY: &str = r#"
- hosts: all
  vars_prompt:
    - name: release
      prompt: "Which release?"
      default: '1.0'
      private: false
    - name: token
    - prompt: Sure? [y/N]
      name: sure
"#;

    #[test]
    fn the_variable_that_is_asked_for_is_found() {
        let folder = tree(&["site.yml"]);
        fs::write(folder.path().join("site.yml"), PLAY).unwrap();
        let playbook = playbook(folder.path(), "site.yml");
        let default = |words| default_of(&playbook, words);
        assert_eq!(default("Which release? [1.0]: ").as_deref(), Some("1.0"));
        assert_eq!(default("Which release? [2.0]: "), None);
        assert_eq!(default("Sure? [y/N]: "), None);
        let with_default = with_default(&playbook);
        let words = ["Which release? [1.0]:", "confirm Which release? [1.0]:"];
        assert_eq!(with_default, words);
        let asked = |words: &str, is_hidden| Asked {
            words: words.into(),
            is_hidden,
            ..Asked::default()
        };
        let hint = |words, is_hidden| advice(&playbook, &asked(words, is_hidden), "stead up");
        assert!(hint("confirm token: ", true).contains("`vars token=\"${env.TOKEN}\"`"));
        assert!(hint("Sure? [y/N]: ", false).contains("`vars sure=\"…\"`"));
        assert!(hint("Vault password: ", true).contains("`vault-password-file`"));
        assert!(hint("Perform task: TASK: x (N)o/(y)es/(c)ontinue: ", false).contains("--step"));
        assert!(hint("Enter passphrase for key 'k': ", true).contains("ssh-add"));
    }
}
