//! Machines on kernels that are not their boxes' own.

use std::fs;

use serde_json::Value;

use crate::project::Project;

/// Two lines of kernels that Debian 12 has packages of, by the packages that follow them.
const OLDER: &str = "linux-image-cloud-amd64";
const NEWER: &str = "linux-image-6.12-cloud-amd64";

/// A module that no initramfs of stead's has.
const LOAD: &str = "sudo modprobe btrfs && grep -q '^btrfs ' /proc/modules && echo loaded";

fn kernels(project: &Project) -> Vec<Value> {
    project
        .json(&["kernel", "list", "--json"])
        .as_array()
        .unwrap()
        .clone()
}

/// The release of that line of kernels which is in the store.
fn release_of(project: &Project, line: &str) -> String {
    let all = kernels(project);
    let mut releases = all.iter().map(|kernel| kernel["release"].as_str().unwrap());
    let found = releases.find(|release| release.starts_with(line));
    found
        .unwrap_or_else(|| panic!("{line} is not in {all:?}"))
        .to_string()
}

/// A package's kernel boots, loads what its initramfs has not, and shows in `status`; a changed
/// command line is applied by a restart; the same kernel boots from a path.
#[test]
fn packages_and_paths_boot() {
    let machinefile = |cmdline: &str| {
        format!(
            "project \"kernels\"\nmachine \"a\" {{\n    box \"debian-12\"\n    memory \"512MiB\"\n    kernel {{ package \"{OLDER}\"; cmdline \"{cmdline}\" }}\n}}\n"
        )
    };
    let project = Project::new("kernels", &machinefile("mitigations=off"));
    project.ok(&["up"]);
    let release = release_of(&project, "6.1.");
    assert_eq!(project.field("a", "kernel"), release.as_str());
    let said = project.ok(&[
        "exec",
        "--",
        "sh",
        "-c",
        &format!("uname -r; cat /proc/cmdline; {LOAD}; systemctl is-system-running"),
    ]);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines[0], release);
    assert!(
        lines[1].contains("root=/dev/vda") && lines[1].contains("mitigations=off"),
        "{lines:?}"
    );
    assert_eq!(lines[2..], ["loaded", "running"]);
    let lock = fs::read_to_string(project.folder.join("Machinefile.lock")).unwrap();
    assert!(
        lock.contains(&format!(
            "kernel package=\"{OLDER}\" distribution=\"debian/12\""
        )),
        "{lock}"
    );
    project.ok(&["up", "--locked"]);

    // In use, intact, and as one file.
    let refused = project.run(&["kernel", "remove", &release], 1);
    assert!(
        refused.err.contains("is in use: machine a"),
        "{}",
        refused.err
    );
    project.ok(&["kernel", "verify", &release]);
    project.ok(&["kernel", "export", &release, "k.tar.zst"]);
    project.ok(&["kernel", "import", "k.tar.zst"]);

    // A changed command line is told of.
    project.write("Machinefile", &machinefile("quiet"));
    let status = project.ok(&["status"]);
    assert!(
        status
            .out
            .contains("differs from the Machinefile: cmdline is"),
        "{}",
        status.out
    );

    // The tree and the image as files of this host.
    let root = project.folder.join("copied");
    fs::create_dir_all(root.join("boot")).unwrap();
    fs::create_dir_all(root.join("lib/modules")).unwrap();
    let modules = format!("a:/lib/modules/{release}");
    project.ok(&["copy", &modules, "copied/lib/modules/"]);
    let image = kernels(&project)
        .iter()
        .find(|kernel| kernel["release"] == release.as_str())
        .map(|kernel| {
            kernel["manifest"]["image"]["sha256"]
                .as_str()
                .unwrap()
                .to_string()
        })
        .unwrap();
    let image = project.data.join(format!("images/vmlinuz-{image}"));
    let path = format!("copied/boot/vmlinuz-{release}");
    fs::copy(image, project.folder.join(&path)).unwrap();
    let checked = project.ok(&["kernel", "check", &path]);
    assert!(
        checked.out.contains("a machine can boot it"),
        "{}",
        checked.out
    );
    project.ok(&["destroy", "-y"]);

    // One kernel after the other, of which one fails; nothing is left of the machines.
    let script =
        format!("{LOAD}; case $(uname -r) in 6.12.*) echo broken on $(uname -r); exit 3;; esac");
    let path = format!("./{path}");
    let ran = project.run(
        &[
            "run", "--json", "--kernel", NEWER, "--kernel", &path, "a", "--", "sh", "-c", &script,
        ],
        1,
    );
    let last: Value = serde_json::from_str(ran.out.lines().last().unwrap()).unwrap();
    assert_eq!(last["passed"], false, "{last}");
    let runs = last["runs"].as_array().unwrap();
    assert_eq!(runs[0]["release"], release_of(&project, "6.12.").as_str());
    assert_eq!(
        (&runs[0]["result"], &runs[0]["exit"]),
        (&"failed".into(), &3.into())
    );
    assert_eq!(runs[1]["release"], release.as_str());
    assert_eq!(
        (&runs[1]["result"], &runs[1]["exit"]),
        (&"passed".into(), &0.into())
    );
    let printed = fs::read_to_string(runs[0]["output"].as_str().unwrap()).unwrap();
    assert!(printed.starts_with("loaded\nbroken on 6.12."), "{printed}");
    assert!(
        project
            .ok(&["list"])
            .out
            .lines()
            .all(|line| !line.contains("kernels"))
    );
}

/// A box that boots by its own bootloader, on a kernel that is not its own: init finds the root.
#[test]
#[ignore = "boots a slow image; kernels::packages_and_paths tries packages: ./dev test --full"]
fn a_bootloader_box_boots_another_kernel() {
    let project = Project::new(
        "foreign",
        &format!(
            "project \"foreign\"\nmachine \"c\" {{\n    box \"debian-12-cloud\"\n    memory \"768MiB\"\n    kernel {{ package \"{NEWER}\" }}\n}}\n"
        ),
    );
    let ran = project.ok(&["run", "--", "sh", "-c", LOAD]);
    assert!(ran.out.contains("6.12."), "{}", ran.out);
    assert!(ran.err.contains("| loaded"), "{}", ran.err);
}
