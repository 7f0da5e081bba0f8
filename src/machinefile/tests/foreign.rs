//! Foreign words in errors: values of variables, long and invisible names, more of everything than anybody writes.

use super::*;

/// The errors of a Machinefile that uses `${env.TOKEN}`.
fn said(text: &str, token: &str) -> String {
    let folder = project(text);
    let env = |name: &str| (name == "TOKEN").then(|| token.to_string());
    match load(&folder.path().join(MACHINEFILE), &env) {
        Ok(_) => panic!("it was taken for right"),
        Err(errors) => format!("{}\n{errors}", rendered(&errors, folder.path())),
    }
}

const WITH_TOKEN: &str = r#"
project "${env.TOKEN}"
connect "${env.TOKEN}"
catalogue "${env.TOKEN}"
group "${env.TOKEN}" { members "${env.TOKEN}"; }
provision "${env.TOKEN}" { ansible "${env.TOKEN}"; }
machine "${env.TOKEN}" {
    box "./${env.TOKEN}.box" sha256="${env.TOKEN}"
    memory "${env.TOKEN}"
    disk "${env.TOKEN}" iops=1 throughput="${env.TOKEN}"
    cpus 2 pin="${env.TOKEN}" quota="${env.TOKEN}"
    hostname "${env.TOKEN}"
    cpu "${env.TOKEN}"
    user "${env.TOKEN}"
    depends-on "${env.TOKEN}"
    forward "${env.TOKEN}"
    sync "./${env.TOKEN}" to="${env.TOKEN}" type="${env.TOKEN}" owner="${env.TOKEN}" git="${env.TOKEN}"
    user-data "./${env.TOKEN}"
    provision "${env.TOKEN}" run="${env.TOKEN}" { shell "./${env.TOKEN}" user="${env.TOKEN}"; }
    provision "y" { file "./${env.TOKEN}" to="${env.TOKEN}" mode="${env.TOKEN}" owner="${env.TOKEN}"; }
    provision "z" { shell inline="" interpreter="${env.TOKEN}"; }
    provision "a" { ansible "${env.TOKEN}"; }
    accel "${env.TOKEN}"
    ready { timeout "${env.TOKEN}"; }
    kernel { package "${env.TOKEN}"; capture "${env.TOKEN}"; path "${env.TOKEN}"; }
    before "up" { host "${env.TOKEN}"; }
    before "${env.TOKEN}" { host "./${env.TOKEN}"; }
    labels "a b"="${env.TOKEN}"
}
"#;

#[test]
fn no_error_shows_the_value_of_a_variable() {
    for token in [
        "s3cretvalue",
        "s3cr\"et\\v4lu'e",
        "S3CRET value/of:two@words",
        "4321765g",
        "x9q",
        "s3cretline\ns3cretsecond",
    ] {
        let said = said(WITH_TOKEN, token);
        assert!(said.contains("${env.TOKEN}"), "{said}");
        let pieces = token.split(['"', '\'', '\\', '\n', ' ', '/', ':', '@', 'g']);
        for piece in pieces.filter(|piece| piece.len() > 2 && !piece.starts_with("two")) {
            for line in said.lines() {
                assert!(
                    !line.to_lowercase().contains(&piece.to_lowercase())
                        || ["value", "words"].contains(&piece),
                    "{token:?}: {line}"
                );
            }
        }
    }
}

#[test]
fn a_variable_that_is_no_secret_is_shown() {
    let folder = project("project \"p\"\nmachine \"a\" { box \"b\"; memory \"${env.HOME}\"; }\n");
    let env = |name: &str| (name == "HOME").then(|| "/home/ann".to_string());
    let errors = load(&folder.path().join(MACHINEFILE), &env).unwrap_err();
    assert!(errors.to_string().contains("\"/home/ann\""), "{errors}");
}

