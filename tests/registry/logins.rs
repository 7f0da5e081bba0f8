//! Who may push and pull, and which hosts get secrets.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    door::{Door, Reply, Seen},
    place::{Place, document, failed},
    server::Registry,
};

fn config(host: &str, login: &str) -> String {
    let auth = STANDARD.encode(login);
    format!("{{\"auths\": {{\"{host}\": {{\"auth\": \"{auth}\"}}}}}}")
}

#[test]
fn a_password_from_files_and_helpers() {
    let (registry, here) = (Registry::with_password(), Place::new());
    let host = registry.host();
    let tag = format!("oci://{host}/team/small:1");
    let digest = here.add("1", 0);
    let push = ["box", "push", "small:1", &tag];
    here.fails(
        &push,
        &[
            "anonymous user",
            "push to team/small",
            &format!("docker login {host}"),
        ],
    );

    // A wrong password, which no output may contain.
    here.write(".docker/config.json", &config(&host, "me:wrong-secret"));
    let said = here.fails(
        &push,
        &[
            ".docker/config.json",
            &host,
            &format!("podman login {host}"),
        ],
    );
    assert!(!said.contains("wrong-secret"), "{said}");
    assert!(
        !said.contains(&STANDARD.encode("me:wrong-secret")),
        "{said}"
    );

    here.write(".docker/config.json", &config(&host, "me:correct horse"));
    here.does(&push);
    // Files named by the other variables.
    let there = Place::new();
    let pull = ["--json", "box", "pull", &tag];
    there.fails(&pull, &["anonymous user", "pull from"]);
    there.has_nothing();
    let docker = here.path(".docker");
    let pulled = there
        .stead(&pull)
        .env("DOCKER_CONFIG", &docker)
        .output()
        .unwrap();
    assert_eq!(document(pulled)["digest"], digest);
    let other = Place::new();
    let pulled = other
        .stead(&pull)
        .env("REGISTRY_AUTH_FILE", docker.join("config.json"))
        .output()
        .unwrap();
    assert_eq!(document(pulled)["digest"], digest);

    // A helper, which gets the registry's name.
    let helped = Place::new();
    let script = helped.path("bin/docker-credential-fake");
    helped.write(
        "bin/docker-credential-fake",
        "#!/bin/sh\nread -r host\necho \"$1 $host\" >> \"$HOME/asked\"\n. \"$HOME/answer\"\n",
    );
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let with = |answer: &str, file: &str| {
        helped.write("answer", answer);
        helped.write(".docker/config.json", file);
        let path = std::env::var("PATH").unwrap_or_default();
        helped
            .stead(&pull)
            .env("PATH", format!("{}:{path}", helped.path("bin").display()))
            .output()
            .unwrap()
    };
    let one = format!("{{\"credHelpers\": {{\"{host}\": \"fake\"}}}}");
    let all = "{\"credsStore\": \"fake\"}";
    let nothing = "echo 'credentials not found in native keychain'; exit 1";
    failed(with(nothing, all), &["anonymous user"]);
    failed(
        with("echo hidden-secret; exit 3", all),
        &["docker-credential-fake failed", "exit status: 3"],
    );
    let said = failed(with("echo hidden-secret", &one), &["cannot be read"]);
    assert!(!said.contains("hidden-secret"), "{said}");
    failed(
        with("", &one.replace("\"fake\"", "\"no-such\"")),
        &["docker-credential-no-such"],
    );
    let good = format!(
        "echo '{{\"ServerURL\": \"{host}\", \"Username\": \"me\", \"Secret\": \"correct horse\"}}'"
    );
    assert_eq!(document(with(&good, &one))["digest"], digest);
    let asked = fs::read_to_string(helped.path("asked")).unwrap();
    assert!(
        asked.lines().all(|line| line == format!("get {host}")),
        "{asked}"
    );
}

/// A token server, a registry that requires its tokens, and object storage that the registry redirects to.
#[test]
fn tokens_are_fetched_renewed_and_shown_to_nobody_else() {
    let (registry, here) = (Registry::start(), Place::new());
    let storage = Door::before(&registry.host(), |_, _| Reply::Pass);
    let basic = format!("Basic {}", STANDARD.encode("me:correct horse"));
    let (right, there) = (basic.clone(), storage.host());
    let given = Arc::new(AtomicUsize::new(0));
    let (count, blobs) = (Arc::clone(&given), AtomicUsize::new(0));
    let door = Door::before(&registry.host(), move |own, seen: &Seen| {
        if seen.path.starts_with("/token?") {
            if seen.authorization.as_deref() != Some(&right) {
                return Reply::Say("401 Unauthorized".into(), String::new());
            }
            let n = count.fetch_add(1, Ordering::SeqCst) + 1;
            return Reply::Say("200 OK".into(), format!("{{\"token\": \"t{n}\"}}"));
        }
        let n = count.load(Ordering::SeqCst);
        let mut good = n > 0 && seen.authorization.as_deref() == Some(&format!("Bearer t{n}"));
        let blob = seen.method == "GET" && seen.path.contains("/blobs/");
        // The token expires between the config and the first chunk.
        if good && blob && blobs.fetch_add(1, Ordering::SeqCst) == 1 {
            count.fetch_add(1, Ordering::SeqCst);
            good = false;
        }
        if !good {
            let challenge = format!(
                "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://{own}/token\",service=\"s\",scope=\"repository:team/small:pull\""
            );
            return Reply::Say(challenge, String::new());
        }
        if blob {
            let to = format!(
                "307 Temporary Redirect\r\nLocation: http://{there}{}",
                seen.path
            );
            return Reply::Say(to, String::new());
        }
        Reply::Pass
    });
    let host = door.host();
    let tag = format!("oci://{host}/team/small:1");
    let digest = here.add("1", 0);
    here.fails(&["box", "push", "small:1", &tag], &["anonymous user"]);
    here.write(".docker/config.json", &config(&host, "me:correct horse"));
    here.does(&["box", "push", "small:1", &tag]);
    assert_eq!(given.load(Ordering::SeqCst), 1);
    let puller = Place::new();
    puller.write(".docker/config.json", &config(&host, "me:correct horse"));
    let pulled = puller.does(&["box", "pull", &tag]);
    assert_eq!(pulled["digest"], digest);
    // Tokens for the push and the pull, one that expired, and its replacement.
    assert_eq!(given.load(Ordering::SeqCst), 4);

    // The token server was asked for the needed access.
    let seen = door.seen();
    let asked: Vec<&str> = seen
        .iter()
        .filter(|it| it.path.starts_with("/token?") && it.authorization.is_some())
        .map(|it| it.path.as_str())
        .collect();
    assert!(
        asked[0].contains("scope=repository%3Ateam%2Fsmall%3Apull%2Cpush"),
        "{asked:?}"
    );
    assert!(
        asked[1].ends_with("scope=repository%3Ateam%2Fsmall%3Apull"),
        "{asked:?}"
    );
    // Only the token server got the password, and the storage got nothing.
    for it in &seen {
        if !it.path.starts_with("/token?") {
            assert_ne!(it.authorization.as_deref(), Some(basic.as_str()), "{it:?}");
        }
    }
    assert!(!storage.seen().is_empty());
    for it in storage.seen() {
        assert_eq!(it.authorization, None, "{it:?}");
    }
}
