//! Only what the user has agreed to runs.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::machinefile::{self, MACHINEFILE, Project};

use super::{Agreement, Demand, Kind, TrustError, host_runs, of_project};

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
        // A script that another one includes, and a script that a command names.
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
    // The content is the same.
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
    // Ansible evaluates templates in variables, and templates can run programs.
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

/// No shown word acts on a terminal, or makes two lines of one.
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

/// A project whose host runs `playbook`. `machine` is the rest of its machine.
fn played(playbook: &str, machine: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Project) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(
        root,
        MACHINEFILE,
        &format!(
            "project \"p\"\nmachine \"m\" {{ box \"b\"; {machine}\n provision \"x\" {{ ansible \"{playbook}\"; }}; }}\n"
        ),
    );
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let project = load(root);
    (folder, project)
}

fn demand(project: &Project, kind: Kind) -> Option<Demand> {
    let demands = of_project(project).unwrap();
    demands.into_iter().find(|it| it.kind == kind)
}

fn counted(project: &Project) -> Vec<String> {
    let files = demand(project, Kind::Playbook).unwrap().files;
    (files.into_keys())
        .filter(|name| !name.contains(' ') || name.ends_with(".yml"))
        .collect()
}

/// Files in a folder beside that of the playbook.
const SUB: [(&str, &str); 14] = [
    ("sub/plain", "echo\n"),
    ("sub/pb.yml", "- hosts: all\n"),
    ("sub/my pb.yml", "- hosts: all\n"),
    ("sub/tasks.yml", "- debug:\n"),
    ("sub/vars.yml", "a: 1\n"),
    ("sub/x.sh", "echo\n"),
    ("sub/x.conf", "echo\n"),
    ("sub/t.j2", "{% include 'sub/more.j2' %}\n"),
    ("sub/more.j2", "x\n"),
    ("sub/role/tasks/main.yml", "- debug:\n"),
    (
        "sub/role/meta/main.yml",
        "dependencies: [ '../../sub/other' ]\n",
    ),
    ("sub/role/library/m.py", "\n"),
    ("sub/other/tasks/main.yml", "- debug:\n"),
    ("sub/lib/f.py", "\n"),
];

