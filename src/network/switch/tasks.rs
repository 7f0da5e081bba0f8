//! What the switch does over time: tasks that take and send frames, keep timers, and ask the host's resolver.

use std::{
    io,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::yield_now,
    time::{sleep, sleep_until},
};

use crate::report::stdio;

use super::{
    super::{
        Mac,
        appearances::Appearances,
        dns,
        framing::Cutter,
        line::{self, Port},
        outward::{OWN_PROGRAM, Outward},
        resolver,
    },
    Asked, Key, State, Switch, longest,
};

/// How many frames of an interface are passed on before it is the others' turn.
const BURST: usize = 64;

/// How often it looks for machines that start if inotify cannot tell.
const WITHOUT_INOTIFY: Duration = Duration::from_millis(200);

/// How long conditions that end wait for it at most, in case the computer sleeps or its clock is set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// How long a network is without its way out after that has ended, or could not be started; and a card without its cable
/// after that was used for something else.
const AFTER_ITS_END: Duration = Duration::from_millis(200);
const AFTER_A_FAILURE: Duration = Duration::from_secs(10);

/// The longest answer that fits into a packet of the network, in bytes.
const PACKET_ANSWER: usize = 1472;

/// Takes the frames that come by an interface, for ever.
pub(super) async fn receive(switch: Switch, port: Rc<Port>, mac: Mac) {
    while port.readable().await.is_ok() {
        for _ in 0..BURST {
            let mut part = switch.part.borrow_mut();
            match port.try_recv(&mut part) {
                Ok(length) => switch.take(mac, &part[..length]),
                Err(_) => break,
            }
        }
        yield_now().await;
    }
}

/// Takes the frames of a card whose QEMU has this socket, whichever QEMU it is, for ever.
pub(super) async fn receive_stream(
    switch: Switch,
    path: PathBuf,
    mut port: Option<Rc<Port>>,
    mac: Mac,
) {
    let appeared = Rc::clone(&switch.appeared);
    let mut is_said = false;
    loop {
        let connected = match port.take() {
            Some(port) => port,
            None => {
                let port = line::connect(&path, &appeared).await;
                switch.plug(mac, Some(Rc::clone(&port)));
                port
            }
        };
        let is_broken = !until_end(&switch, &connected, mac).await;
        drop(connected);
        switch.plug(mac, None);
        if is_broken {
            // A guest with huge frames may bring that about, but not twice in a moment.
            if !std::mem::replace(&mut is_said, true) {
                stdio::talk(&format!(
                    "{mac}: its QEMU sends what are no frames, and is connected again\n"
                ));
            }
            sleep(AFTER_ITS_END).await;
        }
    }
}

/// Takes frames until their stream ends. Returns whether it was one.
async fn until_end(switch: &Switch, port: &Port, mac: Mac) -> bool {
    let mut cutter = Cutter::default();
    while port.readable().await.is_ok() {
        let read = cutter.read(
            &mut switch.part.borrow_mut(),
            |part| port.try_recv(part),
            |frame| switch.take(mac, frame),
        );
        if let Err(error) = read {
            return error.kind() != io::ErrorKind::InvalidData;
        }
        yield_now().await;
    }
    true
}

/// Tells when files appear in the folder of the sockets: QEMU may have made one.
pub(super) async fn keep_watch(switch: Switch, folder: PathBuf) {
    let watched = match Appearances::of(&folder) {
        Ok(appearances) => appearances.tell(&switch.appeared).await,
        Err(error) => Err(error),
    };
    if let Err(error) = watched {
        stdio::talk(&format!(
            "inotify is not available ({error}): looks for machines that start every {} ms\n",
            WITHOUT_INOTIFY.as_millis()
        ));
    }
    loop {
        sleep(WITHOUT_INOTIFY).await;
        switch.appeared.notify_waiters();
    }
}

/// Sends what waits for a card, whenever there is room, for ever.
pub(super) async fn send(switch: Switch, waiting: Rc<Notify>, mac: Mac) {
    loop {
        waiting.notified().await;
        loop {
            let port = {
                let mut state = switch.state.borrow_mut();
                let Some(line) = state.lines.get_mut(&mac) else {
                    return;
                };
                line.outlet.flush()
            };
            let Some(port) = port else { break };
            let _ = port.writable().await;
        }
    }
}

