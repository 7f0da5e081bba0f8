//! `sync`: folders by stead against rsync itself over the same connection, and what watching costs.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    Result, Trouble, While,
    figure::{Figure, Unit},
    project::{Ground, Project},
    timing::{output, seconds},
};

const GROUP: &str = "sync";
const SMALL_FILES: usize = 10_000;
const WATCHED_FILES: usize = 100_000;
const FILES_IN_A_FOLDER: usize = 100;
const LARGE_FILE: u64 = 1 << 30;
const EDITS: usize = 20;
/// How long the watcher is looked at while nothing happens.
const REST: Duration = Duration::from_secs(5);

pub(crate) fn measure(runs: usize) -> Result<Vec<Figure>> {
    let ground = Ground::new()?;
    let mut figures = Vec::new();
    {
        let project = ground.project(
            "folders",
            "machine \"small\" { sync \"small\" to=\"/srv/small\"; }\n\
             machine \"large\" { sync \"large\" to=\"/srv/large\"; }",
        )?;
        for name in ["small", "large"] {
            fs::create_dir(project.path().join(name)).during(name)?;
        }
        project.seconds(["up"])?;
        write_files(&project.path().join("small"), SMALL_FILES)?;
        figures.push(first_sync(&project, runs, "small", "10,000 small files")?);
        project.seconds(["halt", "small"])?;
        write_large(&project.path().join("large/file"))?;
        figures.push(first_sync(&project, runs, "large", "one 1 GiB file")?);
    }
    let project = ground.project(
        "watched",
        "machine \"web\" {\n    sync \"files\" to=\"/srv/files\" watch=#true\n}",
    )?;
    write_files(&project.path().join("files"), WATCHED_FILES)?;
    eprintln!("figures: a machine with {WATCHED_FILES} watched files");
    project.seconds(["up"])?;
    figures.push(edits(&project)?);
    figures.extend(at_rest(&project)?);
    Ok(figures)
}

/// Both begin with nothing in the guest. `name` is that of the machine and of its folder.
fn first_sync(project: &Project, runs: usize, name: &str, what: &str) -> Result<Figure> {
    let config = project.ssh_config()?;
    let shell = format!("ssh -F '{}'", config.display());
    let clear = |folder: &str| {
        let script =
            format!("sudo rm -rf {folder} && sudo install -d -o \"$(id -un)\" {folder} && sync");
        output(&mut project.stead(["ssh", name, "-c", &script]))
    };
    let ours = || {
        clear(&format!("/srv/{name}"))?;
        let time = project.seconds(["sync", name])?;
        clear(&format!("/srv/{name}"))?;
        Ok(time)
    };
    let theirs = || {
        clear("/srv/plain")?;
        let time = seconds(
            Command::new("rsync")
                .args(["--archive", "--rsh", &shell])
                .arg(format!("{}/", project.path().join(name).display()))
                .arg(format!("{name}:/srv/plain/"))
                .stdin(Stdio::null()),
        )?;
        clear("/srv/plain")?;
        Ok(time)
    };
    let mut pairs = Vec::new();
    for run in 0..runs {
        eprintln!("figures: first sync of {what}, run {} of {runs}", run + 1);
        pairs.push(if run % 2 == 0 {
            let first = ours()?;
            (first, theirs()?)
        } else {
            let first = theirs()?;
            (ours()?, first)
        });
    }
    Figure::ratio(
        GROUP,
        &format!("first sync of {what} over rsync"),
        &pairs,
        1.1,
    )
}

/// In the guest: waits until the file holds the word that came in, and says so.
const LOOK: &str = "import sys, time
for word in sys.stdin:
    while True:
        try:
            if open(sys.argv[1]).read() == word: break
        except OSError: pass
        time.sleep(0.005)
    print('seen', flush=True)
";

