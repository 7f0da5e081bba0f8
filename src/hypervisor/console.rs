//! The serial console of a domain, to type at (libvirt.org/html/libvirt-libvirt-domain.html#virDomainOpenConsole). QEMU
//! goes on writing its log meanwhile.
//!
//! The `virt` crate moves what a callback for a stream gets, so there is unsafe code here.

use std::ffi::{c_int, c_void};

use virt::{stream::Stream, sys};

use crate::machine::Identity;

use super::{
    connection::Connection,
    error::{Doing, HypervisorError},
};

/// The text of libvirt's error if somebody has the console (libvirt, src/qemu/qemu_driver.c).
const TAKEN: &str = "Active console session exists";

/// How much is received at a time, in bytes.
const PIECE: usize = 4096;

/// What virStreamRecv returns where nothing is there yet.
const NOT_YET: c_int = -2;

/// What comes from a console.
pub enum Heard<'a> {
    Said(&'a [u8]),
    /// Nothing more will come: its QEMU has ended, another program took it, or libvirt's daemon has ended.
    Ended,
}

/// What is called with each of them, in the thread of libvirt's events: it must not wait. It returns whether it wants more.
type Listener = Box<dyn Fn(Heard<'_>) -> bool + Send>;

/// An open console. Clones are the same one.
///
/// It has a connection of its own, which libvirt's event loop reads. A thread that waits for a stream by virStreamRecv may
/// miss for ever that other calls of the connection want to be sent (libvirt before 10.0, g_main_loop_quit in
/// src/rpc/virnetclient.c).
#[derive(Clone)]
pub struct Console {
    stream: Stream,
    domain: String,
    _connection: Connection,
}

/// Why a console cannot be opened.
pub enum NotOpened {
    /// Somebody else has it.
    Taken,
    /// The domain does not exist any more.
    Gone,
    Failed(HypervisorError),
}

impl From<HypervisorError> for NotOpened {
    fn from(error: HypervisorError) -> Self {
        NotOpened::Failed(error)
    }
}

impl Connection {
    /// Opens the first serial console of a running domain, from which `listener` gets what the guest says. `force`: whoever
    /// has it loses it.
    ///
    /// # Errors
    /// If somebody has it, or libvirt refuses.
    pub fn console(
        &self,
        identity: &Identity,
        force: bool,
        listener: impl Fn(Heard<'_>) -> bool + Send + 'static,
    ) -> Result<Console, NotOpened> {
        let connection = self.another_with_events()?;
        let Some(domain) = connection.lookup(identity)? else {
            return Err(NotOpened::Gone);
        };
        let name = domain.name().to_string();
        tracing::debug!("libvirt: opening the console of domain {name}");
        let doing = || format!("opening the console of domain {name}");
        let stream = Stream::new(&connection.connect, sys::VIR_STREAM_NONBLOCK).doing(doing)?;
        let flags = match force {
            true => sys::VIR_DOMAIN_CONSOLE_FORCE,
            false => 0,
        };
        match domain.virt().open_console(None, &stream, flags) {
            Err(error) if error.message().contains(TAKEN) => return Err(NotOpened::Taken),
            opened => opened.doing(doing)?,
        };
        listen(&stream, Box::new(listener)).doing(doing)?;
        Ok(Console {
            stream,
            domain: name,
            _connection: connection,
        })
    }
}

impl Console {
    /// Types. This waits while the guest takes nothing.
    ///
    /// # Errors
    /// If the console has ended.
    pub fn send(&self, mut bytes: &[u8]) -> Result<(), HypervisorError> {
        while !bytes.is_empty() {
            let sent = (self.stream.send(bytes))
                .doing(|| format!("typing at the console of domain {}", self.domain))?;
            bytes = &bytes[usize::try_from(sent).unwrap_or(0).min(bytes.len())..];
        }
        Ok(())
    }

    /// Leaves the console, so that another program can have it.
    pub fn close(self) {
        // It may have ended already.
        let _ = self.stream.event_remove_callback();
        let _ = self.stream.abort();
    }
}

fn listen(stream: &Stream, listener: Listener) -> Result<(), virt::error::Error> {
    let events =
        sys::VIR_STREAM_EVENT_READABLE | sys::VIR_STREAM_EVENT_ERROR | sys::VIR_STREAM_EVENT_HANGUP;
    let opaque = Box::into_raw(Box::new(listener));
    // SAFETY: the stream is valid, and libvirt calls `free` once for `opaque` when the callback is removed.
    let added = unsafe {
        sys::virStreamEventAddCallback(
            stream.as_ptr(),
            events as c_int,
            Some(on_event),
            opaque.cast(),
            Some(free),
        )
    };
    if added < 0 {
        let error = virt::error::Error::last_error();
        // SAFETY: libvirt does not keep `opaque`, since it refused.
        drop(unsafe { Box::from_raw(opaque) });
        return Err(error);
    }
    Ok(())
}

unsafe extern "C" fn on_event(stream: sys::virStreamPtr, events: c_int, opaque: *mut c_void) {
    // SAFETY: `listen` made it, and it lives until `free`.
    let listener = unsafe { &*opaque.cast::<Listener>() };
    let mut piece = [0u8; PIECE];
    let received = match events as u32 & sys::VIR_STREAM_EVENT_READABLE {
        // It was closed, or has failed.
        0 => 0,
        // SAFETY: libvirt passes a valid stream, and the buffer has this length.
        _ => unsafe { sys::virStreamRecv(stream, piece.as_mut_ptr().cast(), piece.len()) },
    };
    let wants_more = match usize::try_from(received) {
        Ok(length @ 1..) => listener(Heard::Said(&piece[..length])),
        Err(_) if received == NOT_YET => true,
        _ => {
            listener(Heard::Ended);
            false
        }
    };
    if !wants_more {
        // SAFETY: libvirt passes a valid stream.
        unsafe {
            // Its end would be told again and again.
            sys::virStreamEventUpdateCallback(stream, 0);
            // libvirt would keep in memory what comes.
            sys::virStreamAbort(stream);
        }
    }
}

unsafe extern "C" fn free(opaque: *mut c_void) {
    // SAFETY: `Box::into_raw` in `listen` made it, and libvirt calls this once.
    drop(unsafe { Box::from_raw(opaque.cast::<Listener>()) });
}
