//! The conditions of links, and recording.

use std::{
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::{Signal, kill};
use stead::network::{
    ByHand, Counts, Delay, Loss, Mac, Rate, Recorded, Rule, Scope, Settings, links, look, pcap,
    record, set,
};

use super::{A_WHILE, DB, GATEWAY, Net, SOON, WEB, guest::numbered, resident_kib, shop};

const MAC_DB: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
const MAC_WEB: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);

fn scope(from: &str, to: &str) -> Scope {
    let names = |name: &str| name.split_whitespace().map(ToString::to_string).collect();
    Scope {
        from: names(from),
        to: names(to),
        ..Scope::default()
    }
}

fn cut() -> Settings {
    Settings {
        cut: true,
        ..Settings::default()
    }
}

fn latency(text: &str) -> Settings {
    Settings {
        latency: Some(Delay::parse(text).unwrap()),
        ..Settings::default()
    }
}

impl Net {
    fn set(&self, scope: Scope, settings: Option<Settings>) {
        let rule = ByHand {
            scope,
            settings,
            until: None,
        };
        assert!(set(&self.files, rule).unwrap());
    }

    fn restore(&self) {
        self.set(Scope::default(), None);
    }

    fn by_hand(&self) -> Vec<ByHand> {
        links(&self.files).unwrap().unwrap().1.by_hand
    }

    fn counts(&self, mac: Mac) -> Counts {
        look(&self.files).unwrap().unwrap().counts[&mac].clone()
    }
}

fn to_web(number: u8, length: usize) -> Vec<u8> {
    numbered((MAC_DB, MAC_WEB), (DB, WEB), number, length)
}

fn to_db(number: u8) -> Vec<u8> {
    numbered((MAC_WEB, MAC_DB), (WEB, DB), number, 64)
}

fn numbers(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().map(|frame| *frame.last().unwrap()).collect()
}

#[test]
fn a_cut_link_lets_nothing_through() {
    let net = Net::new(shop());
    let (mut db, mut web) = net.guests();
    net.set(scope("db", "web"), Some(cut()));
    db.send(&to_web(1, 64));
    web.send(&to_db(2));
    assert_eq!(numbers(&web.receive(A_WHILE)), [0; 0]);
    assert_eq!(numbers(&db.receive(Duration::ZERO)), [0; 0]);
    // DHCP and DNS are the network's own.
    assert!(db.ping(&mut [], GATEWAY, SOON));
    assert_eq!(db.look_up("web", SOON).as_deref(), Some("10.77.0.11"));
    assert!(net.counts(MAC_WEB).dropped > 0);
    net.restore();
    assert!(db.ping(&mut [&mut web], WEB, SOON));
    assert_eq!(net.by_hand(), []);
}

#[test]
fn a_link_can_be_cut_one_way() {
    let net = Net::new(shop());
    let (mut db, mut web) = net.guests();
    let one_way = Scope {
        one_way: true,
        ..scope("db", "")
    };
    net.set(one_way, Some(cut()));
    db.send(&to_web(1, 64));
    web.send(&to_db(2));
    assert_eq!(numbers(&db.await_frames(1, SOON)), [2]);
    assert_eq!(numbers(&web.receive(A_WHILE)), [0; 0]);
    // On another network only: nothing is cut here.
    net.restore();
    let elsewhere = Scope {
        network: Some("front".into()),
        ..Scope::default()
    };
    net.set(elsewhere, Some(cut()));
    db.send(&to_web(3, 64));
    assert_eq!(numbers(&web.await_frames(1, SOON)), [3]);
}

#[test]
fn loss_is_all_or_nothing_at_its_ends() {
    let net = Net::new(shop());
    let (mut db, mut web) = net.guests();
    let loss = |text| Settings {
        loss: Some(Loss::parse(text).unwrap()),
        ..Settings::default()
    };
    net.set(scope("web", "db"), Some(loss("0%")));
    for n in 0..100 {
        db.send(&to_web(n, 64));
    }
    let all: Vec<u8> = (0..100).collect();
    assert_eq!(numbers(&web.await_frames(100, SOON)), all);
    net.set(scope("web", "db"), Some(loss("100%")));
    let sent = net.counts(MAC_DB).from_guest;
    for n in 0..100 {
        db.send(&to_web(n, 64));
    }
    assert_eq!(numbers(&web.receive(A_WHILE)), [0; 0]);
    assert_eq!(
        net.counts(MAC_WEB).dropped,
        net.counts(MAC_DB).from_guest - sent
    );
}

