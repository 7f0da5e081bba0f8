//! Jobs: commands in a guest that go on when their caller has gone. All that is known of them is in the guest, and what
//! it says of them is data.

use std::{ffi::OsString, fmt, io, str::FromStr};

use jiff::Timestamp;

use crate::host::{digest::nonce, shell::shell_quote};

use super::{
    ending::END_SCRIPT,
    exec::{UserCommand, code_of_guest},
};

/// provisioners/guest/stead-job.
const JOB_SCRIPT: &str = include_str!("../../provisioners/guest/stead-job");

/// The exit code of the script that prints a job's output if there is no such job.
pub const NO_SUCH_JOB: u8 = 3;

/// A name has as many characters: 32 random bits. A guest has at most some dozens of jobs, and refuses a name twice.
const NAME_LENGTH: usize = 8;

/// More of a command's words is not kept, in bytes.
const MOST_OF_WORDS: usize = 4 << 10;

/// A guest keeps 20 ended jobs. More than so many are not shown.
const MOST_JOBS: usize = 1000;

/// The name of a job: one word, for commands and for a file's name in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobName(String);

impl JobName {
    /// A new name, which nobody can guess.
    ///
    /// # Errors
    /// If the kernel has no random bytes.
    pub fn random() -> io::Result<Self> {
        let mut name = nonce()?;
        name.truncate(NAME_LENGTH);
        Ok(JobName(name))
    }
}

impl FromStr for JobName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = text.len() == NAME_LENGTH
            && (text.bytes()).all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it));
        match is_name {
            true => Ok(JobName(text.to_string())),
            false => Err(format!("expected {NAME_LENGTH} characters of 0-9 and a-f")),
        }
    }
}

impl fmt::Display for JobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is asked of the guest.
#[derive(Clone, Copy, Debug)]
pub enum JobOrder<'a> {
    List,
    /// Start a program with its arguments.
    Start(&'a [OsString]),
    /// Say how it ends, once it does.
    Wait,
    /// Print its output; `follow`: until it ends.
    Logs {
        follow: bool,
    },
    Stop,
    /// Remove what is known of it.
    Remove,
}

/// Returns the script that does it. All but a list is about the job of that name.
pub fn job_script(name: Option<&JobName>, order: JobOrder<'_>) -> String {
    let mut script = format!(
        "stead_job={}\n",
        name.map_or_else(String::new, ToString::to_string)
    );
    let words = match order {
        JobOrder::List => "list".to_string(),
        JobOrder::Wait => "wait".to_string(),
        JobOrder::Remove => "remove".to_string(),
        JobOrder::Logs { follow: false } => "logs".to_string(),
        JobOrder::Logs { follow: true } => "logs follow".to_string(),
        JobOrder::Stop => {
            script.push_str(&format!("stead_end={}\n", shell_quote(END_SCRIPT)));
            "stop".to_string()
        }
        JobOrder::Start(words) => {
            let shown = serde_json::Value::from(kept(words)).to_string();
            script.push_str(&format!("stead_shown={}\n", shell_quote(&shown)));
            format!("start {}", UserCommand::Words(words).words())
        }
    };
    format!("{script}set -- {words}\n{JOB_SCRIPT}")
}

/// Returns as much of a command as is kept to be shown.
fn kept(words: &[OsString]) -> Vec<String> {
    let mut room = MOST_OF_WORDS;
    let mut kept = Vec::new();
    for word in words.iter().map(|word| word.to_string_lossy()) {
        if word.len() > room {
            let end = (0..=room).rev().find(|end| word.is_char_boundary(*end));
            kept.push(format!("{}…", &word[..end.unwrap_or(0)]));
            break;
        }
        room -= word.len();
        kept.push(word.into_owned());
    }
    kept
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    Running,
    /// It has ended, with this exit code.
    Exited(u8),
    /// The guest shut down or crashed before it ended.
    Rebooted,
    /// Who would have noted its end was killed.
    Lost,
}

impl JobState {
    /// Reads a state and an exit code.
    fn parse(state: &str, code: &str) -> Option<Self> {
        Some(match state {
            "running" => JobState::Running,
            "exited" => JobState::Exited(code_of_guest(code)),
            "rebooted" => JobState::Rebooted,
            "lost" => JobState::Lost,
            _ => return None,
        })
    }
}

/// A job, as the guest tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub name: JobName,
    pub state: JobState,
    /// By the guest's clock.
    pub began: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    /// How much of its output is kept.
    pub output_bytes: u64,
    pub command: Vec<String>,
}

