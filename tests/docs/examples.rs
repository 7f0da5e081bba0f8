//! Machinefiles and other KDL in the documentation. A fence says what its text is, behind `kdl`.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use super::pages::{Fence, Page};

/// Folders and files that examples name. What they hold does not matter to `stead validate`.
const FOLDERS: [&str; 6] = ["src", "site", "data", "notes", "provision", "ansible"];
const FILES: [&str; 9] = [
    "provision/postgres.sh",
    "provision/app.sh",
    "provision/web.sh",
    "provision/db.sh",
    "motd",
    "user-data.yaml",
    "kernel.key",
    "ansible/site.yml",
    "ansible/web.yml",
];

/// A folder for one example, and stead in it with nothing of this environment but PATH.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let place = Place {
            folder: tempfile::tempdir().unwrap(),
        };
        for folder in FOLDERS {
            fs::create_dir(place.path().join(folder)).unwrap();
        }
        for file in FILES {
            place.write(file, "true\n");
        }
        place
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path().join(file), text).unwrap();
    }

    /// Whether it succeeded, and what it printed.
    fn stead(&self, path: &str, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_stead"))
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.path().join("home"))
            .env("STEAD_DATA_DIR", self.path().join("data-of-stead"))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text.into_owned())
    }
}

/// What stead has against an example.
fn objection(kind: &str, text: &str) -> Option<String> {
    let place = Place::new();
    let machine = |name: &str| format!("project \"docs\"\nmachine \"{name}\" {{ box \"b\"; }}\n");
    let path = std::env::var("PATH").unwrap_or_default();
    let (good, said) = match kind {
        // A whole Machinefile.
        "kdl" => {
            place.write("Machinefile", text);
            place.stead(&path, &["validate"])
        }
        // The inside of a machine.
        "kdl machine" => {
            place.write(
                "Machinefile",
                &format!("project \"docs\"\nmachine \"one\" {{\n    box \"b\"\n{text}\n}}\n"),
            );
            place.stead(&path, &["validate"])
        }
        // What stands beside the machines.
        "kdl top" => {
            place.write("Machinefile", &format!("{}{text}", machine("one")));
            place.stead(&path, &["validate"])
        }
        // A Machinefile.local.
        "kdl local" => {
            place.write("Machinefile", &machine("db"));
            place.write("Machinefile.local", text);
            place.stead(&path, &["validate"])
        }
        // A Machinefile.lock. `plan` reads it; libvirt's test driver has no machine.
        "kdl lock" => {
            place.write("Machinefile", &machine("web"));
            place.write("Machinefile.lock", text);
            place.stead(&path, &["--connect", "test:///default", "plan"])
        }
        // A catalogue. A key in it is abridged in the page, and whole here.
        "kdl catalogue" => {
            place.write(
                "Machinefile",
                &format!("{}catalogue \"./catalogue.kdl\"\n", machine("web")),
            );
            place.write("catalogue.kdl", &text.replace("    …", &key()));
            place.stead(&path, &["box", "list", "--available"])
        }
        // A recipe. It is read before the tools are looked for, which are not there.
        "kdl recipe" => {
            fs::create_dir(place.path().join("recipe")).unwrap();
            place.write("recipe/recipe.kdl", text);
            let (_, said) = place.stead("/nonexistent", &["box", "build", "./recipe"]);
            (said.contains("which is not installed"), said)
        }
        other => (false, format!("a fence of an unknown kind: {other}")),
    };
    (!good).then_some(said)
}

/// The lines of the key that boxes/catalogue.kdl has for the images of Ubuntu.
fn key() -> String {
    let catalogue = Path::new(env!("CARGO_MANIFEST_DIR")).join("boxes/catalogue.kdl");
    let text = fs::read_to_string(catalogue).unwrap();
    let (_, key) = text.split_once("key \"ubuntu-cloud-images\"").unwrap();
    let (_, key) = key
        .split_once("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
        .unwrap();
    let (key, _) = key.split_once("    -----END").unwrap();
    key.trim_end().to_string()
}

fn is_kdl(fence: &Fence) -> bool {
    fence.info.split_whitespace().next() == Some("kdl")
}

#[test]
fn an_example_that_is_wrong_is_seen() {
    for (kind, text) in [
        (
            "kdl",
            "project \"a\"\nmachine \"b\" { box \"c\"; cpu 2; }\n",
        ),
        ("kdl machine", "memory 2\n"),
        ("kdl top", "host-reserve cpu=1\n"),
        ("kdl local", "machine \"db\" { memory \"much\"; }\n"),
        (
            "kdl lock",
            "version 1\nbox \"b\" arch=\"x86_64\" { url \"https://e.org\"; }\n",
        ),
        ("kdl catalogue", "version 1\nbox \"a\" { release \"1\"; }\n"),
        ("kdl recipe", "name \"a\"\nsuit \"bookworm\"\n"),
        ("kdl recip", ""),
    ] {
        assert!(objection(kind, text).is_some(), "{kind}: {text}");
    }
}

#[test]
fn examples_of_the_documentation_are_valid() {
    let mut wrong = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for page in Page::documentation() {
        for fence in page.fences().iter().filter(|fence| is_kdl(fence)) {
            *seen.entry(fence.info.clone()).or_default() += 1;
            if let Some(said) = objection(&fence.info, &fence.text) {
                let place = format!("{}:{}", page.path.display(), fence.line);
                wrong.push(format!("{place}:\n{}\n{said}", fence.text));
            }
        }
    }
    assert!(seen.values().sum::<usize>() > 20, "found only {seen:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Machinefile.example, and the projects of examples/.
#[test]
fn example_projects_are_valid() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![repository.join("Machinefile.example")];
    for project in fs::read_dir(repository.join("examples")).unwrap() {
        for file in fs::read_dir(project.unwrap().path()).unwrap() {
            let file = file.unwrap();
            if file
                .file_name()
                .to_string_lossy()
                .starts_with("Machinefile")
            {
                files.push(file.path());
            }
        }
    }
    assert!(files.len() >= 4, "found only {files:?}");
    let place = Place::new();
    for file in files {
        let file = file.to_str().unwrap();
        let (good, said) = place.stead("/usr/bin:/bin", &["-f", file, "validate"]);
        assert!(good, "{said}");
    }
}