#[test]
fn frames_arrive_after_their_latency_and_in_order() {
    let net = Net::new(shop());
    let (mut db, mut web) = net.guests();
    net.set(scope("web", "db"), Some(latency("300ms")));
    let began = Instant::now();
    for n in 0..50 {
        db.send(&to_web(n, 64));
    }
    let first = web.await_frames(1, SOON);
    assert!(began.elapsed() >= Duration::from_millis(300));
    let mut got = numbers(&first);
    got.extend(numbers(&web.await_frames(50 - first.len(), SOON)));
    let all: Vec<u8> = (0..50).collect();
    assert_eq!(got, all);
}

#[test]
fn a_rate_drops_what_does_not_fit_into_its_queue() {
    let net = Net::new(shop());
    let (mut db, mut web) = net.guests();
    let (before, sent) = (net.counts(MAC_WEB).dropped, net.counts(MAC_DB).from_guest);
    let rate = Settings {
        rate: Some(Rate::parse("1mbit").unwrap()),
        ..Settings::default()
    };
    net.set(scope("web", "db"), Some(rate));
    let began = Instant::now();
    for n in 0..200 {
        db.send(&to_web(n, 1000));
    }
    let sent = net.counts(MAC_DB).from_guest - sent;
    let mut frames = Vec::new();
    while net.counts(MAC_WEB).dropped - before + frames.len() as u64 != sent {
        assert!(began.elapsed() < SOON);
        frames.extend(web.await_frames(1, Duration::from_millis(100)));
    }
    let (dropped, got) = (net.counts(MAC_WEB).dropped - before, frames.len() as u64);
    assert!(dropped > 0 && got > 0, "{dropped} {got}");
    // 1042 bytes take more than 8 ms each.
    assert!(began.elapsed() >= Duration::from_millis(8 * got));
    assert!(numbers(&frames).is_sorted());
}

#[test]
fn conditions_end_by_themselves() {
    let net = Net::new(shop());
    let (mut db, mut web) = net.guests();
    let until = Timestamp::now() + SignedDuration::from_secs(3);
    let rule = ByHand {
        scope: scope("db", "web"),
        settings: Some(cut()),
        until: Some(until),
    };
    set(&net.files, rule).unwrap();
    assert!(db.ping(&mut [&mut web], WEB, SOON));
    assert!(Timestamp::now() >= until);
    assert_eq!(net.by_hand(), []);
}

