//! Follows the output of ansible-playbook, to find out which task failed on which machine.

/// Messages of a module in a guest without Python, or with only a part of it (Debian's python3-minimal
/// has no shutil).
const NO_PYTHON: [&str; 4] = [
    "No module named 'shutil'",
    "/usr/bin/python: not found",
    "python3: not found",
    "/usr/bin/python: No such file or directory",
];

/// Follows the lines of Ansible's default output.
#[derive(Debug, Default)]
pub struct Watch {
    task: Option<String>,
    failed: Option<Failure>,
    /// Whether the guest has no Python that Ansible can use.
    no_python: bool,
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
        if line == "...ignoring" {
            self.failed = None;
        } else if let Some(rest) = line.strip_prefix("fatal: [") {
            if let Some((host, said)) = rest.split_once("]: ") {
                self.no_python |= NO_PYTHON.iter().any(|sign| said.contains(sign));
                self.failed = Some(Failure {
                    // A delegated task has `web -> localhost`.
                    host: host.split(" -> ").next().unwrap_or(host).to_string(),
                    task: self.task.clone(),
                    unreachable: said.starts_with("UNREACHABLE!"),
                });
            }
        } else if line.starts_with("ERROR! ") || line.starts_with("[ERROR]: ") {
            let said = line
                .trim_start_matches("ERROR! ")
                .trim_start_matches("[ERROR]: ");
            self.error = Some(said.to_string());
        }
    }

    /// The last task that failed, unless its failure was ignored.
    pub fn failed(&self) -> Option<&Failure> {
        self.failed.as_ref()
    }

    pub fn lacks_python(&self) -> bool {
        self.no_python
    }

    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
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
        assert!(watch.lacks_python());
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
