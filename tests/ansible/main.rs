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
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use stead::{
    guest::MachineFiles,
    host::paths::DataDir,
    machinefile::{MACHINEFILE, Playbook, load},
    provision::{
        Inventory, Reach,
        ansible::{HostRun, run_on_host},
    },
};

/// A project's folder, and where stead keeps its data.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// `ansible` is what stands behind the playbook's path.
    fn new(ansible: &str, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { folder };
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
        let playbook = self.playbook();
        let data = self.data();
        let run = HostRun {
            name: "site",
            playbook: &playbook,
            inventory: json!({ "all": { "hosts": { "here": { "ansible_connection": "local" } } } }),
            limit: Vec::new(),
            data: &data,
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
