//! Frames on their way between cards whose link has conditions: which are dropped, and when the others arrive.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashMap},
    time::{Duration, Instant},
};

use super::{Mac, conditions::InForce, frame::LONGEST};

/// How much may be on its way in one direction, in frames and in bytes, and in all of them together.
const MOST_FRAMES: usize = 4096;
const MOST_BYTES: usize = 8 << 20;
const MOST_BYTES_OF_ALL: usize = 64 << 20;

/// How long a frame may wait for the rate, as in the queue of a router, or as long as this many full frames take.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
const SHORTEST_QUEUE: u32 = 16;

/// What holds in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    is_cut: bool,
    latency: Duration,
    jitter: Duration,
    /// Of a million frames.
    loss: u32,
    /// In bits per second.
    rate: Option<u64>,
}

impl From<&InForce> for Conditions {
    fn from(in_force: &InForce) -> Self {
        Conditions {
            is_cut: in_force.cut.is_some_and(|it| it.value),
            latency: (in_force.latency).map_or(Duration::ZERO, |it| it.value.duration()),
            jitter: (in_force.jitter).map_or(Duration::ZERO, |it| it.value.duration()),
            loss: in_force.loss.map_or(0, |it| it.value.millionths()),
            rate: in_force.rate.and_then(|it| it.value.limit()),
        }
    }
}

/// A direction between two cards.
pub(super) type Way = (Mac, Mac);

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It arrives at once.
    Arrives,
    /// It is kept until it arrives. `is_next`: before all others.
    Waits {
        is_next: bool,
    },
    Dropped,
}

/// All directions with conditions, and the frames that are on their way.
pub(super) struct Passages {
    ways: HashMap<Way, State>,
    on_way: BinaryHeap<Reverse<OnWay>>,
    bytes: usize,
    /// How many frames have been kept.
    number: u64,
    random: fastrand::Rng,
}

#[derive(Default)]
struct State {
    conditions: Conditions,
    frames: usize,
    bytes: usize,
    /// When the last frame has left, at the rate.
    free: Option<Instant>,
}

/// In the order of arrival. Frames that arrive at once keep their order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    due: Instant,
    number: u64,
}

struct OnWay {
    order: Order,
    way: Way,
    frame: Box<[u8]>,
}

impl PartialEq for OnWay {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for OnWay {}

impl PartialOrd for OnWay {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OnWay {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.cmp(&other.order)
    }
}

/// A frame that arrives.
pub(super) struct Arrival {
    pub to: Mac,
    /// `None`: the link was cut meanwhile.
    pub frame: Option<Box<[u8]>>,
}

impl Passages {
    pub(super) fn new(random: fastrand::Rng) -> Self {
        Passages {
            ways: HashMap::new(),
            on_way: BinaryHeap::new(),
            bytes: 0,
            number: 0,
            random,
        }
    }

    /// Sets the conditions of all directions. A frame that is on its way arrives when it was to arrive.
    pub(super) fn set(&mut self, mut conditions: HashMap<Way, Conditions>) {
        for (way, state) in &mut self.ways {
            let new = conditions.remove(way).unwrap_or_default();
            if new.rate != state.conditions.rate {
                state.free = None;
            }
            state.conditions = new;
        }
        for (way, conditions) in conditions {
            let state = State {
                conditions,
                ..State::default()
            };
            self.ways.insert(way, state);
        }
        self.ways.retain(|_, state| !state.is_plain());
    }

    /// Whether no direction has conditions, so that all frames arrive at once.
    pub(super) fn is_empty(&self) -> bool {
        self.ways.is_empty()
    }

    /// Takes a frame that sets out.
    pub(super) fn take(&mut self, way: Way, frame: &[u8], now: Instant) -> Fate {
        let Some(state) = self.ways.get_mut(&way) else {
            return Fate::Arrives;
        };
        let conditions = state.conditions;
        if conditions.is_cut || self.random.u32(0..1_000_000) < conditions.loss {
            return Fate::Dropped;
        }
        let leaves = match conditions.rate {
            None => now,
            Some(rate) => {
                let begins = state.free.map_or(now, |free| free.max(now));
                let longest = LONGEST_WAIT.max(time_of(LONGEST, rate) * SHORTEST_QUEUE);
                if begins - now > longest {
                    return Fate::Dropped;
                }
                begins + time_of(frame.len(), rate)
            }
        };
        let due = leaves + self.delay(&conditions);
        if due <= now {
            return Fate::Arrives;
        }
        let Some(state) = self.ways.get_mut(&way) else {
            return Fate::Arrives;
        };
        let is_full = state.frames >= MOST_FRAMES
            || state.bytes + frame.len() > MOST_BYTES
            || self.bytes + frame.len() > MOST_BYTES_OF_ALL;
        if is_full {
            return Fate::Dropped;
        }
        state.free = conditions.rate.map(|_| leaves);
        state.frames += 1;
        state.bytes += frame.len();
        self.bytes += frame.len();
        self.number += 1;
        let order = Order {
            due,
            number: self.number,
        };
        let is_next = (self.on_way.peek()).is_none_or(|Reverse(first)| order < first.order);
        self.on_way.push(Reverse(OnWay {
            order,
            way,
            frame: frame.into(),
        }));
        Fate::Waits { is_next }
    }

