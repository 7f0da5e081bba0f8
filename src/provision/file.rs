//! What `file` needs of the guest before anything is copied.

use crate::{guest::Remote, host::shell::shell_quote};

use super::run::ProvisionError;

/// Exit codes of [`look`].
const NO_USER: i32 = 61;
const NO_GROUP: i32 = 62;
const IN_THE_WAY: i32 = 63;
const NO_PLACE: i32 = 64;
const NO_SUDO: i32 = 65;

/// Makes the folder that is copied to, and gives the owner as `user:group`: the group is the user's
/// own where none is named.
pub(super) async fn prepare(
    name: &str,
    remote: &Remote,
    to: &str,
    owner: &str,
    is_folder: bool,
) -> Result<String, ProvisionError> {
    let output = remote.run(&look(to, owner, is_folder)).await?;
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
            // A number, so that no word of the guest's is one of rsync's.
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
            is: if is_folder { "no folder" } else { "a folder" },
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
            hint: "its login user needs sudo without a password to put files anywhere".into(),
        },
        _ => ProvisionError::ScriptCutOff {
            what: format!("provisioner {name}"),
            machine,
        },
    })
}

/// A shell script that says, by its exit code, what is lacking, or prints the user's group.
fn look(to: &str, owner: &str, is_folder: bool) -> String {
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
        // Also a link to a folder is one.
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
