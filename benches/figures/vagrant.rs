//! `vagrant`: the same project through Vagrant and vagrant-libvirt, beside stead.
//!
//! Both drive the same libvirtd as root, with the same image, kernel, seed and user, one processor,
//! the same memory and the same emulation. Vagrant is given what is kind to it: a key that is in
//! the seed (so that it has none to insert), no folder to sync, no update to look for, and its
//! box's volume uploaded before the first run that counts.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

use crate::{
    Result, Trouble, While,
    bare_qemu::Recipe,
    figure::Figure,
    project::{Ground, box_archive},
    timing::{output, seconds},
};

const GROUP: &str = "vagrant";
/// Samples, per boot, of what boots nothing.
const QUICK_RUNS: usize = 3;
const BOX_NAME: &str = "bench";

/// What both are timed at: name, goal, stead's arguments, Vagrant's.
struct Task {
    name: &'static str,
    goal: f64,
    stead: &'static [&'static str],
    vagrant: &'static [&'static str],
}

const COLD_UP: Task = Task {
    name: "cold up",
    goal: 0.67,
    stead: &["up"],
    vagrant: &["up", "--provider=libvirt"],
};
const QUICK: [Task; 4] = [
    Task {
        name: "no-op up",
        goal: 0.1,
        stead: &["up"],
        vagrant: &["up", "--provider=libvirt"],
    },
    Task {
        name: "status",
        goal: 0.1,
        stead: &["status"],
        vagrant: &["status"],
    },
    Task {
        name: "ssh -c true",
        goal: 0.25,
        stead: &["ssh", "web", "-c", "true"],
        vagrant: &["ssh", "-c", "true"],
    },
    Task {
        name: "trivial provision",
        goal: 0.5,
        stead: &["provision"],
        vagrant: &["provision"],
    },
];
const HALT: Task = Task {
    name: "halt",
    goal: 1.0,
    stead: &["halt"],
    vagrant: &["halt"],
};
const DESTROY: Task = Task {
    name: "destroy",
    goal: 0.5,
    stead: &["destroy", "-y"],
    vagrant: &["destroy", "-f"],
};

/// Times of stead's and Vagrant's, pair by pair.
type Pairs = Vec<(f64, f64)>;

pub(crate) fn measure(runs: usize) -> Result<Vec<Figure>> {
    let ground = Ground::new()?;
    let project = ground.project(
        "versus",
        "machine \"web\" {\n    provision \"trivial\" {\n        shell inline=\"true\"\n    }\n}",
    )?;
    eprintln!("figures: vagrant: a first machine, to take its kernel and seed from");
    project.seconds(["up"])?;
    let recipe = Recipe::of(&project, "web", &ground.path().join("recipe"))?;
    let vagrant = Vagrant::new(ground.path(), &recipe)?;
    project.destroy()?;

    let box_adds = box_adds(&vagrant, runs)?;
    eprintln!("figures: vagrant: its box goes into libvirt's pool");
    vagrant.seconds(COLD_UP.vagrant)?;
    vagrant.seconds(DESTROY.vagrant)?;

    let tasks: Vec<&Task> = [&COLD_UP]
        .into_iter()
        .chain(&QUICK)
        .chain([&HALT, &DESTROY])
        .collect();
    let mut pairs: Vec<Pairs> = tasks.iter().map(|_| Pairs::new()).collect();
    for run in 1..=runs {
        eprintln!("figures: vagrant: run {run} of {runs}");
        for (task, pairs) in tasks.iter().zip(&mut pairs) {
            let quick = QUICK.iter().any(|q| q.name == task.name);
            for n in 0..if quick { QUICK_RUNS } else { 1 } {
                let ours = || project.stead(task.stead);
                // Who goes first changes from pair to pair.
                let pair = if (run + n) % 2 == 0 {
                    let first = seconds(&mut ours())?;
                    (first, vagrant.seconds(task.vagrant)?)
                } else {
                    let first = vagrant.seconds(task.vagrant)?;
                    (seconds(&mut ours())?, first)
                };
                eprintln!("figures: {}: {:.2} s, {:.2} s", task.name, pair.0, pair.1);
                pairs.push(pair);
            }
        }
    }
    let mut figures = Vec::new();
    for (task, pairs) in tasks.iter().zip(&pairs) {
        figures.push(Figure::ratio(GROUP, task.name, pairs, task.goal)?);
    }
    figures.push(Figure::ratio(GROUP, "box add", &box_adds, 1.0)?);
    Ok(figures)
}

/// Both boxes are archives of the same image. Vagrant's stays added.
fn box_adds(vagrant: &Vagrant, runs: usize) -> Result<Pairs> {
    let archive = box_archive()?;
    let mut pairs = Pairs::new();
    for run in 1..=runs {
        eprintln!("figures: vagrant: box add, run {run} of {runs}");
        let ground = Ground::without_box()?;
        let ours = seconds(
            ground
                .stead_in(ground.path())
                .args(["box", "add"])
                .arg(&archive),
        )?;
        if run > 1 {
            output(&mut vagrant.command(&["box", "remove", "--force", BOX_NAME]))?;
        }
        let mut add = vagrant.command(&["box", "add", "--name", BOX_NAME]);
        pairs.push((ours, seconds(add.arg(&vagrant.box_file))?));
    }
    Ok(pairs)
}

