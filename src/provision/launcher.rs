//! The launcher, which runs a script in the guest: a POSIX shell program for the standard input of `sh`.
//!
//! It puts the script, its environment and how to start it into a folder that only the script's user can
//! read, so that none of it is in any process's arguments. Then it starts the script in a session of its
//! own, and removes the folder at the end. Standard input stays open meanwhile. If it ends, because this
//! side was interrupted or killed, or if the script times out, everything that the script started is
//! killed. The launcher's messages to this side are lines on standard error that start with a word that
//! nobody can guess.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::{guest::END_SCRIPT, host::shell::shell_quote, machinefile::Shell};

/// How long the processes of a script may take to end after SIGTERM, before they are killed.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// bash sources this before the script (bash(1), "BASH_ENV"). If the script fails, it records where. It
/// prints nothing and changes no result. ERR catches a command that fails, EXIT an `exit`.
const TRACE: &str = r#"unset BASH_ENV
stead_at=${BASH_SOURCE[0]%/*}/at
set -E
trap '{ stead_err="$? $LINENO ${BASH_SOURCE[0]-}" stead_cmd=$BASH_COMMAND; } 2>/dev/null' ERR
trap '{ stead_code=$?
if [ "$stead_code" != 0 ]; then
    { if [ "${stead_cmd-}" = "$BASH_COMMAND" ] && [ "${stead_err%% *}" = "$stead_code" ]; then
        printf "err %s\n" "${stead_err#* }"
    elif [ "${#BASH_LINENO[@]}" -gt 1 ]; then
        printf "call %s %s %s\n" "${BASH_LINENO[0]}" "${BASH_SOURCE[1]-}" "${BASH_COMMAND%%[[:cntrl:]]*}"
    else
        printf "command 0 %s %s\n" "${BASH_SOURCE[0]-}" "${BASH_COMMAND%%[[:cntrl:]]*}"
    fi; } >|"$stead_at" || :
fi; } 2>/dev/null' EXIT
"#;

#[derive(Clone, Copy)]
pub(super) enum RunAs<'a> {
    Login,
    Root,
    User(&'a str),
}

impl<'a> RunAs<'a> {
    pub(super) fn of(shell: &'a Shell) -> Self {
        match &shell.user {
            Some(user) => RunAs::User(user),
            None if shell.privileged => RunAs::Root,
            None => RunAs::Login,
        }
    }
}

/// Waits until launchers of earlier runs have ended: their caller may have been killed, and what they started takes a while
/// to end. `born` prints when a process has started (proc_pid_stat(5), field 22), which tells it from a later one with its
/// number. `$d`: this launcher's folder. The function ends with 1 if it takes longer than a minute.
const AFTER_EARLIER_ONES: &str = r#"born() {
    read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
    set -- ${stat##*) }
    echo "${20}"
}
after_earlier_ones() {
    own=$(born $$) || return 0
    echo "$$ $own" >"$d/launcher"
    left=600
    for it in /tmp/stead.*/launcher; do
        read -r pid when 2>/dev/null <"$it" || continue
        case $pid$when in *[!0-9]*) continue ;; esac
        [ "${when:-$own}" -lt "$own" ] || continue
        while [ -e "$it" ] && [ "$(born "$pid")" = "$when" ]; do
            [ "$left" != 600 ] || echo "$1 waits" >&2
            left=$((left - 1))
            [ "$left" != 0 ] || return 1
            sleep 0.1
        done
    done
}
"#;

/// The input of [`launcher`].
pub(super) struct Launch<'a> {
    /// The name of the script's file.
    pub file: &'a str,
    pub script: &'a [u8],
    /// Program and options before the file.
    pub interpreter: &'a [String],
    pub args: &'a [String],
    pub env: &'a BTreeMap<String, String>,
    pub workdir: Option<&'a str>,
    pub run_as: RunAs<'a>,
    pub timeout: Option<Duration>,
    /// Whether bash records where the script fails.
    pub traced: bool,
    /// The word that begins the launcher's messages.
    pub word: &'a str,
}

