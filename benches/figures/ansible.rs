//! What a playbook through stead costs, beside ansible-playbook as one would set it up by hand.

use std::{fs, process::Command};

use crate::{
    Result, While,
    figure::Figure,
    project::{Ground, Project},
    timing,
};

const GROUP: &str = "provision";

/// Tasks of the playbook: cheap ones, so that it is connections and start-up that are measured.
const TASKS: usize = 30;

pub(crate) fn measure(runs: usize) -> Result<Vec<Figure>> {
    let ground = Ground::new()?;
    let project = ground.project(
        "ansible",
        "machine \"web\" {\n    provision \"site\" { ansible \"site.yml\" become=#true; }\n}",
    )?;
    let mut playbook = String::from("- hosts: all\n  tasks:\n");
    for n in 1..=TASKS {
        playbook.push_str(&format!(
            "    - name: task {n}\n      ansible.builtin.file:\n        path: /srv/bench-{n}\n        state: directory\n"
        ));
    }
    let file = project.path().join("site.yml");
    fs::write(&file, playbook).during(file.display())?;
    eprintln!("figures: a machine comes up, and the playbook runs for the first time");
    project.seconds(["up"])?;
    let by_hand = by_hand(&project)?;
    let pairs = timing::in_turn(
        runs,
        || project.seconds(["provision", "web", "--only", "site"]),
        || timing::seconds(&mut by_hand.command()),
    )?;
    Ok(vec![Figure::ratio(
        GROUP,
        "a playbook of 30 tasks through stead",
        &pairs,
        1.05,
    )?])
}

/// ansible-playbook with an inventory of the same machine, and what makes it fast: a connection
/// that is kept open, and pipelining.
struct ByHand {
    folder: std::path::PathBuf,
    config: String,
}

fn by_hand(project: &Project<'_>) -> Result<ByHand> {
    let ssh_config = project.ssh_config()?;
    let inventory = project.path().join("hosts.ini");
    fs::write(&inventory, "web\n").during(inventory.display())?;
    Ok(ByHand {
        folder: project.path().to_path_buf(),
        // The first of two values counts, so this is its own connection and not stead's.
        config: format!(
            "-o ControlMaster=auto -o ControlPersist=600 -o ControlPath={}/by-hand -F {}",
            project.path().display(),
            ssh_config.display()
        ),
    })
}

impl ByHand {
    fn command(&self) -> Command {
        let mut command = Command::new("ansible-playbook");
        command
            .current_dir(&self.folder)
            .args([
                "-i",
                "hosts.ini",
                "--become",
                "site.yml",
                "--ssh-common-args",
            ])
            .arg(&self.config)
            .env("ANSIBLE_SSH_ARGS", "")
            .env("ANSIBLE_PIPELINING", "1")
            .env("ANSIBLE_NOCOLOR", "1");
        command
    }
}
