/// What `stead init` writes: it validates, and comes up once its box is there.
pub fn template(project: &str) -> String {
    format!(
        r##"// What this project needs to run. `stead up` makes it true.
// The reference is docs/reference/machinefile.md; `stead validate` checks this file.

project "{project}"

machine "dev" {{
    // An image in the box store. `stead box build debian-12` makes this one from
    // Debian's packages; `stead box list` shows what is there.
    box "debian-12"
    cpus 2
    memory "1GiB"

    // This folder, copied to the machine at `up` and by `stead sync`.
    sync "." to="/srv/{project}" {{
        exclude ".git" "target" "node_modules"
    }}

    // A port of 127.0.0.1 here that leads to a port there.
    // forward 8080 to=80

    // Runs once, as root. When it has changed, `up` says so, and `stead provision` runs it again.
    provision "setup" {{
        shell inline="echo provisioned on $(hostname) >/etc/motd"
    }}

    // `up` is done when these hold.
    ready {{
        exec "test -e /etc/motd"
        timeout "5m"
    }}
}}
"##
    )
}
