//! What `stead sync --watch` becomes, and what `watch=#true` keeps running. A program of its own, since
//! it stays for hours: it brings nothing of libvirt and what comes with it into memory.

fn main() -> std::process::ExitCode {
    stead::cli::watch_main()
}
