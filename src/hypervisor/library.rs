//! libvirt's library. It is loaded before the first connection, not when the program starts: it needs about fifty other
//! libraries, and to load these takes longer than most commands that do not use libvirt.
//!
//! The crate `virt` calls libvirt's functions by their names. This module defines these names, each as a jump
//! through a slot of a table, and [`load`] fills the table. The linker finds no libvirt (`build.rs`), so a
//! function that is missing here is an error of the build.

use std::{
    arch::global_asm,
    ffi::{CStr, c_char, c_void},
    process,
    sync::{
        OnceLock,
        atomic::{AtomicPtr, Ordering},
    },
};

use nix::{
    libc,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

use crate::report::{BUG, clean::words, stdio};

use super::error::HypervisorError;

/// The libraries in the order in which they are loaded. The second one would load the first, but an error must name the
/// missing one.
const LIBRARIES: [&CStr; 2] = [c"libvirt.so.0", c"libvirt-qemu.so.0"];

/// A function of libvirt: its address and its name.
#[repr(C)]
struct Slot {
    /// The target of the jump. Before [`load`], it calls [`called_too_early`].
    function: AtomicPtr<c_void>,
    name: *const c_char,
}

// SAFETY: `name` points to a constant of this program, and `function` is atomic.
unsafe impl Sync for Slot {}

// One function: its name as text, its slot, the jump, and the slot's first target. It is hidden, so that libvirt's calls
// of its own functions do not come here. The jump does not change the registers of arguments.
#[cfg(target_arch = "x86_64")]
macro_rules! one_function {
    () => {
        r#"
        .macro stead_libvirt_function name
            .pushsection .rodata.stead_libvirt, "a", @progbits
        .Lstead_libvirt_name_\name:
            .asciz "\name"
            .popsection
            .pushsection .data.stead_libvirt, "aw", @progbits
        .Lstead_libvirt_slot_\name:
            .quad .Lstead_libvirt_early_\name
            .quad .Lstead_libvirt_name_\name
            .popsection
            .pushsection .text.stead_libvirt, "ax", @progbits
            .globl \name
            .hidden \name
            .type \name, @function
        \name:
            jmp qword ptr [rip + .Lstead_libvirt_slot_\name]
        .Lstead_libvirt_early_\name:
            lea rdi, [rip + .Lstead_libvirt_name_\name]
            jmp {early}
            .size \name, . - \name
            .popsection
        .endm
        "#
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! one_function {
    () => {
        r#"
        .macro stead_libvirt_function name
            .pushsection .rodata.stead_libvirt, "a", %progbits
        .Lstead_libvirt_name_\name:
            .asciz "\name"
            .popsection
            .pushsection .data.stead_libvirt, "aw", %progbits
        .Lstead_libvirt_slot_\name:
            .quad .Lstead_libvirt_early_\name
            .quad .Lstead_libvirt_name_\name
            .popsection
            .pushsection .text.stead_libvirt, "ax", %progbits
            .balign 4
            .globl \name
            .hidden \name
            .type \name, %function
        \name:
            adrp x16, .Lstead_libvirt_slot_\name
            ldr x16, [x16, :lo12:.Lstead_libvirt_slot_\name]
            br x16
        .Lstead_libvirt_early_\name:
            adrp x0, .Lstead_libvirt_name_\name
            add x0, x0, :lo12:.Lstead_libvirt_name_\name
            b {early}
            .size \name, . - \name
            .popsection
        .endm
        "#
    };
}
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("stead runs on x86_64 and aarch64; say here how a jump through a table looks");

macro_rules! functions {
    ($($name:ident)*) => {
        const FUNCTIONS: usize = [$(stringify!($name)),*].len();

        global_asm!(
            one_function!(),
            r#"
            .pushsection .data.stead_libvirt, "aw", %progbits
            .balign 8
            .globl stead_libvirt_slots
            .hidden stead_libvirt_slots
            stead_libvirt_slots:
            .popsection
            "#,
            $(concat!("stead_libvirt_function ", stringify!($name)),)*
            ".purgem stead_libvirt_function",
            early = sym called_too_early,
        );
    };
}

// The functions that stead, the parts of `virt` that it uses, and stead's tests call.
functions! {
    virConnectBaselineCPU
    virConnectBaselineHypervisorCPU
    virConnectClose
    virConnectCompareHypervisorCPU
    virConnectDomainEventDeregisterAny
    virConnectDomainEventRegisterAny
    virConnectGetAllDomainStats
    virConnectGetCapabilities
    virConnectGetDomainCapabilities
    virConnectGetLibVersion
    virConnectGetVersion
    virConnectListAllDomains
    virConnectOpen
    virConnectOpenReadOnly
    virDomainAbortJob
    virDomainBackupBegin
    virDomainBackupGetXMLDesc
    virDomainCreate
    virDomainCreateWithFlags
    virDomainDefineXMLFlags
    virDomainDestroy
    virDomainFree
    virDomainGetDiskErrors
    virDomainGetJobStats
    virDomainGetMetadata
    virDomainGetName
    virDomainGetState
    virDomainGetUUID
    virDomainGetXMLDesc
    virDomainHasManagedSaveImage
    virDomainIsActive
    virDomainIsPersistent
    virDomainLookupByName
    virDomainLookupByUUID
    virDomainManagedSave
    virDomainManagedSaveGetXMLDesc
    virDomainOpenConsole
    virDomainPMWakeup
    virDomainPinEmulator
    virDomainPinVcpuFlags
    virDomainQemuAgentCommand
    virDomainRef
    virDomainResume
    virDomainSetBlockIoTune
    virDomainSetMemoryFlags
    virDomainSetMetadata
    virDomainSetSchedulerParametersFlags
    virDomainShutdownFlags
    virDomainStatsRecordListFree
    virDomainSuspend
    virDomainUndefineFlags
    virEventRegisterDefaultImpl
    virEventRunDefaultImpl
    virGetLastError
    virSetErrorFunc
    virStoragePoolCreate
    virStoragePoolDefineXML
    virStoragePoolDestroy
    virStoragePoolFree
    virStoragePoolGetXMLDesc
    virStoragePoolIsActive
    virStoragePoolLookupByName
    virStoragePoolRefresh
    virStoragePoolUndefine
    virStorageVolCreateXML
    virStorageVolDelete
    virStorageVolFree
    virStorageVolLookupByName
    virStreamAbort
    virStreamEventAddCallback
    virStreamEventRemoveCallback
    virStreamEventUpdateCallback
    virStreamFree
    virStreamNew
    virStreamRecv
    virStreamRef
    virStreamSend
    virTypedParamsAddULLong
    virTypedParamsFree
    virTypedParamsGetString
    virTypedParamsGetULLong
}

unsafe extern "C" {
    /// The assembly above defines them, in the order of the list.
    #[link_name = "stead_libvirt_slots"]
    static SLOTS: [Slot; FUNCTIONS];
}

/// Ends the process. It is the target of calls before [`load`], or after it failed. Such a call is a bug in stead, and an
/// error cannot be returned from here.
extern "C" fn called_too_early(name: *const c_char) -> ! {
    // SAFETY: the assembly passes a constant as the name.
    let name = unsafe { CStr::from_ptr(name) };
    stdio::talk(&format!(
        "error: stead itself failed: {} was called before libvirt was loaded\n\nhint: {BUG}\n",
        words(&name.to_string_lossy())
    ));
    process::abort()
}

/// Loads libvirt, once. No function of libvirt may be called before.
///
/// # Errors
/// If libvirt is not installed, cannot be loaded, or lacks a function.
pub(super) fn load() -> Result<(), HypervisorError> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    LOADED
        .get_or_init(fill)
        .clone()
        .map_err(|why| HypervisorError::NoLibrary { why })
}

fn fill() -> Result<(), String> {
    let mut handle = std::ptr::null_mut();
    let _caught = Caught::install();
    for library in LIBRARIES {
        // SAFETY: the name is a constant. libvirt's libraries do nothing unusual when they are loaded.
        handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
        if handle.is_null() {
            return Err(last_error());
        }
    }
    // SAFETY: the assembly has this many slots, with this layout.
    let slots = unsafe { &SLOTS };
    let mut found = Vec::with_capacity(slots.len());
    for slot in slots {
        // SAFETY: the handle is open and never closed. It finds the functions of the library, and of the libraries that it
        // needs, which include the first one.
        let function = unsafe { libc::dlsym(handle, slot.name) };
        if function.is_null() {
            return Err(format!("{}, so it is too old", last_error()));
        }
        found.push(function);
    }
    for (slot, function) in slots.iter().zip(found) {
        slot.function.store(function, Ordering::Release);
    }
    Ok(())
}

/// While this lives, a crash is reported as an error and ends the process. The loader maps libraries into memory and
/// trusts their headers, so that it crashes on a file that is cut short.
struct Caught(Vec<(Signal, SigAction)>);

const DAMAGED: &str = "error: cannot load libvirt: libvirt.so.0, or a library that it needs, is damaged: the loader crashed\n\nhint: install libvirt again (Debian: `apt install --reinstall libvirt0`), and check LD_LIBRARY_PATH; `ldd` lists the libraries\n";

impl Caught {
    fn install() -> Self {
        let action = SigAction::new(
            SigHandler::Handler(crashed),
            SaFlags::SA_ONSTACK,
            SigSet::empty(),
        );
        let before = |signal| {
            // SAFETY: the handler calls only functions that are safe in a handler (signal-safety(7)).
            let before = unsafe { sigaction(signal, &action) };
            Some((signal, before.ok()?))
        };
        Caught(
            ([Signal::SIGBUS, Signal::SIGSEGV]
                .into_iter()
                .filter_map(before))
            .collect(),
        )
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        for (signal, before) in &self.0 {
            // SAFETY: this restores the handler of before.
            let _ = unsafe { sigaction(*signal, before) };
        }
    }
}

/// The handler cannot return to the loader, and can use no more than system calls.
extern "C" fn crashed(_: libc::c_int) {
    stdio::talk_in_handler(DAMAGED);
    // SAFETY: it is a system call, and always safe.
    unsafe { libc::_exit(1) }
}

/// Returns the loader's last error on this thread.
fn last_error() -> String {
    // SAFETY: this is called right after the loader failed; the text is valid until the next such call.
    let said = unsafe { libc::dlerror() };
    if said.is_null() {
        return "the loader does not say why".into();
    }
    // SAFETY: it is not null, so it is a C string.
    let said = unsafe { CStr::from_ptr(said) };
    words(&said.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use std::{env, os::unix::process::ExitStatusExt, process::Command};

    use super::*;

    #[test]
    fn each_slot_has_the_name_of_its_function() {
        // SAFETY: as in `fill`.
        let slots = unsafe { &SLOTS };
        // SAFETY: names of slots are C strings that live as long as the program.
        let name = |slot: &Slot| unsafe { CStr::from_ptr(slot.name) }.to_str().unwrap();
        assert_eq!(name(&slots[0]), "virConnectBaselineCPU");
        assert_eq!(name(slots.last().unwrap()), "virTypedParamsGetULLong");
    }

    /// The process ends there, so it is one of its own: this test, started again.
    #[test]
    fn a_call_that_comes_too_early_says_which_and_ends_the_process() {
        const AGAIN: &str = "STEAD_TEST_CALL_TOO_EARLY";
        if env::var_os(AGAIN).is_some() {
            virt::error::clear_error_callback();
            unreachable!("libvirt was called");
        }
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("hypervisor::library::tests::a_call_that_comes_too_early_says_which_and_ends_the_process")
            .env(AGAIN, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("virSetErrorFunc was called before"), "{said}");
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
    }
}
