//! The ways into a network: ports of this computer, each of which leads to a port of a machine. Connections are taken
//! by this program, and made again to the guest from the network's own address, by smoltcp. So a guest that is away has
//! no connections that wait for it.

mod datagrams;
mod flows;
pub(super) mod probe;
mod stream;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{Mutex, Notify},
    task::{JoinHandle, spawn_local},
    time::sleep,
};

use crate::host::ports::Protocol;

use super::{Cable, Mac, PortForward, Unopened, WayIn, switch::Switch};

pub(super) use flows::Flows;

/// How long a QEMU may be away before the ports of its machine are closed: it connects again when a broken stream was
/// the reason.
const AWAY: Duration = Duration::from_secs(2);

/// How long it may take until the end of a QEMU is heard of.
const HEARD: Duration = Duration::from_millis(20);

/// How long a machine may take to start, once its ports are open.
const STARTS: Duration = Duration::from_secs(120);

/// The ways to all machines. Its tasks run on this thread.
#[derive(Clone)]
pub(super) struct WaysIn {
    switch: Switch,
    cable: Cable,
    machines: Rc<RefCell<BTreeMap<String, Machine>>>,
    /// Held while ports are opened and closed.
    changing: Rc<Mutex<()>>,
    changed: Rc<Notify>,
}

struct Machine {
    mac: Mac,
    qemu: Qemu,
    doors: Vec<Door>,
}

/// Whether a machine's QEMU is there.
#[derive(Clone, Copy)]
enum Qemu {
    /// It may come, since then.
    Starts(Instant),
    IsThere,
    Away(Instant),
}

impl Qemu {
    /// How long its ports stay open, if nothing comes; `None`: as long as it is there.
    fn remains(self) -> Option<Duration> {
        let (since, most) = match self {
            Qemu::Starts(since) => (since, STARTS),
            Qemu::IsThere => return None,
            Qemu::Away(since) => (since, AWAY),
        };
        Some(most.saturating_sub(since.elapsed()))
    }
}

struct Door {
    forward: PortForward,
    /// The task that takes connections, or why there is none.
    state: Result<JoinHandle<()>, String>,
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Ok(task) = &self.state {
            task.abort();
        }
    }
}

impl Door {
    /// Closes it. The port is free after that.
    async fn close(mut self) {
        if let Ok(task) = &mut self.state {
            task.abort();
            let _ = task.await;
        }
    }
}

impl Machine {
    /// Whether its QEMU has been there, and so has ended if it is not.
    fn has_ended(&self) -> bool {
        !matches!(self.qemu, Qemu::Starts(_))
    }

    fn into_doors(self) -> impl Iterator<Item = (Mac, Door)> {
        let mac = self.mac;
        self.doors.into_iter().map(move |door| (mac, door))
    }
}

impl WaysIn {
    pub(super) fn new(switch: Switch, cable: Cable) -> Self {
        let ways = WaysIn {
            switch,
            cable,
            machines: Rc::default(),
            changing: Rc::default(),
            changed: Rc::default(),
        };
        spawn_local(keep(ways.clone()));
        ways
    }

    /// Makes them what the wiring says. Others stay while their machines run, or may be about to start by another
    /// command. `starting`: those that this one is about to start.
    pub(super) async fn set(&self, ways: &[WayIn], starting: &[String]) {
        for way in ways {
            self.lead(way).await;
        }
        let is_meant = |name: &String| ways.iter().any(|way| way.machine == *name);
        if !self.machines.borrow().keys().all(is_meant) {
            // A QEMU that has just ended may not be heard of yet.
            sleep(HEARD).await;
            self.close_ended(is_meant, starting).await;
        }
        // A port may have been another machine's.
        self.open_again().await;
    }

