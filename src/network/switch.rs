//! The switch: takes frames from cards, and passes each on to where it goes.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fs, io,
    net::Ipv4Addr,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    sync::Notify,
    task::{AbortHandle, spawn_local, yield_now},
    time::{sleep, sleep_until},
};

use super::{
    Cable, Counts, Mac, Subnet, Wiring,
    conditions::{self, ByHand, in_force},
    control::Links,
    dhcp::{self, Offer},
    dns::{self, Answer},
    frame::{self, LONGEST, Target},
    gateway::{Gateway, Question, Way},
    line::{self, Left, Outlet, Port},
    passage::{Conditions, Fate, Passages, Way as Direction},
    record::Recorder,
    resolver,
    wiring::Place,
};

/// How many frames of a card are passed on before it is the others' turn.
const BURST: usize = 64;

/// How many questions of a card may wait for the host's resolver.
const QUESTIONS: usize = 64;

/// How many commands may record at once.
const RECORDERS: usize = 16;

/// How long conditions that end wait for it at most, in case the computer sleeps or its clock is set.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// The longest answers without EDNS over UDP (RFC 1035, 4.2.1) and over TCP, and the longest that fits into a packet
/// of the network, in bytes.
const SHORT_ANSWER: usize = 512;
const LONG_ANSWER: usize = 65_535;
const PACKET_ANSWER: usize = 1472;

/// A switch for all networks of a project. Its tasks run on this thread.
#[derive(Clone)]
pub(super) struct Switch {
    state: Rc<RefCell<State>>,
}

struct State {
    wiring: Wiring,
    lines: HashMap<Mac, Line>,
    /// In the order of the wiring.
    nets: Vec<Net>,
    /// What `stead link` has set.
    by_hand: Vec<ByHand>,
    passages: Passages,
    recorders: Vec<Recorder>,
    wakes: Wakes,
}

/// What wakes tasks of the switch.
#[derive(Clone, Default)]
struct Wakes {
    /// A frame arrives sooner than all others.
    arrival: Rc<Notify>,
    /// Other conditions are set.
    conditions: Rc<Notify>,
}

/// A card, as the switch has it.
struct Line {
    place: Place,
    outlet: Outlet,
    /// Wakes the task that sends what waits.
    waiting: Rc<Notify>,
    from_guest: u64,
    refused: u64,
    dropped: u64,
    /// How many questions wait for the host's resolver.
    questions: usize,
    /// Told of the next frame from the guest.
    awaited: Option<Rc<Notify>>,
    tasks: [AbortHandle; 2],
}

impl Drop for Line {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// While this lives, a recorder gets frames.
pub(super) struct Recorded {
    switch: Switch,
    pub recorder: Recorder,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let mut state = self.switch.state.borrow_mut();
        (state.recorders).retain(|other| !other.is(&self.recorder));
    }
}

/// A network is another one when its subnet changes.
type Key = (String, Subnet);

struct Net {
    key: Key,
    gateway: Gateway,
    /// Wakes the task that waits for the gateway's timers.
    timers: Rc<Notify>,
    task: AbortHandle,
}

impl Drop for Net {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A question for the host's resolver.
struct Asked {
    network: Key,
    mac: Mac,
    question: Question,
}

impl Switch {
    pub(super) fn new() -> Self {
        let wiring = Wiring {
            domain: String::new(),
            networks: Vec::new(),
            links: None,
            guests: Vec::new(),
        };
        let wakes = Wakes::default();
        let switch = Switch {
            state: Rc::new(RefCell::new(State {
                wiring,
                lines: HashMap::new(),
                nets: Vec::new(),
                by_hand: Vec::new(),
                passages: Passages::new(fastrand::Rng::new()),
                recorders: Vec::new(),
                wakes: wakes.clone(),
            })),
        };
        spawn_local(keep_passages(switch.clone(), wakes.arrival));
        spawn_local(keep_conditions(switch.clone(), wakes.conditions));
        switch
    }

