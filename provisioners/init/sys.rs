//! System calls by number, and what a program without libc has to bring along.

use alloc::{string::String, vec, vec::Vec};
use core::{
    alloc::{GlobalAlloc, Layout},
    arch::{asm, global_asm},
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
};

pub type Path<'a> = &'a str;

// ---- the start: the kernel's stack (argc, argv, envp) is what `execute` hands on -----------------

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov rdi, rsp",
    "and rsp, -16",
    "call stead_main",
    "ud2",
);
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x0, sp",
    "bl stead_main",
    "brk #0",
);

// ---- system calls -------------------------------------------------------------------------------

/// asm/unistd_64.h, and asm-generic/unistd.h for the other architectures.
#[cfg(target_arch = "x86_64")]
mod number {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const PREAD: usize = 17;
    pub const NANOSLEEP: usize = 35;
    pub const EXECVE: usize = 59;
    pub const UNAME: usize = 63;
    pub const CHDIR: usize = 80;
    pub const CHROOT: usize = 161;
    pub const MOUNT: usize = 165;
    pub const UMOUNT: usize = 166;
    pub const GETDENTS64: usize = 217;
    pub const OPENAT: usize = 257;
    pub const MKDIRAT: usize = 258;
    pub const UNLINKAT: usize = 263;
    pub const READLINKAT: usize = 267;
    pub const FACCESSAT: usize = 269;
    pub const DUP3: usize = 292;
    pub const FINIT_MODULE: usize = 313;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub const DUP3: usize = 24;
    pub const MKDIRAT: usize = 34;
    pub const UNLINKAT: usize = 35;
    pub const UMOUNT: usize = 39;
    pub const MOUNT: usize = 40;
    pub const FACCESSAT: usize = 48;
    pub const CHDIR: usize = 49;
    pub const CHROOT: usize = 51;
    pub const OPENAT: usize = 56;
    pub const CLOSE: usize = 57;
    pub const GETDENTS64: usize = 61;
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const PREAD: usize = 67;
    pub const READLINKAT: usize = 78;
    pub const NANOSLEEP: usize = 101;
    pub const UNAME: usize = 160;
    pub const EXECVE: usize = 221;
    pub const FINIT_MODULE: usize = 273;
}
use number::*;

const AT_FDCWD: usize = -100isize as usize;
const O_WRONLY: usize = 1;
const O_RDWR: usize = 2;
const O_CREAT: usize = 0o100;
const O_CLOEXEC: usize = 0o2000000;
#[cfg(target_arch = "x86_64")]
const O_DIRECTORY: usize = 0o200000;
#[cfg(target_arch = "aarch64")]
const O_DIRECTORY: usize = 0o40000;

fn call(number: usize, a: [usize; 5]) -> Result<usize, Fail> {
    let result: isize;
    // SAFETY: each caller passes what the system call of that number takes; memory that the kernel
    // writes is borrowed for as long as the call lasts.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4],
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a[0] => result,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4],
            options(nostack)
        );
    }
    usize::try_from(result).map_err(|_| Fail(-result as i32))
}

/// An errno.
#[derive(Clone, Copy)]
pub struct Fail(i32);

impl Fail {
    /// EEXIST: it is loaded or built in. ENODEV: it is for another CPU.
    pub fn is_harmless_to_a_module(self) -> bool {
        matches!(self.0, 17 | 19)
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // errno(3), those that come up here.
        let name = match self.0 {
            1 => "not permitted",
            2 => "no such file",
            5 => "input/output error",
            8 => "it is for another kernel or architecture",
            12 => "out of memory",
            13 => "permission denied",
            16 => "busy",
            19 => "the kernel does not know that file system or device",
            20 => "not a folder",
            22 => "not a valid file system or option",
            30 => "read-only",
            number => return write!(f, "errno {number}"),
        };
        f.write_str(name)
    }
}

/// As system calls take text: with a NUL at its end.
fn c(text: &str) -> Vec<u8> {
    let mut bytes = Vec::from(text.as_bytes());
    bytes.push(0);
    bytes
}

fn ptr(bytes: &[u8]) -> usize {
    bytes.as_ptr() as usize
}

fn open(path: Path, flags: usize) -> Result<usize, Fail> {
    call(OPENAT, [AT_FDCWD, ptr(&c(path)), flags | O_CLOEXEC, 0, 0])
}

fn close(file: usize) {
    let _ = call(CLOSE, [file, 0, 0, 0, 0]);
}

pub fn print(text: &str) {
    let _ = call(WRITE, [2, ptr(text.as_bytes()), text.len(), 0, 0]);
}

/// The console that the kernel chose becomes input, output and error.
pub fn use_console() {
    if let Ok(console) = call(OPENAT, [AT_FDCWD, ptr(&c("/dev/console")), O_RDWR, 0, 0]) {
        for file in 0..3 {
            if file != console {
                let _ = call(DUP3, [console, file, 0, 0, 0]);
            }
        }
    }
}

