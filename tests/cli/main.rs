//! The binary without a hypervisor: what it prints and how it ends.

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

mod bounds;
mod capture;
mod dial;
mod hosts;
mod library;
mod log;
mod newcomer;
mod origins;
mod printing;
mod security;
mod signals;
mod trust;
mod trust_ca;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

/// Words of Vagrant, Lima and Multipass.
#[test]
fn words_of_other_tools_get_a_tip() {
    let place = Place::new();
    for (words, tip) in [
        (&["reload"][..], "stead restart"),
        (&["network", "list"], "stead link"),
        (&["global-status"], "stead list"),
        (&["snapshot", "save"], "stead box pack MACHINE"),
        (
            &["provision", "--provision-with", "setup"],
            "stead provision --only NAME",
        ),
        (&["exec", "dev", "ls"], "stead exec dev -- ls"),
    ] {
        let said = place.run(words);
        assert!(said.contains(tip), "{words:?}: {said}");
    }
    let said = place.run(&["destory"]);
    assert!(
        said.contains("destroy") && !said.contains("suspended"),
        "{said}"
    );
}

/// Mistakes that need neither a machine nor libvirt.
#[test]
fn link_says_what_is_wrong() {
    let place = Place::with(ONE);
    let mut said = String::new();
    for words in [
        &["set", "web", "db"][..],
        &["set", "web", "db", "cache", "loss=2%"],
        &["set", "web", "delay=80ms"],
        &["set", "web", "latency=80"],
        &["set", "web", "loss=200%"],
        &["set", "web", "rate=10Mbit/s"],
        &["set", "web", "loss=2%", "--for", "5"],
        &["set", "loss=2%", "--one-way"],
        &["cut"],
        &["cut", "a", "b", "c"],
        &["record", "web", "--json"],
        &["record", "web", "--write", "."],
        &["record", "web", "--write", "/dev/null"],
        &["record", "web", "--write", "nowhere/web.pcap"],
    ] {
        said.push_str(&format!("=== stead link {}\n", words.join(" ")));
        said.push_str(&place.run(&[&["link"], words].concat()));
    }
    insta::assert_snapshot!(said);
}

/// libvirt's sockets lie below the home, and a Unix socket's path is short.
#[test]
fn doctor_names_a_home_that_is_too_long_for_libvirt() {
    let place = Place::new();
    let check = |home: &str| {
        let output = place
            .stead(&["doctor", "--json", "--connect", "qemu:///session"])
            .env("HOME", home)
            .env("XDG_RUNTIME_DIR", place.path())
            .output()
            .unwrap();
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = said["checks"].as_array().unwrap();
        (checks.iter())
            .find(|check| check["name"] == "sockets")
            .unwrap()
            .clone()
    };
    assert_eq!(check("/home/firstname.lastname")["verdict"], "ok");
    let long = check(&format!("/home/{}", "x".repeat(60)));
    assert_eq!(long["verdict"], "failed");
    assert!(long["remedy"].as_str().unwrap().contains("XDG_CONFIG_HOME"));
}

