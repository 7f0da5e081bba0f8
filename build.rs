//! Builds what cargo does not build by itself, and configures how the program is linked.

#![allow(
    clippy::disallowed_methods,
    reason = "a build script cannot use the library"
)]

use std::{env, error::Error, fs, path::PathBuf, process::Command};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=provisioners/init");
    leave_libvirt_to_the_program()?;
    build_init()
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("cargo has not set {name}: {error}"))
}

/// The program loads libvirt itself, when it needs it (src/hypervisor/library.rs). Where the linker looks for
/// it, it finds archives with nothing in them, so a function that is not defined there is an error of the
/// link. Without them it would depend on the linker whether libvirt is loaded when the program starts.
fn leave_libvirt_to_the_program() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(variable("OUT_DIR")?).join("link");
    fs::create_dir_all(&folder)?;
    for library in ["libvirt.a", "libvirt-qemu.a"] {
        // ar(5): an archive begins so, and may end there.
        fs::write(folder.join(library), "!<arch>\n")?;
    }
    println!("cargo::rustc-link-search=native={}", folder.display());
    Ok(())
}

/// provisioners/init, the first program of machines with a kernel of their own: a freestanding program, so
/// that it needs no other target and no static libc.
fn build_init() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(variable("OUT_DIR")?).join("init");
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc
        .args(["--edition", "2024", "--crate-name", "init"])
        .args(["--target", &variable("TARGET")?])
        .args([
            "-C",
            "panic=abort",
            "-C",
            "opt-level=s",
            "-C",
            "strip=symbols",
        ])
        .args(["-C", "relocation-model=static"]);
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-Wl,--build-id=none",
    ] {
        rustc.args(["-C", &format!("link-arg={argument}")]);
    }
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.args(["-C", &format!("linker={linker}")]);
    }
    let status = rustc
        .arg("provisioners/init/init.rs")
        .arg("-o")
        .arg(&out)
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err("cannot build provisioners/init".into())
    }
}
