//! `folders`: what work in a guest costs in a folder of each type, beside its own disk, and how soon
//! an edit of the host's is seen there.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::{
    Result, Trouble, While,
    figure::{Figure, Unit},
    project::{Ground, Project},
    sync::{edits_seen, write_files},
    timing::output,
};

const GROUP: &str = "folders";
const SMALL_FILES: usize = 10_000;
/// Every folder is `/srv/NAME` in the guest. What rsync copied is on the guest's own disk.
const OWN_DISK: &str = "rsync";
const SHARED: [&str; 2] = ["virtiofs", "9p"];
const TWO_WAY: &str = "two-way";

/// What is done in the guest, as root, in the folder. Its caches are dropped before, so that files come
/// from the folder and not from memory.
const WORK: [(&str, &str); 4] = [
    (
        "read 10,000 small files",
        "find small -type f -exec cat {} + >/dev/null",
    ),
    (
        "write 10,000 small files",
        "rm -rf written; mkdir written; start; tar xf /run/small.tar --no-same-owner -C written; sync -f written",
    ),
    (
        "write 256 MiB",
        "rm -f large; start; dd if=/dev/zero of=large bs=1M count=256 conv=fsync status=none",
    ),
    ("read 256 MiB", "dd if=large of=/dev/null bs=1M status=none"),
];

pub(crate) fn measure(runs: usize) -> Result<Vec<Figure>> {
    let ground = Ground::new()?;
    // The kernel of the box has no 9p.
    let project = ground.project(
        "folders",
        "machine \"web\" {\n    kernel { package \"linux-image-amd64\"; }\n    memory \"1GiB\"\n    \
         sync \"rsync\" to=\"/srv/rsync\" delete=#false watch=#true\n    \
         sync \"virtiofs\" to=\"/srv/virtiofs\" type=\"virtiofs\"\n    \
         sync \"9p\" to=\"/srv/9p\" type=\"9p\"\n}\n\
         machine \"both\" { sync \"two-way\" to=\"/srv/two-way\" mode=\"two-way\" watch=#true; }",
    )?;
    for name in [OWN_DISK, TWO_WAY].iter().chain(&SHARED) {
        let folder = project.path().join(name);
        fs::create_dir(&folder).during(name)?;
        write_files(&folder.join("small"), SMALL_FILES)?;
    }
    eprintln!("figures: a machine with a folder of each type");
    project.seconds(["up", "web"])?;
    let config = project.ssh_config()?;
    in_guest(
        &config,
        "tar cf /run/small.tar -C /srv/rsync/small .",
        "/srv",
    )?;

    let mut figures = Vec::new();
    for (what, script) in WORK {
        let mut times = vec![Vec::new(); SHARED.len()];
        for run in 0..runs {
            eprintln!("figures: {what}, run {} of {runs}", run + 1);
            let own = in_guest(&config, script, &format!("/srv/{OWN_DISK}"))?;
            for (name, pairs) in SHARED.iter().zip(&mut times) {
                pairs.push((in_guest(&config, script, &format!("/srv/{name}"))?, own));
            }
        }
        for (name, pairs) in SHARED.iter().zip(&times) {
            figures.push(Figure::ratio_shown(
                GROUP,
                &format!("{name}: {what} over own disk"),
                pairs,
            )?);
        }
    }
    for name in [OWN_DISK].iter().chain(&SHARED) {
        figures.push(edits_of(&project, "web", name)?);
    }
    // What it takes of its guest's CPU would count in the figures above.
    project.seconds(["halt", "web"])?;
    eprintln!("figures: a machine with a folder that both sides edit");
    let events = output(&mut project.stead(["up", "both", "--json"]))?;
    figures.push(Figure::shown(
        GROUP,
        "two-way: first sync of 10,000 small files",
        Unit::Milliseconds,
        vec![step(&events, &format!("sync:/srv/{TWO_WAY}"))? * 1000.0],
    )?);
    figures.push(edits_of(&project, "both", TWO_WAY)?);
    Ok(figures)
}

/// Seconds of a step of an `up --json`.
fn step(events: &str, name: &str) -> Result<f64> {
    events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|event| event["event"] == "step-done" && event["step"] == name)
        .and_then(|event| event["seconds"].as_f64())
        .ok_or_else(|| Trouble(format!("no {name} in {events}")))
}

fn edits_of(project: &Project, machine: &str, name: &str) -> Result<Figure> {
    eprintln!("figures: edits seen by {name}");
    let file = project.path().join(name).join("edited");
    let in_guest = format!("/srv/{name}/edited");
    let samples = edits_seen(project, machine, &file, &in_guest, |seconds| {
        Ok(seconds * 1000.0)
    })?;
    let what = format!("{name}: edit to guest");
    Figure::shown(GROUP, &what, Unit::Milliseconds, samples)
}

/// Seconds that a script takes in a folder of the guest, from its last `start` on.
fn in_guest(config: &Path, script: &str, folder: &str) -> Result<f64> {
    let whole = format!(
        "set -e; start() {{ sync; echo 3 >/proc/sys/vm/drop_caches; begun=$(date +%s%N); }}; \
         cd {folder}; start; {script}; echo $(( $(date +%s%N) - begun ))"
    );
    let said = output(
        Command::new("ssh")
            .arg("-F")
            .arg(config)
            .arg("web")
            .arg(format!("sudo bash -c '{whole}'"))
            .stdin(Stdio::null()),
    )?;
    let nanoseconds: f64 = said
        .trim()
        .parse()
        .map_err(|_| Trouble(format!("the guest said {said:?}")))?;
    Ok(nanoseconds / 1e9)
}
