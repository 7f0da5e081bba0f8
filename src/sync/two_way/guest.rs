//! unison in the guest.

use std::path::Path;

use crate::{guest::Remote, host::shell::shell_quote, machinefile::SyncFolder};

use super::error::TwoWayError;

/// provisioners/guest/stead-two-way.
const PREPARE_SCRIPT: &str = include_str!("../../../provisioners/guest/stead-two-way");

/// The script for `sh` that runs unison in the guest: as the user who owns the files, with that user's
/// archives.
const SERVER: &str = r#"
user=${1%%:*}
[ -n "$user" ] || user=$(id -un)
set -- env UNISON=/var/lib/stead/unison/state-"$user" "$2" -server __new-rpc-mode
[ "$user" = "$(id -un)" ] || set -- sudo -n -u "$user" "$@"
exec "$@"
"#;

/// The path in the guest of a unison copied from the host.
const GUEST_UNISON: &str = "/var/lib/stead/unison/unison";

pub(super) struct GuestSide {
    /// The program that runs unison in the guest.
    pub program: &'static str,
    pub is_empty: bool,
}

/// Returns the command that runs unison in the guest. The guest chooses no part of it.
pub(super) fn server(owner: Option<&str>, program: &str) -> String {
    format!(
        "exec sh -c {} stead-two-way {} {program}",
        shell_quote(SERVER),
        shell_quote(owner.unwrap_or_default()),
    )
}

pub(super) async fn prepare(
    folder: &SyncFolder,
    remote: &Remote,
    program: &Path,
    version: &str,
) -> Result<GuestSide, TwoWayError> {
    let command = format!(
        "exec sh -c {} stead-two-way {} {} {}",
        shell_quote(PREPARE_SCRIPT),
        shell_quote(&folder.to),
        shell_quote(folder.owner.as_deref().unwrap_or_default()),
        shell_quote(version)
    );
    for copied in [false, true] {
        let output = remote.run(&command).await?;
        if !output.status.success() {
            return Err(TwoWayError::Failed {
                from: folder.from.clone(),
                to: folder.to.clone(),
                machine: remote.machine.clone(),
                said: output.last_words(),
            });
        }
        let says = |line: &str| output.stdout.lines().any(|it| it == line);
        let there = match (says("unison own"), says("unison path")) {
            (true, _) => Some(GUEST_UNISON),
            (false, true) => Some("unison"),
            (false, false) => None,
        };
        if let Some(there) = there {
            return Ok(GuestSide {
                program: there,
                is_empty: says("empty"),
            });
        }
        if !copied {
            // It is written under another name first, so that a truncated copy is never run.
            let script = format!(
                "set -e; f=$(mktemp); cat >$f; s=; [ \"$(id -u)\" = 0 ] || s='sudo -n'; $s install -D -m 755 $f {GUEST_UNISON}.new; $s mv -f {GUEST_UNISON}.new {GUEST_UNISON}; rm -f $f"
            );
            remote.send(&script, program, &mut |_| {}).await?;
        }
    }
    Err(TwoWayError::NoUnisonInGuest {
        machine: remote.machine.clone(),
        version: version.to_string(),
    })
}
