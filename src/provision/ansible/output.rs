//! Follows the output of ansible-playbook, to find out which task failed on which machine.

/// Messages of a module in a guest without Python, or with only a part of it (Debian's python3-minimal
/// has no shutil).
const NO_PYTHON: [&str; 4] = [
    "No module named 'shutil'",
    "/usr/bin/python: not found",
    "python3: not found",
    "/usr/bin/python: No such file or directory",
];

/// Messages about a Python that is too old: Ansible's own (ansible/module_utils/basic.py), and those of a Python that
/// cannot read the module at all.
const OLD_PYTHON: [[&str; 2]; 3] = [
    ["ansible-core requires a minimum of Python", ""],
    ["SyntaxError", "AnsiballZ_"],
    ["SyntaxError", "module_utils"],
];

/// A warning of Ansible, which reads what the login shell prints by itself as an answer
/// (ansible/executor/interpreter_discovery.py).
const NOISE: &str = "unexpected output from Python interpreter discovery";

/// What keeps Ansible from working in a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// There is no Python that Ansible can use, or only a part of it.
    Python,
    NewerPython,
    /// Login files print something.
    Silence,
}

/// Follows the lines of Ansible's output, as the callbacks `default` and `minimal` have it.
#[derive(Debug, Default)]
pub struct Watch {
    task: Option<String>,
    failed: Option<Failure>,
    lacks: Option<Lack>,
    is_noisy: bool,
    /// Whether the lines are those of a failure.
    fails: bool,
    /// The last `ERROR!` or `[ERROR]:` line.
    error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub host: String,
    /// `None` before the first task.
    pub task: Option<String>,
    pub unreachable: bool,
}

impl Watch {
    pub fn line(&mut self, line: &str) {
        let plain = without_colours(line);
        let line = plain.trim_end();
        for start in ["TASK [", "RUNNING HANDLER [", "PLAY ["] {
            if let Some((name, _)) = line.strip_prefix(start).and_then(|it| it.rsplit_once(']')) {
                self.task = (start != "PLAY [").then(|| name.to_string());
                return;
            }
        }
        self.is_noisy |= line.contains(NOISE);
        self.fails &= !line.is_empty();
        if line == "...ignoring" {
            self.failed = None;
        } else if let Some((host, said)) = failure(line) {
            self.fails = true;
            self.failed = Some(Failure {
                // A delegated task has `web -> localhost`.
                host: host.split(" -> ").next().unwrap_or(host).to_string(),
                task: self.task.clone(),
                unreachable: said.starts_with("UNREACHABLE!"),
            });
        } else if line.starts_with("ERROR! ") || line.starts_with("[ERROR]: ") {
            let said = line
                .trim_start_matches("ERROR! ")
                .trim_start_matches("[ERROR]: ");
            self.error = Some(said.to_string());
        }
        if self.fails {
            let has = |sign: &&str| line.contains(*sign);
            if OLD_PYTHON.iter().any(|signs| signs.iter().all(has)) {
                self.lacks = Some(Lack::NewerPython);
            } else if NO_PYTHON.iter().any(has) {
                self.lacks = Some(Lack::Python);
            }
        }
    }

    /// The last task that failed, unless its failure was ignored.
    pub fn failed(&self) -> Option<&Failure> {
        self.failed.as_ref()
    }

