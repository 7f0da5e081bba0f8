//! The serial console of a domain, to type at (libvirt.org/html/libvirt-libvirt-domain.html#virDomainOpenConsole). QEMU
//! goes on writing its log meanwhile.

use virt::{stream::Stream, sys};

use crate::machine::Identity;

use super::{
    connection::Connection,
    error::{Doing, HypervisorError},
};

/// The text of libvirt's error if somebody has the console (libvirt, src/qemu/qemu_driver.c).
const TAKEN: &str = "Active console session exists";

/// An open console. Clones are the same one; calls block.
#[derive(Clone)]
pub struct Console {
    stream: Stream,
    domain: String,
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
    /// Opens the first serial console of a running domain. `force`: whoever has it loses it.
    ///
    /// # Errors
    /// If somebody has it, or libvirt refuses.
    pub fn console(&self, identity: &Identity, force: bool) -> Result<Console, NotOpened> {
        let Some(domain) = self.lookup(identity)? else {
            return Err(NotOpened::Gone);
        };
        let name = domain.name().to_string();
        tracing::debug!("libvirt: opening the console of domain {name}");
        let doing = || format!("opening the console of domain {name}");
        let stream = Stream::new(&self.connect, 0).doing(doing)?;
        let flags = match force {
            true => sys::VIR_DOMAIN_CONSOLE_FORCE,
            false => 0,
        };
        match domain.virt().open_console(None, &stream, flags) {
            Err(error) if error.message().contains(TAKEN) => Err(NotOpened::Taken),
            opened => {
                opened.doing(doing)?;
                Ok(Console {
                    stream,
                    domain: name,
                })
            }
        }
    }
}

impl Console {
    /// Waits for what the guest says. 0: the console has ended, because its QEMU has, or another program took it.
    ///
    /// # Errors
    /// If the connection to libvirt ends.
    pub fn receive(&self, buffer: &mut [u8]) -> Result<usize, HypervisorError> {
        let received = (self.stream.recv(buffer))
            .doing(|| format!("reading from the console of domain {}", self.domain))?;
        Ok(usize::try_from(received).unwrap_or(0))
    }

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
        // It has ended already, then.
        let _ = self.stream.abort();
    }
}
