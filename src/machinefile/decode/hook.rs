//! Decodes the hooks `before` and `after`.

use std::path::PathBuf;

use crate::{
    host::process,
    machinefile::{
        block::Block,
        diagnostics::{MachinefileError, Spanned},
        model::{Hook, HookRuns, HostCommand, HostSource, Moment, ScriptSource},
        paths::{Wants, resolve},
        syntax::{FileInfo, Files},
    },
};

use super::{
    shell::{INVOCATION, check_script, head_of, inline, invocation, shell},
    values::choice,
};

pub(super) fn hooks(block: &mut Block<'_>, file: &FileInfo, files: &Files) -> Vec<Hook> {
    block.properties(&[]);
    let here = block.here();
    let word = block.one_string("\"up\", \"halt\" or \"destroy\"");
    let known = if block.name() == "before" {
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
    let moment = word.and_then(|word| choice(block, &word, &known));
    if block.children().is_empty() {
        let name = block.name();
        block.error(
            MachinefileError::new(&here, format!("`{name}` has nothing to run"), "empty")
                .help("put a `host` or a `guest` in its braces"),
        );
    }
    let mut hooks = Vec::new();
    for node in block.children() {
        let what = node.name().value();
        let mut child = block.child(node);
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
                block.unknown_child(node, &["host", "guest"]);
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

fn unreachable_guest(block: &mut Block<'_>, moment: Moment) {
    let here = block.here();
    let (why, instead) = match moment {
        Moment::BeforeUp => ("is not up yet", "`after \"up\"` can"),
        Moment::AfterHalt => ("is off", "`before \"halt\"` can"),
        _ => ("is gone", "`before \"destroy\"` can"),
    };
    block.error(
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
fn host(block: &mut Block<'_>, file: &FileInfo, files: &Files) -> Option<HostCommand> {
    block.properties(&INVOCATION);
    let here = block.here();
    let has_interpreter = block.has_property("interpreter");
    let (what, label, first) = if let Some(text) = block.property_string("inline") {
        block.at_most(0);
        let script = inline(block, text).map(HostSource::Script);
        (script, "an inline script".to_string(), Vec::new())
    } else if let Some(path) = block.optional_first_string("a script or a program") {
        let arguments = block.rest("text");
        // As in a shell, a name without a slash is a program, even if the project has a file of that name: a guest may
        // have written it.
        let what = if path.value.is_empty() || path.value.contains('/') {
            let found = resolve(&path, file, &files.root, Wants::File, block.errors);
            found.and_then(|found| {
                let binary = !has_interpreter
                    && head_of(&found).is_ok_and(|head| head.starts_with(b"\x7fELF"));
                if binary {
                    Some(HostSource::Program(found))
                } else {
                    check_script(&path, &found, has_interpreter, block.errors)
                        .then_some(HostSource::Script(ScriptSource::Path(found)))
                }
            })
        } else {
            not_the_file(block, &path, file);
            Some(HostSource::Program(PathBuf::from(&path.value)))
        };
        if let Some(HostSource::Program(_)) = what
            && has_interpreter
        {
            block.error(
                MachinefileError::new(
                    &path.span,
                    format!("there is no script {} in the project", path.value),
                    "read as the name of a program",
                )
                .help("an `interpreter` needs a script: write a path that starts with ./"),
            );
        }
        (what, path.value, arguments)
    } else {
        if block.is_without_arguments() {
            block.error(
                MachinefileError::new(&here, "`host` has nothing to run", "empty")
                    .help("add a script of the project, a program, or inline=\"…\""),
            );
        }
        (None, String::new(), Vec::new())
    };
    let run = invocation(block, first);
    Some(HostCommand {
        what: what?,
        run,
        label,
    })
}

/// Reports the name of a file that is not a program: the user means the file, which needs a slash.
fn not_the_file(block: &mut Block<'_>, name: &Spanned<String>, file: &FileInfo) {
    if !file.folder.join(&name.value).exists() || process::find(&name.value).is_some() {
        return;
    }
    block.error(
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
