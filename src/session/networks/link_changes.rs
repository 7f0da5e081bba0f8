//! What the Machinefile changes in the conditions of links.

use crate::{
    network::{self, Rule},
    session::Session,
};

use super::process::works;

/// Returns what the Machinefile changes in the conditions of links, in words. Nothing if no network runs, because
/// one that starts has them from the start.
pub(crate) fn link_changes(session: &Session) -> Vec<String> {
    let files = session
        .network_files()
        .filter(|files| files.read().is_some_and(|it| works(&it)));
    match files.and_then(|files| network::links(&files).ok().flatten()) {
        Some((_, links)) => changes(
            &links.wiring.links.unwrap_or_default(),
            &session.project.links,
        ),
        None => Vec::new(),
    }
}

fn changes(old: &[Rule], new: &[Rule]) -> Vec<String> {
    let words = |rule: &Rule| format!("{}: {}", rule.scope, rule.settings);
    let mut lines: Vec<String> = (old.iter().filter(|rule| !new.contains(rule)))
        .map(|rule| format!("remove {}", words(rule)))
        .collect();
    let added = new.iter().filter(|rule| !old.contains(rule));
    lines.extend(added.map(|rule| format!("set {}", words(rule))));
    if lines.is_empty() && old != new {
        lines.push("apply them in another order".into());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Delay, Scope, Settings};

    #[test]
    fn changes_of_links_are_named() {
        let rule = |to: &str, latency: &str| Rule {
            scope: Scope {
                from: vec!["web".into()],
                to: vec![to.into()],
                ..Scope::default()
            },
            settings: Settings {
                latency: Delay::parse(latency).ok(),
                ..Settings::default()
            },
        };
        let old = [rule("db", "80ms"), rule("cache", "5ms")];
        assert_eq!(changes(&old, &old), [""; 0]);
        assert_eq!(
            changes(&old, &[rule("db", "90ms"), rule("cache", "5ms")]),
            [
                "remove web ↔ db: latency 80ms",
                "set web ↔ db: latency 90ms"
            ]
        );
        let turned = [rule("cache", "5ms"), rule("db", "80ms")];
        assert_eq!(changes(&old, &turned), ["apply them in another order"]);
    }
}
