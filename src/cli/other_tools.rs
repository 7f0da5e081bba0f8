//! Commands that users of Vagrant, Lima or Multipass know, and what stead has instead.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::{host::shell::shell_quote, machinefile};

/// Returns what to use instead of an argument of another tool's.
pub(super) fn tip(error: &clap::Error, stead: &clap::Command, words: &[String]) -> Option<String> {
    let said = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = said(ContextKind::InvalidSubcommand)?;
            command(stead, word, first_word(stead, words).unwrap_or_default())
        }
        ErrorKind::UnknownArgument => argument(
            said(ContextKind::InvalidArg)?,
            first_word(stead, words)?,
            words,
        ),
        // `-f` is for a Machinefile, as in docker compose, but `logs -f` follows in most other tools.
        ErrorKind::InvalidValue
            if words.iter().any(|word| word == "logs")
                && words.last().is_some_and(|last| last == "-f") =>
        {
            Some("`stead logs --follow` keeps printing; -f is the path of a Machinefile".into())
        }
        _ => None,
    }
}

/// Returns the first word of the command line that is neither an option nor the value of one.
fn first_word<'a>(stead: &clap::Command, words: &'a [String]) -> Option<&'a str> {
    let takes_value = |is: &dyn Fn(&clap::Arg) -> bool| {
        let mut options = stead
            .get_arguments()
            .filter(|it| it.get_action().takes_values());
        options.any(is)
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let has_value = match (word.strip_prefix("--"), word.strip_prefix('-')) {
            (Some(long), _) => takes_value(&|it| it.get_long() == Some(long)),
            (None, Some(letters)) => {
                let valued = |letter| takes_value(&|it| it.get_short() == Some(letter));
                // What follows the letter in the same word is its value.
                letters
                    .find(valued)
                    .is_some_and(|at| letters[at..].chars().count() == 1)
            }
            (None, None) => return Some(word),
        };
        if has_value {
            words.next();
        }
    }
    None
}

/// Returns what to use instead of a command. `above` is the first word of the command line.
fn command(stead: &clap::Command, word: &str, above: &str) -> Option<String> {
    let own = if matches!(above, "box" | "kernel" | "job") && above != word {
        group(word, above)?
    } else {
        let lower = word.to_lowercase();
        if lower != word && stead.find_subcommand(&lower).is_some() {
            return Some(format!("commands are in lower case: `stead {lower}`"));
        }
        match (alone(&lower), above) {
            (Some(own), _) => own,
            (None, _) if machinefile::is_node(word) => {
                return Some(format!(
                    "`{word}` is a node of the Machinefile, which docs/reference/machinefile.md describes; `stead init` writes a Machinefile with comments"
                ));
            }
            (None, "help") => {
                "`stead help` lists the commands, and docs/README.md all pages about stead"
            }
            (None, _) => return None,
        }
    };
    Some(own.to_string())
}

/// Commands of `box`, `kernel` and `job`.
fn group(word: &str, above: &str) -> Option<&'static str> {
    Some(match (above, word.to_lowercase().as_str()) {
        ("box", "ls" | "ps" | "images") => "`stead box list` lists the boxes of this computer",
        ("box", "rm" | "delete" | "rmi" | "destroy") => "`stead box remove NAME` removes a box",
        ("box", "import" | "pull" | "install" | "download") => {
            "`stead box add NAME` adds a box; `stead up` fetches the boxes of its machines by itself"
        }
        ("box", "repackage" | "package" | "export" | "save") => {
            "`stead box pack MACHINE` makes a box from a machine"
        }
        ("box", "search" | "available") => {
            "`stead box list --available` lists the boxes that can be fetched"
        }
        ("kernel", "ls") => "`stead kernel list` lists the kernels of this computer",
        ("kernel", "rm" | "delete") => "`stead kernel remove NAME` removes a kernel",
        ("job", "ls" | "ps") => "`stead job list` lists the jobs of a machine",
        ("job", "rm" | "delete" | "prune") => {
            "`stead job remove JOB` removes a job that has ended; a guest keeps the last 20 of them"
        }
        ("job", "kill" | "cancel" | "terminate") => "`stead job stop JOB` ends a job",
        ("job", "attach" | "tail" | "output") => {
            "`stead job logs JOB --follow` shows what a job prints"
        }
        ("job", "start" | "run" | "create" | "add") => {
            "`stead exec --detach -- COMMAND` starts a job"
        }
        _ => return None,
    })
}

