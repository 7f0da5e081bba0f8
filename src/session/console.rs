//! A machine's serial console at this process's standard streams.

use std::{
    io::{self, IsTerminal, Read},
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use memchr::memchr;

use crate::{
    failure::Failure,
    host::changed_terminal::ChangedTerminal,
    hypervisor::{Console, Heard, Lifecycle, LifecycleEvents, NotOpened},
    machine::{Identity, Power},
    report::{bytes, stdio, talk},
};

use super::{Session, condition::need_running};

/// The key that leaves the console, as in telnet(1) and virsh(1), and its name.
const LEAVE: u8 = b']' & 0x1f;
const LEAVE_NAME: &str = "Ctrl-]";

/// How long the guest must have said nothing after the end of input that is not typed.
/// Also how often the machine is looked at.
const QUIET: Duration = Duration::from_secs(2);

/// How long libvirt may take to say that a machine has stopped, after its console has ended.
const SETTLES: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);

/// How long leaving may take.
const CLOSES: Duration = Duration::from_secs(2);

/// How much of the input is passed on at a time, in bytes.
const PIECE: usize = 4096;

/// How much of what the guest says may wait for whoever reads it, in bytes. libvirt gives no way to make the guest wait.
const UNREAD: usize = 64 << 20;

/// How many pieces may wait for a guest that takes none. Keys are few, and the one that leaves must be read.
const KEYS: usize = 1 << 16;
const PIECES: usize = 4;

enum Event {
    /// Where nothing was unread, something is now.
    Said,
    /// The console has ended.
    Ended,
    /// It was left, because the guest said more than anybody read.
    TooMuch,
    /// The key that leaves was typed.
    Left,
    /// All of the input was passed on.
    InputEnded,
    /// The machine has stopped, or was paused.
    Changed,
}

/// Joins the console of a running machine to the standard streams, until the user leaves it or the machine ends. `force`:
/// whoever has the console loses it. `quiet`: only errors are said.
///
/// # Errors
/// If the machine does not run, somebody else has its console, or it is paused meanwhile.
pub fn console(
    session: &Session,
    name: Option<&str>,
    force: bool,
    quiet: bool,
) -> Result<(), Failure> {
    let (name, observed) = session.running(name)?;
    let identity = observed.identity;
    let lifecycle = LifecycleEvents::subscribe(&session.connection)?;
    let (tell, events) = channel();
    let unread = Arc::default();
    let listener = listener(tell.clone(), Arc::clone(&unread));
    let opened = session.connection.console(&identity, force, listener);
    let console = opened.map_err(|error| not_opened(&name, error))?;
    let is_typed = io::stdin().is_terminal();
    if is_typed && !quiet {
        talk(&format!(
            "at the console of {name}; {LEAVE_NAME} leaves it, Enter may show a prompt\n"
        ));
    }
    let terminal =
        ChangedTerminal::raw().map_err(|error| Failure::io("prepare the terminal", &error))?;
    pass_on_input(console.clone(), is_typed, tell.clone());
    pass_on_changes(&lifecycle, &identity, tell);
    let end = follow(session, &identity, &events, &unread, is_typed);
    close(console);
    drop(terminal);
    if is_typed {
        talk("\n");
    }
    match end? {
        End::Left => {
            if is_typed && !quiet {
                talk(&format!("left the console of {name}\n"));
            }
            Ok(())
        }
        End::TooMuch => Err(Failure::error(
            format!(
                "left the console of {name}: {} of what it printed waited for a reader",
                bytes(UNREAD as u64)
            ),
            format!(
                "`stead console {name}` opens it again, and `stead logs {name}` has the end of what was printed"
            ),
        )),
        End::Here => {
            need_stopped(session, &name, &identity)?;
            if !quiet {
                talk(&format!(
                    "machine {name} has stopped, and its console with it\n"
                ));
            }
            Ok(())
        }
    }
}

fn not_opened(name: &str, error: NotOpened) -> Failure {
    match error {
        NotOpened::Taken => Failure::error(
            format!("somebody is at the console of {name} already, and it is for one at a time"),
            format!(
                "{LEAVE_NAME} leaves it there; `stead console {name} --force` takes it from them, and `stead logs {name} --follow` shows it too"
            ),
        ),
        NotOpened::Gone => Failure::error(
            format!("machine {name} does not exist any more"),
            format!("`stead up {name}` makes it"),
        ),
        NotOpened::Failed(error) => error.into(),
    }
}

/// What the guest said and nobody has read.
type Unread = Arc<Mutex<Vec<u8>>>;

/// Returns what libvirt calls with what the guest says.
fn listener(tell: Sender<Event>, unread: Unread) -> impl Fn(Heard<'_>) -> bool + Send {
    // An error means that the console was left.
    let says = move |event| tell.send(event).is_ok();
    move |heard| match heard {
        Heard::Said(bytes) => {
            let mut unread = unread.lock().unwrap_or_else(PoisonError::into_inner);
            if unread.len() + bytes.len() > UNREAD {
                says(Event::TooMuch);
                return false;
            }
            unread.extend_from_slice(bytes);
            unread.len() > bytes.len() || says(Event::Said)
        }
        Heard::Ended => says(Event::Ended),
    }
}

/// Passes on what was not read yet. Returns whether there is still a reader.
fn pass_on(unread: &Unread) -> io::Result<bool> {
    let bytes = mem::take(&mut *unread.lock().unwrap_or_else(PoisonError::into_inner));
    stdio::raw(&bytes)
}