    /// Makes the switch what the wiring says. Cards that stay keep their sockets.
    ///
    /// # Errors
    /// If a socket of a new card cannot be made. Nothing has changed then.
    pub(super) fn rewire(&self, mut wiring: Wiring, cable: Cable, folder: &Path) -> io::Result<()> {
        let mut bound: BTreeMap<Mac, (Rc<Port>, Outlet)> = BTreeMap::new();
        for card in wiring.networks.iter().flat_map(|network| &network.cards) {
            if !self.state.borrow().lines.contains_key(&card.mac) && !bound.contains_key(&card.mac)
            {
                bound.insert(card.mac, line::open(cable, folder, card.mac)?);
            }
        }
        let mut state = self.state.borrow_mut();
        let mut nets = std::mem::take(&mut state.nets);
        let mut lines = std::mem::take(&mut state.lines);
        for (position, network) in wiring.networks.iter().enumerate() {
            let key = (network.name.clone(), network.subnet);
            let known = nets.iter().position(|net| net.key == key);
            state.nets.push(match known {
                Some(known) => nets.swap_remove(known),
                None => self.net(key),
            });
            for (number, card) in network.cards.iter().enumerate() {
                let place = Place {
                    network: position,
                    card: number,
                };
                let line = match (lines.remove(&card.mac), bound.remove(&card.mac)) {
                    (Some(mut line), _) => {
                        line.place = place;
                        line
                    }
                    (None, Some((port, outlet))) => self.line(port, outlet, place, card.mac),
                    // The first of two that are the same has it.
                    (None, None) => continue,
                };
                state.lines.insert(card.mac, line);
            }
        }
        for mac in lines.keys() {
            let _ = fs::remove_file(line::socket_of_switch(folder, *mac));
        }
        if wiring.links.is_none() {
            wiring.links = state.wiring.links.take();
        }
        state.wiring = wiring;
        state.set_conditions();
        let State {
            recorders, lines, ..
        } = &mut *state;
        for recorder in recorders {
            if !recorder.macs.iter().any(|mac| lines.contains_key(mac)) {
                recorder.close();
            }
        }
        Ok(())
    }

    /// Lays conditions over those of the wiring.
    ///
    /// # Errors
    /// If there are too many, in words.
    pub(super) fn set(&self, rule: ByHand) -> Result<(), String> {
        let mut state = self.state.borrow_mut();
        let added = conditions::add(&mut state.by_hand, rule);
        state.set_conditions();
        added
    }

    /// Sets those that a process of before had.
    pub(super) fn set_all(&self, rules: Vec<ByHand>) {
        let mut state = self.state.borrow_mut();
        state.by_hand = rules;
        state.set_conditions();
    }

    /// What `stead link` has set.
    pub(super) fn by_hand(&self) -> Vec<ByHand> {
        self.state.borrow().by_hand.clone()
    }

    pub(super) fn links(&self) -> Links {
        let mut state = self.state.borrow_mut();
        state.expire();
        Links {
            wiring: state.wiring.clone(),
            by_hand: state.by_hand.clone(),
        }
    }

    /// Begins to record the frames of these cards.
    ///
    /// # Errors
    /// If no card is there, or too many commands record, in words.
    pub(super) fn record(&self, macs: Vec<Mac>) -> Result<Recorded, String> {
        let mut state = self.state.borrow_mut();
        if !macs.iter().any(|mac| state.lines.contains_key(mac)) {
            return Err("it has no such card".into());
        }
        if state.recorders.len() >= RECORDERS {
            return Err(format!("{RECORDERS} commands record already"));
        }
        let recorder = Recorder::new(macs);
        state.recorders.push(recorder.clone());
        Ok(Recorded {
            switch: self.clone(),
            recorder,
        })
    }

    fn net(&self, key: Key) -> Net {
        let subnet = key.1;
        let timers = Rc::new(Notify::new());
        let [a, b, c, d] = subnet.gateway().octets();
        // Cards begin with 52:54:00.
        let mac = Mac([0x52, 0x55, a, b, c, d]);
        let task = spawn_local(keep_timers(self.clone(), key.clone(), Rc::clone(&timers)));
        Net {
            key,
            gateway: Gateway::new(subnet, mac),
            timers,
            task: task.abort_handle(),
        }
    }

    fn line(&self, port: Rc<Port>, outlet: Outlet, place: Place, mac: Mac) -> Line {
        let waiting = Rc::new(Notify::new());
        let receive = spawn_local(receive(self.clone(), port, mac));
        let send = spawn_local(send(self.clone(), Rc::clone(&waiting), mac));
        Line {
            place,
            outlet,
            waiting,
            from_guest: 0,
            refused: 0,
            dropped: 0,
            questions: 0,
            awaited: None,
            tasks: [receive.abort_handle(), send.abort_handle()],
        }
    }

