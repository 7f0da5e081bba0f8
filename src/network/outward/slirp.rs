//! libslirp, loaded when the process starts: it turns packets of a guest into sockets of this process, and what comes
//! from them into packets.
//!
//! The interface is that of libslirp.h, with version 1 of its settings, which libslirp 4.1 and newer take.

#![expect(
    unsafe_code,
    reason = "a C library, and poll(2) on the sockets that it owns"
)]

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    ffi::{CStr, c_char, c_int, c_void},
    io, mem,
    net::Ipv4Addr,
    os::fd::{AsRawFd, BorrowedFd},
    ptr::{self, NonNull},
    rc::Rc,
    slice,
    time::{Duration, Instant},
};

use nix::libc;

use crate::{network::frame::MTU, report::clean::words};

const LIBRARY: &CStr = c"libslirp.so.0";

/// Memory of at least so many bytes goes back to the system when it is freed. libslirp reserves two buffers of 128 KiB
/// for each connection.
#[cfg(target_env = "gnu")]
const GIVEN_BACK: c_int = 64 << 10;

/// The most frames that wait to be fetched. libslirp's TCP sends again what is dropped.
const MOST_FRAMES: usize = 1024;

/// libslirp asks to be called again after so many milliseconds even if it has nothing to do.
const NOTHING_TO_DO: u32 = 1000;

/// What libslirp waits for at a socket (`SLIRP_POLL_IN` and so on), and what that is for poll(2).
/// Without `SLIRP_POLL_PRI`: urgent data comes like any other then, and libslirp's code for it is not used.
const EVENTS: [(c_int, i16); 4] = [
    (1 << 0, libc::POLLIN),
    (1 << 1, libc::POLLOUT),
    (1 << 3, libc::POLLERR),
    (1 << 4, libc::POLLHUP),
];

/// `SlirpCb`, without fields of newer versions, which libslirp does not read for settings of version 1.
#[repr(C)]
struct Callbacks {
    send_packet: extern "C" fn(*const c_void, usize, *mut c_void) -> isize,
    guest_error: extern "C" fn(*const c_char, *mut c_void),
    clock_get_ns: extern "C" fn(*mut c_void) -> i64,
    timer_new: extern "C" fn(*mut c_void, *mut c_void, *mut c_void) -> *mut c_void,
    timer_free: extern "C" fn(*mut c_void, *mut c_void),
    timer_mod: extern "C" fn(*mut c_void, i64, *mut c_void),
    register_poll_fd: extern "C" fn(c_int, *mut c_void),
    unregister_poll_fd: extern "C" fn(c_int, *mut c_void),
    notify: extern "C" fn(*mut c_void),
}

static CALLBACKS: Callbacks = Callbacks {
    send_packet,
    guest_error,
    clock_get_ns,
    timer_new,
    timer_free,
    timer_mod,
    register_poll_fd: count_socket,
    unregister_poll_fd: uncount_socket,
    notify: ignore,
};

/// `SlirpConfig` of version 1.
#[repr(C)]
struct Config {
    version: u32,
    restricted: c_int,
    in_enabled: bool,
    vnetwork: libc::in_addr,
    vnetmask: libc::in_addr,
    vhost: libc::in_addr,
    in6_enabled: bool,
    vprefix_addr6: libc::in6_addr,
    vprefix_len: u8,
    vhost6: libc::in6_addr,
    vhostname: *const c_char,
    tftp_server_name: *const c_char,
    tftp_path: *const c_char,
    bootfile: *const c_char,
    vdhcp_start: libc::in_addr,
    vnameserver: libc::in_addr,
    vnameserver6: libc::in6_addr,
    vdnssearch: *const *const c_char,
    vdomainname: *const c_char,
    if_mtu: usize,
    if_mru: usize,
    disable_host_loopback: bool,
    enable_emu: bool,
}

type AddPoll = extern "C" fn(c_int, c_int, *mut c_void) -> c_int;
type GetRevents = extern "C" fn(c_int, *mut c_void) -> c_int;