impl Job {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(7, ' ');
        let mut word = || words.next();
        let name = word()?.parse().ok()?;
        let state = word()?;
        let state = JobState::parse(state, word()?)?;
        let time = |text: &str| Timestamp::from_second(text.parse().ok()?).ok();
        Some(Job {
            name,
            state,
            began: time(word()?),
            ended: time(word()?),
            output_bytes: word()?.parse().ok()?,
            command: word()
                .and_then(|text| serde_json::from_str(text).ok())
                .unwrap_or_default(),
        })
    }
}

/// Reads a guest's list of jobs, the oldest first. What is not one is left out.
pub fn parse_jobs(said: &str) -> Vec<Job> {
    let mut jobs: Vec<Job> = said
        .lines()
        .filter_map(Job::parse)
        .take(MOST_JOBS)
        .collect();
    jobs.sort_by_key(|job| job.began);
    jobs
}

/// How a job was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Missing,
    Is(JobState),
    Started,
    /// There is no such program.
    NoCommand,
    /// Another job has the name.
    Taken,
    Removed,
    /// How it was, and how it is now that it was to be stopped.
    Stopped(JobState, JobState),
}

/// Reads the last line of what the script answers.
pub fn parse_answer(said: &str) -> Option<Answer> {
    let words: Vec<&str> = said.lines().last()?.split(' ').collect();
    Some(match words.as_slice() {
        ["missing"] => Answer::Missing,
        ["started"] => Answer::Started,
        ["no-command"] => Answer::NoCommand,
        ["taken"] => Answer::Taken,
        ["removed"] => Answer::Removed,
        [state] => Answer::Is(JobState::parse(state, "")?),
        [state, code] => Answer::Is(JobState::parse(state, code)?),
        [was, is, code] => Answer::Stopped(JobState::parse(was, code)?, JobState::parse(is, code)?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        os::unix::process::CommandExt,
        path::Path,
        process::{Command, Stdio},
        thread,
        time::Duration,
    };

    use super::*;

    /// What the script says in a guest of this host with this home, in a session of its own as sshd gives one.
    fn said(home: &Path, name: &JobName, order: JobOrder<'_>) -> String {
        let mut command = Command::new("sh");
        command
            .env("HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        #[expect(unsafe_code, reason = "a system call between fork and exec")]
        // SAFETY: setsid(2) is safe after fork(2).
        unsafe {
            command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
        }
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input
            .write_all(job_script(Some(name), order).as_bytes())
            .unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
    }

    fn words(script: &str) -> Vec<OsString> {
        ["sh", "-c", script].map(OsString::from).to_vec()
    }

    fn start(home: &Path, script: &str) -> JobName {
        let name = JobName::random().unwrap();
        let answer = said(home, &name, JobOrder::Start(&words(script)));
        assert_eq!(parse_answer(&answer), Some(Answer::Started), "{answer}");
        name
    }

    #[test]
    fn a_job_is_found_again_with_its_output_and_its_end() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let script = "echo \"it's\"; echo bad >&2; until [ -e ~/go ]; do sleep 0.05; done; echo late; exit 7";
        let name = start(home, script);
        let list = || parse_jobs(&said(home, &name, JobOrder::List));
        assert_eq!(list()[0].state, JobState::Running);
        assert_eq!(list()[0].command, ["sh", "-c", script]);
        let answer = said(home, &name, JobOrder::Remove);
        assert_eq!(parse_answer(&answer), Some(Answer::Is(JobState::Running)));
        fs::write(home.join("go"), "").unwrap();
        let whole = "it's\nbad\nlate\n";
        assert_eq!(said(home, &name, JobOrder::Logs { follow: true }), whole);
        let answer = said(home, &name, JobOrder::Wait);
        assert_eq!(parse_answer(&answer), Some(Answer::Is(JobState::Exited(7))));
        assert_eq!(said(home, &name, JobOrder::Logs { follow: false }), whole);
        let job = &list()[0];
        assert_eq!((job.state, job.output_bytes), (JobState::Exited(7), 14));
        assert!(job.began <= job.ended);
        // Of an earlier boot, whether its end was noted or not.
        let folder = home.join(".local/state/stead/jobs").join(name.to_string());
        fs::write(folder.join("job"), "another-boot 1 1 1700000000\n").unwrap();
        assert_eq!(list()[0].state, JobState::Exited(7));
        fs::remove_file(folder.join("end")).unwrap();
        assert_eq!(list()[0].state, JobState::Rebooted);
        let answer = said(home, &name, JobOrder::Remove);
        assert_eq!(parse_answer(&answer), Some(Answer::Removed));
        assert_eq!(list(), []);
        let answer = said(home, &name, JobOrder::Wait);
        assert_eq!(parse_answer(&answer), Some(Answer::Missing));
    }

    #[test]
    fn a_job_ends_with_all_that_it_has_started() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let started = "setsid sleep 1000 & echo $!; sleep 1000 & echo $!;";
        for (script, code) in [
            (format!("{started} wait"), 143),
            (format!("trap 'exit 3' TERM; {started} wait"), 3),
            (
                format!("trap '' TERM; {started} sleep 1000; sleep 1000"),
                137,
            ),
        ] {
            let name = start(home, &script);
            let printed = || said(home, &name, JobOrder::Logs { follow: false });
            while printed().lines().count() < 2 {
                thread::sleep(Duration::from_millis(20));
            }
            let answer = said(home, &name, JobOrder::Stop);
            let ended = JobState::Exited(code);
            assert_eq!(
                parse_answer(&answer),
                Some(Answer::Stopped(JobState::Running, ended)),
                "{script}"
            );
            for pid in printed().lines() {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                assert!(stat.is_empty() || stat.contains(") Z "), "{script}: {stat}");
            }
            let answer = said(home, &name, JobOrder::Stop);
            assert_eq!(parse_answer(&answer), Some(Answer::Stopped(ended, ended)));
        }
    }

    #[test]
    fn what_jobs_leave_is_bounded() {
        let home = tempfile::tempdir().unwrap();
        let home = home.path();
        let name = start(home, "yes | head -c 30000000; echo end");
        said(home, &name, JobOrder::Wait);
        let printed = said(home, &name, JobOrder::Logs { follow: false });
        assert!(printed.contains("y\ny\nend\n"));
        assert!(
            (2 << 20..8 << 20).contains(&printed.len()),
            "{}",
            printed.len()
        );
        assert!(printed.contains("note: what it printed before is not kept\n"));
        let folder = home.join(".local/state/stead/jobs");
        let remains = folder.join(".new.an-earlier-boot.1");
        fs::create_dir(&remains).unwrap();
        for n in 0..25 {
            let old = folder.join(format!("{n:08}"));
            fs::create_dir(&old).unwrap();
            fs::write(old.join("job"), format!("an-earlier-boot 1 1 {n}\n")).unwrap();
            fs::write(old.join("end"), "  0 1\n").unwrap();
        }
        let last = start(home, "sleep 1000");
        let kept = parse_jobs(&said(home, &name, JobOrder::List));
        assert_eq!(kept.len(), 20);
        assert_eq!(kept[0].name.to_string(), "00000007");
        assert!(!remains.exists() && kept.iter().any(|job| job.name == last));
        said(home, &last, JobOrder::Stop);
    }

    #[test]
    fn a_job_that_cannot_be_started_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let name = JobName::random().unwrap();
        let nothing = ["no-such-command".into()];
        let answer = said(home.path(), &name, JobOrder::Start(&nothing));
        assert_eq!(answer, "no-command\nno-such-command: command not found\n");
        assert!(!home.path().join(".local").exists());
        fs::write(home.path().join(".local"), "").unwrap();
        let answer = said(home.path(), &name, JobOrder::Start(&words("true")));
        assert!(answer.starts_with("mkdir: "), "{answer}");
        fs::remove_file(home.path().join(".local")).unwrap();
        let name = start(home.path(), "true");
        let answer = said(home.path(), &name, JobOrder::Start(&words("true")));
        assert_eq!(parse_answer(&answer), Some(Answer::Taken));
    }

    #[test]
    fn what_a_guest_says_of_jobs_is_checked() {
        for line in [
            "",
            "../x exited 0 1 2 3 []",
            "0123abcd gone 0 1 2 3 []",
            "0123abcd exited 0 1 2 -3 []",
        ] {
            assert_eq!(parse_jobs(line), [], "{line}");
        }
        let jobs = parse_jobs("0123abcd exited 255 x 99999999999999 3 {\"a\": 1}\nx");
        assert_eq!(jobs.len(), 1);
        assert_eq!(jobs[0].state, JobState::Exited(254));
        assert_eq!((jobs[0].began, jobs[0].ended), (None, None));
        assert!(jobs[0].command.is_empty());
        assert_eq!(
            parse_answer("Welcome\nrunning\nexited 300\n"),
            Some(Answer::Is(JobState::Exited(254)))
        );
        assert_eq!(parse_answer("exited 0 0 0"), None);
        let long = kept(&["é".repeat(MOST_OF_WORDS).into(), "more".into()]);
        assert_eq!((long.len(), long[0].len()), (1, MOST_OF_WORDS + 3));
        assert!("0123ABCD".parse::<JobName>().is_err());
    }
}
