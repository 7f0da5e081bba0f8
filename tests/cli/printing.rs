//! What is printed goes through one place, which lets nothing to a terminal that this would act on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{ONE, Place};

/// Where words of others may not be written past [`stead::report`].
const WRITERS: [&str; 14] = [
    "println!",
    "eprintln!",
    "print!(",
    "eprint!(",
    "dbg!(",
    "stdout()",
    "stderr()",
    "io::Stdout",
    "io::Stderr",
    "STDOUT_FILENO",
    "STDERR_FILENO",
    "\"/dev/tty\"",
    "indicatif",
    "Stdio::inherit()",
];

/// The files that may, and why.
const MAY: [(&str, &str, &str); 8] = [
    (
        "src/host/process/terminal.rs",
        "\"/dev/tty\"",
        "recognises what a program reads; opens nothing",
    ),
    ("src/report/stdio.rs", "stdout()", "the one place"),
    ("src/report/stdio.rs", "stderr()", "the one place"),
    ("src/report/terminal.rs", "indicatif", "live lines"),
    ("src/report/terminal.rs", "stderr()", "live lines"),
    (
        "src/cli/dial.rs",
        "",
        "its output is the connection of ssh, and it speaks where ssh speaks",
    ),
    ("src/cli/through.rs", "", "rsync and scp are at its streams"),
    (
        "src/boxes/oci/credentials.rs",
        "Stdio::inherit()",
        "the user's own credential helper asks the user",
    ),
];