fn alone(word: &str) -> Option<&'static str> {
    Some(match word {
        "reload" | "reboot" => "`stead restart` shuts machines down and starts them again",
        "global-status" | "ls" => "`stead list` shows the machines of all projects",
        "ps" | "info" | "show" => {
            "`stead status` shows the machines of this project, `stead list` those of all projects"
        }
        "start" | "launch" | "create" | "boot" | "apply" => {
            "`stead up` creates and starts machines"
        }
        "stop" | "shutdown" | "poweroff" => "`stead halt` shuts machines down",
        "down" => {
            "`stead halt` shuts machines down, and `stead destroy` removes them with their disks"
        }
        "delete" | "rm" | "remove" | "undefine" => {
            "`stead destroy` removes machines and their disks"
        }
        "kill" => "`stead halt --force` switches machines off",
        "shell" | "attach" | "connect" | "login" => {
            "`stead ssh` opens a shell in a machine; `stead console` types at its serial console"
        }
        "jobs" => "`stead job list` lists the jobs of a machine",
        "cp" | "scp" => "`stead copy` copies files to and from machines",
        "rsync" => "`stead sync` copies the synced folders",
        "rsync-auto" | "watch" => "`stead sync --watch` keeps copying changes",
        "upload" | "transfer" => "`stead copy` copies files to and from machines",
        "network" | "networks" | "net" => {
            "`stead link` shows the networks of the project and their links; `network` in the Machinefile declares them"
        }
        "vm" | "machine" | "instance" => {
            "machines are named without a word before them: `stead up web`, `stead ssh web`; `stead status` shows them"
        }
        "image" | "images" | "boxes" | "pull" => {
            "`stead box list` lists the boxes of this computer, and `stead box list --available` those that can be fetched"
        }
        "ssh_config" | "sshconfig" => "`stead ssh-config` prints the configuration of OpenSSH",
        "diff" => "`stead plan` shows what `stead up` would change",
        "check" | "lint" => "`stead validate` checks the Machinefile",
        "stats" => "`stead top` shows what machines use",
        "version" => "`stead --version` prints the version",
        "package" | "snapshot" | "save" => {
            "stead has no snapshots; `stead box pack MACHINE` makes a box from a machine's current state"
        }
        "suspend" | "resume" | "pause" => {
            "stead does not suspend machines; `stead halt` and `stead up` keep their disks"
        }
        "prune" => "`stead box prune` removes boxes that are long unused",
        _ => return None,
    })
}

fn quoted(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| shell_quote(word)).collect();
    words.join(" ")
}

/// Returns what to use instead of an argument of a command. `words` are the whole command line.
fn argument(word: &str, command: &str, words: &[String]) -> Option<String> {
    Some(match (command, word) {
        ("up" | "provision" | "restart", "--provision-with") => {
            "`stead provision --only NAME` runs provisioners by name".to_string()
        }
        ("exec", word) if !word.starts_with('-') => {
            let before = words.iter().position(|it| it == word)?;
            let (before, command) = words.split_at(before);
            format!(
                "write the command after `--`: `stead {} -- {}`",
                quoted(before),
                quoted(command)
            )
        }
        (_, "--project") => {
            "`status`, `halt`, `destroy`, `ssh` and `exec` take --project; run other commands in the project's folder, or with -C DIR".to_string()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_not_taken_for_the_value_of_an_option_before_it() {
        let found = |line: &str| {
            let words: Vec<String> = line.split(' ').map(ToString::to_string).collect();
            first_word(&crate::cli::command(), &words).map(ToString::to_string)
        };
        for line in [
            "box ls",
            "--color never box ls",
            "--color=never box ls",
            "-q -C /srv box ls",
            "-qC /srv box ls",
            "-C/srv --json box ls",
            "--connect qemu:///session -f Machinefile.ci box ls",
        ] {
            assert_eq!(found(line).as_deref(), Some("box"), "{line}");
        }
        assert_eq!(found("--color never"), None);
        assert_eq!(found("-q"), None);
    }
}
