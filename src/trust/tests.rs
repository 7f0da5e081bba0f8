//! What was agreed to is what runs.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::machinefile::{self, MACHINEFILE, Project};

use super::{Agreement, Kind, TrustError, of_project};

const TEXT: &str = r#"
project "shop"
machine "web" {
    box "b"
    before "up" { host "./up.sh" { env TOKEN="${env.TOKEN}"; }; }
    after "up" { host "sh" "-c" ". ./env.sh"; }
    provision "a" { ansible "ops/site.yml" { vault-password-file "pass.sh"; vars who="you"; }; }
}
"#;

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn load(root: &Path) -> Project {
    machinefile::load(&root.join(MACHINEFILE), &|name| {
        (name == "TOKEN").then(|| "s3cret".to_string())
    })
    .unwrap()
}

fn project() -> (tempfile::TempDir, Project) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, MACHINEFILE, TEXT);
    write(root, "up.sh", "#!/bin/sh\n. ./lib.sh\n");
    write(root, "lib.sh", "true\n");
    write(root, "env.sh", "true\n");
    write(root, "ops/site.yml", "- hosts: all\n");
    write(root, "pass.sh", "#!/bin/sh\n");
    let project = load(root);
    (folder, project)
}

fn agreed(project: &Project, edits: bool) -> Agreement {
    let mut agreement = Agreement::default();
    for demand in of_project(project).unwrap() {
        agreement.add(&demand, edits);
    }
    agreement
}

/// Whether each of the two hooks and the playbook may run.
fn may(agreement: &Agreement, project: &Project) -> [Result<(), TrustError>; 3] {
    let web = &project.machines[0];
    let playbook = web.provisioners[0].kind.playbook().unwrap();
    [
        agreement.hook(project, &web.hooks[0]),
        agreement.hook(project, &web.hooks[1]),
        agreement.playbook(project, playbook, true),
    ]
}

fn which(agreement: &Agreement, project: &Project) -> [bool; 3] {
    may(agreement, project).map(|it| it.is_ok())
}

#[test]
fn nothing_runs_that_was_not_agreed_to() {
    let (_folder, project) = project();
    let said = may(&Agreement::default(), &project);
    for result in said {
        assert!(
            matches!(result, Err(TrustError::NotAgreed { .. })),
            "{result:?}"
        );
    }
    assert_eq!(which(&agreed(&project, false), &project), [true; 3]);
}

#[test]
fn what_changes_after_the_question_does_not_run() {
    for (name, text, exact) in [
        ("up.sh", "#!/bin/sh\necho other\n", [false, true, true]),
        // What a script includes, what a command names.
        ("lib.sh", "echo other\n", [false, true, true]),
        ("env.sh", "echo other\n", [true, false, true]),
        ("ops/site.yml", "- hosts: localhost\n", [true, true, false]),
        ("ops/ansible.cfg", "[defaults]\n", [true, true, false]),
        (
            "ops/filter_plugins/x.py",
            "import os\n",
            [true, true, false],
        ),
        ("pass.sh", "#!/bin/sh\necho other\n", [true, true, false]),
    ] {
        let (folder, project) = project();
        let (agreement, edits) = (agreed(&project, false), agreed(&project, true));
        write(folder.path(), name, text);
        assert_eq!(which(&agreement, &project), exact, "{name}");
        assert_eq!(which(&edits, &project), [true; 3], "{name}");
    }
}

#[test]
fn a_swapped_symlink_is_another_file() {
    let (folder, project) = project();
    let agreement = agreed(&project, false);
    // Of the very same content.
    write(folder.path(), "copy.sh", "true\n");
    fs::remove_file(folder.path().join("lib.sh")).unwrap();
    std::os::unix::fs::symlink("copy.sh", folder.path().join("lib.sh")).unwrap();
    assert_eq!(which(&agreement, &project), [false, true, true]);
}

#[test]
fn what_a_machinefile_says_counts_and_values_of_variables_do_not() {
    let (folder, project) = project();
    let edits = agreed(&project, true);
    for (from, to, may) in [
        ("\"./up.sh\"", "\"./up.sh\" \"x\"", [false, true, true]),
        (
            "TOKEN=",
            "LD_PRELOAD=\"./x.so\" TOKEN=",
            [false, true, true],
        ),
        ("before \"up\"", "before \"halt\"", [false, true, true]),
        ("\"sh\"", "\"bash\"", [true, false, true]),
        (
            "vars who",
            "arguments \"-vv\"; vars who",
            [true, true, false],
        ),
        ("box \"b\"", "box \"c\"; cpus 2", [true, true, true]),
    ] {
        write(folder.path(), MACHINEFILE, &TEXT.replace(from, to));
        assert_eq!(which(&edits, &load(folder.path())), may, "{to}");
    }
    // Ansible takes templates in variables, which run programs.
    let exact = agreed(&project, false);
    write(
        folder.path(),
        MACHINEFILE,
        &TEXT.replace("\"you\"", "\"{{ lookup('pipe', 'id') }}\""),
    );
    assert_eq!(which(&exact, &load(folder.path())), [true, true, false]);
    write(folder.path(), MACHINEFILE, TEXT);
    let other = machinefile::load(&folder.path().join(MACHINEFILE), &|_| {
        Some("another".into())
    });
    assert_eq!(which(&exact, &other.unwrap()), [true; 3]);
}

/// Nothing in what is shown is obeyed by a terminal, or makes two lines of one.
#[test]
fn what_is_shown_is_plain() {
    let (folder, _) = project();
    let text = TEXT.replace(
        "\"./up.sh\"",
        "\"./up.sh\" \"\\u{1b}]52;c;eA==\\u{7}\" \"a\\n  runs nothing\" \"\\u{202e}x\" \"\\u{e0041}\\u{3164}\\u{115f}\\u{ffa0}\"",
    );
    write(folder.path(), MACHINEFILE, &text);
    let demands = of_project(&load(folder.path())).unwrap();
    let hook = demands
        .iter()
        .find(|demand| matches!(demand.kind, Kind::Hook(_)))
        .unwrap();
    assert!(
        !hook.what.contains([
            '\u{1b}',
            '\u{7}',
            '\n',
            '\u{202e}',
            '\u{e0041}',
            '\u{3164}',
            '\u{115f}',
            '\u{ffa0}'
        ]),
        "{:?}",
        hook.what
    );
    assert!(!hook.what.contains("s3cret"), "{}", hook.what);
}