#[test]
fn no_way_to_name_a_file_of_a_playbook_leaves_it_out() {
    for (text, file) in [
        ("- import_playbook: UP/pb.yml", "sub/pb.yml"),
        (
            "- ansible.builtin.import_playbook: \"UP/pb.yml\"",
            "sub/pb.yml",
        ),
        ("- import_playbook: >-\n    UP/pb.yml\n", "sub/pb.yml"),
        ("- import_playbook: |-\n    UP/pb.yml\n", "sub/pb.yml"),
        ("- import_playbook:\n    UP/pb.yml", "sub/pb.yml"),
        ("- import_playbook: UP/../sub/./pb.yml", "sub/pb.yml"),
        ("- import_playbook: UP/my pb.yml", "sub/my pb.yml"),
        ("- import_playbook: >-\n    UP/my pb.yml\n", "sub/my pb.yml"),
        ("[{\"import_playbook\":\"UP/pb.yml\"}]", "sub/pb.yml"),
        ("- import_playbook: \"UP\\x2fpb.yml\"", "sub/pb.yml"),
        ("- import_playbook: \"UP/\\\n    pb.yml\"", "sub/pb.yml"),
        (
            "- vars: { a: &a UP/pb.yml }\n- import_playbook: *a",
            "sub/pb.yml",
        ),
        (
            "- import_playbook: \"{{ playbook_dir }}/UP/pb.yml\"",
            "sub/pb.yml",
        ),
        ("- import_playbook: \"UP/{{ x }}.yml\"", "sub/pb.yml"),
        ("- import_playbook: \"UP/p{{ x }}.yml\"", "sub/pb.yml"),
        (
            "- import_playbook: \"{{ 'UP/p' ~ 'b.yml' }}\"",
            "sub/pb.yml",
        ),
        (
            "- import_playbook: \"{{ 'UP' ~ '/pb.yml' }}\"",
            "sub/pb.yml",
        ),
        (
            "- import_playbook: \"{{ ['UP', 'pb.yml'] | join('/') }}\"",
            "sub/pb.yml",
        ),
        (
            "- vars: { d: UP }\n- import_playbook: \"{{ d }}/pb.yml\"",
            "sub/pb.yml",
        ),
        (
            "- vars: { d: UP, f: pb }\n- import_playbook: \"{{ d }}/{{ f }}.yml\"",
            "sub/pb.yml",
        ),
        (
            "- tasks: [ { include_tasks: UP/tasks.yml } ]",
            "sub/tasks.yml",
        ),
        (
            "- tasks:\n  - import_tasks:\n      file: UP/tasks.yml",
            "sub/tasks.yml",
        ),
        ("- vars_files:\n  - UP/vars.yml", "sub/vars.yml"),
        (
            "- vars_files:\n  - [ UP/none.yml, UP/vars.yml ]",
            "sub/vars.yml",
        ),
        ("- tasks:\n  - include_vars: UP/vars.yml", "sub/vars.yml"),
        ("- tasks:\n  - include_vars: { dir: UP }", "sub/vars.yml"),
        ("- tasks:\n  - include_vars: dir=UP", "sub/vars.yml"),
        ("- tasks:\n  - script: UP/x.sh --now", "sub/x.sh"),
        (
            "- tasks:\n  - command: cmd=\"sh -c 'cd UP && ./x.sh'\"",
            "sub/x.sh",
        ),
        ("- tasks:\n  - shell: cd UP; bash -e plain", "sub/plain"),
        (
            "- tasks:\n  - shell: bash plain\n    args: { chdir: UP }",
            "sub/plain",
        ),
        (
            "- tasks:\n  - script: \"{{ item }}\"\n    with_fileglob: UP/../s*/x.*",
            "sub/x.sh",
        ),
        (
            "- tasks:\n  - debug: msg=\"{{ lookup('pipe', 'UP/x.sh') }}\"",
            "sub/x.sh",
        ),
        (
            "- tasks:\n  - debug: msg=\"{{ lookup('file', 'UP/x.conf') }}\"",
            "sub/x.conf",
        ),
        (
            "- tasks:\n  - debug: msg={{ item }}\n    with_fileglob: UP/*.conf",
            "sub/x.conf",
        ),
        ("- tasks:\n  - copy: src=UP/x.conf dest=/x", "sub/x.conf"),
        ("- tasks:\n  - copy: { src: UP, dest: /x }", "sub/x.conf"),
        ("- tasks:\n  - synchronize: src=UP/ dest=/x", "sub/x.conf"),
        ("- tasks:\n  - template: src=UP/t.j2 dest=/x", "sub/more.j2"),
        ("- roles: [ UP/role ]", "sub/role/tasks/main.yml"),
        ("- roles: [ { role: UP/role } ]", "sub/role/library/m.py"),
        ("- roles: [ UP/role ]", "sub/other/tasks/main.yml"),
        (
            "- tasks:\n  - import_role: { name: UP/role }",
            "sub/role/tasks/main.yml",
        ),
        (
            "- tasks:\n  - include_role:\n      name: \"{{ playbook_dir }}/UP/role\"",
            "sub/role/tasks/main.yml",
        ),
        (
            "- tasks:\n  - include_role:\n      name: \"{{ d }}/role\"\n    vars: { d: UP }",
            "sub/role/tasks/main.yml",
        ),
    ] {
        for (playbook, up) in [("site.yml", "sub"), ("ops/site.yml", "../sub")] {
            let text = format!("{}\n", text.replace("UP", up));
            let mut files = SUB.to_vec();
            files.push((playbook, &text));
            let (folder, project) = played(playbook, "", &files);
            let counted = counted(&project);
            assert!(counted.contains(&file.to_string()), "{text}: {counted:?}");
            let agreement = agreed(&project, false);
            let run = project.machines[0].provisioners[0].kind.playbook().unwrap();
            assert!(agreement.playbook(&project, run, true).is_ok(), "{text}");
            write(folder.path(), file, "changed: now\n");
            let said = agreement.playbook(&project, run, true);
            assert!(
                matches!(said, Err(TrustError::Changed { .. })),
                "{text}: {said:?}"
            );
        }
    }
}