/// Passes on standard input, in threads that end with the process. What is typed is read also while the guest takes
/// nothing.
fn pass_on_input(console: Console, is_typed: bool, tell: Sender<Event>) {
    let (to, pieces) = sync_channel::<Vec<u8>>(if is_typed { KEYS } else { PIECES });
    let left = tell.clone();
    thread::spawn(move || {
        let mut piece = vec![0; PIECE];
        loop {
            let read = match io::stdin().lock().read(&mut piece) {
                Ok(0) | Err(_) => return,
                Ok(read) => &piece[..read],
            };
            let (typed, leaves) = match memchr(LEAVE, read) {
                Some(at) if is_typed => (&read[..at], true),
                _ => (read, false),
            };
            if !typed.is_empty() && to.send(typed.to_vec()).is_err() {
                return;
            }
            if leaves {
                let _ = left.send(Event::Left);
                return;
            }
        }
    });
    thread::spawn(move || {
        for piece in pieces {
            if console.send(&piece).is_err() {
                // Whoever listens hears of that too.
                return;
            }
        }
        let _ = tell.send(Event::InputEnded);
    });
}

fn pass_on_changes(lifecycle: &LifecycleEvents, identity: &Identity, tell: Sender<Event>) {
    let mut events = lifecycle.receiver();
    let uuid = identity.uuid;
    thread::spawn(move || {
        use tokio::sync::broadcast::error::RecvError;
        loop {
            let is_change = match events.blocking_recv() {
                Ok((who, what)) => {
                    who == uuid && matches!(what, Lifecycle::Stopped { .. } | Lifecycle::Suspended)
                }
                // It may be among those that were missed.
                Err(RecvError::Lagged(_)) => true,
                Err(RecvError::Closed) => return,
            };
            if is_change && tell.send(Event::Changed).is_err() {
                return;
            }
        }
    });
}

/// How it ended.
enum End {
    Left,
    /// On the machine's side.
    Here,
    TooMuch,
}

fn follow(
    session: &Session,
    identity: &Identity,
    events: &Receiver<Event>,
    unread: &Unread,
    is_typed: bool,
) -> Result<End, Failure> {
    let mut is_over = false;
    loop {
        let event = match events.recv_timeout(QUIET) {
            // The state counts, even if an event was missed.
            Err(RecvTimeoutError::Timeout) if !is_over => Ok(Event::Changed),
            event => event,
        };
        match event {
            Ok(Event::Said) => {
                let is_read = pass_on(unread)
                    .map_err(|error| Failure::io("write what the guest says", &error))?;
                if !is_read {
                    return Ok(End::Left);
                }
            }
            Ok(Event::Left) => return Ok(End::Left),
            Ok(Event::TooMuch) => return Ok(End::TooMuch),
            // A terminal that is gone, or Ctrl-] before.
            Ok(Event::InputEnded) if is_typed => return Ok(End::Left),
            Ok(Event::InputEnded) => is_over = true,
            Ok(Event::Changed) => {
                let observed = session.connection.observe(identity)?;
                if observed.is_none_or(|it| it.power != Power::Running) {
                    // What the guest said last may be on its way.
                    while let Ok(Event::Said) = events.recv_timeout(LOOK) {
                        let _ = pass_on(unread);
                    }
                    return Ok(End::Here);
                }
            }
            Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) => return Ok(End::Here),
            Err(RecvTimeoutError::Timeout) => return Ok(End::Left),
        }
    }
}

/// Leaves the console, so that the next command finds it free. A libvirt that does not answer is not waited for.
fn close(console: Console) {
    let (tell, closed) = channel();
    thread::spawn(move || {
        console.close();
        let _ = tell.send(());
    });
    let _ = closed.recv_timeout(CLOSES);
}

/// The console has ended on the machine's side. Fails with the reason unless the machine has stopped.
fn need_stopped(session: &Session, name: &str, identity: &Identity) -> Result<(), Failure> {
    let deadline = Instant::now() + SETTLES;
    loop {
        let observed = session.connection.observe(identity)?;
        match observed.as_ref().map(|it| it.power) {
            None | Some(Power::Off) => return Ok(()),
            Some(Power::Running | Power::Stopping) if Instant::now() < deadline => {
                thread::sleep(LOOK);
            }
            Some(_) => {
                need_running(name, observed.as_ref())?;
                return Err(Failure::error(
                    format!("the console of {name} was taken or closed, and the machine runs on"),
                    format!(
                        "somebody took it with `--force`, or libvirt's daemon was restarted: `stead console {name}` opens it again"
                    ),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_reads_is_bounded() {
        let (tell, events) = channel();
        let unread = Unread::default();
        let listener = listener(tell, Arc::clone(&unread));
        let mebibyte = vec![b'x'; 1 << 20];
        let mebibyte = || Heard::Said(&mebibyte);
        assert!(listener(mebibyte()));
        assert!(matches!(events.recv(), Ok(Event::Said)));
        assert_eq!(mem::take(&mut *unread.lock().unwrap()).len(), 1 << 20);
        for _ in 0..64 {
            assert!(listener(mebibyte()));
        }
        assert!(!listener(mebibyte()));
        let rest: Vec<Event> = events.try_iter().collect();
        assert!(matches!(rest[..], [Event::Said, Event::TooMuch]));
        assert_eq!(unread.lock().unwrap().len(), UNREAD);
        unread.lock().unwrap().clear();
        drop(events);
        assert!(!listener(mebibyte()));
    }
}