    /// Latency, and jitter of the same chance everywhere between less and more, as netem has it.
    fn delay(&mut self, conditions: &Conditions) -> Duration {
        let jitter = u64::try_from(conditions.jitter.as_micros()).unwrap_or(u64::MAX);
        if jitter == 0 {
            return conditions.latency;
        }
        let most = conditions.latency + conditions.jitter;
        most.saturating_sub(Duration::from_micros(self.random.u64(0..=2 * jitter)))
    }

    /// When the next frame arrives.
    pub(super) fn next(&self) -> Option<Instant> {
        self.on_way.peek().map(|Reverse(next)| next.order.due)
    }

    /// Returns the next frame that has arrived by now.
    pub(super) fn arrived(&mut self, now: Instant) -> Option<Arrival> {
        if self.next()? > now {
            return None;
        }
        let Reverse(OnWay { way, frame, .. }) = self.on_way.pop()?;
        self.bytes -= frame.len();
        let mut is_cut = false;
        if let Some(state) = self.ways.get_mut(&way) {
            state.frames -= 1;
            state.bytes -= frame.len();
            is_cut = state.conditions.is_cut;
            if state.is_plain() {
                self.ways.remove(&way);
            }
        }
        Some(Arrival {
            to: way.1,
            frame: (!is_cut).then_some(frame),
        })
    }
}

impl State {
    /// Whether it is as if it were not there.
    fn is_plain(&self) -> bool {
        self.frames == 0 && self.conditions == Conditions::default()
    }
}

/// How long a frame of this length takes at a rate in bits per second.
fn time_of(bytes: usize, rate: u64) -> Duration {
    let nanos = (bytes as u128) * 8 * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
    const B: Mac = Mac([0x52, 0x54, 0, 0, 0, 2]);
    const MS: Duration = Duration::from_millis(1);

    fn passages(conditions: Conditions) -> Passages {
        let mut passages = Passages::new(fastrand::Rng::with_seed(7));
        passages.set(HashMap::from([((A, B), conditions)]));
        passages
    }

    fn plain() -> Conditions {
        Conditions::default()
    }

    /// The first bytes of frames that have arrived.
    fn arrived(passages: &mut Passages, now: Instant) -> Vec<u8> {
        std::iter::from_fn(|| passages.arrived(now))
            .map(|arrival| {
                assert_eq!(arrival.to, B);
                arrival.frame.map_or(0, |frame| frame[0])
            })
            .collect()
    }

    #[test]
    fn only_the_direction_is_meant() {
        let mut passages = passages(Conditions {
            is_cut: true,
            ..plain()
        });
        let now = Instant::now();
        assert_eq!(passages.take((A, B), &[1], now), Fate::Dropped);
        assert_eq!(passages.take((B, A), &[1], now), Fate::Arrives);
        passages.set(HashMap::new());
        assert_eq!(passages.take((A, B), &[1], now), Fate::Arrives);
    }

    #[test]
    fn latency_keeps_the_order() {
        let mut passages = passages(Conditions {
            latency: 80 * MS,
            ..plain()
        });
        let now = Instant::now();
        let first = passages.take((A, B), &[1], now);
        assert_eq!(first, Fate::Waits { is_next: true });
        for n in 2..=100 {
            let fate = passages.take((A, B), &[n], now);
            assert_eq!(fate, Fate::Waits { is_next: false });
        }
        assert_eq!(passages.next(), Some(now + 80 * MS));
        assert_eq!(arrived(&mut passages, now + 79 * MS), [0; 0]);
        let all: Vec<u8> = (1..=100).collect();
        assert_eq!(arrived(&mut passages, now + 80 * MS), all);
        assert_eq!(passages.next(), None);
    }

    #[test]
    fn jitter_is_around_the_latency() {
        let mut passages = passages(Conditions {
            latency: 80 * MS,
            jitter: 20 * MS,
            ..plain()
        });
        let now = Instant::now();
        for n in 0..=200 {
            passages.take((A, B), &[n], now);
        }
        assert_eq!(arrived(&mut passages, now + 59 * MS), [0; 0]);
        let early = arrived(&mut passages, now + 80 * MS).len();
        let late = arrived(&mut passages, now + 100 * MS).len();
        assert_eq!(early + late, 201);
        assert!(early > 50 && late > 50, "{early} {late}");
        // More jitter than latency: some arrive at once.
        passages.set(HashMap::from([(
            (A, B),
            Conditions {
                jitter: 20 * MS,
                ..plain()
            },
        )]));
        let at_once = (0..=200)
            .filter(|n| passages.take((A, B), &[*n], now) == Fate::Arrives)
            .count();
        assert!((50..150).contains(&at_once), "{at_once}");
    }

    #[test]
    fn loss_is_a_share() {
        let now = Instant::now();
        for (loss, least, most) in [
            (0, 0, 0),
            (1_000_000, 10_000, 10_000),
            (500_000, 4_500, 5_500),
        ] {
            let mut passages = passages(Conditions { loss, ..plain() });
            let lost = (0..10_000)
                .filter(|_| passages.take((A, B), &[1], now) == Fate::Dropped)
                .count();
            assert!((least..=most).contains(&lost), "{loss}: {lost}");
        }
    }

    #[test]
    fn a_rate_spaces_frames_and_drops_the_tail() {
        // 1000 bytes take 8 ms.
        let mut passages = passages(Conditions {
            rate: Some(1_000_000),
            ..plain()
        });
        let now = Instant::now();
        let fates: Vec<Fate> = (0..100)
            .map(|n| passages.take((A, B), &[n; 1000], now))
            .collect();
        // Those that begin within 250 ms.
        let kept = fates.iter().filter(|fate| **fate != Fate::Dropped).count();
        assert_eq!(kept, 32);
        assert!(fates[32..].iter().all(|fate| *fate == Fate::Dropped));
        assert_eq!(arrived(&mut passages, now + 7 * MS), [0; 0]);
        assert_eq!(arrived(&mut passages, now + 8 * MS), [0]);
        assert_eq!(arrived(&mut passages, now + 24 * MS), [1, 2]);
        assert_eq!(arrived(&mut passages, now + 32 * 8 * MS).len(), 29);
        // It does not save up for later.
        let later = now + 1000 * MS;
        assert!(matches!(
            passages.take((A, B), &[1; 1000], later),
            Fate::Waits { .. }
        ));
        assert_eq!(arrived(&mut passages, later + 7 * MS), [0; 0]);
    }

    #[test]
    fn a_low_rate_has_room_for_a_few_frames() {
        let mut passages = passages(Conditions {
            rate: Some(1000),
            ..plain()
        });
        let now = Instant::now();
        let kept = (0..100)
            .filter(|n| passages.take((A, B), &[*n; LONGEST], now) != Fate::Dropped)
            .count();
        assert_eq!(kept, 17);
    }

    #[test]
    fn what_is_on_its_way_is_limited() {
        let slow = Conditions {
            latency: 60_000 * MS,
            ..plain()
        };
        let now = Instant::now();
        let mut passages = passages(slow);
        let mut kept = |way, length: usize| {
            (0..6000)
                .filter(|_| passages.take(way, &vec![1; length], now) != Fate::Dropped)
                .count()
        };
        assert_eq!(kept((A, B), 100), MOST_FRAMES);
        let mut passages = Passages::new(fastrand::Rng::with_seed(7));
        let ways: Vec<Way> = (0..20).map(|n| (A, Mac([n; 6]))).collect();
        passages.set(ways.iter().map(|way| (*way, slow)).collect());
        for way in ways {
            for _ in 0..4096 {
                passages.take(way, &[1; 1514], now);
            }
        }
        assert!(passages.bytes <= MOST_BYTES_OF_ALL);
        assert!(passages.bytes > MOST_BYTES_OF_ALL - 2000);
    }

    #[test]
    fn a_change_takes_what_is_on_its_way_along() {
        let slow = Conditions {
            latency: 80 * MS,
            ..plain()
        };
        let mut passages = passages(slow);
        let now = Instant::now();
        passages.take((A, B), &[1], now);
        passages.set(HashMap::new());
        // It is a link without conditions, and the frame still arrives.
        assert_eq!(passages.take((A, B), &[2], now), Fate::Arrives);
        assert_eq!(arrived(&mut passages, now + 80 * MS), [1]);
        assert!(passages.ways.is_empty());
        // A cut link loses it.
        passages.set(HashMap::from([((A, B), slow)]));
        passages.take((A, B), &[3], now);
        passages.set(HashMap::from([(
            (A, B),
            Conditions {
                is_cut: true,
                ..plain()
            },
        )]));
        assert_eq!(arrived(&mut passages, now + 80 * MS), [0]);
        assert_eq!(passages.bytes, 0);
    }
}
