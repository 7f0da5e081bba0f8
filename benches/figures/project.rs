//! A stead project in a folder of its own, with a data directory of its own, which is taken down
//! when it is dropped.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{Result, Trouble, While, timing};

/// Where `./dev bench` put the stead to measure.
const STEAD: &str = "STEAD_BIN";
/// And the archive of the box to boot.
const BOX: &str = "STEAD_BENCH_BOX";

fn variable(name: &str) -> Result<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .ok_or_else(|| Trouble(format!("{name} is not set: run this through `./dev bench`")))
}

pub(crate) fn box_archive() -> Result<PathBuf> {
    variable(BOX)
}

/// Where a group of figures keeps everything: stead's data directory, with the box in its store,
/// and the projects.
pub(crate) struct Ground {
    folder: TempDir,
    stead: PathBuf,
}

impl Ground {
    pub(crate) fn new() -> Result<Ground> {
        let ground = Ground::without_box()?;
        timing::output(
            ground
                .stead_in(ground.path())
                .args(["box", "add"])
                .arg(box_archive()?),
        )?;
        Ok(ground)
    }

    pub(crate) fn without_box() -> Result<Ground> {
        let folder = tempfile::Builder::new()
            .prefix("stead-bench.")
            .tempdir()
            .during("a folder for the projects")?;
        // QEMU of qemu:///system runs as a user of its own.
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .during(folder.path().display())?;
        Ok(Ground {
            folder,
            stead: variable(STEAD)?,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// `stead`, run in a folder.
    pub(crate) fn stead_in(&self, folder: &Path) -> Command {
        let mut command = Command::new(&self.stead);
        command
            .current_dir(folder)
            .env("STEAD_DATA_DIR", self.data())
            .env("NO_COLOR", "1");
        command
    }

    /// A project whose Machinefile says `machines` after its name and the defaults.
    pub(crate) fn project(&self, name: &str, machines: &str) -> Result<Project<'_>> {
        let folder = self.path().join(name);
        fs::create_dir(&folder).during(folder.display())?;
        let text = format!(
            "project \"{name}\"\n\ndefaults {{\n    box \"debian-12\"\n    cpus 1\n    \
             memory \"512MiB\"\n}}\n\n{machines}\n"
        );
        let file = folder.join("Machinefile");
        fs::write(&file, text).during(file.display())?;
        Ok(Project {
            ground: self,
            folder,
        })
    }
}

impl Drop for Ground {
    /// The pool that stead made for the data directory would outlive it.
    fn drop(&mut self) {
        if !self.data().join("boxes").exists() {
            return;
        }
        let mut command = self.stead_in(self.path());
        if let Err(Trouble(message)) = timing::output(command.args(["box", "remove", "debian-12"]))
        {
            eprintln!("figures: clean-up: {message}");
        }
    }
}

pub(crate) struct Project<'a> {
    ground: &'a Ground,
    folder: PathBuf,
}

impl Project<'_> {
    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.ground.data()
    }

    pub(crate) fn stead<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = self.ground.stead_in(&self.folder);
        command.args(arguments);
        command
    }

    /// Seconds that a stead command takes.
    pub(crate) fn seconds<const N: usize>(&self, arguments: [&str; N]) -> Result<f64> {
        timing::seconds(&mut self.stead(arguments))
    }

    pub(crate) fn destroy(&self) -> Result<f64> {
        self.seconds(["destroy", "-y"])
    }

    /// The configurations by which stead's own ssh shares its connections, in a file. They are beside the keys that
    /// `stead ssh-config` names.
    pub(crate) fn ssh_config(&self) -> Result<PathBuf> {
        let file = self.folder.join("ssh_config");
        let printed = timing::output(&mut self.stead(["ssh-config"]))?;
        let mut text = String::new();
        for key in printed
            .lines()
            .filter_map(|line| line.trim().strip_prefix("IdentityFile "))
        {
            let own = Path::new(key.trim_matches('"')).with_file_name("ssh_config");
            text += &fs::read_to_string(&own).during(own.display())?;
        }
        fs::write(&file, text).during(file.display())?;
        Ok(file)
    }
}

impl Drop for Project<'_> {
    fn drop(&mut self) {
        if let Err(Trouble(message)) = self.destroy() {
            eprintln!("figures: clean-up: {message}");
        }
    }
}
