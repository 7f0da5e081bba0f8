//! Gets past the login shell of a guest. It may be any program, and its files may print, read standard input, or start
//! another shell, so it reads nothing of stead's other than [`LOGIN`], and nothing of a script is sent before the `sh` that
//! this starts has answered. What is printed before that answer is the login's.

use std::time::Duration;

use memchr::memmem;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::Child,
    sync::Notify,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::host::{digest::nonce, shell::shell_quote};

use super::{
    error::GuestError,
    output::{LINGER, Output},
};

/// The command for the login shell.
pub(super) const LOGIN: &str = "exec sh";

/// How long the answer to the first call is waited for before the next call, and to each further one at most twice as
/// long as to that before it. A login file may have read a call; but a guest may also be slow, and must get to answer the
/// last one.
const AGAIN: Duration = Duration::from_secs(2);
const LONGEST_AGAIN: Duration = Duration::from_secs(16);

/// How long there may be no answer once ssh is connected.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the answer on stderr is waited for after that on stdout: a login file may have closed it.
const LATE: Duration = Duration::from_secs(5);

/// A login prints less than this, in bytes, on each stream.
const MOST_PRINTED: usize = 256 << 10;

/// A script, and a mark which nobody can guess.
pub(super) struct Opening {
    mark: String,
    script: String,
}

impl Opening {
    pub(super) fn new(script: &str) -> Result<Self, GuestError> {
        let nonce = nonce().map_err(GuestError::file("read", "/dev/urandom"))?;
        Ok(Opening {
            mark: format!("stead-{nonce}"),
            script: script.to_string(),
        })
    }

    /// Returns the nth line, which `sh` answers by the mark and the number, on both streams. Only `sh` itself answers the
    /// first one. The next ones make a `sh` of another shell that a login file has started, and do no harm to `sh`.
    fn call(&self, nth: u32) -> String {
        let answer = format!("echo {0}-{nth} >&2; echo {0}-{nth}", self.mark);
        match nth {
            1 => format!("[ \"$0\" = sh ] && {{ {answer}; }}\n"),
            _ => format!("exec sh -c '{answer}; exec sh'\n"),
        }
    }

    /// Returns what `sh` reads then. It is one command, of which a part does nothing. Some shells read ahead of the
    /// command that they run, so the script's own input may follow only once this is answered, by 0.
    fn command(&self) -> String {
        let Opening { mark, script } = self;
        let whole = format!("echo {mark}-0 >&2; echo {mark}-0\n{script}\nexit\n");
        format!("eval {}\n", shell_quote(&whole))
    }
}

/// What became of a login.
#[derive(Debug)]
pub(super) enum Begun {
    /// The script runs. What it prints is all that can still be read. Before it, the login has printed this.
    Runs { printed: String },
    /// It does not run: ssh failed, or the login shell.
    Not(Output),
}

/// Why there is no answer.
enum Silence {
    /// The login prints more than any login does.
    TooMuch,
    /// This is what is wrong with it.
    Wrong(String),
    /// The stream has ended.
    Over,
}

