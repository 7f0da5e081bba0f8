//! The result of a two-way sync.

/// The result of a two-way sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Paths that both sides had changed. Both versions are kept.
    pub conflicts: Vec<String>,
    /// Pipes, sockets and devices, which unison skips.
    pub skipped: Vec<String>,
}

impl Outcome {
    /// A notice that lists the conflicts, if there are any.
    pub fn conflict_notice(&self, to: &str) -> Option<String> {
        (!self.conflicts.is_empty()).then(|| format!(
            "{to}: changed on both sides: {}; the newer version keeps the name, and the older one is beside it as \"… (conflict_on_DATE)\"",
            listed(&self.conflicts)
        ))
    }

    /// A notice that lists what was skipped, if anything was.
    pub fn skip_notice(&self, to: &str) -> Option<String> {
        (!self.skipped.is_empty()).then(|| {
            format!(
                "{to}: pipes, sockets and devices are not synced: {}; `exclude` them",
                listed(&self.skipped)
            )
        })
    }
}

/// Returns the first few names, and how many more there are.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut list: Vec<String> = names.iter().take(SHOWN).cloned().collect();
    if names.len() > SHOWN {
        list.push(format!("and {} more", names.len() - SHOWN));
    }
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_conflicts_are_told_by_name() {
        let outcome = |n: usize| Outcome {
            conflicts: (0..n).map(|n| n.to_string()).collect(),
            skipped: Vec::new(),
        };
        assert_eq!(outcome(0).conflict_notice("/srv/app"), None);
        assert_eq!(outcome(7).skip_notice("/srv/app"), None);
        insta::assert_snapshot!(outcome(7).conflict_notice("/srv/app").unwrap());
    }
}