    /// Closes the ports of other machines than these whose QEMU has been there, and is not.
    async fn close_ended(&self, is_meant: impl Fn(&String) -> bool, starting: &[String]) {
        let _held = self.changing.lock().await;
        let ended: Vec<String> = (self.machines.borrow().iter())
            .filter(|(name, machine)| {
                let has_ended = machine.has_ended() || starting.contains(name);
                !is_meant(name) && has_ended && !self.switch.has(machine.mac)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in ended {
            self.close(&name).await;
        }
    }

    async fn close(&self, name: &str) {
        let machine = self.machines.borrow_mut().remove(name);
        for (mac, door) in machine.into_iter().flat_map(Machine::into_doors) {
            // Nothing tells when an interface has got another QEMU.
            self.switch.forget_question(mac);
            door.close().await;
        }
    }

    /// Makes the ports of a machine these. Those that are the same keep their connections.
    pub(super) async fn lead(&self, way: &WayIn) {
        let _held = self.changing.lock().await;
        let before = self.machines.borrow_mut().remove(&way.machine);
        let mut doors = Vec::new();
        for door in before.into_iter().flat_map(Machine::into_doors) {
            match door {
                (mac, door) if mac == way.mac && way.forwards.contains(&door.forward) => {
                    doors.push(door);
                }
                (_, door) => door.close().await,
            }
        }
        for forward in &way.forwards {
            if doors.iter().all(|door| door.forward != *forward) {
                doors.push(Door {
                    forward: *forward,
                    state: Err(String::new()),
                });
            }
        }
        self.open_closed(way.mac, &mut doors).await;
        if !doors.is_empty() {
            let qemu = match self.switch.has(way.mac) {
                true => Qemu::IsThere,
                false => Qemu::Starts(Instant::now()),
            };
            let machine = Machine {
                mac: way.mac,
                qemu,
                doors,
            };
            (self.machines.borrow_mut()).insert(way.machine.clone(), machine);
        }
        self.changed.notify_one();
    }

    async fn open_closed(&self, mac: Mac, doors: &mut [Door]) {
        for door in doors.iter_mut().filter(|door| door.state.is_err()) {
            let opened = self.open(mac, door.forward).await;
            door.state = opened.map_err(|error| error.to_string());
        }
    }

    async fn open(&self, mac: Mac, forward: PortForward) -> io::Result<JoinHandle<()>> {
        let at = (forward.host.address, forward.host.port);
        let switch = self.switch.clone();
        Ok(match forward.host.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(at).await?;
                spawn_local(stream::accept(switch, mac, forward.guest, listener))
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(at).await?;
                spawn_local(datagrams::lead(switch, mac, forward.guest, socket))
            }
        })
    }

    /// Tries again to open what could not be opened.
    pub(super) async fn open_again(&self) {
        let _held = self.changing.lock().await;
        let names: Vec<String> = self.machines.borrow().keys().cloned().collect();
        for name in names {
            let taken = (self.machines.borrow_mut().get_mut(&name))
                .map(|machine| (machine.mac, std::mem::take(&mut machine.doors)));
            let Some((mac, mut doors)) = taken else {
                continue;
            };
            self.open_closed(mac, &mut doors).await;
            if let Some(machine) = self.machines.borrow_mut().get_mut(&name) {
                machine.doors = doors;
            }
        }
    }

    /// Closes the ports of machines whose QEMU has ended, or has not come. Returns when to look again.
    async fn close_unused(&self) -> Option<Duration> {
        let held = self.changing.lock().await;
        let mut next = None;
        let mut unused = Vec::new();
        for (name, machine) in self.machines.borrow_mut().iter_mut() {
            machine.qemu = match (self.switch.has(machine.mac), machine.qemu) {
                (true, _) => Qemu::IsThere,
                (false, Qemu::IsThere) => Qemu::Away(Instant::now()),
                (false, before) => before,
            };
            let remains = machine.qemu.remains();
            if remains == Some(Duration::ZERO) {
                unused.push(name.clone());
                continue;
            }
            let look = match self.cable {
                Cable::Sockets => remains,
                // Nothing tells when an interface has got its QEMU, or lost it.
                Cable::Taps => Some(remains.map_or(AWAY, |remains| remains.min(AWAY))),
            };
            next = next.into_iter().chain(look).min();
        }
        for name in &unused {
            self.close(name).await;
        }
        drop(held);
        if !unused.is_empty() {
            // Another machine may wait for such a port.
            self.open_again().await;
        }
        next
    }

    /// The machines to which ports lead.
    pub(super) fn led(&self) -> Vec<String> {
        self.machines.borrow().keys().cloned().collect()
    }

    /// The ports that cannot be opened, by their machines' names.
    pub(super) fn unopened(&self) -> BTreeMap<String, Vec<Unopened>> {
        (self.machines.borrow().iter())
            .map(|(name, machine)| (name.clone(), unopened(&machine.doors)))
            .filter(|(_, unopened)| !unopened.is_empty())
            .collect()
    }
}

fn unopened(doors: &[Door]) -> Vec<Unopened> {
    let failed = doors.iter().filter_map(|door| {
        Some(Unopened {
            host: door.forward.host,
            said: door.state.as_ref().err()?.clone(),
        })
    });
    failed.collect()
}

/// Closes ports when their machines end, for ever.
async fn keep(ways: WaysIn) {
    loop {
        let next = ways.close_unused().await;
        tokio::select! {
            () = ways.switch.plugged() => {}
            () = ways.changed.notified() => {}
            () = sleep(next.unwrap_or_default()), if next.is_some() => {}
        }
    }
}