#[test]
fn a_property_counts_once() {
    let said = broken("project \"p\"\nmachine \"web\" count=2 count=3 { box \"b\"; }\n");
    assert!(
        said.contains("`machine` has the property `count` twice")
            && said.contains("Machinefile:2:23")
            && said.contains("keep one of them"),
        "{said}"
    );
    let said = broken("project \"p\"\nmachine \"web\" { box \"b\"; labels a=1 b=2 a=1; }\n");
    assert!(said.contains("the property `a` twice"), "{said}");
    // What is commented out does not count.
    let folder = project("project \"p\"\nmachine \"web\" count=2 /-count=3 { box \"b\"; }\n");
    assert_eq!(loaded(folder.path()).unwrap().machines.len(), 2);
}

#[test]
fn invisible_characters_are_shown() {
    let said = broken(
        "project \"p\"\nmachine \"web\" { \"me\\u{200b}mory\" \"1GiB\"; box \"b\"; \"a\\u{1b}[2J\\u{202e}\" 1; }\n",
    );
    assert!(
        said.contains("has no `me\\u{200b}mory`") && said.contains("has no `a\\u{1b}[2J\\u{202e}`"),
        "{said}"
    );
}

#[test]
fn long_names_are_shortened() {
    let long = "long".repeat(50_000);
    let said = broken(&format!(
        "project \"p\"\nmachine \"web\" {{ box \"b\"; depends-on \"{long}\"; {long} 1; memory \"{long}\"; }}\n"
    ));
    assert!(said.len() < 10_000, "{}", said.len());
    assert!(
        said.contains("\"longlong") && said.contains("longl…"),
        "{said}"
    );
}

/// What an editor of Windows writes is a Machinefile; formatted, it is as everywhere.
#[test]
fn a_file_of_windows_is_formatted_like_any_other() {
    let unix = "// one\nproject \"shop\"\nmachine \"web\" {\n    box \"b\" /* two\n three */\n    provision \"x\" {\n        shell inline=\"\"\"\n            echo 1\n\n            echo 2\n            \"\"\"\n    }\n}\n";
    let windows = format!("\u{feff}{}", unix.replace('\n', "\r\n"));
    let formatted = format(&windows, MACHINEFILE).unwrap();
    assert_eq!(formatted, unix);
    assert_eq!(format(&formatted, MACHINEFILE).unwrap(), formatted);
    let read = |text: &str| loaded(project(text).path()).unwrap().machines;
    assert_eq!(read(&windows), read(unix));
}

#[test]
fn a_project_has_only_so_many_machines() {
    let machines = |count: usize| {
        let mut text = "project \"p\"\ndefaults { box \"b\"; }\n".to_string();
        for n in 0..count {
            text.push_str(&format!("machine \"m{n}\" count=64 {{ depends-on"));
            text.push_str(&" \"m0\"".repeat(if n == 0 { 0 } else { 1_000 }));
            text.push_str(if n == 0 { " \"m1\" }\n" } else { " }\n" });
        }
        text.replace("{ depends-on \"m1\" }", "")
    };
    let folder = project(&machines(4));
    let project_of_256 = loaded(folder.path()).unwrap();
    assert_eq!(project_of_256.machines.len(), 256);
    assert_eq!(project_of_256.machines[255].depends_on.len(), 64);
    let said = broken(&machines(5));
    assert!(
        said.contains("the project has more than 256 machines")
            && said.contains("[Machinefile:7:1]"),
        "{said}"
    );
    assert!(!said.contains("there is no machine"), "{said}");
    // Machinefile.local counts too.
    let folder = project(&machines(4));
    fs::write(folder.path().join(LOCAL), "machine \"more\"\n").unwrap();
    let said = loaded(folder.path()).unwrap_err().to_string();
    assert!(
        said.starts_with("Machinefile.local:1:9: the project has more than"),
        "{said}"
    );
}

