//! Questions of programs, which the user answers on the terminal.

use std::io::{IsTerminal, stdin};

use super::{clean::words, stdio, talk::talk};

/// A question of a program that runs for a machine or a provisioner.
pub struct Question<'a> {
    /// The machine, or the provisioner over several.
    pub who: &'a str,
    /// What runs, such as `provisioner app (ansible/web.yml)`.
    pub by: &'a str,
    /// The program's own words; empty if it has none.
    pub words: &'a str,
    /// Whether the answer is not shown while it is typed.
    pub is_hidden: bool,
}

impl Question<'_> {
    /// Prints it, with the cursor behind it.
    pub fn print(&self) {
        talk(&self.text());
    }

    fn text(&self) -> String {
        let hidden = match self.is_hidden {
            true => " (what you type is not shown)",
            false => "",
        };
        let (who, by) = (words(self.who), words(self.by));
        let own = words(self.words);
        let own = match own.trim() {
            "" => "your answer:",
            own => own,
        };
        format!("{who}  {by} asks{hidden}:\n{who}  {own} ")
    }
}

/// Whether somebody can answer a question: there is a terminal to read it on and to type at. Systems for continuous
/// integration set `CI`, and some have a terminal where nobody is.
pub(super) fn somebody_is_there() -> bool {
    let ci = std::env::var("CI").unwrap_or_default();
    let is_ci = !matches!(ci.as_str(), "" | "0" | "false");
    !is_ci && stdin().is_terminal() && stdio::stderr_is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_who_asks_and_draws_nothing() {
        let question = |words, is_hidden| {
            let question = Question {
                who: "web",
                by: "provisioner app (site.yml)",
                words,
                is_hidden,
            };
            question.text()
        };
        assert_eq!(
            question("Which\u{1b}[2J release? ", false),
            "web  provisioner app (site.yml) asks:\nweb  Which release? "
        );
        assert_eq!(
            question("", true),
            "web  provisioner app (site.yml) asks (what you type is not shown):\nweb  your answer: "
        );
    }
}