/// Ansible reads folders beside each playbook and in each role, and files that its configuration and arguments name.
#[test]
fn what_ansible_takes_up_by_itself_counts() {
    let files = [
        ("ops/site.yml", "- import_playbook: ../sub/pb.yml\n"),
        ("sub/pb.yml", "- hosts: all\n  roles: [ one ]\n"),
        ("sub/group_vars/all.yml", "a: 1\n"),
        ("sub/host_vars/m.yml", "a: 1\n"),
        ("sub/filter_plugins/f.py", "\n"),
        ("sub/become_plugins/f.py", "\n"),
        ("sub/library/f.py", "\n"),
        ("sub/module_utils/f.py", "\n"),
        (
            "sub/collections/ansible_collections/a/b/plugins/modules/x.py",
            "\n",
        ),
        (
            "sub/roles/one/tasks/main.yml",
            "- import_tasks: ../../../../far/a.yml\n",
        ),
        ("far/a.yml", "- script: b\n"),
        ("far/b", "echo\n"),
        (
            "ansible.cfg",
            "[defaults]\nroles_path = shared\nlibrary=./mods:{{CWD}}/mods2\ncallback_plugins = $PWD/calls\n",
        ),
        ("shared/r/tasks/main.yml", "- debug:\n"),
        ("mods/x.py", "\n"),
        ("mods2/x.py", "\n"),
        ("calls/x.py", "\n"),
        ("inv/hosts", "x\n"),
        ("inv2/hosts", "x\n"),
        ("more/v.yml", "x: 1\n"),
        ("more/w.yml", "x: 1\n"),
        ("more/r.yml", "roles: [ { src: ../coll } ]\n"),
        ("coll/galaxy.yml", "x: 1\n"),
    ];
    let (folder, _) = played("ops/site.yml", "", &files);
    let text = fs::read_to_string(folder.path().join(MACHINEFILE)).unwrap();
    let more = "ansible \"ops/site.yml\" { arguments \"-i\" \"inv\" \"-iinv2\" \"-e@more/v.yml\"; vars a=\"{{ lookup('file', '../more/w.yml') }}\"; requirements \"more/r.yml\"; };";
    write(
        folder.path(),
        MACHINEFILE,
        &text.replace("ansible \"ops/site.yml\";", more),
    );
    let counted = counted(&load(folder.path()));
    for (name, _) in files {
        assert!(counted.contains(&name.to_string()), "{name}: {counted:?}");
    }
}

#[test]
fn a_playbook_that_is_a_symlink_reads_from_where_it_leads() {
    let files = [
        ("sub/pb.yml", "- hosts: all\n- import_playbook: next.yml\n"),
        ("sub/next.yml", "- hosts: all\n"),
        ("sub/filter_plugins/f.py", "\n"),
        ("site.yml", ""),
    ];
    let (folder, project) = played("site.yml", "", &files);
    fs::remove_file(folder.path().join("site.yml")).unwrap();
    std::os::unix::fs::symlink("sub/pb.yml", folder.path().join("site.yml")).unwrap();
    let counted = counted(&project);
    for name in ["site.yml", "sub/next.yml", "sub/filter_plugins/f.py"] {
        assert!(counted.contains(&name.to_string()), "{name}: {counted:?}");
    }
    // `..` after a symlink is above the folder that the symlink leads to.
    write(folder.path(), "far/off/x", "");
    write(folder.path(), "far/t.yml", "- debug:\n");
    std::os::unix::fs::symlink("far/off", folder.path().join("near")).unwrap();
    write(
        folder.path(),
        "sub/pb.yml",
        "- import_tasks: ../near/../t.yml\n",
    );
    let counted = self::counted(&project);
    assert!(counted.contains(&"far/t.yml".to_string()), "{counted:?}");
}