/// Returns the shell program.
pub(super) fn launcher(launch: &Launch<'_>) -> String {
    let word = launch.word;
    let file = shell_quote(launch.file);
    let sudo = match launch.run_as {
        RunAs::Login => String::new(),
        RunAs::Root => "sudo -n -H ".into(),
        RunAs::User(user) => format!("sudo -n -H -u {} ", shell_quote(user)),
    };
    // sudo is slow, so it is only used where it is needed.
    let (own, remove) = match launch.run_as {
        RunAs::Login => (String::new(), "rm -rf \"$d\""),
        RunAs::Root => (
            String::new(),
            "rm -rf \"$d\" 2>/dev/null || sudo -n rm -rf \"$d\"",
        ),
        RunAs::User(user) => {
            let user = shell_quote(user);
            (
                format!(
                    "id -u {user} >/dev/null 2>&1 || {{ echo '{word} no-user' >&2; exit 1; }}\n\
                     sudo -n chown -R {user} \"$d/in\" || exit 1\n"
                ),
                "sudo -n rm -rf \"$d\"",
            )
        }
    };
    let trace = if launch.traced {
        format!(
            "base64 -d >\"$d/in/trace\" <<'END_OF_TRACE' || exit 1\n{}\nEND_OF_TRACE\n",
            BASE64.encode(TRACE)
        )
    } else {
        String::new()
    };
    let noted = match (launch.traced, launch.run_as) {
        (false, _) => String::new(),
        (true, RunAs::User(_)) => {
            format!("{sudo}sed 's/^/{word} at /' \"$d/in/at\" 2>/dev/null 1>&4\n")
        }
        (true, _) => format!(
            "[ ! -e \"$d/in/at\" ] || {sudo}sed 's/^/{word} at /' \"$d/in/at\" 2>/dev/null 1>&4\n"
        ),
    };
    // timeout(1) ends with 124 when the time is up.
    let wait = match launch.timeout {
        None => String::new(),
        Some(limit) => format!("timeout {} ", seconds(limit)),
    };
    let arguments: String = launch
        .args
        .iter()
        .map(|word| format!(" {}", shell_quote(word)))
        .collect();
    // The shell reads the whole function before it runs it, so that nothing else reads the program from
    // standard input. The shell's own message about a killed child is discarded.
    format!(
        "{AFTER_EARLIER_ONES}\
         stead_run() {{\n\
         umask 077\n\
         d=$(mktemp -d /tmp/stead.XXXXXXXX) || exit 1\n\
         trap '{remove}' EXIT\n\
         mkdir \"$d/in\" && chmod 711 \"$d\" || exit 1\n\
         after_earlier_ones {word} || {{ echo '{word} busy' >&2; exit 1; }}\n\
         base64 -d >\"$d/in/run\" <<'END_OF_RUN' || exit 1\n{run}\nEND_OF_RUN\n\
         base64 -d >\"$d/in/\"{file} <<'END_OF_SCRIPT' || exit 1\n{script}\nEND_OF_SCRIPT\n\
         {trace}\
         {own}\
         exec 3<&0 4>&2 </dev/null\n\
         (\n\
         {wait}cat <&3 >/dev/null\n\
         [ $? != 124 ] || : >\"$d/late\"\n\
         : >\"$d/ending\"\n\
         until [ -s \"$d/pid\" ]; do [ -d \"$d\" ] || exit; sleep 0.1; done\n\
         read -r pid <\"$d/pid\"\n\
         if [ \"$(id -u)\" != 0 ] && sudo -n true; then s='sudo -n'; else s=; fi\n\
         $s sh -c '{END_SCRIPT}' sh \"$pid\"\n\
         ) >/dev/null 2>&1 4>&- &\n\
         w=$!\n\
         starts='echo $$ >\"$0/pid\"; exec setsid \"$@\" 2>&4 3<&- 4>&-'\n\
         waits='sh -c \"$@\"; exit $?'\n\
         sh -c \"$waits\" sh \"$starts\" \"$d\" {sudo}sh -c '. \"$0/run\"' \"$d/in\"{arguments} 2>/dev/null\n\
         s=$?\n\
         trap '' PIPE\n\
         if [ -e \"$d/ending\" ]; then wait \"$w\"; else kill \"$w\"; fi 2>/dev/null\n\
         [ ! -e \"$d/late\" ] || echo '{word} late' >&2\n\
         {noted}\
         echo \"{word} ended $s\" >&2\n\
         exit \"$s\"\n\
         }}\n\
         stead_run\n",
        run = BASE64.encode(inner(launch)),
        script = BASE64.encode(launch.script),
    )
}

/// Returns what the script's user sources: it sets the environment and the working folder, and runs the
/// script in place of the shell.
fn inner(launch: &Launch<'_>) -> String {
    let word = launch.word;
    let mut text = String::new();
    for (key, value) in launch.env {
        text.push_str(&format!("export {key}={}\n", single_quoted(value)));
    }
    if launch.traced {
        text.push_str("export BASH_ENV=\"$0/trace\"\n");
    }
    text.push_str("umask 022\n");
    text.push_str(&match launch.workdir {
        // The user's home may not exist.
        None => "cd 2>/dev/null || cd /\n".to_string(),
        Some(folder) => format!(
            "cd {} 2>/dev/null || {{ echo '{word} no-workdir' >&2; exit 1; }}\n",
            single_quoted(folder)
        ),
    });
    let program = launch.interpreter.first().map_or("sh", String::as_str);
    let words: Vec<String> = launch
        .interpreter
        .iter()
        .map(|word| single_quoted(word))
        .collect();
    text.push_str(&format!(
        "command -v {} >/dev/null 2>&1 || {{ echo '{word} no-interpreter' >&2; exit 127; }}\n\
         echo \"{word} started $0\" >&2\n\
         exec {} \"$0\"/{} \"$@\"\n",
        single_quoted(program),
        words.join(" "),
        single_quoted(launch.file),
    ));
    text
}

/// Formats a duration for timeout(1).
fn seconds(limit: Duration) -> String {
    match limit.subsec_millis() {
        0 => limit.as_secs().to_string(),
        ms => format!("{}.{ms:03}", limit.as_secs()),
    }
}

fn single_quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', "'\\''"))
}