/// Functions of libslirp. The library stays loaded for as long as the process runs.
#[derive(Clone, Copy)]
struct Functions {
    new: unsafe extern "C" fn(*const Config, *const Callbacks, *mut c_void) -> *mut c_void,
    cleanup: unsafe extern "C" fn(*mut c_void),
    input: unsafe extern "C" fn(*mut c_void, *const u8, c_int),
    fill: unsafe extern "C" fn(*mut c_void, *mut u32, AddPoll, *mut c_void),
    poll: unsafe extern "C" fn(*mut c_void, c_int, GetRevents, *mut c_void),
}

/// libslirp, and what all of its stacks have in common.
pub(super) struct Library {
    functions: Functions,
    shared: Rc<Shared>,
}

/// What libslirp's callbacks use. All is on one thread.
struct Shared {
    began: Instant,
    /// Frames for guests.
    frames: RefCell<VecDeque<Vec<u8>>>,
    /// How many sockets all stacks have.
    sockets: Cell<usize>,
    /// The sockets to wait for.
    polls: RefCell<Vec<libc::pollfd>>,
}

pub(super) struct Settings {
    pub network: Ipv4Addr,
    pub mask: Ipv4Addr,
    /// The network's own address.
    pub host: Ipv4Addr,
    /// An address of the network for libslirp's DNS. Keep packets to it away.
    pub unused: Ipv4Addr,
    /// Whether the network's own address leads to 127.0.0.1 of this computer.
    pub host_loopback: bool,
}

