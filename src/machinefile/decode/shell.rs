//! Scripts: those of `shell`, and those of hooks.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use crate::machinefile::{
    block::Block,
    diagnostics::{MachinefileError, Spanned},
    model::{Invocation, ScriptSource, Shell, Text},
    paths::{Wants, resolve},
    syntax::{FileInfo, Files},
    units,
};

/// Properties of everything that is started.
pub(super) const INVOCATION: [&str; 4] = ["inline", "interpreter", "sensitive", "timeout"];

/// What bash keeps to itself: it takes none of these from its environment (bash(1), "Shell
/// Variables").
const READ_ONLY: [&str; 6] = [
    "BASHOPTS",
    "BASH_VERSINFO",
    "EUID",
    "PPID",
    "SHELLOPTS",
    "UID",
];

/// `shell "PATH"` or `shell inline="TEXT"`, and what may stand with it; hooks have it as `guest`.
pub(super) fn shell(block: &mut Block<'_>, file: &FileInfo, files: &Files) -> Option<Shell> {
    let known = [&INVOCATION[..], &["user", "privileged", "workdir"]].concat();
    block.properties(&known);
    let user = block.property_user("user");
    let privileged = block.property_bool("privileged");
    let workdir = block.property_string("workdir");
    if user.is_some()
        && let Some(privileged) = privileged.as_ref().filter(|it| it.value)
    {
        block.error(
            MachinefileError::new(
                &privileged.place,
                "`privileged` means root, and `user` names somebody else",
                "one of the two",
            )
            .help("leave one of them out"),
        );
    }
    if let Some(workdir) = &workdir
        && (!workdir.value.starts_with('/') || workdir.value.contains(['\n', '\0']))
    {
        block.error(
            MachinefileError::new(
                &workdir.place,
                format!("{:?} is no absolute path", workdir.value),
                "in the guest",
            )
            .help("start it with /, as in \"/srv/app\"; it has to be there when the script runs"),
        );
    }
    let (source, label, first) = source(block, file, files);
    let run = invocation(block, first);
    Some(Shell {
        source: source?,
        run,
        workdir: workdir.map(|workdir| workdir.value),
        privileged: user.is_none() && privileged.is_none_or(|privileged| privileged.value),
        user: user.map(|user| user.value),
        label,
    })
}

/// The script, what to call it, and the arguments that stand behind its path.
fn source(
    block: &mut Block<'_>,
    file: &FileInfo,
    files: &Files,
) -> (Option<ScriptSource>, String, Vec<Spanned<String>>) {
    let here = block.here();
    if let Some(text) = block.property_string("inline") {
        block.at_most(0);
        return (inline(block, text), "an inline script".into(), Vec::new());
    }
    let has_interpreter = block.has_property("interpreter");
    match block.optional_first_string("the path of a script") {
        Some(path) => {
            let arguments = block.rest("text");
            let found = resolve(&path, file, &files.root, Wants::File, block.errors)
                .filter(|found| check_script(&path, found, has_interpreter, block.errors));
            (found.map(ScriptSource::Path), path.value, arguments)
        }
        None => {
            if block.is_without_arguments() {
                let name = block.name();
                block.error(
                    MachinefileError::new(&here, format!("`{name}` has no script"), "empty")
                        .help("give it a path, or inline=\"…\""),
                );
            }
            (None, String::new(), Vec::new())
        }
    }
}

pub(super) fn inline(block: &mut Block<'_>, text: Spanned<String>) -> Option<ScriptSource> {
    if text.value.trim().is_empty() {
        block.error(MachinefileError::new(
            &text.place,
            "the script is empty",
            "nothing to run",
        ));
        return None;
    }
    Some(ScriptSource::Inline(Text(text.value)))
}

