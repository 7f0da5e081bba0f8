//! Prepares the guest for a `file` provisioner, before anything is copied.

use crate::{guest::Remote, host::shell::shell_quote};

use super::error::ProvisionError;

/// Exit codes of [`check`].
const NO_USER: i32 = 61;
const NO_GROUP: i32 = 62;
const IN_THE_WAY: i32 = 63;
const NO_PLACE: i32 = 64;
const NO_SUDO: i32 = 65;

/// Makes the folder that is copied to. Returns the owner as `user:group`; the group is the user's own if
/// none is set.
pub(super) async fn prepare(
    name: &str,
    remote: &Remote,
    to: &str,
    owner: &str,
    is_folder: bool,
) -> Result<String, ProvisionError> {
    let output = remote.run(&check(to, owner, is_folder)).await?;
    let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
    let name = name.to_string();
    let machine = remote.machine.clone();
    let no_owner = |kind, owner: &str| ProvisionError::NoOwner {
        name: name.clone(),
        machine: machine.clone(),
        kind,
        owner: owner.to_string(),
    };
    Err(match output.status.code() {
        Some(0) => {
            if !group.is_empty() {
                return Ok(owner.to_string());
            }
            // It must be a number, so that the guest's answer cannot become anything else in rsync's
            // arguments.
            let own = output.stdout.lines().last().unwrap_or_default();
            match own.trim().parse::<u32>() {
                Ok(group) => return Ok(format!("{user}:{group}")),
                Err(_) => no_owner("group of", user),
            }
        }
        Some(NO_USER) => no_owner("user", user),
        Some(NO_GROUP) => no_owner("group", group),
        Some(IN_THE_WAY) => ProvisionError::InTheWay {
            name,
            machine,
            to: to.to_string(),
            is: if is_folder {
                "not a folder"
            } else {
                "a folder"
            },
            wanted: if is_folder { "a folder" } else { "a file" },
        },
        Some(NO_PLACE) => ProvisionError::NoPlace {
            name,
            machine,
            to: to.to_string(),
            said: output.last_words(),
        },
        Some(NO_SUDO) => ProvisionError::NotStarted {
            what: format!("provisioner {name}"),
            machine,
            said: output.last_words(),
            hint: "`file` needs a login user who can use sudo without a password".into(),
        },
        _ => ProvisionError::ScriptCutOff {
            what: format!("provisioner {name}"),
            machine,
        },
    })
}

/// Returns a shell script whose exit code tells what is missing. If nothing is, it prints the user's
/// group.
fn check(to: &str, owner: &str, is_folder: bool) -> String {
    let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
    let (user, to_quoted) = (shell_quote(user), shell_quote(to));
    let mut script = format!("id -u {user} >/dev/null 2>&1 || exit {NO_USER}\n");
    if !group.is_empty() {
        let group = shell_quote(group);
        script.push_str(&format!(
            "getent group {group} >/dev/null 2>&1 || grep -q ^{group}: /etc/group || exit {NO_GROUP}\n"
        ));
    }
    script.push_str(&format!("sudo -n true || exit {NO_SUDO}\n"));
    if is_folder {
        // A symlink to a folder counts as a folder.
        script.push_str(&format!(
            "if sudo -n test -e {to_quoted} && ! sudo -n test -d {to_quoted}; then exit {IN_THE_WAY}; fi\n\
             sudo -n mkdir -p {to_quoted} || exit {NO_PLACE}\n"
        ));
    } else {
        // rsync would put the file into the folder.
        let folder = match to.rsplit_once('/') {
            Some(("", _)) | None => "/",
            Some((folder, _)) => folder,
        };
        script.push_str(&format!(
            "if sudo -n test -d {to_quoted}; then exit {IN_THE_WAY}; fi\n\
             sudo -n mkdir -p {} || exit {NO_PLACE}\n",
            shell_quote(folder)
        ));
    }
    script.push_str(&format!("id -g {user}\n"));
    script
}
