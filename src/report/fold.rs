//! Folds the output of a long script on a terminal: its first lines are shown as they come, and its last ones at its
//! end. The log of the run has all of them.

use std::collections::VecDeque;

/// How many lines are shown as they come.
const FIRST: usize = 12;
/// How many of the last lines are shown when the script has succeeded.
const LAST: usize = 5;
/// The same, for a script that has failed.
const LAST_OF_FAILED: usize = 25;

/// The output of one step.
#[derive(Default)]
pub(super) struct Fold {
    shown: usize,
    hidden: usize,
    last: VecDeque<String>,
}

impl Fold {
    /// Takes a line. Returns whether it is shown now.
    pub(super) fn shows(&mut self, line: &str) -> bool {
        if self.shown < FIRST {
            self.shown += 1;
            return true;
        }
        self.hidden += 1;
        if self.last.len() == LAST_OF_FAILED {
            self.last.pop_front();
        }
        self.last.push_back(line.to_string());
        false
    }

    /// Returns the lines that are shown at the end of the step.
    pub(super) fn end(&mut self, failed: bool) -> Vec<String> {
        let fold = std::mem::take(self);
        let most = match failed {
            true => LAST_OF_FAILED,
            false => LAST,
        };
        let kept = fold.last.len().min(most);
        let mut lines = Vec::new();
        match fold.hidden - kept {
            0 => {}
            1 => lines.push("… 1 line is only in the log of this run; -v shows all".to_string()),
            folded => lines.push(format!(
                "… {folded} lines are only in the log of this run; -v shows all"
            )),
        }
        lines.extend(fold.last.into_iter().rev().take(kept).rev());
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown of so many lines.
    fn shown(count: usize, failed: bool) -> Vec<String> {
        let mut fold = Fold::default();
        let lines = (1..=count).map(|n| n.to_string());
        let mut shown: Vec<String> = lines.filter(|line| fold.shows(line)).collect();
        shown.extend(fold.end(failed));
        shown
    }

    #[test]
    fn a_short_output_is_whole() {
        for failed in [true, false] {
            let all: Vec<String> = (1..=17).map(|n| n.to_string()).collect();
            assert_eq!(shown(17, failed), all);
            assert_eq!(shown(0, failed), [""; 0]);
        }
    }

    #[test]
    fn a_long_output_is_folded_between_its_first_and_last_lines() {
        let lines = shown(500, false);
        assert_eq!((lines.len(), lines[11].as_str()), (18, "12"));
        assert_eq!(
            lines[12],
            "… 483 lines are only in the log of this run; -v shows all"
        );
        assert_eq!(lines[13..], ["496", "497", "498", "499", "500"]);
        assert!(shown(18, false)[12].starts_with("… 1 line is "));
    }

    #[test]
    fn more_of_it_is_shown_if_the_script_failed() {
        let lines = shown(500, true);
        assert_eq!((lines.len(), lines[13].as_str()), (38, "476"));
    }
}