/// Work on a project whose playbook only sets it up causes no question.
#[test]
fn what_a_playbook_does_not_read_does_not_count() {
    let site = r#"
- hosts: web:db
  roles: [ web, db ]
  vars:
    app_dir: /srv/app
    docs: see the manual
  tasks:
    - name: src and tests of the web app, built
      command: npm run build
      args: { chdir: "{{ app_dir }}/src" }
    - copy: { src: app.conf, dest: "{{ app_dir }}/config/app.conf" }
    - template: { src: nginx.j2, dest: /etc/nginx/nginx.conf, owner: web }
    - service: { name: web, state: started }
    - git: { repo: "https://example.org/src/web.git", dest: /srv/web/src }
    - include_tasks: "{{ ansible_os_family }}.yml"
    - debug: { msg: "{{ lookup('file', '/src/none') }} in {{ app_dir | default('/web/') }}" }
    # All of it is said in the Machinefile, as `./Machine*` is.
"#;
    let files = [
        ("ops/site.yml", site),
        ("ops/files/app.conf", "x\n"),
        (
            "ops/templates/nginx.j2",
            "location /static/ { root /srv/app/web; }\n",
        ),
        ("ops/Debian.yml", "- debug:\n"),
        (
            "ops/roles/web/tasks/main.yml",
            "- file: { path: \"{{ app_dir }}/web\", state: directory }\n",
        ),
        ("ops/roles/db/tasks/main.yml", "- debug:\n"),
        (
            "ops/roles/db/files/setup.sh",
            "#!/bin/sh\ncd /srv/app\n. \"$1\"\nmake src\ncp -r src/ web/ /x\n",
        ),
        (
            "ops/library/m.py",
            "# as in `src/` or {'src/{}': 'docs/'}\n",
        ),
    ];
    let work = [
        ("src/main.js", ""),
        ("src/web/app.js", ""),
        ("web/index.html", ""),
        ("web/templates/a.html", ""),
        ("db/schema.sql", ""),
        ("static/site.css", ""),
        ("config/app.toml", ""),
        ("docs/manual.md", ""),
        ("tests/a.js", ""),
        ("package.json", "{}"),
        ("Makefile", ""),
        ("README.md", ""),
    ];
    let (_folder, project) = played("ops/site.yml", "", &[&files[..], &work[..]].concat());
    let mut names: Vec<&str> = files.iter().map(|it| it.0).collect();
    names.sort_unstable();
    assert_eq!(counted(&project), names);
    let demand = demand(&project, Kind::Playbook).unwrap();
    assert!(!demand.incomplete && !demand.others_can_edit);
    let note = demand.note.unwrap();
    assert!(note.contains("cannot find all of them"), "{note}");
    // The same with the playbook in the project's own folder.
    let moved: Vec<(String, &str)> = (files.iter().chain(&work))
        .map(|(name, text)| (name.trim_start_matches("ops/").to_string(), *text))
        .collect();
    let moved: Vec<(&str, &str)> = moved.iter().map(|it| (it.0.as_str(), it.1)).collect();
    let (_folder, project) = played("site.yml", "", &moved);
    let mut names: Vec<&str> = names
        .iter()
        .map(|it| it.trim_start_matches("ops/"))
        .collect();
    names.sort_unstable();
    assert_eq!(counted(&project), names);
}

#[test]
fn machines_that_write_what_a_playbook_reads_are_named() {
    let share = |folder: &str| format!("sync \"{folder}\" to=\"/srv/a\" type=\"virtiofs\";");
    for (folder, file, text) in [
        ("sub", "sub/pb.yml", "- import_playbook: ../sub/pb.yml\n"),
        (
            "sub",
            "sub/pb.yml",
            "- import_playbook: \"../sub/{{ x }}.yml\"\n",
        ),
        // Files that do not exist yet may be created.
        (
            "sub",
            "sub/none.txt",
            "- vars_files: [ [ ../sub/other.yml, a.yml ] ]\n",
        ),
        ("ops/files", "sub/none.txt", "- hosts: all\n"),
    ] {
        let files = [
            ("ops/site.yml", text),
            (file, "- hosts: all\n"),
            ("ops/files/x", "x\n"),
        ];
        let (root, _) = played("ops/site.yml", &share(folder), &files);
        let _ = fs::remove_file(root.path().join("ops/files/x"));
        let project = load(root.path());
        let writes = demand(&project, Kind::Writes).unwrap();
        if file == "sub/pb.yml" {
            let runs = host_runs(&project).unwrap();
            assert!(runs.contains(&project.root.join(file)), "{runs:?}");
        }
        assert!(
            writes.what.contains(&format!("m writes {folder}")),
            "{}",
            writes.what
        );
        assert!(
            demand(&project, Kind::Playbook).unwrap().others_can_edit,
            "{text}"
        );
    }
    let files = [("ops/site.yml", "- hosts: all\n")];
    let (root, _) = played("ops/site.yml", "", &files);
    let text = fs::read_to_string(root.path().join(MACHINEFILE)).unwrap();
    let several = text.replace("\"m\" {", &format!("\"m\" count=2 {{ {}", share("ops")));
    write(root.path(), MACHINEFILE, &several);
    let writes = demand(&load(root.path()), Kind::Writes).unwrap();
    assert_eq!(writes.what, "m-1, m-2 write ops, which holds ops/site.yml");
    let files = [("ops/site.yml", "- hosts: sub\n"), ("sub/a.rs", "x\n")];
    let (_root, project) = played("ops/site.yml", &share("sub"), &files);
    assert!(demand(&project, Kind::Writes).is_none());
    assert!(!demand(&project, Kind::Playbook).unwrap().others_can_edit);
}

#[test]
fn what_counts_for_a_playbook_has_bounds() {
    let files = [(
        "ops/site.yml",
        "- import_playbook: \"../sub/{{ x }}.yml\"\n",
    )];
    let (folder, project) = played("ops/site.yml", "", &files);
    for n in 0..1100 {
        write(folder.path(), &format!("ops/files/{n}"), "");
        write(folder.path(), &format!("sub/{n}.yml"), "");
    }
    let found = demand(&project, Kind::Playbook).unwrap();
    assert!(found.incomplete && found.note.unwrap().contains("files of sub count"));
    // All files beside it count.
    for n in 0..200 {
        fs::remove_file(folder.path().join(format!("sub/{n}.yml"))).unwrap();
    }
    assert!(!demand(&project, Kind::Playbook).unwrap().incomplete);
}