    /// What the guest of the failed task lacks, if that is why.
    pub fn lacks(&self) -> Option<Lack> {
        match self.lacks {
            // Ansible looks for another Python after the warning.
            Some(Lack::Python) if self.is_noisy => Some(Lack::Silence),
            lacks => lacks,
        }
    }

    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

/// Returns the host of a failure and its message, if the line begins one: `fatal: [web]: FAILED! => …`, or of the callback
/// `minimal`, `web | FAILED! => …` or `web | FAILED | rc=1 >>`.
fn failure(line: &str) -> Option<(&str, &str)> {
    if let Some(rest) = line.strip_prefix("fatal: [") {
        return rest.split_once("]: ");
    }
    let (host, said) = line.split_once(" | ")?;
    let fails = ["FAILED! => ", "FAILED | rc=", "UNREACHABLE! => "];
    let is_host = !host.is_empty() && !host.contains(char::is_whitespace);
    (is_host && fails.iter().any(|start| said.starts_with(start))).then_some((host, said))
}

/// Returns the text without colour codes (ECMA-48 CSI … m).
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("\u{1b}[") {
        plain.push_str(&rest[..at]);
        let code = &rest[at + 2..];
        match code.find(|c: char| c.is_ascii_alphabetic()) {
            Some(end) => rest = &code[end + 1..],
            None => rest = "",
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(lines: &[&str]) -> Watch {
        let mut watch = Watch::default();
        for line in lines {
            watch.line(line);
        }
        watch
    }

    #[test]
    fn the_task_that_failed_is_named() {
        let watch = watched(&[
            "PLAY [all] *****",
            "TASK [web : install nginx] *****",
            "\u{1b}[0;31mfatal: [web-1]: FAILED! => {\"changed\": false}\u{1b}[0m",
            "",
            "PLAY RECAP ***",
        ]);
        let failed = watch.failed().unwrap();
        assert_eq!(failed.host, "web-1");
        assert_eq!(failed.task.as_deref(), Some("web : install nginx"));
        assert!(!failed.unreachable);
    }

    #[test]
    fn one_that_is_ignored_is_none() {
        let watch = watched(&["TASK [a]", "fatal: [web]: FAILED! => {}", "...ignoring"]);
        assert!(watch.failed().is_none());
    }

    #[test]
    fn a_guest_without_python_is_recognised() {
        let watch = watched(&[
            "fatal: [web]: FAILED! => {\"module_stderr\": \"ModuleNotFoundError: No module named 'shutil'\"}",
        ]);
        assert_eq!(watch.lacks(), Some(Lack::Python));
        // As the setting `result_format = yaml` prints it.
        let watch = watched(&[
            "fatal: [web]: FAILED! => ",
            "    module_stderr: '/bin/sh: 1: /usr/bin/python3: not found'",
        ]);
        assert_eq!(watch.lacks(), Some(Lack::Python));
        // A command's own words.
        let watch = watched(&[
            "ok: [web] => {\"msg\": \"python3: not found\"}",
            "",
            "fatal: [web]: FAILED! => {\"msg\": \"no\"}",
        ]);
        assert_eq!(watch.lacks(), None);
    }

    #[test]
    fn what_login_files_print_is_not_taken_for_a_lack_of_python() {
        let watch = watched(&[
            "[WARNING]: Unhandled error in Python interpreter discovery for host web:",
            "unexpected output from Python interpreter discovery",
            "fatal: [web]: FAILED! => {\"msg\": \"/bin/sh: 1: /usr/bin/python: not found\"}",
        ]);
        assert_eq!(watch.lacks(), Some(Lack::Silence));
    }

    /// From ansible-core 2.16 and 2.19 over Python 2.6 and 3.7.
    #[test]
    fn a_python_that_is_too_old_is_recognised() {
        for said in [
            "{\"msg\": \"ansible-core requires a minimum of Python2 version 2.7 or Python3 version 3.6. Current version: 2.6\"}",
            "{\"module_stderr\": \"File \\\"/tmp/ansible_stat_payload.zip/ansible/module_utils/_internal/__init__.py\\\", line 50 SyntaxError: invalid syntax\"}",
        ] {
            let watch = watched(&[&format!("fatal: [web]: FAILED! => {said}")]);
            assert_eq!(watch.lacks(), Some(Lack::NewerPython), "{said}");
        }
    }

    #[test]
    fn the_callback_minimal_is_understood() {
        let watch = watched(&[
            "web-1 | SUCCESS => {",
            "web-2 | FAILED! => {",
            "    \"msg\": \"no\"",
        ]);
        assert_eq!(watch.failed().unwrap().host, "web-2");
        let watch = watched(&["web-1 | FAILED | rc=1 >>", "non-zero return code"]);
        assert_eq!(watch.failed().unwrap().host, "web-1");
        let watch = watched(&["a table | FAILED! => x"]);
        assert!(watch.failed().is_none());
    }

    #[test]
    fn errors_of_ansible_itself_and_hosts_out_of_reach() {
        let watch = watched(&["ERROR! Decryption failed (no vault secrets were found)"]);
        assert!(watch.error().unwrap().starts_with("Decryption failed"));
        let watch = watched(&[
            "TASK [Gathering Facts]",
            "fatal: [db -> web]: UNREACHABLE! => {}",
        ]);
        assert!(watch.failed().unwrap().unreachable);
        assert_eq!(watch.failed().unwrap().host, "db");
    }
}
