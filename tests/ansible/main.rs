//! Real runs of the host's Ansible, over this host itself: no machine is needed to see what goes
//! in, what is printed and what is left.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::undocumented_unsafe_blocks,
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test that cannot go on panics"
)]

use std::{
    collections::VecDeque,
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use stead::{
    guest::MachineFiles,
    host::{
        paths::DataDir,
        process::{Answers, Asked, Reply},
    },
    machinefile::{MACHINEFILE, Playbook, load},
    provision::{
        Asking, Inventory, Reach, Who,
        ansible::{HostRun, run_on_host},
    },
    report::{Event, EventKind, Report, Reporter},
};

/// What stead says where nobody is.
#[derive(Default)]
struct Notices(Mutex<Vec<String>>);

impl Report for Notices {
    fn event(&self, event: &Event) {
        if let EventKind::Notice { message } = &event.kind {
            self.0.lock().unwrap().push(message.clone());
        }
    }
}

/// Somebody who gives these answers in turn, and what was asked.
#[derive(Default)]
struct Typist {
    answers: Mutex<VecDeque<&'static str>>,
    asked: Mutex<Vec<String>>,
}

impl Answers for Typist {
    fn answer<'a>(&'a self, asked: &'a Asked) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        let hidden = if asked.is_hidden { " (hidden)" } else { "" };
        let words = format!("{}{hidden}", asked.words.trim());
        self.asked.lock().unwrap().push(words);
        let answer = self.answers.lock().unwrap().pop_front();
        Box::pin(async move {
            match answer {
                Some(answer) => Reply::Answer(answer.into()),
                None => Reply::Nobody(Box::new(asked.clone())),
            }
        })
    }
}

/// A project's folder, and where stead keeps its data.
struct Place {
    folder: tempfile::TempDir,
    inventory: serde_json::Value,
}

