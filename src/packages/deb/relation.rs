//! The dependencies of a package: its Depends field (deb-control(5), Debian policy §7.1).

use std::cmp::Ordering;

use super::version;

/// A package, and the versions of it that are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Relation {
    pub name: String,
    /// Operator and version.
    pub versions: Option<(Operator, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Earlier,
    EarlierOrEqual,
    Exactly,
    LaterOrEqual,
    Later,
}

impl Relation {
    pub(super) fn any(name: &str) -> Self {
        Relation {
            name: name.to_string(),
            versions: None,
        }
    }

    pub(super) fn exactly(name: &str, version: &str) -> Self {
        Relation {
            name: name.to_string(),
            versions: Some((Operator::Exactly, version.to_string())),
        }
    }

    /// Whether this version is accepted.
    pub(super) fn accepts(&self, found: &str) -> bool {
        let Some((operator, wanted)) = &self.versions else {
            return true;
        };
        let order = version::compare(found, wanted);
        match operator {
            Operator::Earlier => order == Ordering::Less,
            Operator::EarlierOrEqual => order != Ordering::Greater,
            Operator::Exactly => order == Ordering::Equal,
            Operator::LaterOrEqual => order != Ordering::Less,
            Operator::Later => order == Ordering::Greater,
        }
    }

    /// Parses `name [(op version)] [:arch] […] <…>`; `None` without a name.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let end = text
            .find(|c: char| c.is_whitespace() || "(:[<".contains(c))
            .unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        if name.is_empty() {
            return None;
        }
        let versions = rest
            .split_once('(')
            .and_then(|(_, rest)| rest.split_once(')'))
            .and_then(|(inner, _)| {
                let inner = inner.trim();
                let at = inner.find(|c: char| !"<>=".contains(c))?;
                let (operator, version) = inner.split_at(at);
                let operator = match operator {
                    "<<" => Operator::Earlier,
                    // `<` and `>` are old names of these (policy §7.1).
                    "<=" | "<" => Operator::EarlierOrEqual,
                    "=" => Operator::Exactly,
                    ">=" | ">" => Operator::LaterOrEqual,
                    ">>" => Operator::Later,
                    _ => return None,
                };
                Some((operator, version.trim().to_string()))
            });
        Some(Relation {
            name: name.to_string(),
            versions,
        })
    }
}

/// Parses a field. Each group is a list of alternatives, of which one is needed.
pub(super) fn parse(field: &str) -> Vec<Vec<Relation>> {
    field
        .split(',')
        .map(|group| group.split('|').filter_map(Relation::parse).collect())
        .filter(|group: &Vec<Relation>| !group.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_of_kernels_are_parsed() {
        let found = parse(
            "kmod, linux-base (>= 4.3~), initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool, linux-image-6.1 (= 6.1.170-3), a:any [amd64] <!x>",
        );
        let names: Vec<Vec<&str>> = found
            .iter()
            .map(|group| group.iter().map(|it| it.name.as_str()).collect())
            .collect();
        assert_eq!(
            names,
            [
                vec!["kmod"],
                vec!["linux-base"],
                vec!["initramfs-tools", "linux-initramfs-tool"],
                vec!["linux-image-6.1"],
                vec!["a"]
            ]
        );
        assert!(found[1][0].accepts("4.9") && !found[1][0].accepts("4.2"));
        assert!(found[3][0].accepts("6.1.170-3") && !found[3][0].accepts("6.1.170-4"));
        assert!(found[0][0].accepts("anything"));
    }

    #[test]
    fn nonsense_is_skipped() {
        assert!(parse(", ,|,(").is_empty());
        assert_eq!(parse("a (~ 1)")[0][0], Relation::any("a"));
        assert_eq!(parse("a (= 1")[0][0], Relation::any("a"));
    }
}