/// What is set by hand lies over the Machinefile's, through a new wiring and a `kill -9`.
#[test]
fn conditions_stay_while_machines_run() {
    let mut wiring = shop();
    let by_file = Rule {
        scope: scope("db", "web"),
        settings: cut(),
    };
    wiring.links = Some(vec![by_file.clone()]);
    let mut net = Net::new(wiring);
    let (mut db, mut web) = (net.guest(0, 0), net.guest(0, 1));
    db.configure(DB, 24);
    web.configure(WEB, 24);
    assert!(!db.ping(&mut [&mut web], WEB, A_WHILE));

    // A Machinefile that cannot be read changes nothing; one that says nothing ends it.
    net.wiring.links = None;
    assert!(!net.ensure());
    assert!(!db.ping(&mut [&mut web], WEB, A_WHILE));
    net.wiring.links = Some(Vec::new());
    assert!(!net.ensure());
    assert!(db.ping(&mut [&mut web], WEB, SOON));

    net.set(scope("db", ""), Some(cut()));
    let by_hand = net.by_hand();
    net.wiring.networks[0]
        .cards
        .push(super::card("cache", 4, "10.77.0.12", &[]));
    assert!(!net.ensure());
    assert_eq!(net.by_hand(), by_hand);
    kill(net.pid(), Signal::SIGKILL).unwrap();
    assert!(net.ensure());
    assert_eq!(net.by_hand(), by_hand);
    assert!(!db.ping(&mut [&mut web], WEB, A_WHILE));
    // Of a new machine too.
    let mut cache = net.guest(0, 2);
    cache.configure(Ipv4Addr::new(10, 77, 0, 12), 24);
    assert!(!db.ping(&mut [&mut cache], Ipv4Addr::new(10, 77, 0, 12), A_WHILE));
    assert!(web.ping(&mut [&mut cache], Ipv4Addr::new(10, 77, 0, 12), SOON));

    // The file is lost, and written again with them.
    let state = net._data.path().join("networks");
    for entry in std::fs::read_dir(state).unwrap().flatten() {
        if entry.path().extension().is_some_and(|it| it == "json") {
            std::fs::write(entry.path(), "garbage").unwrap();
        }
    }
    assert!(!net.ensure());
    let deadline = Instant::now() + SOON;
    while net.files.read().is_none() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(net.files.read().unwrap().conditions, by_hand);

    // Machines that have ended take them along, also if the process was killed before.
    kill(net.pid(), Signal::SIGKILL).unwrap();
    drop((db, web, cache));
    assert!(net.ensure());
    assert_eq!(net.by_hand(), []);
}

#[test]
fn what_is_set_by_hand_is_limited() {
    let net = Net::new(shop());
    for n in 0..256 {
        net.set(scope(&format!("m{n}"), ""), Some(cut()));
    }
    let rule = ByHand {
        scope: scope("more", ""),
        settings: Some(cut()),
        until: None,
    };
    assert!(set(&net.files, rule).is_err());
    assert_eq!(net.by_hand().len(), 256);
}

/// A flood over a slow link takes no more memory than it may, and the others go on.
#[test]
fn a_flood_over_a_slow_link_stays_small() {
    let net = Net::new(shop());
    let (mut db, _web) = net.guests();
    let mut ci = net.guest(1, 0);
    ci.configure(Ipv4Addr::new(10, 78, 0, 12), 24);
    net.set(Scope::default(), Some(latency("60s")));
    let frame = to_web(1, 1400);
    while net.counts(MAC_WEB).dropped < 1000 {
        for _ in 0..1000 {
            db.send(&frame);
        }
    }
    assert!(ci.ping(&mut [], Ipv4Addr::new(10, 78, 0, 1), SOON));
    let memory = resident_kib(net.pid());
    assert!(memory < 32 << 10, "{memory} KiB");
}

/// Frames of a pcap file (draft-ietf-opsawg-pcap): seconds and content of each.
fn read_pcap(mut bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let word = |bytes: &mut &[u8]| {
        let (first, rest) = bytes.split_at(4);
        *bytes = rest;
        u32::from_le_bytes(first.try_into().unwrap())
    };
    let header: Vec<u32> = (0..6).map(|_| word(&mut bytes)).collect();
    assert_eq!(header[0], 0xa1b2_3c4d);
    assert_eq!(header[1], 2 | 4 << 16);
    assert_eq!(header[5], 1);
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (seconds, nanos) = (word(&mut bytes), word(&mut bytes));
        let (length, whole) = (word(&mut bytes), word(&mut bytes));
        assert!(nanos < 1_000_000_000 && length == whole);
        let (frame, rest) = bytes.split_at(usize::try_from(length).unwrap());
        frames.push((seconds, frame.to_vec()));
        bytes = rest;
    }
    frames
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_recording_has_frames_of_both_directions() {
    let net = Net::new(shop());
    let (mut db, mut web) = net.guests();
    let runtime = runtime();
    let mut recording = (runtime.block_on(record(&net.files, vec![MAC_WEB])))
        .unwrap()
        .unwrap();
    let from_db = to_web(1, 64);
    db.send(&from_db);
    assert_eq!(web.await_frames(1, SOON).len(), 1);
    let from_web = to_db(2);
    web.send(&from_web);
    assert_eq!(db.await_frames(1, SOON).len(), 1);
    // What it may not send, and what is between others, and what never arrives.
    let refused = numbered((MAC_DB, MAC_DB), (WEB, DB), 3, 64);
    web.send(&refused);
    db.send(&numbered((MAC_DB, Mac([2; 6])), (DB, GATEWAY), 4, 64));
    net.set(scope("db", "web"), Some(cut()));
    db.send(&to_web(5, 64));

    let mut bytes = pcap::header();
    let recorded: Vec<Recorded> = runtime.block_on(async {
        let mut all = Vec::new();
        while all.len() < 3 {
            let next = tokio::time::timeout(SOON, recording.next()).await.unwrap();
            all.push(next.unwrap().unwrap());
        }
        recording.finish().await.unwrap();
        let end = tokio::time::timeout(SOON, recording.next()).await.unwrap();
        all.extend(end.unwrap());
        all
    });
    for recorded in &recorded {
        bytes.extend(pcap::packet(recorded.at, &recorded.frame));
    }
    let frames = read_pcap(&bytes);
    let contents: Vec<&[u8]> = frames.iter().map(|(_, frame)| frame.as_slice()).collect();
    assert_eq!(contents, [&from_db[..], &from_web, &refused]);
    assert!(frames.iter().all(|(seconds, _)| *seconds > 1_700_000_000));
    assert_eq!(recording.missed, 0);
}

