//! The distributions that boxes can be built from, and their tools.

/// The distribution's program that installs packages into a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::boxes) enum Tool {
    Mmdebstrap,
    Dnf,
    Zypper,
    Pacman,
}

impl std::fmt::Display for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Tool::Mmdebstrap => "mmdebstrap",
            Tool::Dnf => "dnf",
            Tool::Zypper => "zypper",
            Tool::Pacman => "pacman",
        })
    }
}

/// A distribution, by its ID in os-release(5).
pub(super) struct Distribution {
    pub id: &'static str,
    pub tool: Tool,
    /// Whether it has releases. If not, there is only the newest state of its packages.
    pub releases: bool,
}

const DISTRIBUTIONS: [Distribution; 9] = [
    known("debian", Tool::Mmdebstrap, true),
    known("ubuntu", Tool::Mmdebstrap, true),
    known("almalinux", Tool::Dnf, true),
    known("rocky", Tool::Dnf, true),
    known("centos", Tool::Dnf, true),
    known("fedora", Tool::Dnf, true),
    known("opensuse-leap", Tool::Zypper, true),
    known("opensuse-tumbleweed", Tool::Zypper, false),
    known("arch", Tool::Pacman, false),
];

const fn known(id: &'static str, tool: Tool, releases: bool) -> Distribution {
    Distribution { id, tool, releases }
}

/// # Errors
/// If it is not known, with those that are.
pub(super) fn find(id: &str) -> Result<&'static Distribution, String> {
    DISTRIBUTIONS
        .iter()
        .find(|known| known.id == id)
        .ok_or_else(|| {
            let ids: Vec<&str> = DISTRIBUTIONS.iter().map(|known| known.id).collect();
            format!(
                "unknown distribution {id:?}, expected one of: {}",
                ids.join(", ")
            )
        })
}
