//! What a hook would do to the host.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::{
    host::process,
    machinefile::{Hook, HookRuns, HostCommand, HostSource, Project, ScriptSource, Secret},
};

use super::{
    demand::{Demand, Kind},
    error::TrustError,
    run_files::RunFiles,
    shown::{below, masked, plain, quoted, shown},
};

/// Returns the demand of a hook. A hook that runs in the guest has none.
///
/// # Errors
/// If a file that would run cannot be read.
pub fn of_hook(project: &Project, hook: &Hook) -> Result<Option<Demand>, TrustError> {
    let HookRuns::Host(command) = &hook.runs else {
        return Ok(None);
    };
    let root = &project.root;
    let masked = |text: &str| masked(text, &project.variables);
    let args: Vec<String> = command.run.args.iter().map(|it| masked(it)).collect();
    let env: BTreeMap<&str, String> = (command.run.env.iter())
        .map(|(name, value)| (name.as_str(), masked(value)))
        .collect();
    let (runs, words) = match &command.what {
        HostSource::Script(ScriptSource::Inline(Secret(text))) => {
            let text = masked(text);
            (json!({ "inline": text }), None)
        }
        HostSource::Script(ScriptSource::Path(path)) => {
            let name = below(path, root);
            (json!({ "script": name }), Some(name))
        }
        HostSource::Program(path) if path.is_absolute() => {
            let name = below(path, root);
            (json!({ "file": name }), Some(name))
        }
        HostSource::Program(name) => {
            let name = name.to_string_lossy().into_owned();
            (json!({ "program": name }), Some(name))
        }
    };
    let names = json!([
        "hook",
        hook.moment.id(),
        runs,
        args,
        env,
        command.run.interpreter
    ]);
    let said = |quoted: fn(&str) -> String| {
        let mut said: Vec<String> = Vec::new();
        if !command.run.sensitive {
            said.extend(
                env.iter()
                    .map(|(name, value)| format!("{}={}", plain(name), quoted(value))),
            );
        }
        said.extend((command.run.interpreter.iter().flatten()).map(|it| quoted(it)));
        said.push((words.as_ref()).map_or("an inline script".into(), |words| quoted(words)));
        said.extend(args.iter().map(|it| quoted(it)));
        format!("{}   ({})", said.join(" "), hook.moment)
    };
    let mut demand = Demand::new(Kind::Hook(hook.moment), &names, said(quoted))
        .whole(said(shown))
        .at(&hook.at);
    if let HostSource::Script(ScriptSource::Inline(Secret(text))) = &command.what {
        demand.lines = if command.run.sensitive {
            vec![
                "(not shown, because it is marked as sensitive; read it in the Machinefile)".into(),
            ]
        } else {
            let text = masked(text);
            text.trim_matches('\n').lines().map(plain).collect()
        };
    }
    let bound = files_of(command, root).and_then(|found| {
        demand.note = found.note();
        demand.incomplete = found.incomplete;
        demand.places.extend(found.whole.iter().cloned());
        demand.bind(found.files, root)
    });
    bound.map_err(|(path, source)| TrustError::Read { path, source })?;
    Ok(Some(demand))
}

/// Returns the project's files that a command runs, and the files that those name.
fn files_of<'a>(
    command: &HostCommand,
    root: &'a Path,
) -> Result<RunFiles<'a>, (PathBuf, io::Error)> {
    let mut found = RunFiles::new(root);
    let interpreter = command.run.interpreter.as_deref().unwrap_or_default();
    match &command.what {
        HostSource::Script(ScriptSource::Inline(Secret(text))) => found.text(text, interpreter)?,
        HostSource::Script(ScriptSource::Path(path)) => found.file(path)?,
        HostSource::Program(path) if path.is_absolute() => found.file(path)?,
        HostSource::Program(name) => {
            // PATH may lead into the project.
            let path = name.to_str().and_then(process::find);
            if let Some(path) = path.filter(|path| path.starts_with(root)) {
                found.file(&path)?;
            }
        }
    }
    let program = match &command.what {
        HostSource::Program(name) => name.to_string_lossy(),
        HostSource::Script(_) => "".into(),
    };
    found.arguments(&program, &command.run.args)?;
    for (name, value) in &command.run.env {
        found.variable(name, value)?;
    }
    for word in interpreter {
        found.variable("", word)?;
    }
    Ok(found)
}