#[test]
fn ports_of_this_computer_that_machines_reach_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let said = |text: &str| -> Vec<String> {
        let text = format!("project \"p\"\ndefaults {{ box \"b\"; }}\n{text}\n");
        write(folder.path(), MACHINEFILE, &text);
        let demands = of_project(&load(folder.path())).unwrap();
        (demands.iter())
            .map(|it| {
                assert_eq!(it.kind, Kind::HostPort);
                format!("{} {}", it.what, it.at.join(" "))
            })
            .collect()
    };
    assert_eq!(
        said("machine \"a\" { host-access none=#true; egress { allow \"x.test\"; }; }"),
        [""; 0]
    );
    assert_eq!(
        said(
            "machine \"a\" count=2 { host-access tcp=\"8000-8010\"; host-access tcp=5432; }\nmachine \"b\" { internet #false; host-access tcp=1; }\nmachine \"c\" { host-access tcp=1; }"
        ),
        [
            "ports 5432, 8000-8010 of this computer's 127.0.0.1, for machines a-1, a-2 Machinefile:3:23",
            "port 1 of this computer's 127.0.0.1, for machines b, c Machinefile:4:32 Machinefile:5:15",
        ]
    );
}

#[test]
fn bridges_that_machines_are_on_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = "project \"p\"\ndefaults { box \"b\"; }\nnetwork \"lan\" bridge=\"br0\"\nnetwork \"other\" bridge=\"br2\"\nnetwork \"unused\" bridge=\"br1\"\nmachine \"a\" count=5 { network \"lan\"; }\nmachine \"b\" { network \"other\"; }\n";
    write(folder.path(), MACHINEFILE, text);
    let demands = of_project(&load(folder.path())).unwrap();
    let said: Vec<String> = (demands.iter())
        .map(|it| {
            assert_eq!(it.kind, Kind::Bridge);
            format!("{} {}", it.what, it.at.join(" "))
        })
        .collect();
    assert_eq!(
        said,
        [
            "a card on the bridge br0, for machines a-1, a-2, a-3, a-4 and 1 more: computers there reach these machines, and are reached by them Machinefile:3:22",
            "a card on the bridge br2, for machine b: computers there reach it, and it reaches them Machinefile:4:24",
        ]
    );
    assert!(
        demands[0].whole.contains("a-4, a-5: "),
        "{}",
        demands[0].whole
    );
}

#[test]
fn ports_that_others_reach_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let demands = |forwards: &str| -> Vec<Demand> {
        let text = format!("project \"p\"\nmachine \"web\" count=3 {{ box \"b\"; {forwards} }}\n");
        write(folder.path(), MACHINEFILE, &text);
        of_project(&load(folder.path())).unwrap()
    };
    let said = |forwards: &str| -> Vec<String> {
        (demands(forwards).iter())
            .map(|it| format!("{} {}", it.what, it.at.join(" ")))
            .collect()
    };
    assert_eq!(
        said("forward 80; forward 81 address=\"127.9.9.9\""),
        [""; 0]
    );
    assert_eq!(
        said("forward 8080 to=80 address=\"0.0.0.0\""),
        [
            "ports 8080-8082 of all addresses of this computer to port 80 of machines web-1, web-2, web-3 Machinefile:2:42"
        ]
    );
    assert_eq!(
        said(
            "forward \"8000-8009\" to=\"80-89\" protocol=\"udp\" address=\"192.0.2.7\" auto-correct=#true"
        ),
        [
            "UDP ports 8000-8029 of 192.0.2.7, or a free one above, to ports 80-89/udp of machines web-1, web-2, web-3 Machinefile:2:42"
        ]
    );
    let id = |forwards: &str| demands(forwards)[0].id.clone();
    let one = "forward 8080 to=80 address=\"0.0.0.0\"";
    assert_eq!(id(one), id(&format!("cpus 2; {one}")));
    for (from, to) in [
        ("8080", "8081"),
        ("to=80", "to=81"),
        ("0.0.0.0", "192.0.2.7"),
        ("to", "protocol=\"udp\" to"),
        ("to", "auto-correct=#true to"),
    ] {
        assert_ne!(id(one), id(&one.replace(from, to)), "{to}");
    }
    assert_eq!(demands(one)[0].kind, Kind::Port);
}