    /// Whether any QEMU has a card of the switch.
    pub(super) fn is_used(&self) -> bool {
        let mut state = self.state.borrow_mut();
        state.lines.values_mut().any(|line| line.outlet.is_there())
    }

    /// Waits for the next frame from one of these cards.
    pub(super) async fn heard(&self, macs: &[Mac]) {
        let heard = Rc::new(Notify::new());
        for mac in macs {
            if let Some(line) = self.state.borrow_mut().lines.get_mut(mac) {
                line.awaited = Some(Rc::clone(&heard));
            }
        }
        heard.notified().await;
    }

    pub(super) fn counts(&self) -> BTreeMap<Mac, Counts> {
        let state = self.state.borrow();
        (state.lines.iter())
            .map(|(mac, line)| {
                let counts = Counts {
                    from_guest: line.from_guest,
                    to_guest: line.outlet.sent,
                    lost: line.outlet.lost,
                    dropped: line.dropped,
                    refused: line.refused,
                };
                (*mac, counts)
            })
            .collect()
    }

    fn take(&self, from: Mac, frame: &[u8]) {
        let asked = self.state.borrow_mut().take(from, frame);
        self.ask(asked);
    }

    fn ask(&self, asked: Vec<Asked>) {
        for asked in asked {
            spawn_local(look_up(self.clone(), asked));
        }
    }
}

/// Takes the frames of a card, for ever.
async fn receive(switch: Switch, port: Rc<Port>, mac: Mac) {
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
async fn send(switch: Switch, waiting: Rc<Notify>, mac: Mac) {
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
async fn keep_timers(switch: Switch, network: Key, timers: Rc<Notify>) {
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
async fn keep_passages(switch: Switch, wake: Rc<Notify>) {
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
async fn keep_conditions(switch: Switch, wake: Rc<Notify>) {
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

/// Asks the host's resolver, and sends its answer to the card that asked.
async fn look_up(switch: Switch, asked: Asked) {
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
        let net = state.nets.iter_mut().find(|net| net.key == asked.network);
        if let (Some(net), Some(answer)) = (net, answer) {
            net.gateway.answer(way, &answer);
        }
        state.work(&asked.network)
    };
    switch.ask(asked);
}

fn longest(way: Way) -> usize {
    match way.is_tcp() {
        true => LONG_ANSWER,
        false => SHORT_ANSWER,
    }
}

impl State {
    /// Makes the conditions of all directions what the rules say.
    fn set_conditions(&mut self) {
        let mut all = HashMap::new();
        for direction in in_force(&self.wiring, &self.by_hand) {
            let cards = &self.wiring.networks[direction.network].cards;
            let conditions = Conditions::from(&direction.conditions);
            if conditions != Conditions::default() {
                let way = (cards[direction.from].mac, cards[direction.to].mac);
                all.insert(way, conditions);
            }
        }
        self.passages.set(all);
        self.wakes.conditions.notify_one();
    }

    /// Ends conditions whose time is over. Returns when the next ones end.
    fn expire(&mut self) -> Option<Duration> {
        let now = Timestamp::now();
        if conditions::expire(&mut self.by_hand, now) {
            self.set_conditions();
        }
        let next = self.by_hand.iter().filter_map(|rule| rule.until).min()?;
        Some(Duration::try_from(next.duration_since(now)).unwrap_or_default())
    }

    /// Sends what has arrived by now.
    fn arrive(&mut self) {
        let State {
            lines,
            passages,
            recorders,
            ..
        } = self;
        let now = Instant::now();
        while let Some(arrival) = passages.arrived(now) {
            match (lines.get_mut(&arrival.to), arrival.frame) {
                (Some(line), Some(frame)) => line.send(&frame, arrival.to, recorders),
                (Some(line), None) => line.dropped += 1,
                (None, _) => {}
            }
        }
    }

    /// Passes on a frame. Returns questions for the host's resolver.
    fn take(&mut self, from: Mac, bytes: &[u8]) -> Vec<Asked> {
        let State {
            wiring,
            lines,
            nets,
            passages,
            recorders,
            wakes,
            ..
        } = self;
        let Some(line) = lines.get_mut(&from) else {
            return Vec::new();
        };
        line.from_guest += 1;
        copy(recorders, from, bytes);
        if let Some(awaited) = line.awaited.take() {
            awaited.notify_one();
        }
        let place = line.place;
        let (Some((card, network)), Some(net)) = (wiring.card(place), nets.get_mut(place.network))
        else {
            return Vec::new();
        };
        let gateway_mac = net.gateway.mac();
        let target = match frame::check(bytes, from, card.address, gateway_mac) {
            Ok(target) => target,
            Err(_) => {
                line.refused += 1;
                return Vec::new();
            }
        };
        let is_for_gateway = matches!(target, Target::Gateway | Target::AllAndGateway);
        let mut pass = |other: &mut Line, way: Direction| {
            let fate = match passages.is_empty() {
                true => Fate::Arrives,
                false => passages.take(way, bytes, Instant::now()),
            };
            match fate {
                Fate::Arrives => other.send(bytes, way.1, recorders),
                Fate::Waits { is_next: true } => wakes.arrival.notify_one(),
                Fate::Waits { is_next: false } => {}
                Fate::Dropped => other.dropped += 1,
            }
        };
        match target {
            Target::Card(to) => {
                if let Some(other) = lines.get_mut(&to)
                    && other.place.network == place.network
                {
                    pass(other, (from, to));
                }
            }
            Target::All | Target::AllAndGateway => {
                for card in network.cards.iter().filter(|card| card.mac != from) {
                    if let Some(other) = lines.get_mut(&card.mac) {
                        pass(other, (from, card.mac));
                    }
                }
            }
            Target::Dhcp => {
                let offer = Offer {
                    mac: from,
                    address: card.address,
                    subnet: network.subnet,
                    gateway_mac,
                    domain: &wiring.domain,
                };
                if let Some(answer) = dhcp::answer(bytes, &offer) {
                    line.send(&answer, from, recorders);
                }
            }
            Target::Gateway => {}
        }
        if !is_for_gateway {
            return Vec::new();
        }
        if let Some(answer) = net.gateway.take(bytes)
            && let Some(line) = lines.get_mut(&from)
        {
            line.send(&answer, from, recorders);
        }
        let key = net.key.clone();
        self.work(&key)
    }

    /// Lets the gateway of a network work off what it has. Returns questions for the host's resolver.
    fn work(&mut self, network: &Key) -> Vec<Asked> {
        let State {
            wiring,
            lines,
            nets,
            recorders,
            ..
        } = self;
        let mut asked = Vec::new();
        let Some(position) = nets.iter().position(|net| net.key == *network) else {
            return asked;
        };
        let net = &mut nets[position];
        let cards = &wiring.networks[position].cards;
        loop {
            let questions = net.gateway.poll();
            let is_done = questions.is_empty();
            for question in questions {
                // Only cards' own addresses come this far.
                let Some(number) = cards.iter().position(|card| card.address == question.from)
                else {
                    continue;
                };
                let place = Place {
                    network: position,
                    card: number,
                };
                let mac = cards[number].mac;
                let longest = longest(question.way);
                match dns::answer(&question.bytes, wiring, place, longest) {
                    Answer::Reply(bytes) => net.gateway.answer(question.way, &bytes),
                    Answer::Ask => match lines.get_mut(&mac) {
                        Some(line) if line.questions < QUESTIONS => {
                            line.questions += 1;
                            asked.push(Asked {
                                network: network.clone(),
                                mac,
                                question,
                            });
                        }
                        _ => {
                            if let Some(bytes) = dns::failed(&question.bytes, longest) {
                                net.gateway.answer(question.way, &bytes);
                            }
                        }
                    },
                    Answer::Nothing => net.gateway.refuse(question.way),
                }
            }
            let mac_of = |address: Ipv4Addr| {
                let card = cards.iter().find(|card| card.address == address)?;
                Some(card.mac)
            };
            for (mac, frame) in net.gateway.frames(mac_of) {
                if let Some(line) = lines.get_mut(&mac) {
                    line.send(&frame, mac, recorders);
                }
            }
            if is_done {
                break;
            }
        }
        net.timers.notify_one();
        asked
    }
}

impl Line {
    /// Sends a frame to the card, which has this MAC.
    fn send(&mut self, frame: &[u8], mac: Mac, recorders: &[Recorder]) {
        let lost = self.outlet.lost;
        if self.outlet.send(frame) == Left::Waiting {
            self.waiting.notify_one();
        }
        if self.outlet.lost == lost {
            copy(recorders, mac, frame);
        }
    }
}

/// Gives a card's frame to those who record it.
fn copy(recorders: &[Recorder], mac: Mac, frame: &[u8]) {
    for recorder in recorders {
        if recorder.macs.contains(&mac) {
            recorder.take(frame);
        }
    }
}
