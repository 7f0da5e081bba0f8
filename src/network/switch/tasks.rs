//! What the switch does over time: tasks that take and send frames, keep timers, and ask the host's resolver.

use std::{path::Path, rc::Rc, time::Duration};

use tokio::{
    sync::Notify,
    task::yield_now,
    time::{sleep, sleep_until},
};

use crate::report::stdio;

use super::{
    super::{
        Mac, dns,
        frame::{LONGEST, MTU},
        line::{Left, Port},
        outward::{OWN_PROGRAM, Outward},
        resolver,
    },
    Asked, Key, State, Switch, longest,
};

/// How many frames of a card are passed on before it is the others' turn.
const BURST: usize = 64;

/// How long conditions that end wait for it at most, in case the computer sleeps or its clock is set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// How long a network is without its way out after that has ended, or could not be started.
const AFTER_ITS_END: Duration = Duration::from_millis(200);
const AFTER_A_FAILURE: Duration = Duration::from_secs(10);

/// The longest answer that fits into a packet of the network, in bytes.
const PACKET_ANSWER: usize = 1472;

/// Takes the frames of a card, for ever.
pub(super) async fn receive(switch: Switch, port: Rc<Port>, mac: Mac) {
    // One more, so that a longer frame is seen to be longer.
    let mut frame = [0; LONGEST + 1];
    while port.readable().await.is_ok() {
        for _ in 0..BURST {
            match port.try_recv(&mut frame) {
                Ok(length) => switch.take(mac, &frame[..length]),
                Err(_) => break,
            }
        }
        yield_now().await;
    }
}

/// Sends what waits for a card, whenever there is room, for ever.
pub(super) async fn send(switch: Switch, waiting: Rc<Notify>, mac: Mac) {
    loop {
        waiting.notified().await;
        loop {
            let port = {
                let state = switch.state.borrow();
                state.lines.get(&mac).and_then(|line| line.outlet.port())
            };
            if let Some(port) = port {
                let _ = port.writable().await;
            }
            let mut state = switch.state.borrow_mut();
            let Some(line) = state.lines.get_mut(&mac) else {
                return;
            };
            if line.outlet.flush() == Left::Nothing {
                break;
            }
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
    let mut packet = [0; MTU];
    loop {
        for _ in 0..BURST {
            match outward.recv(&mut packet).await {
                Ok(length) if length > 0 => {
                    let mut state = switch.state.borrow_mut();
                    state.come_in(network, &packet[..length]);
                }
                _ => return,
            }
        }
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