impl Library {
    /// Loads libslirp.
    ///
    /// # Errors
    /// If it is missing or too old, in words.
    pub(super) fn load() -> Result<Self, String> {
        // Else, glibc keeps the memory of the most connections that there ever were.
        // SAFETY: it sets a number.
        #[cfg(target_env = "gnu")]
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK);
        }
        // SAFETY: the name is a constant. libslirp and GLib do nothing unusual when they are loaded.
        let handle = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let handle = NonNull::new(handle).ok_or_else(|| why_not(&last_error()))?;
        let find = |name: &CStr| {
            // SAFETY: the handle is open and never closed, and the name is a C string.
            let function = unsafe { libc::dlsym(handle.as_ptr(), name.as_ptr()) };
            NonNull::new(function).ok_or_else(|| {
                let name = name.to_string_lossy();
                format!("libslirp is too old: it has no {name}, which version 4.1 has")
            })
        };
        let (new, cleanup, input) = (
            find(c"slirp_new")?,
            find(c"slirp_cleanup")?,
            find(c"slirp_input")?,
        );
        let (fill, poll) = (find(c"slirp_pollfds_fill")?, find(c"slirp_pollfds_poll")?);
        // SAFETY: these are the types of the functions in libslirp.h since version 4.1. Its symbols are versioned, so
        // that they stay what they are.
        let functions = unsafe {
            Functions {
                new: mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(
                        *const Config,
                        *const Callbacks,
                        *mut c_void,
                    ) -> *mut c_void,
                >(new.as_ptr()),
                cleanup: mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void)>(
                    cleanup.as_ptr(),
                ),
                input: mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut c_void, *const u8, c_int),
                >(input.as_ptr()),
                fill: mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut c_void, *mut u32, AddPoll, *mut c_void),
                >(fill.as_ptr()),
                poll: mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut c_void, c_int, GetRevents, *mut c_void),
                >(poll.as_ptr()),
            }
        };
        Ok(Library {
            functions,
            shared: Rc::new(Shared {
                began: Instant::now(),
                frames: RefCell::default(),
                sockets: Cell::new(0),
                polls: RefCell::default(),
            }),
        })
    }

    /// How many sockets all stacks have.
    pub(super) fn sockets(&self) -> usize {
        self.shared.sockets.get()
    }

    /// Returns a stack without sockets; `None` if libslirp refuses the settings.
    pub(super) fn stack(&self, settings: &Settings) -> Option<Stack> {
        let address = |address: Ipv4Addr| libc::in_addr {
            s_addr: u32::from_ne_bytes(address.octets()),
        };
        let no_address = libc::in6_addr { s6_addr: [0; 16] };
        let config = Config {
            version: 1,
            restricted: 0,
            in_enabled: true,
            vnetwork: address(settings.network),
            vnetmask: address(settings.mask),
            vhost: address(settings.host),
            in6_enabled: false,
            vprefix_addr6: no_address,
            vprefix_len: 0,
            vhost6: no_address,
            vhostname: ptr::null(),
            tftp_server_name: ptr::null(),
            tftp_path: ptr::null(),
            bootfile: ptr::null(),
            vdhcp_start: address(settings.unused),
            vnameserver: address(settings.unused),
            vnameserver6: no_address,
            vdnssearch: ptr::null(),
            vdomainname: ptr::null(),
            if_mtu: MTU,
            if_mru: MTU,
            disable_host_loopback: !settings.host_loopback,
            enable_emu: false,
        };
        let own = Box::new(Own {
            shared: Rc::clone(&self.shared),
            sockets: Cell::new(0),
        });
        let opaque = (&raw const *own).cast_mut().cast();
        // SAFETY: libslirp copies the settings, and keeps the pointers to the callbacks, which are static, and to what
        // the callbacks use, which the stack keeps.
        let instance = unsafe { (self.functions.new)(&raw const config, &CALLBACKS, opaque) };
        NonNull::new(instance).map(|instance| Stack {
            functions: self.functions,
            instance,
            own,
        })
    }

    /// The pointer that `add_poll` and `get_revents` get. They only read through it.
    fn opaque(&self) -> *mut c_void {
        Rc::as_ptr(&self.shared).cast_mut().cast()
    }

    /// Takes the next frame for a guest.
    pub(super) fn next_frame(&self) -> Option<Vec<u8>> {
        self.shared.frames.borrow_mut().pop_front()
    }

    /// Sleeps until there is something to do, and lets the stacks do it. `own` is a socket to wait for too, and whether
    /// there is something to write to it. If `is_crowded`, the stacks read nothing, so that no more frames come, except
    /// for what their clocks want. Returns whether there may be something to read from `own`.
    ///
    /// # Errors
    /// If poll(2) fails.
    pub(super) fn wait(
        &self,
        stacks: &mut [Stack],
        (own, has_more): (BorrowedFd<'_>, bool),
        is_crowded: bool,
    ) -> io::Result<bool> {
        let events = match has_more {
            true => libc::POLLIN | libc::POLLOUT,
            false => libc::POLLIN,
        };
        let mut polls = self.shared.polls.take();
        polls.clear();
        polls.push(libc::pollfd {
            fd: own.as_raw_fd(),
            events,
            revents: 0,
        });
        self.shared.polls.replace(polls);
        let mut pause = u32::MAX;
        if is_crowded {
            pause = NOTHING_TO_DO;
        } else {
            for stack in &mut *stacks {
                let before = self.shared.polls.borrow().len();
                let mut next = u32::MAX;
                // SAFETY: the instance lives, and `add_poll` gets the pointer that it expects.
                unsafe {
                    (stack.functions.fill)(
                        stack.instance.as_ptr(),
                        &raw mut next,
                        add_poll,
                        self.opaque(),
                    );
                }
                let waits = self.shared.polls.borrow().len() > before;
                if waits || next < NOTHING_TO_DO {
                    pause = pause.min(next);
                }
            }
        }
        let mut polls = self.shared.polls.take();
        let count = libc::nfds_t::try_from(polls.len()).unwrap_or(libc::nfds_t::MAX);
        let pause = c_int::try_from(pause).unwrap_or(-1);
        // SAFETY: the pointer and the count are those of the vector, which nobody else has meanwhile.
        let polled = unsafe { libc::poll(polls.as_mut_ptr(), count, pause) };
        let failed = (polled < 0).then(io::Error::last_os_error);
        let seen = polls.first().map_or(0, |own| own.revents);
        self.shared.polls.replace(polls);
        if let Some(error) = failed {
            return match error.kind() {
                io::ErrorKind::Interrupted => Ok(false),
                _ => Err(error),
            };
        }
        for stack in stacks {
            // SAFETY: as above. The sockets are those that it named just before, or it looks at none.
            unsafe {
                (stack.functions.poll)(
                    stack.instance.as_ptr(),
                    c_int::from(is_crowded),
                    get_revents,
                    self.opaque(),
                );
            }
        }
        Ok(seen & !libc::POLLOUT != 0)
    }
}