/// Who reads slowly misses frames, and nobody else does.
#[test]
fn a_slow_reader_slows_nothing() {
    let net = Net::new(shop());
    let (mut db, mut web) = net.guests();
    let runtime = runtime();
    let mut recording = (runtime.block_on(record(&net.files, vec![MAC_WEB])))
        .unwrap()
        .unwrap();
    // More than what waits for a reader, and what the sockets take.
    let sent = net.counts(MAC_DB).from_guest;
    while net.counts(MAC_DB).from_guest < sent + 6000 {
        for n in 0..100 {
            db.send(&to_web(n, 1400));
            web.receive(Duration::ZERO);
        }
    }
    db.take_all();
    web.take_all();
    assert!(db.ping(&mut [&mut web], WEB, SOON));
    assert!(resident_kib(net.pid()) < 32 << 10);
    let frames = runtime.block_on(async {
        recording.finish().await.unwrap();
        let mut frames = 0;
        while let Some(recorded) = recording.next().await.unwrap() {
            assert!(!recorded.frame.is_empty());
            frames += 1;
        }
        frames
    });
    assert!(recording.missed > 0);
    assert!(frames > 0);

    // Only so many record at once, and those that end make room.
    let mut others = Vec::new();
    let failed = loop {
        match runtime.block_on(record(&net.files, vec![MAC_WEB])) {
            Ok(recording) => others.push(recording),
            Err(error) => break error,
        }
    };
    assert!(failed.to_string().contains("16"), "{failed}");
    assert_eq!(others.len(), 16);
    drop(others);
    let deadline = Instant::now() + SOON;
    while runtime.block_on(record(&net.files, vec![MAC_WEB])).is_err() {
        assert!(Instant::now() < deadline);
        thread::sleep(Duration::from_millis(10));
    }
    assert!(
        runtime
            .block_on(record(&net.files, vec![Mac([9; 6])]))
            .is_err()
    );
}

/// A recording ends with its card, and with the network.
#[test]
fn a_recording_ends_with_what_it_records() {
    let mut net = Net::new(shop());
    let runtime = runtime();
    let begin = |mac| {
        runtime
            .block_on(record(&net.files, vec![mac]))
            .unwrap()
            .unwrap()
    };
    let (mut of_web, mut of_db) = (begin(MAC_WEB), begin(MAC_DB));
    net.wiring.networks[0].cards.remove(1);
    assert!(!net.ensure());
    let end = runtime.block_on(async { tokio::time::timeout(SOON, of_web.next()).await });
    assert_eq!(end.unwrap().unwrap(), None);
    kill(net.pid(), Signal::SIGKILL).unwrap();
    let end = runtime.block_on(async { tokio::time::timeout(SOON, of_db.next()).await });
    assert!(matches!(end.unwrap(), Ok(None) | Err(_)));
}
