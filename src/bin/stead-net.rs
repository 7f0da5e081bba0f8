//! The network between the machines of a project, as a program of its own: it runs for as long as they do, and does not
//! load libvirt.

fn main() -> std::process::ExitCode {
    stead::network::serve_main(stead::guest::ssh_by)
}