/// A project of Vagrant's, with a home of its own. Taken down when it is dropped.
struct Vagrant {
    folder: PathBuf,
    home: PathBuf,
    box_file: PathBuf,
}

impl Vagrant {
    fn new(ground: &Path, recipe: &Recipe) -> Result<Vagrant> {
        let vagrant = Vagrant {
            folder: ground.join("vagrant"),
            home: ground.join("vagrant-home"),
            box_file: ground.join("bench.box"),
        };
        for folder in [&vagrant.folder, &vagrant.home] {
            fs::create_dir(folder).during(folder.display())?;
        }
        vagrant.make_box(ground, recipe)?;
        let file = vagrant.folder.join("Vagrantfile");
        fs::write(&file, vagrantfile(recipe)?).during(file.display())?;
        Ok(vagrant)
    }

    fn make_box(&self, ground: &Path, recipe: &Recipe) -> Result<()> {
        let content = ground.join("vagrant-box");
        fs::create_dir(&content).during(content.display())?;
        let image = content.join("box.img");
        output(
            Command::new("qemu-img")
                .args(["convert", "-f", &recipe.image_format, "-O", "qcow2"])
                .arg(&recipe.image)
                .arg(&image),
        )?;
        let printed = output(
            Command::new("qemu-img")
                .args(["info", "--output=json"])
                .arg(&image),
        )?;
        let info: serde_json::Value = serde_json::from_str(&printed).during("qemu-img info")?;
        let bytes = info
            .get("virtual-size")
            .and_then(serde_json::Value::as_u64)
            .ok_or_else(|| Trouble("qemu-img info: no virtual-size".into()))?;
        let metadata = json!({
            "provider": "libvirt",
            "format": "qcow2",
            "virtual_size": bytes.div_ceil(1 << 30),
        });
        let file = content.join("metadata.json");
        fs::write(&file, metadata.to_string()).during(file.display())?;
        let file = content.join("Vagrantfile");
        fs::write(&file, "Vagrant.configure(\"2\") do |config|\nend\n").during(file.display())?;
        output(
            Command::new("tar")
                .args(["--create", "--gzip", "--file"])
                .arg(&self.box_file)
                .arg("--directory")
                .arg(&content)
                .args(["metadata.json", "Vagrantfile", "box.img"]),
        )?;
        fs::remove_dir_all(&content).during(content.display())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("vagrant");
        command
            .args(arguments)
            .current_dir(&self.folder)
            .env("HOME", &self.home)
            .env("VAGRANT_HOME", self.home.join(".vagrant.d"))
            .env("VAGRANT_NO_COLOR", "1");
        command
    }

    fn seconds(&self, arguments: &[&str]) -> Result<f64> {
        seconds(&mut self.command(arguments))
    }
}

impl Drop for Vagrant {
    fn drop(&mut self) {
        if let Err(Trouble(message)) = output(&mut self.command(DESTROY.vagrant)) {
            eprintln!("figures: clean-up: {message}");
        }
    }
}

fn vagrantfile(recipe: &Recipe) -> Result<String> {
    let one = |name: &'static str| {
        recipe
            .option(name)
            .map(ruby)
            .ok_or_else(|| Trouble(format!("stead's machine runs without {name}")))
    };
    let seed: String = recipe
        .seed()
        .flat_map(|(option, value)| [option, value])
        .map(|argument| format!("    libvirt.qemuargs :value => {}\n", ruby(argument)))
        .collect();
    let mut text = String::new();
    write!(
        text,
        r#"Vagrant.configure("2") do |config|
  config.vm.box = {name}
  config.vm.box_check_update = false
  config.vm.synced_folder ".", "/vagrant", disabled: true
  config.vm.provision "shell", inline: "true"
  config.ssh.username = {user}
  config.ssh.private_key_path = {key}
  config.ssh.insert_key = false
  config.vm.provider :libvirt do |libvirt|
    libvirt.driver = "qemu"
    libvirt.cpu_mode = "maximum"
    libvirt.cpus = 1
    libvirt.memory = 512
    libvirt.graphics_type = "none"
    libvirt.kernel = {kernel}
    libvirt.initrd = {initrd}
    libvirt.cmd_line = {cmdline}
{seed}  end
end
"#,
        name = ruby(BOX_NAME),
        user = ruby(&recipe.login.user),
        key = ruby(&recipe.login.key.display().to_string()),
        kernel = one("-kernel")?,
        initrd = one("-initrd")?,
        cmdline = one("-append")?,
    )
    .during("the Vagrantfile")?;
    Ok(text)
}

/// A string of Ruby's that means just these characters.
fn ruby(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
