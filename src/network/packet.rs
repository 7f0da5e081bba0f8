//! A socket for all frames of a network interface of the host (packet(7)).

#![expect(unsafe_code, reason = "no crate here binds such a socket")]

use std::{
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use nix::libc;
use tokio::io::unix::AsyncFd;

/// Opens a socket for async use, within a runtime, that gets the frames that arrive at the interface, and sends frames from it. It needs
/// CAP_NET_RAW.
pub(super) fn open(interface: &str) -> io::Result<AsyncFd<OwnedFd>> {
    let index = nix::net::if_::if_nametoindex(interface)?;
    let protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
    let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // Without a protocol, it gets nothing until it is bound.
    // SAFETY: it takes no pointers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given it to this process, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all-zero bytes are an address of this type.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
    address.sll_protocol = protocol;
    address.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    let length = libc::socklen_t::try_from(mem::size_of_val(&address)).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are those of the address, which lives until the call returns.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            std::ptr::from_ref(&address).cast::<libc::sockaddr>(),
            length,
        )
    };
    if bound != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the socket is owned, and nobody closes or replaces it while the runtime waits for it.
    Ok(unsafe { AsyncFd::register(socket) }?)
}
