//! Decodes the scripts of `shell` and of hooks.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use crate::machinefile::{
    block::Block,
    diagnostics::{MachinefileError, Spanned},
    model::{Invocation, ScriptSource, Shell},
    paths::{Wants, resolve},
    syntax::{FileInfo, Files},
    text::Text,
    units,
};

/// Properties of all scripts and programs.
pub(super) const INVOCATION: [&str; 4] = ["inline", "interpreter", "sensitive", "timeout"];

/// bash ignores these variables in its environment (bash(1), "Shell Variables").
const READ_ONLY: [&str; 6] = [
    "BASHOPTS",
    "BASH_VERSINFO",
    "EUID",
    "PPID",
    "SHELLOPTS",
    "UID",
];

/// Decodes `shell "PATH"` or `shell inline="TEXT"` with its settings. In hooks it is `guest`.
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
                &privileged.span,
                "`privileged` means root, but `user` names another user",
                "one of the two",
            )
            .help("remove one of them"),
        );
    }
    if let Some(workdir) = &workdir
        && (!workdir.value.starts_with('/') || workdir.value.contains(['\n', '\0']))
    {
        block.error(
            MachinefileError::new(
                &workdir.span,
                format!("{:?} is not an absolute path", workdir.value),
                "in the guest",
            )
            .help(
                "begin it with /, as in \"/srv/app\"; the folder must exist when the script runs",
            ),
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

/// Returns the script, its name for people, and the arguments after its path.
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
                        .help("add a path, or inline=\"…\""),
                );
            }
            (None, String::new(), Vec::new())
        }
    }
}

pub(super) fn inline(block: &mut Block<'_>, text: Spanned<String>) -> Option<ScriptSource> {
    if text.value.trim().is_empty() {
        block.error(MachinefileError::new(
            &text.span,
            "the script is empty",
            "nothing to run",
        ));
        return None;
    }
    Some(ScriptSource::Inline(Text(text.value)))
}

/// Decodes arguments, environment and interpreter. `first` are the arguments after the path.
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
    // All users can see the arguments of processes.
    if sensitive && let Some(word) = args.first() {
        block.error(
            MachinefileError::new(
                &word.span,
                "all users of the guest could see the arguments of a sensitive script in the list of processes",
                "visible to all users",
            )
            .help("use `env NAME=\"…\"`, which only the script's user can read"),
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
            &word.span,
            "a program cannot receive the character NUL",
            "in this text",
        ));
    }
}

/// Checks a variable: its name as POSIX has it (IEEE Std 1003.1, 3.216). Errors do not show the value.
fn variable(block: &mut Block<'_>, key: &Spanned<String>, value: &Spanned<String>) {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = &key.value;
    if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit())
    {
        block.error(MachinefileError::new(
            &key.span,
            format!("{name:?} is not a valid name of an environment variable"),
            "letters, digits and _",
        ));
    } else if READ_ONLY.contains(&name.as_str()) {
        block.error(
            MachinefileError::new(
                &key.span,
                format!("shells set {name} themselves"),
                "cannot be set",
            )
            .help("choose another name"),
        );
    }
    no_nul(block, value);
}

/// Splits an interpreter such as `python3 -u` at white space.
fn words(block: &mut Block<'_>, line: Spanned<String>) -> Option<Vec<String>> {
    let words: Vec<String> = line.value.split_whitespace().map(str::to_string).collect();
    let what = if words.is_empty() {
        "the interpreter has no name"
    } else if line.value.contains(['\'', '"', '\\', '\0']) {
        "an interpreter is split at spaces, and quotes have no meaning in it"
    } else {
        return Some(words);
    };
    block.error(
        MachinefileError::new(&line.span, what, "here")
            .help("write a program and its options, such as \"python3 -u\""),
    );
    None
}

/// How much of a script is checked, in bytes: its first line, and whether it is text.
const HEAD: u64 = 1024;

/// Checks whether a file can be a script.
pub(super) fn check_script(
    path: &Spanned<String>,
    found: &Path,
    has_interpreter: bool,
    errors: &mut Vec<MachinefileError>,
) -> bool {
    let name = &path.value;
    let mut error = |message: String, label: &str, help: &str| {
        let error = MachinefileError::new(&path.span, message, label);
        errors.push(if help.is_empty() {
            error
        } else {
            error.help(help)
        });
        false
    };
    let head = match head_of(found) {
        Ok(head) => head,
        Err(cause) => return error(format!("cannot read {name}: {cause}"), "here", ""),
    };
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if head.is_empty() {
        error(format!("{name} is empty"), "nothing to run", "")
    } else if head.contains(&0) && !has_interpreter {
        error(
            format!("{name} is a program or data, not a script"),
            "not text",
            "copy it with `file`, and run it from a script",
        )
    } else if first.starts_with(b"#!") && first.ends_with(b"\r") {
        error(
            format!("{name} has Windows line endings, so the guest would not find its interpreter"),
            "its first line ends with a carriage return",
            "run `sed -i 's/\\r$//' FILE` to remove them; `*.sh text eol=lf` in .gitattributes keeps git from adding them",
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