/// Starts the script in the `ssh` that runs [`LOGIN`] with pipes for its three streams. They are as for the script alone
/// after that. `is_connected` says whether the guest has let ssh in.
///
/// # Errors
/// If the login prints more than any login does, or the end of ssh cannot be waited for.
pub(super) async fn begin(
    machine: &str,
    child: &mut Child,
    opening: &Opening,
    is_connected: impl Fn() -> bool,
) -> Result<Begun, GuestError> {
    let (mut input, mut out, mut err) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (mut printed, mut said) = (Vec::new(), Vec::new());
    let runs = Notify::new();
    let work = async {
        let ask = async {
            call(opening, &mut input, &mut out, &mut printed, is_connected).await?;
            send(&mut input, &opening.command()).await;
            while next_answer(&mut out, &opening.mark, &mut printed).await? > 0 {}
            runs.notify_one();
            Ok(())
        };
        let listen = async {
            let late = async {
                runs.notified().await;
                sleep(LATE).await;
            };
            let answers = async {
                loop {
                    match next_answer(&mut err, &opening.mark, &mut said).await {
                        Ok(0) | Err(Silence::Over) => return Ok(()),
                        Ok(_) => {}
                        Err(silence) => return Err(silence),
                    }
                }
            };
            tokio::select! {
                seen = answers => seen,
                () = late => Ok(()),
            }
        };
        tokio::try_join!(ask, listen)
    };
    let seen = {
        tokio::pin!(work);
        tokio::select! {
            seen = &mut work => seen.map(drop),
            status = child.wait() => {
                status.map_err(GuestError::ssh)?;
                // Answers may be in the pipes. A ControlMaster that this ssh left behind keeps its stderr open.
                timeout(LINGER, work).await.map_or(Err(Silence::Over), |seen| seen.map(drop))
            }
        }
    };
    match seen {
        Ok(()) => {
            (child.stdin, child.stdout, child.stderr) = (input, out, err);
            return Ok(Begun::Runs {
                printed: text(&printed),
            });
        }
        Err(Silence::TooMuch) => {
            return Err(GuestError::TooMuch {
                machine: machine.to_string(),
                limit: MOST_PRINTED as u64,
            });
        }
        Err(Silence::Wrong(why)) => {
            // Behind what it has said so far.
            if !said.is_empty() {
                said.push(b'\n');
            }
            said.extend_from_slice(why.as_bytes());
            let _ = child.start_kill();
        }
        Err(Silence::Over) => {
            // One stream may have ended before the other was read.
            let rest = async {
                tokio::join!(rest(&mut out, &mut printed), rest(&mut err, &mut said));
            };
            let _ = timeout(LINGER, rest).await;
        }
    }
    drop((input, out, err));
    Ok(Begun::Not(Output {
        status: child.wait().await.map_err(GuestError::ssh)?,
        stdout: text(&printed),
        stderr: text(&said),
    }))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\r', "")
}

async fn rest(pipe: &mut Option<impl AsyncRead + Unpin>, before: &mut Vec<u8>) {
    if let Some(pipe) = pipe {
        let room = MOST_PRINTED.saturating_sub(before.len());
        let mut pipe = pipe.take(u64::try_from(room).unwrap_or(0));
        let _ = pipe.read_to_end(before).await;
    }
}

async fn send(input: &mut Option<impl AsyncWriteExt + Unpin>, text: &str) {
    if let Some(input) = input {
        // A login that fails closes the pipe early; ssh's output shows why.
        let _ = input.write_all(text.as_bytes()).await;
        let _ = input.flush().await;
    }
}

/// Calls until the last call is answered. What has been sent before it was read by then.
async fn call(
    opening: &Opening,
    input: &mut Option<impl AsyncWriteExt + Unpin>,
    out: &mut Option<impl AsyncRead + Unpin>,
    printed: &mut Vec<u8>,
    is_connected: impl Fn() -> bool,
) -> Result<(), Silence> {
    let mut since = Instant::now();
    let mut nth = 0;
    let mut pause = AGAIN;
    loop {
        nth += 1;
        send(input, &opening.call(nth)).await;
        let next = Instant::now() + pause;
        // An earlier call's answer shows that it reads by now.
        while let Ok(answer) = timeout_at(next, next_answer(out, &opening.mark, printed)).await {
            if answer? == nth {
                return Ok(());
            }
            since = Instant::now();
        }
        if !is_connected() {
            since = Instant::now();
        } else if since.elapsed() > PATIENCE {
            return Err(Silence::Wrong(format!(
                "no `sh` answers within {}: a login file reads standard input, or starts another program",
                crate::report::elapsed(PATIENCE)
            )));
        }
        pause = (pause * 2).min(LONGEST_AGAIN);
    }
}