/// A hook on the host has the project's name in STEAD_PROJECT, and its folder in STEAD_ROOT.
#[test]
fn the_inventory_script_takes_the_folder_of_a_hook() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("provisioners/stead-inventory");
    let arguments = |root: Option<&str>| {
        let output = Command::new(&script)
            .arg("--list")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("STEAD", "echo")
            .env("STEAD_PROJECT", "shop")
            .envs(root.map(|root| ("STEAD_ROOT", root)))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(
        arguments(Some("/srv/my shop")),
        "-C /srv/my shop inventory --list\n"
    );
    assert_eq!(arguments(None), "-C . inventory --list\n");
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Place {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn with(machinefile: &str) -> Self {
        let place = Self::new();
        fs::write(place.path().join("Machinefile"), machinefile).unwrap();
        place
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// stead with nothing of this environment but PATH.
    fn stead(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stead"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path().join("home"))
            .env("STEAD_DATA_DIR", self.path().join("data"))
            .stdin(Stdio::null());
        command
    }

    /// Exit code, stdout and stderr, with this folder's path replaced.
    fn run(&self, arguments: &[&str]) -> String {
        self.said(&self.stead(arguments).output().unwrap())
    }

    fn said(&self, output: &Output) -> String {
        let text = format!(
            "exit {}\n--- stdout\n{}--- stderr\n{}",
            output.status.code().unwrap(),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let real = self.path().canonicalize().unwrap();
        text.replace(&real.display().to_string(), "<folder>")
            .replace(&self.path().display().to_string(), "<folder>")
    }
}

const ONE: &str = "project \"shop\"\nmachine \"web\" { box \"debian-12\"; }\n";

/// A connection that nobody listens on.
const NOWHERE: &str = "qemu+unix:///system?socket=/nonexistent/libvirt.sock";

#[test]
fn help_of_every_command() {
    let mut text = String::new();
    let mut command = stead::cli::command().term_width(100);
    command.build();
    text.push_str(&command.render_help().to_string());
    fn each(command: &mut clap::Command, name: &str, text: &mut String) {
        for sub in command.get_subcommands_mut() {
            if sub.get_name() == "help" {
                continue;
            }
            let name = format!("{name} {}", sub.get_name());
            text.push_str(&format!("\n=== {name}\n{}", sub.render_help()));
            each(sub, &name, text);
        }
    }
    each(&mut command, "stead", &mut text);
    insta::assert_snapshot!(text);
}

/// Every command that takes arguments has examples, and stead's own parser reads them.
#[test]
fn examples_in_the_help() {
    fn each(command: &clap::Command, name: &str, wrong: &mut Vec<String>) {
        for sub in command.get_subcommands().filter(|it| !it.is_hide_set()) {
            let name = format!("{name} {}", sub.get_name());
            let help = (sub.get_after_help()).map_or_else(String::new, ToString::to_string);
            if sub.get_positionals().next().is_some() && !help.starts_with("Examples:\n") {
                wrong.push(format!("{name}: no examples"));
            }
            for line in help.lines().skip(1) {
                let words = shlex::split(line.trim_start().split("  ").next().unwrap()).unwrap();
                let words: Vec<_> = (words.iter())
                    .take_while(|word| !word.starts_with(['>', '|']))
                    .collect();
                let parsed = stead::cli::command().try_get_matches_from(&words);
                if let Err(error) = parsed {
                    wrong.push(format!("{line}: {error}"));
                }
                if !line.trim_start().starts_with(&name) {
                    wrong.push(format!("{line}: not an example of {name}"));
                }
            }
            each(sub, &name, wrong);
        }
    }
    let mut wrong = Vec::new();
    each(&stead::cli::command(), "stead", &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The Machinefile that `-f` names is not the file of a command.
#[test]
fn a_machinefile_is_no_argument_of_a_command() {
    let words = ["stead", "-f", "Other", "kernel", "export", "prod"];
    let matches = stead::cli::command().try_get_matches_from(words).unwrap();
    let kernel = matches.subcommand_matches("kernel").unwrap();
    let export = kernel.subcommand_matches("export").unwrap();
    let file = |name: &str| export.get_one::<std::path::PathBuf>(name).cloned();
    assert_eq!(file("archive"), None);
    assert_eq!(file("file"), Some("Other".into()));
}

#[test]
fn no_machinefile() {
    insta::assert_snapshot!(Place::new().run(&["up"]));
}

#[test]
fn a_wrong_machinefile_exits_2_with_every_error() {
    let place = Place::with("project \"shop\"\nmachine \"web\" { bux \"debian-12\"; memory 1; }\n");
    insta::assert_snapshot!(place.run(&["validate"]));
}

#[test]
fn validate_says_what_is_there() {
    insta::assert_snapshot!(Place::with(ONE).run(&["validate"]));
}

#[test]
fn found_from_a_folder_below() {
    let place = Place::with(ONE);
    fs::create_dir_all(place.path().join("a/b")).unwrap();
    let said = place.run(&["-C", "a/b", "validate"]);
    assert!(said.starts_with("exit 0"), "{said}");
    let said = place.run(&["-C", "nowhere", "validate"]);
    assert!(
        said.starts_with("exit 2") && said.contains("there is no folder"),
        "{said}"
    );
}

/// Whatever names a file: arguments too.
#[test]
fn arguments_are_names_in_the_folder_of_c() {
    let place = Place::with(ONE);
    fs::create_dir(place.path().join("shop")).unwrap();
    fs::write(place.path().join("shop/part.kdl"), "a   1\n").unwrap();
    let said = place.run(&["-C", "shop", "fmt", "part.kdl"]);
    assert!(said.starts_with("exit 0"), "{said}");
    let text = fs::read_to_string(place.path().join("shop/part.kdl")).unwrap();
    assert_eq!(text, "a 1\n");
}

#[test]
fn init_writes_what_validates_and_overwrites_nothing() {
    let place = Place::new();
    let said = place.run(&["init", "shop"]);
    assert!(said.starts_with("exit 0"), "{said}");
    assert!(place.run(&["validate"]).starts_with("exit 0"));
    assert!(place.run(&["fmt", "--check"]).starts_with("exit 0"));
    let again = place.run(&["init"]);
    assert!(
        again.starts_with("exit 1") && again.contains("kept as it is"),
        "{again}"
    );
    let said = Place::new().run(&["init", "My Shop"]);
    assert!(
        said.starts_with("exit 2") && said.contains("my-shop"),
        "{said}"
    );
}

#[test]
fn fmt_rewrites_and_checks() {
    let place = Place::with("project   \"shop\"\nmachine \"web\" { box \"b\"; }\n");
    assert!(place.run(&["fmt", "--check"]).starts_with("exit 1"));
    assert!(place.run(&["fmt"]).starts_with("exit 0"));
    let text = fs::read_to_string(place.path().join("Machinefile")).unwrap();
    assert_eq!(text, "project \"shop\"\nmachine \"web\" { box \"b\"; }\n");
    assert!(place.run(&["fmt", "--check"]).starts_with("exit 0"));
    fs::write(place.path().join("Machinefile"), "machine \"").unwrap();
    assert!(place.run(&["fmt"]).starts_with("exit 2"));
    assert_eq!(
        fs::read_to_string(place.path().join("Machinefile")).unwrap(),
        "machine \""
    );
}

#[test]
fn libvirt_out_of_reach() {
    let said = Place::with(ONE).run(&["--connect", NOWHERE, "status"]);
    // How to start libvirt depends on the host.
    let (error, hint) = said.split_once("hint: ").unwrap();
    insta::assert_snapshot!(error);
    assert!(hint.starts_with("start libvirt: "), "{hint}");
    let remote = Place::with(ONE).run(&["--connect", "qemu+ssh://host/system", "up"]);
    assert!(
        remote.starts_with("exit 1") && remote.contains("another host"),
        "{remote}"
    );
}

#[test]
fn boxes_that_are_not_there() {
    let place = Place::new();
    insta::assert_snapshot!("box_list_empty", place.run(&["box", "list"]));
    insta::assert_snapshot!("box_show_unknown", place.run(&["box", "show", "debian-12"]));
    insta::assert_snapshot!("box_build_unknown", place.run(&["box", "build", "nixos"]));
    fs::create_dir(place.path().join("empty")).unwrap();
    insta::assert_snapshot!("box_add_no_box", place.run(&["box", "add", "empty"]));
}

#[test]
fn completions_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = Place::new().run(&["completions", shell]);
        assert!(
            said.starts_with("exit 0") && said.contains("provision"),
            "{shell}"
        );
    }
}

/// `stead validate --json | head -0`: a reader that goes away is no error.
#[test]
fn a_closed_pipe_is_no_error() {
    let place = Place::with(ONE);
    let mut child = place
        .stead(&["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn wrong_arguments_exit_2() {
    for arguments in [
        &["upp"][..],
        &["exec"],
        &["--label", "x"],
        &["status", "--label", "x"],
    ] {
        let said = Place::with(ONE).run(arguments);
        assert!(said.starts_with("exit 2"), "{arguments:?}: {said}");
    }
}

/// The program that watches folders says whose it is, and carries nothing of libvirt with it.
#[test]
fn what_watches_is_small_and_steads_own() {
    let program = env!("CARGO_BIN_EXE_stead-watch");
    let output = Command::new(program).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("hint: run `stead sync --watch`, which starts this program"),
        "{said}"
    );
    let needs = Command::new("ldd").arg(program).output().unwrap();
    let needs = String::from_utf8_lossy(&needs.stdout);
    assert!(
        needs.contains("libc.so") && !needs.contains("libvirt"),
        "{needs}"
    );
}

/// rsync runs the program that runs rsync, which may be either.
#[test]
fn both_programs_stand_in_for_ssh() {
    for program in [
        env!("CARGO_BIN_EXE_stead"),
        env!("CARGO_BIN_EXE_stead-watch"),
    ] {
        let output = Command::new(program)
            .args(["through", "/nowhere", "web", "rsync", "--server"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("is run by rsync and scp"), "{said}");
    }
}

#[test]
fn twenty_machines_in_a_file() {
    let mut text = String::from("project \"many\"\ndefaults { box \"debian-12\"; }\n");
    for n in 0..20 {
        text.push_str(&format!("machine \"m{n}\" {{ forward {}; }}\n", 20_000 + n));
    }
    let said = Place::with(&text).run(&["validate"]);
    assert!(said.contains("20 machines"), "{said}");
}

/// A kernel of 6.1.0-1 with these options, in the shape that a distribution installs it in.
fn install_kernel(place: &Place, options: &str) {
    let mut image = vec![0; 0x4000];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    image[0x20e..0x210].copy_from_slice(&0x3000u16.to_le_bytes());
    image[0x236] = 1;
    let banner = b"6.1.0-1 (me@here) #1 SMP Tue Jan 2 2024";
    image[0x3200..0x3200 + banner.len()].copy_from_slice(banner);
    let module = b"\x7fELF....vermagic=6.1.0-1 SMP \0";
    let files: [(&str, &[u8]); 6] = [
        ("boot/vmlinuz-6.1.0-1", &image),
        ("boot/config-6.1.0-1", options.as_bytes()),
        ("lib/modules/6.1.0-1/kernel/virtio_blk.ko", module),
        (
            "lib/modules/6.1.0-1/modules.dep",
            b"kernel/virtio_blk.ko:\n",
        ),
        ("lib/modules/6.1.0-1/modules.dep.bin", b""),
        (
            "lib/modules/6.1.0-1/modules.builtin",
            b"kernel/virtio_pci.ko\nkernel/virtio_net.ko\nkernel/ext4.ko\n",
        ),
    ];
    for (name, content) in files {
        let path = place.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

const NEEDED: &str = "CONFIG_BLK_DEV_INITRD=y\nCONFIG_DEVTMPFS=y\nCONFIG_PROC_FS=y\nCONFIG_SYSFS=y\nCONFIG_TMPFS=y\nCONFIG_BINFMT_ELF=y\nCONFIG_PCI=y\nCONFIG_INET=y\nCONFIG_UNIX=y\nCONFIG_EPOLL=y\nCONFIG_SIGNALFD=y\nCONFIG_TIMERFD=y\nCONFIG_INOTIFY_USER=y\nCONFIG_FHANDLE=y\nCONFIG_CGROUPS=y\nCONFIG_BINFMT_SCRIPT=y\nCONFIG_SERIAL_8250_CONSOLE=y\n";

#[test]
fn kernel_check_says_what_is_lacking() {
    let place = Place::new();
    let check = ["kernel", "check", "boot/vmlinuz-6.1.0-1"];
    install_kernel(&place, NEEDED);
    insta::assert_snapshot!("kernel_check_fits", place.run(&check));
    install_kernel(
        &place,
        &NEEDED
            .replace("CONFIG_UNIX=y", "CONFIG_UNIX=m")
            .replace("CONFIG_CGROUPS=y\n", ""),
    );
    insta::assert_snapshot!("kernel_check_lacks", place.run(&check));
}

/// What is no kernel that could be booted here, and what to give instead.
#[test]
fn kernel_check_refuses() {
    let place = Place::new();
    install_kernel(&place, NEEDED);
    let mut said = String::new();
    let mut case = |name: &str, content: &[u8], more: &[&str]| {
        let path = place.path().join(name);
        if !content.is_empty() {
            fs::write(path, content).unwrap();
        }
        let arguments = [&["kernel", "check", name], more].concat();
        said.push_str(&place.run(&arguments));
        said.push('\n');
    };
    let mut elf = vec![0; 64];
    elf[..4].copy_from_slice(b"\x7fELF");
    elf[18] = 0x3e;
    case("./vmlinux", &elf, &[]);
    let mut arm = vec![0; 64];
    arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
    case("./Image", &arm, &[]);
    case("./text", b"hello\n", &[]);
    case("./gone", b"", &[]);
    case("gone", b"", &[]);
    case("./boot", b"", &[]);
    // Modules that are none, and those of another release.
    case("boot/vmlinuz-6.1.0-1", b"", &["--modules", "boot"]);
    let other = place.path().join("other/kernel");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("a.ko"), b"\x7fELF vermagic=6.2.0-7 SMP \0").unwrap();
    case("boot/vmlinuz-6.1.0-1", b"", &["--modules", "other"]);
    insta::assert_snapshot!(said);
}

#[test]
fn kernels_that_are_not_here() {
    let place = Place::new();
    insta::assert_snapshot!("kernel_list_empty", place.run(&["kernel", "list"]));
    insta::assert_snapshot!(
        "kernel_show_unknown",
        place.run(&["kernel", "show", "6.1.0-1"])
    );
    fs::write(place.path().join("k.tar.zst"), b"hello").unwrap();
    insta::assert_snapshot!(
        "kernel_import_no_archive",
        place.run(&["kernel", "import", "k.tar.zst"])
    );
}

/// Global options are long to read, and the same for every command.
#[test]
fn short_help_leaves_global_options_to_the_long_one() {
    let place = Place::with(ONE);
    for (arguments, listed) in [
        (&["box"][..], false),
        (&["box", "-h"], false),
        (&["up", "-h"], false),
        (&["-h"], true),
        (&["up", "--help"], true),
        (&["help", "up"], true),
    ] {
        let said = place.run(arguments);
        assert_eq!(
            said.contains("Global options:"),
            listed,
            "{arguments:?}: {said}"
        );
    }
}
