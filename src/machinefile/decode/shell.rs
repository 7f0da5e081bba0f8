//! Decodes the scripts of `shell` and of hooks.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use crate::machinefile::{
    diagnostics::{Errors, MachinefileError, Spanned},
    model::{Invocation, ScriptSource, Shell},
    node::Node,
    paths::{Wants, resolve},
    secret::Secret,
    syntax::{FileInfo, Files},
    units,
};

use super::script_text;

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
pub(super) fn shell(node: &mut Node<'_>, file: &FileInfo, files: &Files) -> Option<Shell> {
    let known = [&INVOCATION[..], &["user", "privileged", "workdir"]].concat();
    node.properties(&known);
    let user = node.property_user("user");
    let privileged = node.property_bool("privileged");
    let workdir = node.property_string("workdir");
    if user.is_some()
        && let Some(privileged) = privileged.as_ref().filter(|it| it.value)
    {
        node.error(
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
        node.error(
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
    let (source, label, first) = source(node, file, files);
    let run = invocation(node, first);
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
    node: &mut Node<'_>,
    file: &FileInfo,
    files: &Files,
) -> (Option<ScriptSource>, String, Vec<Spanned<String>>) {
    let here = node.here();
    if let Some(text) = node.property_script("inline") {
        node.at_most(0);
        return (inline(node, text), "an inline script".into(), Vec::new());
    }
    let has_interpreter = node.has_property("interpreter");
    match node.optional_first_string("the path of a script") {
        Some(path) => {
            let arguments = node.words_from(1);
            let found = resolve(&path, file, &files.root, Wants::File, node.errors)
                .filter(|found| check_script(&path, found, has_interpreter, node.errors));
            (found.map(ScriptSource::Path), path.value, arguments)
        }
        None => {
            if node.is_without_arguments() {
                let name = node.name();
                node.error(
                    MachinefileError::new(&here, format!("`{name}` has no script"), "empty")
                        .help("add a path, or inline=\"…\""),
                );
            }
            (None, String::new(), Vec::new())
        }
    }
}

pub(super) fn inline(node: &mut Node<'_>, text: Spanned<String>) -> Option<ScriptSource> {
    if text.value.trim().is_empty() {
        node.error(MachinefileError::new(
            &text.span,
            "the script is empty",
            "nothing to run",
        ));
        return None;
    }
    script_text::check(node, &text);
    Some(ScriptSource::Inline(Secret(text.value)))
}

/// Decodes arguments, environment and interpreter. `first` are the arguments after the path.
pub(super) fn invocation(node: &mut Node<'_>, first: Vec<Spanned<String>>) -> Invocation {
    let interpreter = node.property_string("interpreter");
    let sensitive = node
        .property_bool("sensitive")
        .is_some_and(|sensitive| sensitive.value);
    let timeout = node.property_with_unit("timeout", "10m", units::duration);
    let mut args = first;
    let mut env = BTreeMap::new();
    for inner in node.children() {
        let mut child = node.child(inner);
        match inner.name().value() {
            "args" => {
                child.properties(&[]);
                child.no_children();
                args.extend(child.words_from(0));
            }
            "env" => {
                child.at_most(0);
                child.no_children();
                for (key, value) in child.free_properties() {
                    variable(&mut child, &key, &value);
                    env.insert(key.value, value.value);
                }
            }
            _ => node.unknown_child(inner, &["args", "env"]),
        }
    }
    for word in &args {
        no_nul(node, word);
    }
    // All users can see the arguments of processes.
    if sensitive && let Some(word) = args.first() {
        node.error(
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
        interpreter: interpreter.and_then(|line| words(node, line)),
        sensitive,
        timeout: timeout.map(|timeout| timeout.value),
    }
}

fn no_nul(node: &mut Node<'_>, word: &Spanned<String>) {
    if word.value.contains('\0') {
        node.error(MachinefileError::new(
            &word.span,
            "a program cannot receive the character NUL",
            "in this text",
        ));
    }
}

/// Checks a variable: its name as POSIX has it (IEEE Std 1003.1, 3.216). Errors do not show the value.
fn variable(node: &mut Node<'_>, key: &Spanned<String>, value: &Spanned<String>) {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = &key.value;
    if name.is_empty() || !name.chars().all(plain) || name.starts_with(|c: char| c.is_ascii_digit())
    {
        node.error(MachinefileError::new(
            &key.span,
            format!("{name:?} is not a valid name of an environment variable"),
            "letters, digits and _",
        ));
    } else if READ_ONLY.contains(&name.as_str()) {
        node.error(
            MachinefileError::new(
                &key.span,
                format!("shells set {name} themselves"),
                "cannot be set",
            )
            .help("choose another name"),
        );
    }
    no_nul(node, value);
}

/// Splits an interpreter such as `python3 -u` at white space.
fn words(node: &mut Node<'_>, line: Spanned<String>) -> Option<Vec<String>> {
    let words: Vec<String> = line.value.split_whitespace().map(str::to_string).collect();
    let what = if words.is_empty() {
        "the interpreter has no name"
    } else if line.value.contains(['\'', '"', '\\', '\0']) {
        "an interpreter is split at spaces, and quotes have no meaning in it"
    } else {
        return Some(words);
    };
    node.error(
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
    errors: &mut Errors,
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