/// Reads up to the next answer and not a byte further, because others read on. Returns its number. `before` gets what is
/// before it, and may have the start of it from a read that was broken off.
async fn next_answer(
    pipe: &mut Option<impl AsyncRead + Unpin>,
    mark: &str,
    before: &mut Vec<u8>,
) -> Result<u32, Silence> {
    let Some(pipe) = pipe else {
        return Err(Silence::Over);
    };
    while before.len() < MOST_PRINTED {
        let byte = pipe.read_u8().await.map_err(|_| Silence::Over)?;
        before.push(byte);
        if byte == b'\n'
            && let Some(at) = memmem::rfind(before, mark.as_bytes())
            && let Some(nth) = before[at + mark.len()..].strip_prefix(b"-")
        {
            let nth = String::from_utf8_lossy(nth);
            if let Some(nth) = nth.strip_suffix('\n').and_then(|nth| nth.parse().ok()) {
                before.truncate(at);
                return Ok(nth);
            }
            if nth.ends_with("\r\n") && nth.trim_end().parse::<u32>().is_ok() {
                return Err(Silence::Wrong(
                    "a login file starts a program that makes a terminal, such as script or tmux"
                        .into(),
                ));
            }
        }
    }
    Err(Silence::TooMuch)
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::process::Command;

    use super::*;

    /// A guest of this host, whose login runs `before`.
    fn login(before: &str) -> Child {
        Command::new("sh")
            .args(["-c", &format!("{before}\n{LOGIN}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    #[tokio::test]
    async fn what_a_login_prints_is_not_the_scripts() {
        let noise = "echo Welcome; printf 'no end'; printf 'warning' >&2";
        let mut child = login(noise);
        let opening = Opening::new("echo \"it's\"; cat; echo bad >&2; false").unwrap();
        let begun = begin("web", &mut child, &opening, || true).await.unwrap();
        assert!(matches!(begun, Begun::Runs { printed } if printed == "Welcome\nno end"));
        // Input that follows is the script's, whichever shell reads ahead.
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"exit 7\n").await.unwrap();
        drop(input);
        let output = child.wait_with_output().await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(&output.stdout), "it's\nexit 7\n");
        assert_eq!(text(&output.stderr), "bad\n");
        assert_eq!(output.status.code(), Some(1));
    }

    #[tokio::test]
    async fn a_login_that_fails_has_its_words() {
        let mut child = login("echo This account is not available; echo why >&2; exit 3");
        let opening = Opening::new("echo never").unwrap();
        let Begun::Not(output) = begin("web", &mut child, &opening, || true).await.unwrap() else {
            panic!("it runs");
        };
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(output.stdout, "This account is not available\n");
        assert_eq!(output.stderr, "why\n");
    }

    /// What a script says whose login runs `before`.
    async fn said(before: &str) -> Result<String, String> {
        let mut child = login(before);
        let opening = Opening::new("read -r line; echo \"$0 got $line\"").unwrap();
        match begin("web", &mut child, &opening, || true).await.unwrap() {
            Begun::Runs { .. } => {
                let mut input = child.stdin.take().unwrap();
                input.write_all(b"input\n").await.unwrap();
                let output = child.wait_with_output().await.unwrap();
                Ok(String::from_utf8(output.stdout).unwrap())
            }
            Begun::Not(output) => Err(output.stderr),
        }
    }

    #[tokio::test]
    async fn a_login_file_may_read_or_start_another_shell() {
        for before in [
            "read x",
            "read x; read y; echo $x$y",
            "sleep 5",
            "read x; sleep 5",
            "exec 2>&-",
            "exec zsh",
            "exec bash",
            "exec bash --noprofile -l",
        ] {
            assert_eq!(
                said(before).await.as_deref(),
                Ok("sh got input\n"),
                "{before}"
            );
        }
    }

    #[tokio::test]
    async fn a_login_file_that_makes_a_terminal_is_named() {
        let said = said("exec script -qc sh /dev/null").await.unwrap_err();
        assert!(said.contains("such as script or tmux"), "{said}");
    }

    #[tokio::test]
    async fn a_login_that_prints_for_ever_is_ended() {
        let mut child = login("yes");
        let opening = Opening::new("true").unwrap();
        let error = begin("web", &mut child, &opening, || true)
            .await
            .unwrap_err();
        assert!(matches!(error, GuestError::TooMuch { .. }), "{error}");
    }

    /// A script that has ended before its marks were read has run all the same.
    #[tokio::test]
    async fn a_script_may_be_quick() {
        let mut child = login("true");
        let opening = Opening::new("echo done").unwrap();
        let begun = begin("web", &mut child, &opening, || true).await.unwrap();
        assert!(matches!(begun, Begun::Runs { .. }));
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(output.stdout, b"done\n");
    }
}
