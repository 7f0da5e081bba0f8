//! The Machinefile that `stead init` writes.

/// Returns the Machinefile that `stead init` writes. It is valid, and `up` works if its box is in the store.
pub fn template(project: &str) -> String {
    format!(
        r##"// The machines of this project. `stead up` starts them; `stead validate` checks this file.
// Reference: docs/reference/machinefile.md

project "{project}"

machine "dev" {{
    // A box from the store. `stead box build debian-12` builds this one from Debian's
    // packages; `stead box list` lists the others.
    box "debian-12"
    cpus 2
    memory "1GiB"

    // `up` and `stead sync` copy this folder to the machine.
    sync "." to="/srv/{project}" {{
        exclude ".git" "target" "node_modules"
    }}

    // A port of 127.0.0.1 on this computer that leads to a port of the machine.
    // forward 8080 to=80

    // Runs once, as root. After a change, `up` reports it, and `stead provision` re-runs it.
    provision "setup" {{
        shell inline=#"""
            set -eu
            echo "provisioned on $(hostname)" >/etc/motd
            """#
    }}

    // `up` waits until these commands succeed.
    ready {{
        exec "test -e /etc/motd"
        timeout "5m"
    }}
}}
"##
    )
}