impl Place {
    /// `ansible` is what stands behind the playbook's path.
    fn new(ansible: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place {
            folder,
            inventory: json!({ "all": { "hosts": { "here": { "ansible_connection": "local" } } } }),
        };
        place.write(
            MACHINEFILE,
            &format!(
                "project \"p\"\nmachine \"here\" {{ box \"b\"; }}\nprovision \"site\" {{ ansible \"site.yml\" {ansible}; }}\n"
            ),
        );
        for (name, content) in files {
            place.write(name, content);
        }
        place
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn data(&self) -> DataDir {
        DataDir::at(self.folder.path().join("data"))
    }

    fn playbook(&self) -> Playbook {
        let project = load(&self.root().join(MACHINEFILE), &|_| None).unwrap();
        let provisioner = &project.provisioners[0].provisioner;
        provisioner.kind.playbook().unwrap().clone()
    }

    /// What it printed, and why it failed if it did.
    fn run(&self) -> (String, Option<String>) {
        self.run_until(async { tokio::time::sleep(LONG).await })
    }

    fn run_until(&self, given_up: impl Future<Output = ()>) -> (String, Option<String>) {
        let reporter: Reporter = Arc::new(Notices::default());
        let nobody = Asking {
            reporter: &reporter,
            who: Who::Machine("here"),
            by: "provisioner site (site.yml)".into(),
        };
        self.run_answered(&nobody, given_up)
    }

    /// What it printed, why it failed if it did, and what was asked.
    fn answered(&self, answers: &[&'static str]) -> (String, Option<String>, Vec<String>) {
        let typist = Typist {
            answers: Mutex::new(answers.iter().copied().collect()),
            ..Typist::default()
        };
        let given_up = async { tokio::time::sleep(LONG).await };
        let (out, error) = self.run_answered(&typist, given_up);
        (out, error, typist.asked.into_inner().unwrap())
    }

    fn run_answered(
        &self,
        answers: &dyn Answers,
        given_up: impl Future<Output = ()>,
    ) -> (String, Option<String>) {
        let playbook = self.playbook();
        let data = self.data();
        let run = HostRun {
            name: "site",
            playbook: &playbook,
            inventory: self.inventory.clone(),
            limit: Vec::new(),
            data: &data,
            answers,
            color: false,
            again: "stead provision --only site".into(),
            inspect: None,
        };
        let mut out = String::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let ended = runtime.block_on(async {
            let mut each = |_, line: &str| {
                out.push_str(line);
                out.push('\n');
            };
            tokio::select! {
                ended = run_on_host(&run, &mut each) => Some(ended),
                () = given_up => None,
            }
        });
        let error = match ended {
            Some(Ok(())) => None,
            Some(Err(error)) => {
                use miette::Diagnostic;
                let help = error.help().map(|help| help.to_string());
                Some(format!("{error}\n{}", help.unwrap_or_default()))
            }
            None => Some("given up".into()),
        };
        (out, error)
    }

    fn done(&self) -> String {
        let (out, error) = self.run();
        assert!(error.is_none(), "{}\n{out}", error.unwrap_or_default());
        out
    }

    #[track_caller]
    fn fails(&self, parts: &[&str]) {
        let (out, error) = self.run();
        let error = error.unwrap_or_else(|| panic!("it did not fail:\n{out}"));
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in:\n{error}\n{out}");
        }
        self.nothing_left();
    }

    fn nothing_left(&self) {
        let runs = self.data().ansible_runs();
        assert_eq!(fs::read_dir(runs).unwrap().count(), 0);
    }
}

const LONG: Duration = Duration::from_secs(300);

fn tasks(tasks: &str) -> String {
    format!("- hosts: all\n  gather_facts: false\n  tasks:\n{tasks}")
}

#[test]
fn variables_keep_types_and_are_in_no_argument() {
    let place = Place::new(
        "{ vars count=2 on=#true half=0.5 none=#null word=\"2\" token=\"s3cret 'x'\"; vars-file \"@more.yml\"; tags \"yes\"; arguments \"--diff\"; }",
        &[("more.yml", "count: 9\nlist: [1, 2]\n")],
    );
    place.write(
        "site.yml",
        &tasks(
            r#"    - ansible.builtin.assert:
        that:
          - count + 1 == 3
          - "on is sameas true"
          - half * 2 == 1
          - none is none
          - word is string
          - list | length == 2
          - token == "s3cret 'x'"
      tags: yes
    - ansible.builtin.command: cat /proc/{{ lookup('pipe', 'echo $PPID') }}/cmdline
      register: said
      tags: yes
    - ansible.builtin.debug:
        msg: "ARGUMENTS {{ said.stdout }}"
      tags: yes
    - ansible.builtin.fail:
      tags: no
"#,
        )
        .replace("tags: yes", "tags: 'yes'")
        .replace("tags: no", "tags: 'no'"),
    );
    let out = place.done();
    assert!(out.contains("ARGUMENTS") && out.contains("--diff"), "{out}");
    assert!(!out.contains("s3cret"), "{out}");
    place.nothing_left();
}

#[test]
fn a_configuration_above_and_its_roles_are_used() {
    let place = Place::new(
        "{ requirements \"requirements.yml\"; }",
        &[
            (
                "ansible.cfg",
                "[defaults]\nroles_path = vendor\nhost_key_checking = False\n",
            ),
            (
                "vendor/mine/tasks/main.yml",
                "- ansible.builtin.debug:\n    msg: FROM-VENDOR\n",
            ),
            (
                "requirements.yml",
                "collections:\n  - name: ./parts\n    type: dir\n",
            ),
            (
                "parts/galaxy.yml",
                "namespace: acme\nname: parts\nversion: 1.0.0\nreadme: README.md\nauthors: [a]\n",
            ),
            ("parts/README.md", "parts\n"),
            (
                "parts/roles/one/tasks/main.yml",
                "- ansible.builtin.debug:\n    msg: FROM-COLLECTION\n",
            ),
            (
                "site.yml",
                "- hosts: all\n  gather_facts: false\n  roles: [mine, acme.parts.one]\n",
            ),
        ],
    );
    let out = place.done();
    assert!(
        out.contains("FROM-VENDOR") && out.contains("FROM-COLLECTION"),
        "{out}"
    );
    assert!(out.contains("Starting galaxy collection install"), "{out}");
    // It is there now.
    assert!(!place.done().contains("Starting galaxy"));
    place.write(
        "requirements.yml",
        "collections:\n  - name: ./gone\n    type: dir\n",
    );
    let (out, error) = place.run();
    let error = error.unwrap_or_else(|| panic!("{out}"));
    assert!(
        error.contains("cannot install the requirements in ")
            && error.contains("requirements.yml: "),
        "{error}"
    );
    // Nothing half-made is taken for whole.
    assert_eq!(
        fs::read_dir(place.data().ansible_requirements())
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn vaults_are_opened_by_a_file_or_a_script() {
    let place = Place::new(
        "{ vault-password-file \"pass\" id=\"dev\"; vars-file \"secret.yml\"; }",
        &[
            ("pass", "#!/bin/sh\necho the-password\n"),
            ("secret.yml", "token: hidden\n"),
            (
                "site.yml",
                &tasks("    - ansible.builtin.assert:\n        that: token == 'hidden'\n"),
            ),
        ],
    );
    let pass = place.root().join("pass");
    fs::set_permissions(&pass, fs::Permissions::from_mode(0o755)).unwrap();
    let encrypted = std::process::Command::new("ansible-vault")
        .args(["encrypt", "--vault-id", "dev@pass", "secret.yml"])
        .current_dir(place.root())
        .output()
        .unwrap();
    assert!(encrypted.status.success(), "{encrypted:?}");
    place.done();
    place.write("pass", "#!/bin/sh\necho another\n");
    place.fails(&[
        "Decryption failed",
        "`vault-password-file` has the password",
    ]);
}

#[test]
fn what_fails_is_named() {
    let place = Place::new(
        "",
        &[(
            "site.yml",
            &tasks(
                "    - name: fine to fail\n      ansible.builtin.command: 'false'\n      ignore_errors: true\n    - name: the second\n      ansible.builtin.command: 'false'\n",
            ),
        )],
    );
    place.fails(&[
        "provisioner site: task \"the second\" failed on here (ansible-playbook ended with exit code 2)",
        "inspect the machine with `stead ssh here`; `stead provision --only site` runs it again",
    ]);
    place.write("site.yml", "- hosts: all\n  tsks: []\n");
    place.fails(&["provisioner site: 'tsks' is not a valid attribute for a Play"]);
}

/// Given up, nothing of it goes on: not the program, not what it started, not its files.
#[test]
fn a_run_that_is_given_up_ends_with_all_of_it() {
    let place = Place::new("{ vars token=\"s3cret\"; }", &[]);
    let mark = place.folder.path().join("pid");
    place.write(
        "site.yml",
        &tasks(&format!(
            "    - ansible.builtin.shell: echo $$ >{}; exec sleep 120\n",
            mark.display()
        )),
    );
    let (out, error) = place.run_until(async {
        while !fs::read_to_string(&mark).is_ok_and(|pid| pid.ends_with('\n')) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert_eq!(error.as_deref(), Some("given up"), "{out}");
    let pid = fs::read_to_string(&mark).expect("it got so far");
    let state = |pid: &str| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (stat.rsplit_once(')')).map_or(String::new(), |(_, rest)| rest.trim()[..1].to_string())
    };
    // Killed processes may be there for a moment, and unreaped ones for longer.
    for _ in 0..100 {
        if matches!(state(pid.trim()).as_str(), "" | "Z" | "X") {
            place.nothing_left();
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!(
        "{} still runs: {}",
        pid.trim(),
        Path::new("/proc").join(pid.trim()).display()
    );
}

/// Whatever a box calls its user: Ansible takes it for a text, by each of the ways that it reads an
/// inventory.
#[test]
fn words_of_a_box_are_never_templates() {
    let place = Place::new("", &[("site.yml", "[]\n")]);
    let project = load(&place.root().join(MACHINEFILE), &|_| None).unwrap();
    let mark = place.folder.path().join("ran");
    let inventory = |user: String| {
        let mut inventory = Inventory::of(&project);
        let reach = Reach {
            user,
            // Nobody listens there: it comes no further than to the user's name.
            port: 1,
            files: MachineFiles::new(&place.data(), &Default::default()),
            forwards: Vec::new(),
            addresses: Default::default(),
        };
        inventory.reach("here", &reach);
        inventory
    };
    let lookup = format!("{{{{lookup('pipe','id>{}')}}}}", mark.display());
    let plain = inventory("stead".into());
    let hostile = inventory(lookup.clone());
    let script = |json: &serde_json::Value| {
        place.write("list.json", &json.to_string());
        place.write("listed", "#!/bin/sh\ncat \"$(dirname \"$0\")/list.json\"\n");
        let path = place.root().join("listed");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let ping = |source: &str| {
        let output = std::process::Command::new("ansible")
            .args(["-i", source, "here", "-m", "ansible.builtin.ping"])
            .current_dir(place.root())
            .env("ANSIBLE_CONFIG", place.root().join("ansible.cfg"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let plugins =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("provisioners/ansible/plugins/inventory");
    place.write(
        "ansible.cfg",
        &format!(
            "[defaults]\ninventory_plugins = {}\n[inventory]\nenable_plugins = stead, script, yaml\n",
            plugins.display()
        ),
    );
    place.write("stead.yml", "plugin: stead\nstead: ./listed\n");
    // What it is made safe from: the same text unmarked.
    let mut unmarked = plain.list();
    unmarked["_meta"]["hostvars"]["here"]["ansible_user"] = json!(lookup);
    ping(script(&unmarked).to_str().unwrap());
    assert!(mark.exists(), "an unmarked one is a template");
    fs::remove_file(&mark).unwrap();
    for (list, file) in [
        (plain.list(), plain.file()),
        (hostile.list(), hostile.file()),
    ] {
        let listed = script(&list);
        place.write("inventory.json", &file.to_string());
        for source in ["inventory.json", listed.to_str().unwrap(), "stead.yml"] {
            let said = ping(source);
            assert!(said.contains("UNREACHABLE"), "{source}: {said}");
            assert!(!mark.exists(), "{source} ran it: {said}");
        }
    }
}

/// Python takes what lies compiled beside a plugin for that plugin, whatever the plugin says by now.
#[test]
fn compiled_plugins_of_a_project_are_not_taken() {
    let place = Place::new(
        "",
        &[
            (
                "filter_plugins/f.py",
                "class FilterModule:\n    def filters(self):\n        return {'said': lambda it: 'AS-WRITTEN'}\n",
            ),
            (
                "site.yml",
                &tasks("    - debug: { msg: \"{{ 'x' | said }}\" }\n"),
            ),
        ],
    );
    place.write(
        "other.py",
        "class FilterModule:\n    def filters(self):\n        return {'said': lambda it: 'AS-COMPILED'}\n",
    );
    let compile = "import importlib.util, py_compile, sys\n\
        to = importlib.util.cache_from_source('filter_plugins/f.py')\n\
        py_compile.compile('other.py', to, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)\n";
    let status = std::process::Command::new("python3")
        .args(["-c", compile])
        .current_dir(place.root())
        .env_remove("PYTHONPYCACHEPREFIX")
        .status()
        .unwrap();
    assert!(status.success());
    assert!(place.root().join("filter_plugins/__pycache__").exists());
    let out = place.done();
    assert!(
        out.contains("AS-WRITTEN") && !out.contains("AS-COMPILED"),
        "{out}"
    );
}

const ASKS: &str = "- hosts: all
  gather_facts: false
  vars_prompt:
    - { name: release, prompt: Which release?, private: false }
    - name: token
      prompt: The token
      confirm: true
  tasks:
    - name: sure
      ansible.builtin.pause: { prompt: Type yes }
      register: sure
    - name: quiet
      ansible.builtin.pause: { prompt: More, echo: false }
      register: more
    - name: a moment
      ansible.builtin.pause: { seconds: 1 }
    - ansible.builtin.debug:
        msg: 'GOT {{ release }} {{ token }} {{ sure.user_input }} {{ more.user_input }}'
    - ansible.builtin.file: { path: '{{ playbook_dir }}/done', state: touch }
";

/// Without a terminal of its own, Ansible takes empty answers and goes on.
#[test]
fn what_a_playbook_asks_is_answered() {
    let place = Place::new("", &[("site.yml", ASKS)]);
    let (out, error, asked) = place.answered(&["1.0", "s3cret", "s3cret", "yes", "m\u{f6}re"]);
    assert_eq!(error, None, "{out}");
    assert!(out.contains("GOT 1.0 s3cret yes m\u{f6}re"), "{out}");
    assert_eq!(
        asked,
        [
            "Which release?:",
            "The token: (hidden)",
            "confirm The token: (hidden)",
            "[sure] Type yes:",
            "[quiet] More (output is hidden): (hidden)",
        ]
    );
    // A question is a part of no line.
    assert!(!out.contains("Which release?"), "{out}");
    assert!(out.contains("\nPLAY [all]"), "{out}");

    let step = Place::new(
        "{ arguments \"--step\"; }",
        &[(
            "site.yml",
            &tasks("    - name: one\n      ansible.builtin.debug: { msg: RAN }\n"),
        )],
    );
    let (out, error, asked) = step.answered(&["n"]);
    assert_eq!(error, None, "{out}");
    assert_eq!(asked, ["Perform task: TASK: one (N)o/(y)es/(c)ontinue:"]);
    assert!(!out.contains("RAN"), "{out}");
}

/// A clear error, and nothing runs that waited for the answer.
#[test]
fn what_nobody_answers_is_told() {
    let place = Place::new("", &[("site.yml", ASKS)]);
    place.fails(&[
        "provisioner site: ansible-playbook asks \"Which release?:\" for site.yml, but nobody answers",
        "set what it asks for with `vars`",
        "run `stead provision --only site` on a terminal",
    ]);
    let (_, error, _) = place.answered(&["1.0"]);
    let error = error.unwrap();
    assert!(error.contains("asks \"The token:\""), "{error}");
    assert!(error.contains("`vars token=\"${env.TOKEN}\"`"), "{error}");
    let (_, error, _) = place.answered(&["1.0", "s", "s"]);
    let error = error.unwrap();
    assert!(error.contains("asks \"[sure] Type yes:\""), "{error}");
    assert!(error.contains("`skip-tags`"), "{error}");
    assert!(!place.root().join("done").exists());

    place.write("ansible.cfg", "[defaults]\nask_vault_pass = True\n");
    place.fails(&["asks \"Vault password:\"", "`vault-password-file`"]);
    place.write(
        "ansible.cfg",
        "[privilege_escalation]\nbecome_ask_pass = True\n",
    );
    place.fails(&["asks \"BECOME password:\"", "ansible_become_password"]);
    place.write("ansible.cfg", "");

    let default = "    - name: release\n      prompt: Which?\n      default: '2.0'\n";
    place.write(
        "site.yml",
        &format!(
            "- hosts: all\n  gather_facts: false\n  vars_prompt:\n{default}  tasks:\n    - ansible.builtin.debug: {{ msg: 'GOT {{{{ release }}}}' }}\n"
        ),
    );
    let notices = Arc::new(Notices::default());
    let reporter: Reporter = notices.clone();
    let nobody = Asking {
        reporter: &reporter,
        who: Who::Provisioner("site"),
        by: "provisioner site (site.yml)".into(),
    };
    let (out, error) = place.run_answered(&nobody, async { tokio::time::sleep(LONG).await });
    assert_eq!(error, None, "{out}");
    assert!(out.contains("GOT 2.0"), "{out}");
    let said = notices.0.lock().unwrap().join("\n");
    assert!(said.contains("\"Which? [2.0]:\""), "{said}");
    assert!(said.contains("its default, \"2.0\""), "{said}");
}

/// git asks on the terminal. It was stopped there for good.
#[test]
fn what_git_asks_for_requirements_is_answered_or_told() {
    let server = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(
                b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    let requirements = format!(
        "roles:\n  - {{ name: mine, src: 'git+http://127.0.0.1:{port}/mine.git', scm: git }}\n"
    );
    let place = Place::new(
        "{ requirements \"requirements.yml\"; }",
        &[("requirements.yml", &requirements), ("site.yml", "[]\n")],
    );
    let (out, error, asked) = place.answered(&["ann"]);
    let error = error.unwrap_or_else(|| panic!("{out}"));
    assert_eq!(
        asked,
        [
            format!("Username for 'http://127.0.0.1:{port}':"),
            format!("Password for 'http://ann@127.0.0.1:{port}': (hidden)"),
        ]
    );
    assert!(
        error.contains("provisioner site: ansible-galaxy asks \"Password for 'http://ann@"),
        "{error}"
    );
    assert!(error.contains("credential helper"), "{error}");
}

/// An OpenSSH server of this user's on 127.0.0.1.
struct Sshd {
    child: std::process::Child,
    port: u16,
}

impl Sshd {
    /// Its keys are in `place`. The login runs these lines of `sh`, and then this shell.
    fn new(place: &Path, shell: &str, login: &str) -> Self {
        for key in ["key", "host-key"] {
            let made = std::process::Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(place.join(key))
                .status()
                .unwrap();
            assert!(made.success());
        }
        let path = place.join("login");
        let text = format!("#!/bin/sh\n{login}\nexec {shell} -c \"$SSH_ORIGINAL_COMMAND\"\n");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host-key\nAuthorizedKeysFile {0}/key.pub\n\
             ForceCommand {0}/login\nStrictModes no\nUsePAM no\nPidFile none\n",
            place.display()
        );
        fs::write(place.join("sshd_config"), config).unwrap();
        if nix::unistd::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let child = std::process::Command::new("/usr/sbin/sshd")
            .args(["-D", "-f"])
            .arg(place.join("sshd_config"))
            .arg("-E")
            .arg(place.join("sshd.log"))
            .spawn()
            .expect("no OpenSSH server: `./dev setup` installs it (Debian: openssh-server)");
        let sshd = Sshd { child, port };
        for _ in 0..3000 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return sshd;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("sshd does not listen");
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian's Ansible looks for Python in what the login prints, and then says that there is none.
#[test]
fn login_files_that_print_are_named() {
    let mut place = Place::new(
        "",
        &[(
            "site.yml",
            &tasks(
                "    - ansible.builtin.command: echo it works\n      register: it\n    - ansible.builtin.debug: { msg: 'GOT {{ it.stdout }}' }\n",
            ),
        )],
    );
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
        .unwrap()
        .unwrap();
    let login = "echo Welcome; printf 'no end'; printf 'tput: no TERM' >&2";
    for shell in ["bash", "zsh", "fish", "tcsh"] {
        let keys = tempfile::tempdir().unwrap();
        let sshd = Sshd::new(keys.path(), shell, login);
        let mut host = json!({
            "ansible_host": "127.0.0.1",
            "ansible_port": sshd.port,
            "ansible_user": user.name,
            "ansible_ssh_private_key_file": keys.path().join("key"),
            "ansible_ssh_args": "-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o ControlPath=none",
            "ansible_pipelining": true,
        });
        if shell == "bash" {
            place.inventory = json!({ "all": { "hosts": { "web": host } } });
            place.fails(&["the login files of web print text by themselves"]);
        }
        host["ansible_python_interpreter"] = json!("/usr/bin/python3");
        place.inventory = json!({ "all": { "hosts": { "web": host } } });
        let out = place.done();
        assert!(out.contains("GOT it works"), "{shell}: {out}");
    }
}

/// An `ansible.cfg` for an inventory of the project's own: with it, Ansible took stead's inventory for a list of names.
#[test]
fn settings_for_other_inventories_do_not_hide_steads() {
    let place = Place::new(
        "",
        &[
            (
                "ansible.cfg",
                "[defaults]\ninventory = hosts\nstdout_callback = minimal\n[inventory]\nenable_plugins = ini\nunparsed_is_failed = True\n",
            ),
            ("hosts", "elsewhere ansible_host=192.0.2.1\n"),
            (
                "site.yml",
                &tasks("    - ansible.builtin.command: 'false'\n"),
            ),
        ],
    );
    place.fails(&["provisioner site failed on here (ansible-playbook ended with exit code 2)"]);
}
