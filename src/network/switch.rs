//! The switch: takes frames from cards, and passes each on to where it goes.

mod inward;
mod outward;
mod tasks;

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    io,
    net::Ipv4Addr,
    path::Path,
    rc::Rc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    sync::Notify,
    task::{AbortHandle, spawn_local},
};

use super::{
    Cable, Counts, Mac, Subnet, Wiring,
    conditions::{self, ByHand, in_force},
    control::Links,
    dhcp::{self, Offer},
    dns::{self, Answer},
    frame::{self, Target},
    framing::PART,
    gate::{Refusals, Verdict},
    gates::Gates,
    gateway::{Gateway, Question, Way},
    inward::Flows,
    line::{self, Laid, Outlet, Port},
    passage::{Conditions, Fate, Passages, Way as Direction},
    record::Recorder,
    refusal::refusal,
    way_out::WayOut,
    wiring::Place,
};
use tasks::{
    keep_conditions, keep_passages, keep_timers, keep_watch, keep_way_out, look_up, receive,
    receive_stream, send,
};

/// How many questions of a card may wait for the host's resolver.
const QUESTIONS: usize = 64;

/// How many commands may record at once.
const RECORDERS: usize = 16;

/// The longest answers without EDNS over UDP (RFC 1035, 4.2.1) and over TCP, in bytes.
const SHORT_ANSWER: usize = 512;
const LONG_ANSWER: usize = 65_535;

/// A switch for all networks of a project. Its tasks run on this thread.
#[derive(Clone)]
pub(super) struct Switch {
    state: Rc<RefCell<State>>,
    /// What is read from cards: each task is done with it before another has its turn.
    part: Rc<RefCell<Vec<u8>>>,
    /// A QEMU may have made its socket.
    appeared: Rc<Notify>,
    /// A card has got another port, or has none any more.
    plugged: Rc<Notify>,
}

struct State {
    wiring: Wiring,
    lines: HashMap<Mac, Line>,
    /// In the order of the wiring.
    nets: Vec<Net>,
    gates: Gates,
    /// What comes for those who reach guests.
    flows: Rc<Flows>,
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
    /// Whether the guest has asked for its address.
    has_asked: bool,
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
    way_out: WayOut,
    tasks: [AbortHandle; 2],
}