pub fn mkdir(path: Path) {
    let _ = call(MKDIRAT, [AT_FDCWD, ptr(&c(path)), 0o755, 0, 0]);
}

pub fn mount(what: &str, at: Path, kind: &str, flags: usize, data: &str) -> Result<(), Fail> {
    let (what, at, kind, data) = (c(what), c(at), c(kind), c(data));
    call(MOUNT, [ptr(&what), ptr(&at), ptr(&kind), flags, ptr(&data)]).map(|_| ())
}

pub fn unmount(at: Path) {
    let _ = call(UMOUNT, [ptr(&c(at)), 0, 0, 0, 0]);
}

pub fn chdir(path: Path) -> Result<(), Fail> {
    call(CHDIR, [ptr(&c(path)), 0, 0, 0, 0]).map(|_| ())
}

pub fn chroot(path: Path) -> Result<(), Fail> {
    call(CHROOT, [ptr(&c(path)), 0, 0, 0, 0]).map(|_| ())
}

pub fn exists(path: Path) -> bool {
    call(FACCESSAT, [AT_FDCWD, ptr(&c(path)), 0, 0, 0]).is_ok()
}

pub fn remove(path: Path) {
    let _ = call(UNLINKAT, [AT_FDCWD, ptr(&c(path)), 0, 0, 0]);
}

pub fn remove_files(folder: Path) {
    for name in list(folder) {
        remove(&alloc::format!("{folder}/{name}"));
    }
}

pub fn read_link(path: Path) -> Option<String> {
    let mut target = vec![0u8; 4096];
    let length = call(
        READLINKAT,
        [
            AT_FDCWD,
            ptr(&c(path)),
            target.as_mut_ptr() as usize,
            target.len(),
            0,
        ],
    )
    .ok()?;
    target.truncate(length);
    String::from_utf8(target).ok()
}

/// A whole small file.
pub fn read(path: Path) -> Option<Vec<u8>> {
    let file = open(path, 0).ok()?;
    let mut all = Vec::new();
    let mut piece = [0u8; 4096];
    while let Ok(length) = call(READ, [file, piece.as_mut_ptr() as usize, piece.len(), 0, 0]) {
        if length == 0 {
            break;
        }
        all.extend_from_slice(&piece[..length]);
    }
    close(file);
    Some(all)
}

pub fn is_folder(path: Path) -> bool {
    match open(path, O_DIRECTORY) {
        Ok(file) => {
            close(file);
            true
        }
        Err(_) => false,
    }
}

pub fn copy(from: Path, to: Path) -> Result<(), Fail> {
    let source = open(from, 0)?;
    let target = call(
        OPENAT,
        [AT_FDCWD, ptr(&c(to)), O_WRONLY | O_CREAT, 0o644, 0],
    );
    let mut piece = [0u8; 65536];
    let copied = target.and_then(|target| {
        loop {
            let length = call(
                READ,
                [source, piece.as_mut_ptr() as usize, piece.len(), 0, 0],
            )?;
            if length == 0 {
                close(target);
                return Ok(());
            }
            let mut done = 0;
            while done < length {
                done += call(WRITE, [target, ptr(&piece[done..]), length - done, 0, 0])?;
            }
        }
    });
    close(source);
    copied
}

/// `length` bytes from `offset`, or fewer at the end.
pub fn read_at(path: Path, offset: usize, length: usize) -> Option<Vec<u8>> {
    let file = open(path, 0).ok()?;
    let mut bytes = vec![0u8; length];
    let read = call(
        PREAD,
        [file, bytes.as_mut_ptr() as usize, length, offset, 0],
    );
    close(file);
    bytes.truncate(read.ok()?);
    Some(bytes)
}

/// Names in a folder: struct linux_dirent64 of getdents64(2).
pub fn list(folder: Path) -> Vec<String> {
    let mut names = Vec::new();
    let Ok(file) = open(folder, O_DIRECTORY) else {
        return names;
    };
    let mut buffer = [0u8; 16384];
    while let Ok(length) = call(
        GETDENTS64,
        [file, buffer.as_mut_ptr() as usize, buffer.len(), 0, 0],
    ) {
        if length == 0 {
            break;
        }
        let mut at = 0;
        while at + 19 < length {
            let size = usize::from(u16::from_ne_bytes([buffer[at + 16], buffer[at + 17]]));
            if size == 0 {
                break;
            }
            let name = &buffer[at + 19..at + size];
            let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
            if let Ok(name) = core::str::from_utf8(&name[..end])
                && name != "."
                && name != ".."
            {
                names.push(String::from(name));
            }
            at += size;
        }
    }
    close(file);
    names
}

pub fn load_module(path: Path) -> Result<(), Fail> {
    let file = open(path, 0)?;
    let loaded = call(FINIT_MODULE, [file, ptr(&c("")), 0, 0, 0]);
    close(file);
    loaded.map(|_| ())
}