/// A TCP/IP stack of libslirp's.
pub(super) struct Stack {
    functions: Functions,
    instance: NonNull<c_void>,
    /// Its callbacks use it.
    own: Box<Own>,
}

/// What the callbacks of a stack use.
struct Own {
    shared: Rc<Shared>,
    /// How many sockets it has. libslirp says of each when it is made and closed.
    sockets: Cell<usize>,
}

impl Stack {
    pub(super) fn sockets(&self) -> usize {
        self.own.sockets.get()
    }

    /// Takes a frame from its guest.
    pub(super) fn input(&mut self, frame: &[u8]) {
        let Ok(length) = c_int::try_from(frame.len()) else {
            return;
        };
        // SAFETY: the instance lives, and the pointer and the length are those of the frame, which libslirp copies.
        unsafe { (self.functions.input)(self.instance.as_ptr(), frame.as_ptr(), length) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: nobody uses the instance any more.
        unsafe { (self.functions.cleanup)(self.instance.as_ptr()) }
    }
}

/// What a stack has, from the pointer that libslirp was given.
///
/// # Safety
/// The pointer is that of [`Library::stack`], and the stack lives for as long as the reference is used.
unsafe fn own<'a>(opaque: *mut c_void) -> &'a Own {
    // SAFETY: as the caller says. It is only ever read through shared references.
    unsafe { &*opaque.cast::<Own>() }
}

/// What is shared, from the pointer of `add_poll` and `get_revents`.
///
/// # Safety
/// The pointer is that of [`Library::opaque`], and what is shared lives for as long as the reference is used.
unsafe fn shared<'a>(opaque: *mut c_void) -> &'a Shared {
    // SAFETY: as the caller says. It is only ever read through shared references.
    unsafe { &*opaque.cast::<Shared>() }
}

extern "C" fn send_packet(frame: *const c_void, length: usize, opaque: *mut c_void) -> isize {
    // SAFETY: libslirp passes on the pointer of its stack, which lives.
    let own = unsafe { own(opaque) };
    let mut frames = own.shared.frames.borrow_mut();
    if !frame.is_null() && frames.len() < MOST_FRAMES {
        // SAFETY: libslirp gives a frame of this length, which lives until this returns.
        let frame = unsafe { slice::from_raw_parts(frame.cast::<u8>(), length) };
        frames.push_back(frame.to_vec());
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}

/// What guests do wrong is nothing that a person has to read.
extern "C" fn guest_error(_: *const c_char, _: *mut c_void) {}

extern "C" fn clock_get_ns(opaque: *mut c_void) -> i64 {
    // SAFETY: as in `send_packet`.
    let own = unsafe { own(opaque) };
    // libslirp takes a time of 0 ms for none.
    let time = own.shared.began.elapsed() + Duration::from_secs(1);
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// The only timer of libslirp is for advertisements of IPv6 routers. IPv6 is off, so it would never run.
extern "C" fn timer_new(_: *mut c_void, _: *mut c_void, _: *mut c_void) -> *mut c_void {
    NonNull::dangling().as_ptr()
}

extern "C" fn timer_free(_: *mut c_void, _: *mut c_void) {}

extern "C" fn timer_mod(_: *mut c_void, _: i64, _: *mut c_void) {}

extern "C" fn count_socket(_: c_int, opaque: *mut c_void) {
    // SAFETY: as in `send_packet`.
    let own = unsafe { own(opaque) };
    for count in [&own.sockets, &own.shared.sockets] {
        count.set(count.get() + 1);
    }
}

extern "C" fn uncount_socket(_: c_int, opaque: *mut c_void) {
    // SAFETY: as in `send_packet`.
    let own = unsafe { own(opaque) };
    for count in [&own.sockets, &own.shared.sockets] {
        count.set(count.get().saturating_sub(1));
    }
}

extern "C" fn ignore(_: *mut c_void) {}

/// Notes a socket to wait for, and returns its number.
extern "C" fn add_poll(fd: c_int, events: c_int, opaque: *mut c_void) -> c_int {
    // SAFETY: the pointer is that of `wait`, which keeps what is shared.
    let mut polls = unsafe { shared(opaque) }.polls.borrow_mut();
    let wanted = EVENTS.iter().filter(|(theirs, _)| events & theirs != 0);
    polls.push(libc::pollfd {
        fd,
        events: wanted.fold(0, |all, (_, ours)| all | ours),
        revents: 0,
    });
    c_int::try_from(polls.len() - 1).unwrap_or(-1)
}

/// Returns what the socket of this number is ready for.
extern "C" fn get_revents(number: c_int, opaque: *mut c_void) -> c_int {
    // SAFETY: as in `add_poll`.
    let polls = unsafe { shared(opaque) }.polls.borrow();
    let seen = (usize::try_from(number)
        .ok()
        .and_then(|number| polls.get(number)))
    .map_or(0, |poll| poll.revents);
    let seen = EVENTS.iter().filter(|(_, ours)| seen & ours != 0);
    seen.fold(0, |all, (theirs, _)| all | theirs)
}

/// Says why the library cannot be loaded, from what the loader says.
fn why_not(said: &str) -> String {
    let name = LIBRARY.to_string_lossy();
    match said.starts_with(&format!(
        "{name}: cannot open shared object file: No such file"
    )) {
        true => format!("{name} is missing"),
        false => format!("cannot load libslirp: {said}"),
    }
}

/// Returns the loader's last error on this thread.
fn last_error() -> String {
    // SAFETY: this is called right after the loader failed; the text is valid until the next such call.
    let said = unsafe { libc::dlerror() };
    if said.is_null() {
        return "the loader does not say why".into();
    }
    // SAFETY: it is not null, so it is a C string.
    words(&unsafe { CStr::from_ptr(said) }.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_missing_or_damaged() {
        let open = "cannot open shared object file: No such file or directory";
        assert_eq!(
            why_not(&format!("libslirp.so.0: {open}")),
            "libslirp.so.0 is missing"
        );
        let other = format!("libglib-2.0.so.0: {open}");
        assert_eq!(why_not(&other), format!("cannot load libslirp: {other}"));
    }

    /// As a C compiler lays them out on 64-bit computers.
    #[test]
    fn the_settings_are_laid_out_as_in_c() {
        for (ours, theirs) in [
            (mem::offset_of!(Config, in_enabled), 8),
            (mem::offset_of!(Config, vnetwork), 12),
            (mem::offset_of!(Config, vprefix_addr6), 28),
            (mem::offset_of!(Config, vhost6), 48),
            (mem::offset_of!(Config, vhostname), 64),
            (mem::offset_of!(Config, vdhcp_start), 96),
            (mem::offset_of!(Config, vnameserver6), 104),
            (mem::offset_of!(Config, if_mtu), 136),
            (mem::offset_of!(Config, enable_emu), 153),
            (size_of::<Config>(), 160),
            (size_of::<Callbacks>(), 9 * 8),
        ] {
            assert_eq!(ours, theirs);
        }
    }
}
