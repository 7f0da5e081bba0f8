//! Events of domains' lifecycles. The `virt` crate does not wrap them, so there is unsafe code here
//! (libvirt.org/html/libvirt-libvirt-domain.html#virConnectDomainEventRegisterAny).

use std::{
    ffi::{c_int, c_void},
    sync::Once,
};

use tokio::sync::broadcast;
use uuid::Uuid;
use virt::sys;

use super::{connection::Connection, error::HypervisorError};

/// What happened to a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    Started,
    Stopped {
        crashed: bool,
    },
    /// The guest was reset while QEMU went on: it reboots.
    Rebooted,
    /// Its CPUs were stopped.
    Suspended,
    /// The guest's agent has opened its channel, so most of the boot is done.
    AgentConnected,
    Other,
}

/// The real signature of the callbacks for both kinds of event (virConnectDomainEventCallback,
/// virConnectDomainEventAgentLifecycleCallback), which differs from the generic type. The latter returns nothing,
/// so libvirt ignores the result there.
type Callback =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;

/// That of the callback for a reboot (virConnectDomainEventGenericCallback).
type PlainCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);

type Sender = broadcast::Sender<(Uuid, Lifecycle)>;

static EVENT_LOOP: Once = Once::new();

/// Starts libvirt's own event loop in a thread, once. A connection that was opened earlier does without.
fn register_event_loop() {
    EVENT_LOOP.call_once(|| {
        // SAFETY: libvirt's library is loaded, since a connection is open, and this is called once.
        if unsafe { sys::virEventRegisterDefaultImpl() } < 0 {
            return;
        }
        let _ = std::thread::Builder::new()
            .name("libvirt-events".into())
            .spawn(|| {
                // SAFETY: the default implementation is registered above, and only this thread runs it.
                while unsafe { sys::virEventRunDefaultImpl() } >= 0 {}
            });
    });
}

impl Connection {
    /// Opens another connection to the same libvirt, which the event loop reads.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub(super) fn another_with_events(&self) -> Result<Connection, HypervisorError> {
        // Before the connection is opened: that is when libvirt looks for an event loop.
        register_event_loop();
        Connection::open(self.uri())
    }
}

/// A subscription to the lifecycle events of all domains of a libvirt. It ends when it is dropped.
///
/// It has a connection of its own, so that commands that wait for nothing need no event loop and no thread for it.
pub struct LifecycleEvents {
    connection: Connection,
    callbacks: Vec<c_int>,
    sender: Sender,
}

impl LifecycleEvents {
    /// Subscribes to the events of the libvirt that `connection` leads to.
    ///
    /// # Errors
    /// If libvirt refuses.
    pub fn subscribe(connection: &Connection) -> Result<Self, HypervisorError> {
        let (sender, _) = broadcast::channel(256);
        let mut events = LifecycleEvents {
            connection: connection.another_with_events()?,
            callbacks: Vec::new(),
            sender,
        };
        // SAFETY: libvirt calls back for these events with the signature of `Callback`.
        let (on_lifecycle, on_agent) = unsafe {
            (
                std::mem::transmute::<Callback, PlainCallback>(on_lifecycle),
                std::mem::transmute::<Callback, PlainCallback>(on_agent),
            )
        };
        events.register(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, on_lifecycle)?;
        events.register(sys::VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, on_agent)?;
        events.register(sys::VIR_DOMAIN_EVENT_ID_REBOOT, on_reboot)?;
        Ok(events)
    }

    /// `function` is as libvirt's type has it; it casts it to what the event needs.
    fn register(&mut self, event: u32, function: PlainCallback) -> Result<(), HypervisorError> {
        tracing::debug!("libvirt: subscribing to domain events");
        let opaque = Box::into_raw(Box::new(self.sender.clone()));
        // SAFETY: the caller gives the function of this event, and libvirt calls `free` once for `opaque` when the
        // callback is removed.
        let callback = unsafe {
            sys::virConnectDomainEventRegisterAny(
                self.connection.connect.as_ptr(),
                std::ptr::null_mut(),
                event as c_int,
                Some(function),
                opaque.cast(),
                Some(free),
            )
        };
        if callback < 0 {
            let error = virt::error::Error::last_error();
            // SAFETY: the registration failed, so libvirt does not keep `opaque` and never frees it.
            drop(unsafe { Box::from_raw(opaque) });
            return Err(HypervisorError::libvirt(
                "subscribing to domain events",
                &error,
            ));
        }
        self.callbacks.push(callback);
        Ok(())
    }

    pub fn receiver(&self) -> broadcast::Receiver<(Uuid, Lifecycle)> {
        self.sender.subscribe()
    }
}

impl Drop for LifecycleEvents {
    fn drop(&mut self) {
        for callback in &self.callbacks {
            // SAFETY: self keeps the connection open, and the id came from it.
            unsafe {
                sys::virConnectDomainEventDeregisterAny(
                    self.connection.connect.as_ptr(),
                    *callback,
                );
            }
        }
    }
}

unsafe extern "C" fn on_lifecycle(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let lifecycle = match event as u32 {
        sys::VIR_DOMAIN_EVENT_STARTED => Lifecycle::Started,
        sys::VIR_DOMAIN_EVENT_STOPPED => Lifecycle::Stopped {
            crashed: detail as u32 == sys::VIR_DOMAIN_EVENT_STOPPED_CRASHED
                || detail as u32 == sys::VIR_DOMAIN_EVENT_STOPPED_FAILED,
        },
        sys::VIR_DOMAIN_EVENT_SUSPENDED | sys::VIR_DOMAIN_EVENT_PMSUSPENDED => Lifecycle::Suspended,
        sys::VIR_DOMAIN_EVENT_CRASHED => Lifecycle::Stopped { crashed: true },
        _ => Lifecycle::Other,
    };
    // SAFETY: libvirt passes these arguments.
    unsafe { send(domain, lifecycle, opaque) };
    0
}

unsafe extern "C" fn on_agent(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    state: c_int,
    _reason: c_int,
    opaque: *mut c_void,
) -> c_int {
    if state as u32 == sys::VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED {
        // SAFETY: libvirt passes these arguments.
        unsafe { send(domain, Lifecycle::AgentConnected, opaque) };
    }
    0
}

unsafe extern "C" fn on_reboot(
    _connect: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    opaque: *mut c_void,
) {
    // SAFETY: libvirt passes these arguments.
    unsafe { send(domain, Lifecycle::Rebooted, opaque) };
}

/// # Safety
/// `domain` must be valid, and `opaque` must be the boxed sender of `register`, which lives until `free`.
unsafe fn send(domain: sys::virDomainPtr, lifecycle: Lifecycle, opaque: *mut c_void) {
    let mut bytes = [0u8; 16];
    // SAFETY: the caller guarantees this, and VIR_UUID_BUFLEN is 16.
    if unsafe { sys::virDomainGetUUID(domain, bytes.as_mut_ptr()) } < 0 {
        return;
    }
    // SAFETY: the caller guarantees this.
    let sender = unsafe { &*opaque.cast::<Sender>() };
    // Without a receiver, nobody is waiting for events.
    let _ = sender.send((Uuid::from_bytes(bytes), lifecycle));
}

unsafe extern "C" fn free(opaque: *mut c_void) {
    // SAFETY: `Box::into_raw` in `register` made it, and libvirt calls this once.
    drop(unsafe { Box::from_raw(opaque.cast::<Sender>()) });
}
