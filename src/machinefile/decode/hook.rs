//! Decodes the hooks `before` and `after`.

use std::path::PathBuf;

use crate::{
    host::process,
    machinefile::{
        diagnostics::{MachinefileError, Spanned},
        model::{Hook, HookRuns, HostCommand, HostSource, Moment, ScriptSource},
        node::Node,
        paths::{Wants, resolve},
        syntax::{FileInfo, Files},
    },
};

use super::{
    runs_meant::hook_without_braces,
    shell::{INVOCATION, check_script, head_of, inline, invocation, shell},
    values::choice,
};

pub(super) fn hooks(node: &mut Node<'_>, file: &FileInfo, files: &Files) -> Vec<Hook> {
    let has_guest = matches!(
        (node.name(), node.first_as_written().as_deref()),
        ("before", Some("halt" | "destroy")) | ("after", Some("up"))
    );
    if hook_without_braces(node, has_guest) {
        return Vec::new();
    }
    node.properties(&[]);
    let here = node.here();
    let word = node.one_string("\"up\", \"halt\" or \"destroy\"");
    let known = if node.name() == "before" {
        [
            ("up", Moment::BeforeUp),
            ("halt", Moment::BeforeHalt),
            ("destroy", Moment::BeforeDestroy),
        ]
    } else {
        [
            ("up", Moment::AfterUp),
            ("halt", Moment::AfterHalt),
            ("destroy", Moment::AfterDestroy),
        ]
    };
    let moment = word.and_then(|word| choice(node, &word, &known));
    if node.children().is_empty() {
        let name = node.name();
        node.error(
            MachinefileError::new(&here, format!("`{name}` has nothing to run"), "empty")
                .help("put a `host` or a `guest` in its braces"),
        );
    }
    let mut hooks = Vec::new();
    for inner in node.children() {
        let what = inner.name().value();
        let mut child = node.child(inner);
        let at = child.here().text();
        let runs = match what {
            "host" => host(&mut child, file, files).map(HookRuns::Host),
            "guest" => {
                if let Some(moment) = moment.filter(|moment| !moment.has_guest()) {
                    unreachable_guest(&mut child, moment);
                }
                shell(&mut child, file, files).map(HookRuns::Guest)
            }
            _ => {
                node.unknown_child(inner, &["host", "guest"]);
                continue;
            }
        };
        hooks.extend(
            moment
                .zip(runs)
                .map(|(moment, runs)| Hook { moment, runs, at }),
        );
    }
    hooks
}

fn unreachable_guest(node: &mut Node<'_>, moment: Moment) {
    let here = node.here();
    let (why, instead) = match moment {
        Moment::BeforeUp => ("is not up yet", "`after \"up\"` can"),
        Moment::AfterHalt => ("is off", "`before \"halt\"` can"),
        _ => ("is gone", "`before \"destroy\"` can"),
    };
    node.error(
        MachinefileError::new(
            &here,
            format!("a guest cannot run anything {moment}: it {why}"),
            "not reachable then",
        )
        .help(format!(
            "run it on the `host`; {instead} run it in the guest"
        )),
    );
}

/// Decodes `host "SCRIPT-OR-PROGRAM" ["ARG" …]` or `host inline="TEXT"`.
fn host(node: &mut Node<'_>, file: &FileInfo, files: &Files) -> Option<HostCommand> {
    node.properties(&INVOCATION);
    let here = node.here();
    let has_interpreter = node.has_property("interpreter");
    let written = node.first_as_written().unwrap_or_default();
    let (what, label, first) = if let Some(text) = node.property_script("inline") {
        node.at_most(0);
        let script = inline(node, text).map(HostSource::Script);
        (script, "an inline script".to_string(), Vec::new())
    } else if let Some(path) = node.optional_first_string("a script or a program") {
        let arguments = node.words_from(1);
        // As in a shell, a name without a slash is a program, even if the project has a file of that name: a guest may
        // have written it.
        let what = if path.value.is_empty() || path.value.contains('/') {
            let found = resolve(&path, file, &files.root, Wants::File, node.errors);
            found.and_then(|found| {
                let binary = !has_interpreter
                    && head_of(&found).is_ok_and(|head| head.starts_with(b"\x7fELF"));
                if binary {
                    Some(HostSource::Program(found))
                } else {
                    check_script(&path, &found, has_interpreter, node.errors)
                        .then_some(HostSource::Script(ScriptSource::Path(found)))
                }
            })
        } else {
            not_the_file(node, &path, file);
            Some(HostSource::Program(PathBuf::from(&path.value)))
        };
        if let Some(HostSource::Program(_)) = what
            && has_interpreter
        {
            node.error(
                MachinefileError::new(
                    &path.span,
                    format!("there is no script {} in the project", path.value),
                    "read as the name of a program",
                )
                .help("an `interpreter` needs a script: write a path that starts with ./"),
            );
        }
        (what, written, arguments)
    } else {
        if node.is_without_arguments() {
            node.error(
                MachinefileError::new(&here, "`host` has nothing to run", "empty")
                    .help("add a script of the project, a program, or inline=\"…\""),
            );
        }
        (None, String::new(), Vec::new())
    };
    let run = invocation(node, first);
    Some(HostCommand {
        what: what?,
        run,
        label,
    })
}

/// Reports the name of a file that is not a program: the user means the file, which needs a slash.
fn not_the_file(node: &mut Node<'_>, name: &Spanned<String>, file: &FileInfo) {
    if !file.folder.join(&name.value).exists() || process::find(&name.value).is_some() {
        return;
    }
    node.error(
        MachinefileError::new(
            &name.span,
            format!("no program {} is in PATH", name.value),
            "read as the name of a program",
        )
        .help(format!(
            "for the file of the project, write \"./{}\"",
            name.value
        )),
    );
}