/// Arguments, environment, and how it is started. `first` are the arguments that stand behind the
/// path.
pub(super) fn invocation(block: &mut Block<'_>, first: Vec<Spanned<String>>) -> Invocation {
    let interpreter = block.property_string("interpreter");
    let sensitive = block
        .property_bool("sensitive")
        .is_some_and(|sensitive| sensitive.value);
    let timeout = block.property_with_unit("timeout", "10m", units::duration);
    let mut args = first;
    let mut env = BTreeMap::new();
    for node in block.children() {
        let mut child = block.child(node);
        match node.name().value() {
            "args" => {
                child.properties(&[]);
                child.no_children();
                args.extend(child.strings("text"));
            }
            "env" => {
                child.at_most(0);
                child.no_children();
                for (key, value) in child.free_properties() {
                    variable(&mut child, &key, &value);
                    env.insert(key.value, value.value);
                }
            }
            _ => block.unknown_child(node, &["args", "env"]),
        }
    }
    for word in &args {
        no_nul(block, word);
    }
    // Who may look at the processes of a system sees their arguments.
    if sensitive && let Some(word) = args.first() {
        block.error(
            MachinefileError::new(
                &word.place,
                "arguments of a sensitive script would stand in the list of processes",
                "seen by all users there",
            )
            .help("pass them by `env NAME=\"…\"`, which only the script's user can read"),
        );
    }
    Invocation {
        args: args.into_iter().map(|word| word.value).collect(),
        env,
        interpreter: interpreter.and_then(|line| words(block, line)),
        sensitive,
        timeout: timeout.map(|timeout| timeout.value),
    }
}

fn no_nul(block: &mut Block<'_>, word: &Spanned<String>) {
    if word.value.contains('\0') {
        block.error(MachinefileError::new(
            &word.place,
            "no program can be given the character 0",
            "in here",
        ));
    }
}

/// The name as POSIX has it (IEEE Std 1003.1, 3.216); what is wrong with the value is told without
/// showing it.
fn variable(block: &mut Block<'_>, key: &Spanned<String>, value: &Spanned<String>) {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = &key.value;
    if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit())
    {
        block.error(MachinefileError::new(
            &key.place,
            format!("{name:?} is no name of an environment variable"),
            "letters, digits and _",
        ));
    } else if READ_ONLY.contains(&name.as_str()) {
        block.error(
            MachinefileError::new(
                &key.place,
                format!("shells set {name} themselves"),
                "cannot be given",
            )
            .help("choose another name"),
        );
    }
    no_nul(block, value);
}

/// `python3 -u`, taken apart at white space and nowhere else.
fn words(block: &mut Block<'_>, line: Spanned<String>) -> Option<Vec<String>> {
    let words: Vec<String> = line.value.split_whitespace().map(str::to_string).collect();
    let what = if words.is_empty() {
        "the interpreter has no name"
    } else if line.value.contains(['\'', '"', '\\', '\0']) {
        "an interpreter is taken apart at spaces, and quotes are not known"
    } else {
        return Some(words);
    };
    block.error(
        MachinefileError::new(&line.place, what, "here")
            .help("write a program and its options, as in \"python3 -u\""),
    );
    None
}

/// How much of a script is looked at: its first line, and whether it is text.
const HEAD: u64 = 1024;

/// Whether it can be a script.
pub(super) fn check_script(
    path: &Spanned<String>,
    found: &Path,
    has_interpreter: bool,
    errors: &mut Vec<MachinefileError>,
) -> bool {
    let name = &path.value;
    let mut error = |message: String, label: &str, help: &str| {
        let error = MachinefileError::new(&path.place, message, label);
        errors.push(if help.is_empty() {
            error
        } else {
            error.help(help)
        });
        false
    };
    let head = match head_of(found) {
        Ok(head) => head,
        Err(cause) => return error(format!("{name} cannot be read: {cause}"), "here", ""),
    };
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if head.is_empty() {
        error(format!("{name} is empty"), "nothing to run", "")
    } else if head.contains(&0) && !has_interpreter {
        error(
            format!("{name} is a program or data, and no script"),
            "not text",
            "copy it with `file`, and run it from a script",
        )
    } else if first.starts_with(b"#!") && first.ends_with(b"\r") {
        error(
            format!("{name} has Windows line ends, and its interpreter would not be found"),
            "its first line ends in a carriage return",
            "take them out, as by: sed -i 's/\\r$//' FILE; `*.sh text eol=lf` in .gitattributes keeps them out",
        )
    } else {
        true
    }
}

pub(super) fn head_of(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD).read_to_end(&mut head)?;
    Ok(head)
}
