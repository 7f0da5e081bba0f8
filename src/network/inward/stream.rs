//! Connections into guests. What a program of this computer sends goes to a TCP of smoltcp's, which sends it to the
//! guest, and back.

use std::{io, net::Ipv4Addr, os::fd::AsRawFd, rc::Rc, time::Duration};

use nix::{
    libc,
    sys::socket::{Shutdown, setsockopt, shutdown, sockopt},
};
use smoltcp::{
    iface::{Interface, PollResult, SocketHandle, SocketSet},
    socket::tcp,
    time::Instant,
    wire::IpAddress,
};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::sleep,
};

use crate::host::ports::Protocol;

use super::{
    super::{
        Mac,
        packets::{Packets, clock, interface},
        switch::Switch,
    },
    flows::{Flow, Flows, Inbox},
};

/// How many connections a port may have. The next ones wait in the kernel.
const CONNECTIONS: usize = 512;

/// How much waits for the guest and for the program of this computer, in bytes. Memory is used when data waits.
const TO_GUEST: usize = 128 << 10;
const FROM_GUEST: usize = 256 << 10;

/// How long the guest may take to answer at all.
const ANSWERS: Duration = Duration::from_secs(10);

/// How often the guest is asked, and whether the other end still waits for its answer is looked at; and how long one that has ended its side
/// is waited for: it may have sent all that it wants to.
const LOOK: Duration = Duration::from_millis(250);
const HALF: Duration = Duration::from_secs(1);

/// How long an end may be silent before it is asked whether it still knows the connection: a guest that has booted
/// anew does not, nor does this computer once its program has gone.
const SILENCE: Duration = Duration::from_secs(60);

/// How long the guest may take to confirm the end, once both ends have ended.
const LAST: Duration = Duration::from_secs(120);

/// How many times in a row smoltcp may send before it is the others' turn, and for how long that is. A guest may ask for
/// the smallest packets.
const TURNS: usize = 16;
const TURN: Duration = Duration::from_millis(1);

/// How long it is without a connection after one could not be taken, because this process has no files left.
const AFTER_A_FAILURE: Duration = Duration::from_millis(200);

