//! The order in which machines of a plan begin if they cannot all begin at once.

use std::collections::HashMap;

use super::machine_plan::MachinePlan;

/// Returns the machines, those first for which the longest row of others waits, then those for which the most wait, then as
/// they are listed.
pub fn most_needed_first(machines: &[MachinePlan]) -> Vec<&MachinePlan> {
    let waiting = |name: &str| -> Vec<&str> {
        (machines.iter())
            .filter(|it| it.after.iter().any(|after| after == name))
            .map(|it| it.machine.as_str())
            .collect()
    };
    // How long the row is that waits for each. No row is longer than there are machines, even if they wait for each other.
    let mut rows: HashMap<&str, usize> = HashMap::new();
    for _ in 0..machines.len() {
        let mut changed = false;
        for machine in machines {
            let longest = (waiting(&machine.machine).into_iter())
                .map(|name| 1 + rows.get(name).copied().unwrap_or(0))
                .max()
                .unwrap_or(0);
            changed |= rows.insert(&machine.machine, longest) != Some(longest);
        }
        if !changed {
            break;
        }
    }
    let mut ordered: Vec<&MachinePlan> = machines.iter().collect();
    ordered.sort_by_key(|machine| {
        let row = rows.get(machine.machine.as_str()).copied().unwrap_or(0);
        std::cmp::Reverse((row, waiting(&machine.machine).len()))
    });
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(machines: &[(&str, &[&str])]) -> String {
        let plans: Vec<MachinePlan> = (machines.iter())
            .map(|(name, after)| {
                let after = after.iter().map(ToString::to_string).collect();
                MachinePlan::new(name, after, Vec::new())
            })
            .collect();
        let names: Vec<&str> = (most_needed_first(&plans).into_iter())
            .map(|it| it.machine.as_str())
            .collect();
        names.join(" ")
    }

    #[test]
    fn those_that_others_wait_for_come_first() {
        assert_eq!(order(&[("a", &[]), ("b", &[]), ("c", &[])]), "a b c");
        let shop: &[(&str, &[&str])] = &[
            ("proxy", &["web"]),
            ("log", &[]),
            ("mail", &[]),
            ("queue", &[]),
            ("web", &["db", "gone"]),
            ("job", &["queue"]),
            ("cron", &["mail", "queue"]),
            ("db", &[]),
        ];
        // A row of two waits for db, two machines for queue, one for mail and one for web.
        assert_eq!(order(shop), "db queue mail web proxy log job cron");
        // No Machinefile allows this, but it must end.
        assert_eq!(order(&[("a", &["b"]), ("b", &["a"])]).len(), 3);
    }
}