#[test]
fn text_is_multiplied_only_so_often() {
    let labels: String = (0..20_000).map(|n| format!(" l{n}=a")).collect();
    let said = broken(&format!(
        "project \"p\"\ndefaults {{ box \"b\"; labels {labels}; }}\nmachine \"web\" count=100\nmachine \"db\" count=100\n"
    ));
    assert!(said.contains("more than 16 MiB of text together"), "{said}");
    let said = said_of_value(&"x".repeat(100_000));
    assert!(said.contains("more than 16 MiB of text together"), "{said}");
}

/// The errors of a project with a variable in `defaults`.
fn said_of_value(token: &str) -> String {
    said(
        "project \"p\"\ndefaults { box \"b\"; labels a=\"${env.TOKEN}\" b=\"${env.TOKEN}\"; }\nmachine \"web\" count=100\n",
        token,
    )
}

#[test]
fn files_and_groups_are_limited() {
    let said = broken(&"x\n".repeat(60_000));
    assert!(
        said.contains("the file has more than 50000 nodes"),
        "{said}"
    );
    let folder = project("project \"p\"\ninclude \"a.kdl\"\nmachine \"web\" { box \"b\"; }\n");
    let include = "include \"b.kdl\"\n".repeat(5);
    fs::write(folder.path().join("a.kdl"), include).unwrap();
    let comment = format!("// {}\n", "x".repeat(1_000_000));
    fs::write(folder.path().join("b.kdl"), comment).unwrap();
    let said = loaded(folder.path()).unwrap_err().to_string();
    assert!(said.contains("larger than 4.0 MiB together"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");

    let groups: String = (0..1_002)
        .map(|n| format!("group \"g{n}\" {{ children \"g{}\"; }}\n", n + 1))
        .collect();
    let said = broken(&format!(
        "project \"p\"\nmachine \"web\" {{ box \"b\"; }}\n{groups}"
    ));
    assert!(
        said.contains("the project has more than 1000 groups"),
        "{said}"
    );
}

#[test]
fn a_machine_has_only_so_many_synced_folders() {
    let machine = |count: usize| {
        let syncs: String = (0..count)
            .map(|n| format!("sync \".\" to=\"/a{n}\"; "))
            .collect();
        format!("project \"p\"\nmachine \"web\" {{ box \"b\"; {syncs} }}\n")
    };
    assert!(loaded(project(&machine(256)).path()).is_ok());
    let said = broken(&machine(5_000));
    assert!(said.contains("has more than 256 synced folders"), "{said}");
    assert!(said.len() < 5_000, "{}", said.len());
}

/// None of these takes longer than its size explains: each would run for minutes if time grew with its square.
#[test]
fn long_lists_are_read_in_linear_time() {
    let many = 40_000;
    let words: String = (0..many).map(|n| format!(" w{n}")).collect();
    let children: String = (0..900)
        .map(|n| {
            format!(
                "group \"g{n}\" {{ children {}; }}\n",
                (0..40)
                    .map(|m| format!("g{} ", (n * 7 + m) % 900))
                    .collect::<String>()
            )
        })
        .collect();
    let long = "y".repeat(400_000);
    for text in [
        format!("machine \"web\" {{ box \"b\"; depends-on {words}; }}"),
        format!("machine \"web\" {{ box \"b\"; }}\ngroup \"g\" {{ machines {words}; }}"),
        format!("machine \"web\" {{ box \"b\"; }}\n{children}"),
        format!("machine \"{long}\" {{ box \"b\"; depends-on \"{long}z\"; }}"),
        format!(
            "machine \"web\" {{ box \"b\"; {} }}",
            "forward 80; ".repeat(many)
        ),
        format!(
            "machine \"web\" {{ box \"b\"; {} }}",
            "provision \"x\" { shell inline=\"a\"; }; ".repeat(15_000)
        ),
    ] {
        let said = broken(&format!("project \"p\"\n{text}\n"));
        assert!(said.len() < 200_000, "{}", said.len());
    }
}