impl Drop for Net {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
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
            ways_in: Vec::new(),
            starting: Vec::new(),
        };
        let wakes = Wakes::default();
        let switch = Switch {
            state: Rc::new(RefCell::new(State {
                wiring,
                lines: HashMap::new(),
                nets: Vec::new(),
                gates: Gates::default(),
                flows: Rc::default(),
                by_hand: Vec::new(),
                passages: Passages::new(fastrand::Rng::new()),
                recorders: Vec::new(),
                wakes: wakes.clone(),
            })),
            part: Rc::new(RefCell::new(vec![0; PART])),
            appeared: Rc::default(),
            plugged: Rc::default(),
        };
        spawn_local(keep_passages(switch.clone(), wakes.arrival));
        spawn_local(keep_conditions(switch.clone(), wakes.conditions));
        switch
    }

    /// Connects to sockets as soon as QEMU makes them in this folder.
    pub(super) fn watch(&self, folder: &Path) {
        spawn_local(keep_watch(self.clone(), folder.to_owned()));
    }

    /// Tries again to connect where something was in the way.
    pub(super) fn look_again(&self) {
        self.appeared.notify_waiters();
    }

    /// A card has another port from now on, or none.
    fn plug(&self, mac: Mac, port: Option<Rc<Port>>) {
        if let Some(line) = self.state.borrow_mut().lines.get_mut(&mac) {
            line.outlet.plug(port);
            line.has_asked = false;
            self.plugged.notify_one();
        }
    }

    /// Waits until a card has got another port, or has none any more.
    pub(super) async fn plugged(&self) {
        self.plugged.notified().await;
    }

    /// Makes the switch what the wiring says. Cards that stay keep their cables.
    ///
    /// # Errors
    /// If the cable of a new card cannot be laid. Nothing has changed then.
    pub(super) fn rewire(&self, mut wiring: Wiring, cable: Cable, folder: &Path) -> io::Result<()> {
        let mut laid: BTreeMap<Mac, Laid> = BTreeMap::new();
        for card in wiring.networks.iter().flat_map(|network| &network.cards) {
            if !self.state.borrow().lines.contains_key(&card.mac) && !laid.contains_key(&card.mac) {
                laid.insert(card.mac, line::lay(cable, folder, card.mac)?);
            }
        }
        let mut state = self.state.borrow_mut();
        state.keep_own(&mut wiring);
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
                let line = match (lines.remove(&card.mac), laid.remove(&card.mac)) {
                    (Some(mut line), _) => {
                        line.place = place;
                        line
                    }
                    (None, Some(laid)) => self.line(laid, place, card.mac),
                    // The first of two that are the same has it.
                    (None, None) => continue,
                };
                state.lines.insert(card.mac, line);
            }
        }
        for mac in lines.keys() {
            line::forget(folder, *mac);
        }
        if wiring.links.is_none() {
            wiring.links = state.wiring.links.take();
        }
        state.wiring = wiring;
        state.set_conditions();
        let State { gates, wiring, .. } = &mut *state;
        gates.set(wiring);
        state.set_ways_out();
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
        let way_out = WayOut::default();
        let keep = keep_timers(self.clone(), key.clone(), Rc::clone(&timers));
        let lead = keep_way_out(self.clone(), key.clone(), way_out.changed());
        Net {
            key,
            gateway: Gateway::new(subnet, mac),
            timers,
            way_out,
            tasks: [
                spawn_local(keep).abort_handle(),
                spawn_local(lead).abort_handle(),
            ],
        }
    }

    fn line(&self, laid: Laid, place: Place, mac: Mac) -> Line {
        let waiting = Rc::new(Notify::new());
        let switch = self.clone();
        let (receive, port) = match laid {
            Laid::Socket(path, port) => {
                let receive = receive_stream(switch, path, port.clone(), mac);
                (spawn_local(receive), port)
            }
            Laid::Tap(port) => {
                let receive = receive(switch, Rc::clone(&port), mac);
                (spawn_local(receive), Some(port))
            }
        };
        let send = spawn_local(send(self.clone(), Rc::clone(&waiting), mac));
        Line {
            place,
            outlet: Outlet::new(port),
            waiting,
            from_guest: 0,
            refused: 0,
            dropped: 0,
            has_asked: false,
            questions: 0,
            awaited: None,
            tasks: [receive.abort_handle(), send.abort_handle()],
        }
    }

    /// Whether any QEMU has a card of the switch.
    pub(super) fn is_used(&self) -> bool {
        let state = self.state.borrow();
        (state.lines.iter()).any(|(mac, line)| line.outlet.is_there(*mac))
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

    /// What was refused to machines, by their names.
    pub(super) fn refusals(&self) -> BTreeMap<String, Refusals> {
        self.state.borrow().gates.refusals()
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
                    has_asked: line.has_asked,
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
            gates,
            flows,
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
                    leads_out: card.egress.is_some(),
                };
                if dhcp::begins(bytes) {
                    line.has_asked = true;
                    net.way_out.restart(card.address);
                }
                if let Some(answer) = dhcp::answer(bytes, &offer) {
                    line.send(&answer, from, recorders);
                }
            }
            Target::Gateway
                if frame::packet(bytes)
                    .is_some_and(|it| flows.take(from, it, network.subnet.gateway())) =>
            {
                return Vec::new();
            }
            Target::Gateway => {
                let gateway = network.subnet.gateway();
                let is_taken = match gates.judge(card, bytes, gateway, wiring) {
                    Verdict::Gateway => None,
                    Verdict::Out => {
                        Some(frame::packet(bytes).is_some_and(|it| net.way_out.send(it)))
                    }
                    Verdict::Refused => Some(false),
                };
                if is_taken == Some(false)
                    && let Some(answer) = refusal(bytes, gateway)
                {
                    line.send(&answer, from, recorders);
                }
                if is_taken.is_some() {
                    return Vec::new();
                }
            }
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
            gates,
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
                    Answer::Ask(name) if !gates.may_ask(&cards[number].machine, &name) => {
                        if let Some(bytes) = dns::missing(&question.bytes, longest) {
                            net.gateway.answer(question.way, &bytes);
                        }
                    }
                    Answer::Ask(_) => match lines.get_mut(&mac) {
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
        if self.outlet.push(frame) {
            self.waiting.notify_one();
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