/// Edits a file of the host, again and again, until it is seen in the guest each time. `take` makes a
/// sample of the seconds that passed; the first one, which warms up, is no sample.
pub(crate) fn edits_seen(
    project: &Project,
    machine: &str,
    file: &Path,
    in_guest: &str,
    mut take: impl FnMut(f64) -> Result<f64>,
) -> Result<Vec<f64>> {
    let mut look = Command::new("ssh")
        .arg("-F")
        .arg(project.ssh_config()?)
        .args([machine, &format!("exec python3 -c \"{LOOK}\" {in_guest}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .during("ssh")?;
    let mut words = look.stdin.take().ok_or(Trouble("no stdin".into()))?;
    let mut seen = BufReader::new(look.stdout.take().ok_or(Trouble("no stdout".into()))?);
    let mut samples = Vec::new();
    for edit in 0..=EDITS {
        let word = format!("edit {edit}\n");
        words.write_all(word.as_bytes()).during("ssh")?;
        sleep(Duration::from_millis(200));
        let start = Instant::now();
        fs::write(file, &word).during(file.display())?;
        let mut line = String::new();
        seen.read_line(&mut line).during("ssh")?;
        let passed = start.elapsed().as_secs_f64();
        if line != "seen\n" {
            return Err(Trouble(format!("the guest said {line:?}")));
        }
        // What brought it may have to end yet.
        sleep(Duration::from_millis(500));
        let sample = take(passed)?;
        if edit > 0 {
            samples.push(sample);
        }
    }
    drop(words);
    let _ = look.wait();
    Ok(samples)
}

fn edits(project: &Project) -> Result<Figure> {
    let shell = format!("ssh -F '{}'", project.ssh_config()?.display());
    let plain = project.path().join("plain");
    let file = project.path().join("files/edited");
    let mut edit = 0;
    let samples = edits_seen(project, "web", &file, "/srv/files/edited", |ours| {
        edit += 1;
        fs::write(&plain, format!("edit {edit}\n")).during(plain.display())?;
        let theirs = seconds(
            Command::new("rsync")
                .args(["--archive", "--rsh", &shell])
                .arg(&plain)
                .arg("web:/srv/files/plain")
                .stdin(Stdio::null()),
        )?;
        Ok((ours - theirs) * 1000.0)
    })?;
    Figure::of(
        GROUP,
        "edit to guest, beyond one rsync of it",
        Unit::Milliseconds,
        samples,
        300.0,
    )
}

fn at_rest(project: &Project) -> Result<[Figure; 2]> {
    let status: Value = serde_json::from_str(&output(&mut project.stead(["status", "--json"]))?)
        .during("status")?;
    let pid = status["watch"]["pid"]
        .as_u64()
        .ok_or_else(|| Trouble(format!("no watcher runs: {}", status["watch"])))?;
    let mut memory = Vec::new();
    let mut work = Vec::new();
    sleep(REST);
    for _ in 0..3 {
        let before = on_cpu(pid)?;
        sleep(REST);
        work.push((on_cpu(pid)? - before) as f64 / 1e6);
        memory.push(resident(pid)?);
    }
    Ok([
        Figure::of(
            GROUP,
            "watcher at rest, CPU in 5 s",
            Unit::Milliseconds,
            work,
            0.0,
        )?,
        Figure::of(
            GROUP,
            "watcher of 100,000 files, resident memory",
            Unit::Mebibytes,
            memory,
            20.0,
        )?,
    ])
}

/// Nanoseconds that it ran, all its threads together (proc_pid_schedstat(5)).
fn on_cpu(pid: u64) -> Result<u64> {
    let mut all = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).during("the watcher")? {
        let path = task.during("the watcher")?.path().join("schedstat");
        let text = fs::read_to_string(&path).during(path.display())?;
        all += text
            .split_whitespace()
            .next()
            .and_then(|word| word.parse::<u64>().ok())
            .ok_or_else(|| Trouble(format!("{}: {text:?}", path.display())))?;
    }
    Ok(all)
}

/// In MiB.
fn resident(pid: u64) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).during("the watcher")?;
    text.lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok())
        .map(|kibibytes| kibibytes / 1024.0)
        .ok_or_else(|| Trouble("no VmRSS".into()))
}

pub(crate) fn write_files(folder: &Path, count: usize) -> Result<()> {
    for n in 0..count {
        let inner = folder.join(format!("folder-{:03}", n / FILES_IN_A_FOLDER));
        if n % FILES_IN_A_FOLDER == 0 {
            fs::create_dir_all(&inner).during(inner.display())?;
        }
        let file = inner.join(format!("file-{n:05}.txt"));
        fs::write(&file, format!("{n}\n").repeat(100)).during(file.display())?;
    }
    Ok(())
}

/// Bytes that nothing packs.
fn write_large(path: &Path) -> Result<()> {
    let mut file = fs::File::create(path).during(path.display())?;
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    let mut block = Vec::with_capacity(1 << 20);
    for _ in 0..LARGE_FILE >> 20 {
        block.clear();
        while block.len() < 1 << 20 {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            block.extend_from_slice(&word.to_le_bytes());
        }
        file.write_all(&block).during(path.display())?;
    }
    Ok(())
}