/// struct new_utsname: six fields of 65 bytes, the third is the release.
pub fn kernel_release() -> String {
    let mut names = [0u8; 6 * 65];
    let _ = call(UNAME, [names.as_mut_ptr() as usize, 0, 0, 0, 0]);
    let release = &names[130..195];
    let end = release.iter().position(|b| *b == 0).unwrap_or(65);
    String::from_utf8_lossy(&release[..end]).into_owned()
}

pub fn sleep_ms(ms: usize) {
    let time = [ms / 1000, ms % 1000 * 1_000_000];
    let _ = call(NANOSLEEP, [time.as_ptr() as usize, 0, 0, 0, 0]);
}

/// Becomes `program`, with the arguments and the environment that the kernel gave this one (it
/// puts there what it does not know on its command line). Returns only where that fails.
pub fn execute(program: Path, stack: *const usize) -> Fail {
    let name = c(program);
    // SAFETY: the kernel puts argc, argv and envp there, each list with a NULL at its end
    // (the ABI's process initialization); argv[0] is ours to replace.
    unsafe {
        let count = *stack;
        let arguments = stack.add(1).cast_mut();
        if count > 0 {
            *arguments = ptr(&name);
        }
        let environment = stack.add(2 + count);
        match call(
            EXECVE,
            [ptr(&name), arguments as usize, environment as usize, 0, 0],
        ) {
            Ok(_) => Fail(0),
            Err(fail) => fail,
        }
    }
}

// ---- what libc would bring ----------------------------------------------------------------------

/// Memory is handed out in a row, and only what was handed out last is taken back: this program runs
/// for some milliseconds.
struct Bump;

const HEAP: usize = 32 << 20;

#[repr(align(16))]
struct Heap(core::cell::UnsafeCell<[u8; HEAP]>);
// SAFETY: there is one thread.
unsafe impl Sync for Heap {}
// Zero pages until they are used.
static MEMORY: Heap = Heap(core::cell::UnsafeCell::new([0; HEAP]));
static USED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: what is handed out lies within MEMORY, is aligned, and is never handed out twice.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let base = MEMORY.0.get() as usize;
        let start = (base + USED.load(Ordering::Relaxed)).next_multiple_of(layout.align());
        let end = start - base + layout.size();
        if end > HEAP {
            return core::ptr::null_mut();
        }
        USED.store(end, Ordering::Relaxed);
        start as *mut u8
    }
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        let offset = start as usize - MEMORY.0.get() as usize;
        if offset + layout.size() == USED.load(Ordering::Relaxed) {
            USED.store(offset, Ordering::Relaxed);
        }
    }
}

#[global_allocator]
static ALLOCATOR: Bump = Bump;

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    print("stead-init: cannot go on: a fault of its own");
    if let Some(place) = info.location() {
        print(&alloc::format!(" in line {}\n", place.line()));
    }
    loop {
        sleep_ms(60_000);
    }
}

/// The compiler calls these four by name. Written with volatile steps or string instructions, since
/// a plain loop would be made a call of itself.
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: as memcpy(3) demands of its caller.
    unsafe {
        asm!("rep movsb", inout("rcx") length => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags));
    }
    to
}
#[cfg(target_arch = "x86_64")]
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8 {
    // SAFETY: as memset(3) demands of its caller.
    unsafe {
        asm!("rep stosb", inout("rcx") length => _, inout("rdi") to => _, in("al") value as u8,
            options(nostack, preserves_flags));
    }
    to
}
#[cfg(not(target_arch = "x86_64"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    for n in 0..length {
        // SAFETY: as memcpy(3) demands of its caller.
        unsafe { to.add(n).write_volatile(from.add(n).read_volatile()) };
    }
    to
}
#[cfg(not(target_arch = "x86_64"))]
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, length: usize) -> *mut u8 {
    for n in 0..length {
        // SAFETY: as memset(3) demands of its caller.
        unsafe { to.add(n).write_volatile(value as u8) };
    }
    to
}
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: as memmove(3) demands of its caller.
    unsafe {
        if (to as usize) < from as usize {
            for n in 0..length {
                to.add(n).write_volatile(from.add(n).read_volatile());
            }
        } else {
            for n in (0..length).rev() {
                to.add(n).write_volatile(from.add(n).read_volatile());
            }
        }
    }
    to
}
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    for n in 0..length {
        // SAFETY: as memcmp(3) demands of its caller.
        let (a, b) = unsafe { (a.add(n).read_volatile(), b.add(n).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
    }
    0
}
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    // SAFETY: as memcmp.
    unsafe { memcmp(a, b, length) }
}
#[unsafe(no_mangle)]
extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: as strlen(3) demands of its caller.
    while unsafe { text.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}
/// The prebuilt `alloc` names these; with panic=abort nothing calls them.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    loop {
        sleep_ms(60_000);
    }
}