/// Bytes as they are, which has to have a reason.
const RAW: [(&str, &str); 9] = [
    ("src/report/stdio.rs", "where it is"),
    ("src/cli/output.rs", "what hands it on"),
    (
        "src/cli/logs.rs",
        "--raw, files, and lines that were cleaned",
    ),
    (
        "src/cli/job.rs",
        "--raw, files, and lines that were cleaned",
    ),
    ("src/cli/fmt.rs", "a file for an editor"),
    ("src/cli/link/record.rs", "pcap, and never to a terminal"),
    (
        "src/session/exec.rs",
        "what the user's own command prints, as ssh has it",
    ),
    (
        "src/session/console.rs",
        "a terminal of the guest's own, as any console is",
    ),
    ("src/cli/top/screen.rs", "draws lines that were cleaned"),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|it| it == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn only_one_place_writes_to_the_terminal() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    assert!(files.len() > 100, "{files:?}");
    let mut wrong = Vec::new();
    for path in files {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        let text = fs::read_to_string(&path).unwrap();
        // Tests of modules print where nobody is attacked.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (n, line) in code.lines().enumerate() {
            let line = &line.replace("use_stderr()", "");
            if line.trim_start().starts_with("//") {
                continue;
            }
            for writer in WRITERS.iter().filter(|writer| line.contains(**writer)) {
                let may = (MAY.iter())
                    .any(|(file, what, _)| *file == name && (what.is_empty() || what == writer));
                if !may {
                    wrong.push(format!("{name}:{}: {writer}: {line}", n + 1));
                }
            }
            let raw = ["stdio::raw(", "stdio::raw_talk(", "output::raw("]
                .iter()
                .any(|it| line.contains(it));
            if raw && !RAW.iter().any(|(file, _)| *file == name) {
                wrong.push(format!("{name}:{}: raw: {line}", n + 1));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "only report::stdio writes, so that all is cleaned there:\n{}",
        wrong.join("\n")
    );
}

/// A path in a message is one line of it by [`stead::report::clean::Shown`]. `Display` of paths leaves line
/// breaks and escapes in.
#[test]
fn paths_are_shown_in_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let mut wrong = Vec::new();
    for path in files.iter().filter(|path| !path.ends_with("tests.rs")) {
        let text = fs::read_to_string(path).unwrap();
        let tests = [
            "mod tests {",
            "pub mod tests {",
            "pub(super) mod tests {",
            "pub(crate) mod tests {",
        ];
        let code = (tests.iter()).fold(text.as_str(), |code, tests| {
            code.split(&format!("#[cfg(test)]\n{tests}"))
                .next()
                .unwrap_or(code)
        });
        for (n, line) in code.lines().enumerate() {
            if line.contains(".display()") {
                wrong.push(format!(
                    "{}:{}: {line}",
                    path.strip_prefix(root).unwrap().display(),
                    n + 1
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "write .shown() in messages, .to_string_lossy() in data:\n{}",
        wrong.join("\n")
    );
}

/// The words of a line of stead's own that a folder's name would like to be.
#[test]
fn a_folder_with_a_line_break_in_its_name_says_nothing_of_its_own() {
    let place = Place::new();
    let project = place.path().join("a\nerror: b\u{1b}[2Jc");
    fs::create_dir(&project).unwrap();
    let folder = project.to_str().unwrap();
    let file = project.join("Machinefile");
    for arguments in [
        &["-C", folder, "up"][..],
        &["-C", folder, "init"],
        &["-C", folder, "init"],
        &["-C", folder, "validate"],
        &["-C", folder, "fmt", "--check"],
        &["-C", folder, "adopt", "--from", folder],
        &["-f", &format!("{folder}/none"), "up"],
        &["-C", &format!("{folder}/none"), "up"],
        &["box", "add", &format!("{folder}/none.box")],
        &["box", "add", folder],
        &["kernel", "add", folder],
    ] {
        let output = place.stead(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_clean(&format!("{arguments:?}"), &output.stderr);
        assert!(
            !said
                .lines()
                .any(|line| line.trim_start().starts_with("error: b")),
            "{arguments:?}: {said}"
        );
    }
    assert!(file.exists());
}

/// What would fill the clipboard, set a title, clear the screen, and turn text round.
const HOSTILE: &str = "\u{1b}]52;c;Y3VybCBldmls\u{7}\u{9d}0;t\u{9c}\u{1b}[2J\u{9b}31m\u{202e}";

fn assert_clean(what: &str, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let bad = |c: char| {
        (c.is_control() && !matches!(c, '\n' | '\t'))
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(!text.contains(bad), "{what}: {text:?}");
}

/// Machinefiles that are wrong by words of their own, in values, keys, comments and names.
fn hostile_machinefiles() -> Vec<String> {
    let in_kdl: String = HOSTILE
        .chars()
        .map(|c| format!("\\u{{{:x}}}", u32::from(c)))
        .collect();
    vec![
        format!("project \"shop\"\nmachine \"web\" {{ box \"a{in_kdl}\\nerror: b\"; cpu 2; }}\n"),
        format!("project \"shop\"\nmachine \"{in_kdl}\" {{ box \"a\"; }}\n"),
        format!("project \"{in_kdl}\"\n"),
        format!("project \"shop\"\nmachine \"web\" {{ \"{in_kdl}\" 1; }}\n"),
        format!(
            "project \"shop\"\nmachine \"web\" {{ box \"x\"; sync \"{in_kdl}\" to=\"/x\"; }}\n"
        ),
        // As they are, which KDL itself may refuse: the line is shown.
        format!("project \"shop\" /* {HOSTILE} */ nonsense=1\n"),
        format!("{HOSTILE}\n"),
        format!("project \"a{HOSTILE}\"\n"),
    ]
}

#[test]
fn words_of_a_machinefile_do_nothing_to_the_terminal() {
    for (n, text) in hostile_machinefiles().iter().enumerate() {
        let place = Place::with(text);
        for arguments in [
            &["validate"][..],
            &["validate", "--color", "always"],
            &["plan"],
            &["fmt", "--check"],
            &["validate", "--json"],
        ] {
            let output = place.stead(arguments).output().unwrap();
            let what = format!("{n} {arguments:?}");
            if arguments.contains(&"always") {
                // Colours of stead's own, and nothing else that begins with an escape.
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                let escapes = text.matches('\u{1b}').count();
                let colors = text
                    .split('\u{1b}')
                    .skip(1)
                    .filter(|rest| {
                        rest.strip_prefix('[').is_some_and(|rest| {
                            rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';')
                                .starts_with('m')
                        })
                    })
                    .count();
                assert_eq!(escapes, colors, "{what}: {text:?}");
                assert_clean(&what, text.replace('\u{1b}', "").as_bytes());
            } else {
                assert_clean(&what, &output.stdout);
                assert_clean(&what, &output.stderr);
            }
        }
    }
}

#[test]
fn names_of_files_and_words_of_arguments_do_nothing_to_the_terminal() {
    let place = Place::with(ONE);
    let name = format!("a{}", HOSTILE.replace('/', ""));
    fs::write(place.path().join(&name), "not kdl {{{").unwrap();
    for arguments in [
        &["box", "add", &name][..],
        &["box", "add", "./no\u{1b}]0;t\u{7}ne"],
        &["-f", &name, "status"],
        &["fmt", "--check", &name],
        &["kernel", "show", &name],
        &["box", "show", &name],
        &["--connect", &name, "status"],
        &["exec", &name],
        &["no-such-command\u{1b}]0;t\u{7}"],
        &["up", "--no-such\u{1b}]0;t\u{7}"],
        &["logs", &name],
        &["copy", &name, "b"],
    ] {
        let output = place.stead(arguments).output().unwrap();
        assert_clean(&format!("{arguments:?}"), &output.stdout);
        assert_clean(&format!("{arguments:?}"), &output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
    }
}

/// What stead hands to an editor is the file, whatever is in it.
#[test]
fn a_formatted_file_is_the_file() {
    let place = Place::new();
    let text = "project \"sho\u{9b}31mp\"\n";
    let mut child = place
        .stead(&["fmt", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), text);
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let place = Place::new();
    for arguments in ["--help", "completions bash", "doctor --json", "doctor"] {
        let script =
            format!("exec 3>&1; {{ \"$STEAD\" {arguments}; echo $? >&3; }} | true; exit 0");
        let output = Command::new("bash")
            .args(["-c", &script])
            .env("STEAD", env!("CARGO_BIN_EXE_stead"))
            .env("HOME", place.path())
            .env("STEAD_DATA_DIR", place.path().join("data"))
            .current_dir(place.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{arguments}: {said}");
        assert!(!said.contains("standard output"), "{arguments}: {said}");
    }
}