/// Takes connections, for ever.
pub(super) async fn accept(switch: Switch, mac: Mac, guest: u16, listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((host, _)) => {
                    connections.spawn_local(lead(switch.clone(), mac, guest, host));
                }
                Err(_) => sleep(AFTER_A_FAILURE).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Leads a connection to the guest.
async fn lead(switch: Switch, mac: Mac, guest: u16, host: TcpStream) {
    // Each key that is typed is a packet of its own.
    let _ = host.set_nodelay(true);
    let _ = setsockopt(&host, sockopt::KeepAlive, &true);
    if let Ok(seconds) = u32::try_from(SILENCE.as_secs()) {
        let _ = setsockopt(&host, sockopt::TcpKeepIdle, &seconds);
    }
    // Whatever ends this early resets the connection: the other end is to know that this is no usual end.
    resets(&host, true);
    if let Some(mut pipe) = Pipe::new(switch, mac, guest)
        && pipe.carry(&host).await.is_ok()
    {
        resets(&host, false);
    }
}

/// Whether a connection is reset when it is closed.
fn resets(host: &TcpStream, does: bool) {
    let linger = libc::linger {
        l_onoff: does.into(),
        l_linger: 0,
    };
    let _ = setsockopt(host, sockopt::Linger, &linger);
}

/// The guest's half.
struct Pipe {
    switch: Switch,
    mac: Mac,
    interface: Interface,
    sockets: SocketSet<'static>,
    tcp: SocketHandle,
    packets: Packets,
    inbox: Rc<Inbox>,
    _flow: Flow,
    began: std::time::Instant,
    /// The network's own address, and the guest's.
    ends: (End, End),
    seed: u64,
}

type End = (Ipv4Addr, u16);

impl Drop for Pipe {
    /// The guest is to know that this is no usual end.
    fn drop(&mut self) {
        if self.socket().is_open() {
            self.socket().abort();
            self.exchange();
        }
    }
}

impl Pipe {
    /// `None`: the card is no more, or has too many connections.
    fn new(switch: Switch, mac: Mac, port: u16) -> Option<Self> {
        let (guest, gateway) = switch.ends(mac)?;
        let inbox = Rc::default();
        let flow = Flows::begin(&switch.flows(), mac, Protocol::Tcp, port, &inbox)?;
        let mut packets = Packets::default();
        let ends = ((gateway, flow.port()), (guest, port));
        let seed = fastrand::u64(..);
        let (interface, sockets, tcp) = stack(ends, seed, &mut packets)?;
        Some(Pipe {
            switch,
            mac,
            interface,
            sockets,
            tcp,
            packets,
            inbox,
            _flow: flow,
            began: std::time::Instant::now(),
            ends,
            seed,
        })
    }

    /// Has the first packet sent again: smoltcp would wait longer each time. From the same seed it is the same one.
    fn ask_again(&mut self) {
        if let Some(stack) = stack(self.ends, self.seed, &mut self.packets) {
            (self.interface, self.sockets, self.tcp) = stack;
        }
    }

    fn socket(&mut self) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(self.tcp)
    }

    fn now(&self) -> Instant {
        clock(self.began)
    }

    /// Takes what has come from the guest, and sends what there is for it.
    fn exchange(&mut self) {
        for packet in self.inbox.take() {
            if !self.packets.come(&packet) {
                self.poll();
                self.packets.come(&packet);
            }
        }
        self.poll();
    }

    fn poll(&mut self) {
        for _ in 0..TURNS {
            let now = self.now();
            let polled = (self.interface).poll(now, &mut self.packets, &mut self.sockets);
            let gone = self.packets.gone();
            if gone.is_empty() && polled == PollResult::None {
                break;
            }
            self.switch.send_in(self.mac, &gone);
        }
    }

    /// When [`Self::exchange`] has to be called again, although nothing has come.
    fn delay(&mut self) -> Option<Duration> {
        let now = self.now();
        let delay = self.interface.poll_delay(now, &self.sockets)?;
        Some(Duration::from_micros(delay.total_micros()).max(TURN))
    }

    /// Carries what both ends send, until both have ended.
    ///
    /// # Errors
    /// If the guest refuses, does not answer, or breaks off; or if the other end does.
    async fn carry(&mut self, host: &TcpStream) -> io::Result<()> {
        self.connect(host).await?;
        self.carry_on(host).await
    }

    /// Waits until the guest has answered.
    async fn connect(&mut self, host: &TcpStream) -> io::Result<()> {
        let (mut ended_at, mut asked_at) = (None, std::time::Instant::now());
        loop {
            // Whoever has given up must not be connected later.
            let ready = host.ready(Interest::READABLE | Interest::WRITABLE).await?;
            if ready.is_read_closed() {
                let at = *ended_at.get_or_insert_with(std::time::Instant::now);
                if ready.is_write_closed() || at.elapsed() > HALF {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
            // The first packet is for the first QEMU that comes. The next one would be a second later.
            if self.switch.has(self.mac) {
                self.exchange();
            }
            match self.socket().state() {
                tcp::State::SynSent if asked_at.elapsed() >= LOOK => {
                    asked_at = std::time::Instant::now();
                    self.ask_again();
                    continue;
                }
                tcp::State::SynSent | tcp::State::SynReceived => {}
                tcp::State::Closed => return Err(io::ErrorKind::ConnectionRefused.into()),
                _ => break,
            }
            if self.began.elapsed() > ANSWERS {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let delay = self.delay().map_or(LOOK, |delay| delay.min(LOOK));
            tokio::select! {
                () = self.inbox.came() => {}
                failed = failed(host) => return Err(failed),
                () = sleep(delay) => {}
            }
        }
        self.socket().set_keep_alive(Some(SILENCE.into()));
        Ok(())
    }

    async fn carry_on(&mut self, host: &TcpStream) -> io::Result<()> {
        // The guest's end is passed on after all that it has sent before.
        let (mut host_ended, mut guest_ended, mut is_passed_on) = (false, false, false);
        loop {
            self.exchange();
            let socket = self.socket();
            let is_full = to_host(socket, host)?;
            if !host_ended && from_host(socket, host)? {
                host_ended = true;
                socket.close();
            }
            let state = socket.state();
            guest_ended |= has_ended(state);
            if guest_ended && !is_passed_on && socket.recv_queue() == 0 {
                is_passed_on = true;
                shutdown(host.as_raw_fd(), Shutdown::Write)?;
            }
            if host_ended && is_passed_on {
                match state {
                    tcp::State::Closed | tcp::State::TimeWait => return Ok(()),
                    _ => socket.set_timeout(Some(LAST.into())),
                }
            } else if state == tcp::State::Closed && (!guest_ended || is_passed_on) {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            self.poll();
            let has_room = !host_ended && self.socket().can_send();
            let delay = self.delay();
            tokio::select! {
                () = self.inbox.came() => {}
                ready = host.readable(), if has_room => ready?,
                ready = host.writable(), if is_full => ready?,
                failed = failed(host) => return Err(failed),
                () = sleep(delay.unwrap_or_default()), if delay.is_some() => {}
            }
        }
    }
}

/// Whether the guest has ended its side, as a state shows it.
fn has_ended(state: tcp::State) -> bool {
    matches!(
        state,
        tcp::State::CloseWait | tcp::State::LastAck | tcp::State::Closing | tcp::State::TimeWait
    )
}

/// Waits until the other end has broken off.
async fn failed(host: &TcpStream) -> io::Error {
    match host.ready(Interest::ERROR).await {
        Ok(_) => io::ErrorKind::ConnectionReset.into(),
        Err(error) => error,
    }
}

/// Makes a stack that connects the first end to the second one.
fn stack(
    ((own, own_port), (guest, port)): (End, End),
    seed: u64,
    packets: &mut Packets,
) -> Option<(Interface, SocketSet<'static>, SocketHandle)> {
    // All addresses are on its link.
    let mut interface = interface(own, 0, seed, packets);
    let buffer = |bytes| tcp::SocketBuffer::new(vec![0; bytes]);
    let mut socket = tcp::Socket::new(buffer(FROM_GUEST), buffer(TO_GUEST));
    socket.set_nagle_enabled(false);
    let to = (IpAddress::Ipv4(guest), port);
    socket.connect(interface.context(), to, own_port).ok()?;
    let mut sockets = SocketSet::new(Vec::with_capacity(1));
    let tcp = sockets.add(socket);
    Some((interface, sockets, tcp))
}

/// Gives the program of this computer what the guest has sent. Returns whether it takes no more just now.
fn to_host(socket: &mut tcp::Socket<'_>, host: &TcpStream) -> io::Result<bool> {
    while socket.can_recv() {
        let written = socket.recv(|bytes| match host.try_write(bytes) {
            Ok(length) => (length, Ok(length)),
            Err(error) => (0, Err(error)),
        });
        match written.map_err(io::Error::other)? {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Takes what the program of this computer has sent. Returns whether it has ended its side.
fn from_host(socket: &mut tcp::Socket<'_>, host: &TcpStream) -> io::Result<bool> {
    while socket.can_send() {
        let read = socket.send(|room| match host.try_read(room) {
            Ok(length) => (length, Ok(length)),
            Err(error) => (0, Err(error)),
        });
        match read.map_err(io::Error::other)? {
            Ok(0) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
