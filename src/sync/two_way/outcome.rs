//! The result of a two-way sync.

/// The result of a two-way sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Paths that both sides had changed. Both versions are kept.
    pub conflicts: Vec<String>,
}

impl Outcome {
    /// A notice that lists the conflicts, if there are any.
    pub fn notice(&self, to: &str) -> Option<String> {
        const SHOWN: usize = 5;
        if self.conflicts.is_empty() {
            return None;
        }
        let mut list: Vec<String> = self.conflicts.iter().take(SHOWN).cloned().collect();
        if self.conflicts.len() > SHOWN {
            list.push(format!("and {} more", self.conflicts.len() - SHOWN));
        }
        Some(format!(
            "{to}: changed on both sides: {}; the newer version keeps the name, and the older one is beside it as \"… (conflict_on_DATE)\"",
            list.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_conflicts_are_told_by_name() {
        let outcome = |n: usize| Outcome {
            conflicts: (0..n).map(|n| n.to_string()).collect(),
        };
        assert_eq!(outcome(0).notice("/srv/app"), None);
        insta::assert_snapshot!(outcome(7).notice("/srv/app").unwrap());
    }
}