/// Lets a network's gateway do what it has to do later, such as sending again, for ever.
pub(super) async fn keep_timers(switch: Switch, network: Key, timers: Rc<Notify>) {
    loop {
        let next = {
            let mut state = switch.state.borrow_mut();
            let net = state.nets.iter_mut().find(|net| net.key == network);
            net.and_then(|net| net.gateway.next())
        };
        match next {
            Some(next) => {
                tokio::select! {
                    () = sleep(next) => {}
                    () = timers.notified() => continue,
                }
            }
            None => {
                timers.notified().await;
                continue;
            }
        }
        let asked = switch.state.borrow_mut().work(&network);
        switch.ask(asked);
    }
}

/// Sends frames that were on their way when they arrive, for ever.
pub(super) async fn keep_passages(switch: Switch, wake: Rc<Notify>) {
    loop {
        let next = switch.state.borrow().passages.next();
        match next {
            None => wake.notified().await,
            Some(next) => tokio::select! {
                () = sleep_until(next.into()) => {}
                () = wake.notified() => {}
            },
        }
        switch.state.borrow_mut().arrive();
    }
}

/// Ends conditions whose time is over, for ever.
pub(super) async fn keep_conditions(switch: Switch, wake: Rc<Notify>) {
    loop {
        let ends = switch.state.borrow_mut().expire();
        match ends {
            None => wake.notified().await,
            Some(ends) => tokio::select! {
                () = sleep(ends.min(LONGEST_SLEEP)) => {}
                () = wake.notified() => {}
            },
        }
    }
}

/// Keeps the process that is a network's way out, for ever.
pub(super) async fn keep_way_out(switch: Switch, network: Key, changed: Rc<Notify>) {
    let set = |outward| {
        let mut state = switch.state.borrow_mut();
        if let Some(net) = state.nets.iter_mut().find(|net| net.key == network) {
            net.way_out.is(outward);
        }
    };
    let wanted = || {
        let state = switch.state.borrow();
        let net = state.nets.iter().find(|net| net.key == network);
        net.and_then(|net| net.way_out.wanted())
    };
    loop {
        let Some(task) = wanted() else {
            changed.notified().await;
            continue;
        };
        let pause = match Outward::start(Path::new(OWN_PROGRAM), &task).await {
            Ok(outward) => {
                let outward = Rc::new(outward);
                set(Ok(Rc::clone(&outward)));
                tokio::select! {
                    () = come_in(&switch, &network, &outward) => {
                        stdio::talk(&format!("network {}: its way out has ended\n", network.0));
                        set(Err("it has ended, and is started again".to_string()));
                        AFTER_ITS_END
                    }
                    () = changed.notified() => Duration::ZERO,
                }
            }
            Err(error) => {
                stdio::talk(&format!("network {}: {error}\n", network.0));
                set(Err(error.to_string()));
                AFTER_A_FAILURE
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = changed.notified() => {}
        }
    }
}

/// Passes on what comes in, until its process has ended.
async fn come_in(switch: &Switch, network: &Key, outward: &Outward) {
    while outward
        .turn(|packet| switch.state.borrow_mut().come_in(network, packet))
        .await
        .is_ok()
    {
        yield_now().await;
    }
}

/// Asks the host's resolver, and sends its answer to the card that asked.
pub(super) async fn look_up(switch: Switch, asked: Asked) {
    let bytes = &asked.question.bytes;
    let way = asked.question.way;
    let answer = resolver::ask(bytes, way.is_tcp()).await;
    let longest = longest(way);
    let answer = answer
        .and_then(|answer| resolver::fitting(answer, longest.max(PACKET_ANSWER)))
        .or_else(|| dns::failed(bytes, longest));
    let asked = {
        let mut state = switch.state.borrow_mut();
        if let Some(line) = state.lines.get_mut(&asked.mac) {
            line.questions = line.questions.saturating_sub(1);
        }
        if let Some(answer) = &answer {
            let State {
                gates,
                lines,
                wiring,
                ..
            } = &mut *state;
            let place = lines.get(&asked.mac).map(|line| line.place);
            if let Some((card, _)) = place.and_then(|place| wiring.card(place)) {
                gates.open(&card.machine, answer);
            }
        }
        let net = state.nets.iter_mut().find(|net| net.key == asked.network);
        if let (Some(net), Some(answer)) = (net, answer) {
            net.gateway.answer(way, &answer);
        }
        state.work(&asked.network)
    };
    switch.ask(asked);
}
