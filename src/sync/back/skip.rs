//! Why a file of a guest does not come to the host. Pure.

use std::path::{Path, PathBuf};

/// Why a file or folder was not fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    Newer,
    Differs,
    OtherKind,
    LinkAbove,
    /// Larger than the free space on the host.
    TooLarge,
    /// A symlink whose target is outside the folder.
    LeadsOut,
    /// A pipe, a socket or a device.
    Special,
    Refused(Refused),
}

/// Why the host would run the file without anybody asking for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It belongs to a repository of git, Mercurial or the like, whose configuration names programs.
    Repository,
    Machinefile,
    /// The project runs it on the host: a hook, a playbook with its files, a password script.
    Project,
    /// Programs of the host run it when somebody enters or opens the folder.
    ByItself,
}

/// Names by which programs know a repository.
const REPOSITORIES: [&str; 10] = [
    ".bzr", ".git", "git~1", "HEAD", ".hg", ".jj", ".pijul", ".sl", ".svn", "_darcs",
];

/// Names of files and folders that programs obey as soon as somebody enters or opens the folder that
/// they are in: direnv, autoenv, mise, asdf, vim, editors, agents, git hooks by husky and pre-commit.
const BY_THEMSELVES: [&str; 40] = [
    ".asdfrc",
    ".autoenv",
    ".autoenv.zsh",
    ".autoenv_leave.zsh",
    ".claude",
    ".codex",
    ".cursor",
    ".gemini",
    ".kiro",
    ".mcp.json",
    ".roo",
    ".theia",
    ".windsurf",
    ".config",
    ".devcontainer",
    ".devcontainer.json",
    ".dir-locals.el",
    ".editorconfig-checker.json",
    ".env",
    ".envrc",
    ".exrc",
    ".fleet",
    ".githooks",
    ".husky",
    ".idea",
    ".lefthook.toml",
    ".lefthook.yml",
    ".lvimrc",
    ".mise",
    ".mise.local.toml",
    ".mise.toml",
    ".nvim.lua",
    ".nvimrc",
    ".pre-commit-config.yaml",
    ".vimrc",
    ".vscode",
    ".zed",
    "lefthook.toml",
    "lefthook.yml",
    "mise.toml",
];

impl Refused {
    /// Returns why a path in the folder `from` must not be fetched, if it must not. `named` is the path
    /// that the user asked for, and `host_runs` are the files and folders that the project runs on the
    /// host.
    pub(super) fn of(
        path: &Path,
        from: &Path,
        named: &Path,
        host_runs: &[PathBuf],
    ) -> Option<Self> {
        let same = |name: &str, known: &str| name.eq_ignore_ascii_case(known);
        let names = || path.components().map(|it| it.as_os_str().to_string_lossy());
        // Also the spellings that a file system without case, or with short names, takes for .git. git
        // also takes a folder of any other name for a repository if a HEAD is in it.
        if names().any(|name| REPOSITORIES.iter().any(|known| same(&name, known))) {
            return Some(Refused::Repository);
        }
        let machinefile = |name: &str| {
            let name = name.to_ascii_lowercase();
            name.starts_with("machinefile") || name.ends_with(".kdl")
        };
        if names().any(|name| machinefile(&name)) {
            return Some(Refused::Machinefile);
        }
        let full = from.join(path);
        if host_runs.iter().any(|known| full.starts_with(known)) {
            return Some(Refused::Project);
        }
        let by_itself = |path: &Path| {
            path.components().any(|it| {
                let name = it.as_os_str().to_string_lossy();
                BY_THEMSELVES.iter().any(|known| same(&name, known))
                    || name.to_ascii_lowercase().ends_with(".code-workspace")
            })
        };
        (by_itself(path) && !by_itself(named)).then_some(Refused::ByItself)
    }
}

impl Skip {
    /// The reason, for people.
    pub fn why(self) -> &'static str {
        match self {
            Skip::Special => "it is not a file but a pipe, a socket or a device",
            Skip::LeadsOut => "it is a symlink that leads out of the folder",
            Skip::Refused(Refused::Repository) => {
                "it is part of a repository, and git on the host would run what it contains"
            }
            Skip::Refused(Refused::Machinefile) => {
                "it is a Machinefile, and only the host decides about machines"
            }
            Skip::Refused(Refused::Project) => "the project runs it on the host",
            Skip::Refused(Refused::ByItself) => {
                "programs on the host would run what it contains; name it to fetch it"
            }
            Skip::Newer => "the host's is newer",
            Skip::Differs => "the host's differs, and there is no other copy of it",
            Skip::OtherKind => "the host has something of another type there",
            Skip::TooLarge => "it is larger than the free space on this computer",
            Skip::LinkAbove => "a folder above it is a symlink on the host",
        }
    }

    /// Whether `--force` fetches it all the same.
    pub fn can_be_forced(self) -> bool {
        matches!(self, Skip::Newer | Skip::Differs)
    }
}
