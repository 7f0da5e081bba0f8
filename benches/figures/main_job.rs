//! `main-job`: what stead adds to the time that its parts take by themselves.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    Result, Trouble, While,
    bare_qemu::{Recipe, settings_of_ssh},
    figure::Figure,
    project::{Ground, Project},
    reads,
    timing::{in_turn, seconds},
};

const GROUP: &str = "main-job";
/// Samples of the figures that boot nothing.
const QUICK_RUNS: usize = 20;
const SYNCED_FILES: usize = 2000;
const FILES_IN_A_FOLDER: usize = 100;
/// Runs of ten machines, each of which takes as long as five or more of the others.
const RUNS_OF_TEN: usize = 2;

pub(crate) fn measure(runs: usize) -> Result<Vec<Figure>> {
    let ground = Ground::new()?;
    let mut figures = reads::without_libvirt(&ground)?;
    figures.push(reads::many_machines(&ground)?);
    figures.extend(boots(&ground, runs)?);

    let project = ground.project(
        "warm",
        "machine \"web\" {\n    sync \"files\" to=\"/srv/files\"\n}",
    )?;
    write_files(&project.path().join("files"))?;
    eprintln!("figures: a machine to talk to");
    project.seconds(["up"])?;
    figures.extend(reads::over_listing(&ground, &project)?);
    figures.push(warm_connection(&project)?);
    figures.push(unchanged_sync(&project)?);
    Ok(figures)
}

fn boots(ground: &Ground, runs: usize) -> Result<Vec<Figure>> {
    let one = ground.project("one", "machine \"web\" {\n}")?;
    let two = ground.project("two", "machine \"web\" count=2 {\n}")?;
    let ten = ground.project("ten", "machine \"web\" count=10 {\n}")?;
    // The first connection starts the user's libvirtd, which the figures leave out.
    one.seconds(["status"])?;
    let mut against_bare = Vec::new();
    let mut two_against_one = Vec::new();
    let mut ten_against_one = Vec::new();
    for run in 1..=runs {
        eprintln!("figures: boots, run {run} of {runs}");
        let up = one.seconds(["up"])?;
        let recipe = Recipe::of(&one, "web", &ground.path().join("bare"))?;
        one.destroy()?;
        let bare = recipe.seconds_to_ssh()?;
        let both = two.seconds(["up"])?;
        two.destroy()?;
        eprintln!("figures: up {up:.1} s, bare {bare:.1} s, two machines {both:.1} s");
        against_bare.push((up, bare));
        two_against_one.push((both, up));
        if run <= RUNS_OF_TEN {
            let all = ten.seconds(["up"])?;
            ten.destroy()?;
            eprintln!("figures: ten machines {all:.1} s");
            ten_against_one.push((all, up));
        }
    }
    Ok(vec![
        Figure::ratio(GROUP, "cold up over bare QEMU", &against_bare, 1.15)?,
        Figure::ratio(GROUP, "two machines up over one", &two_against_one, 1.5)?,
        // On two CPUs.
        Figure::ratio(GROUP, "ten machines up over one", &ten_against_one, 5.5)?,
    ])
}

/// `stead exec` against ssh itself over the very same master connection.
fn warm_connection(project: &Project) -> Result<Figure> {
    let config = project.ssh_config()?;
    let settings = settings_of_ssh(&config, "web")?;
    let shared = settings
        .iter()
        .any(|(key, value)| key == "controlpath" && value != "none");
    if !shared {
        return Err(Trouble(
            "stead's ssh_config names no ControlPath: plain ssh would not use stead's connection"
                .into(),
        ));
    }
    let pairs = in_turn(
        QUICK_RUNS,
        || project.seconds(["exec", "web", "--", "true"]),
        || {
            seconds(
                Command::new("ssh")
                    .arg("-F")
                    .arg(&config)
                    .args(["web", "true"]),
            )
        },
    )?;
    Figure::ratio(GROUP, "exec over ssh, warm connection", &pairs, 1.5)
}

fn unchanged_sync(project: &Project) -> Result<Figure> {
    let config = project.ssh_config()?;
    let files = project.path().join("files");
    let shell = format!("ssh -F '{}'", config.display());
    project.seconds(["sync"])?;
    let pairs = in_turn(
        QUICK_RUNS,
        || project.seconds(["sync"]),
        || {
            seconds(
                Command::new("rsync")
                    .args(["--archive", "--delete", "--rsh", &shell])
                    .arg(format!("{}/", files.display()))
                    .arg("web:/srv/files/")
                    .stdin(Stdio::null()),
            )
        },
    )?;
    Figure::ratio(
        GROUP,
        "sync of 2,000 unchanged files over rsync",
        &pairs,
        1.3,
    )
}

fn write_files(folder: &Path) -> Result<()> {
    for n in 0..SYNCED_FILES {
        let inner = folder.join(format!("folder-{:02}", n / FILES_IN_A_FOLDER));
        if n % FILES_IN_A_FOLDER == 0 {
            fs::create_dir_all(&inner).during(inner.display())?;
        }
        let file = inner.join(format!("file-{n:04}.txt"));
        fs::write(&file, format!("{n}\n").repeat(200)).during(file.display())?;
    }
    Ok(())
}
