//! Computes rates from what machines have used between two samples. Pure.

use std::{collections::HashMap, time::Duration};

use serde::Serialize;
use uuid::Uuid;

use crate::hypervisor::{Statistics, Traffic};

/// A sample of what one machine has used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub statistics: Statistics,
    /// `None` if the guest's agent does not report it.
    pub traffic: Option<Traffic>,
}

/// What a machine uses per second. `None` if it is not known (yet).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// In percent of one CPU.
    pub cpu_percent: Option<f64>,
    /// In bytes, of the host's memory.
    pub resident_bytes: u64,
    /// In bytes, as the guest sees it.
    pub memory_bytes: u64,
    pub disk_read_bytes: Option<f64>,
    pub disk_written_bytes: Option<f64>,
    pub disk_requests: Option<f64>,
    pub network_received_bytes: Option<f64>,
    pub network_sent_bytes: Option<f64>,
}

/// Remembers the last sample of each machine.
#[derive(Debug, Default)]
pub struct Meter {
    last: HashMap<Uuid, (Duration, Sample)>,
}

impl Meter {
    /// Returns the rates since the last sample, by machine. `now` is any clock that does not go back.
    pub fn read(&mut self, now: Duration, samples: &[Sample]) -> HashMap<Uuid, Rates> {
        let rates = samples
            .iter()
            .map(|sample| {
                let uuid = sample.statistics.uuid;
                (uuid, self.rates(now, sample))
            })
            .collect();
        // A machine that stopped and starts again counts from zero.
        self.last = samples
            .iter()
            .map(|sample| (sample.statistics.uuid, (now, *sample)))
            .collect();
        rates
    }

    fn rates(&self, now: Duration, sample: &Sample) -> Rates {
        let new = &sample.statistics;
        let last = self.last.get(&new.uuid);
        let seconds = last.map_or(0.0, |(then, _)| now.saturating_sub(*then).as_secs_f64());
        let rate = |of: &dyn Fn(&Sample) -> Option<u64>| {
            let (_, old) = last.filter(|_| seconds > 0.0)?;
            // A smaller number means that the machine was restarted and counts from zero.
            let used = of(sample)?.checked_sub(of(old)?)?;
            Some(used as f64 / seconds)
        };
        Rates {
            // ns per s, to percent
            cpu_percent: rate(&|it| Some(it.statistics.cpu_time)).map(|ns| ns / 1e7),
            resident_bytes: new.resident,
            memory_bytes: new.memory,
            disk_read_bytes: rate(&|it| Some(it.statistics.disk.read_bytes)),
            disk_written_bytes: rate(&|it| Some(it.statistics.disk.written_bytes)),
            disk_requests: rate(&|it| Some(it.statistics.disk.reads + it.statistics.disk.writes)),
            network_received_bytes: rate(&|it| it.traffic.map(|traffic| traffic.received)),
            network_sent_bytes: rate(&|it| it.traffic.map(|traffic| traffic.sent)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu_time: u64, sent: Option<u64>) -> Sample {
        Sample {
            statistics: Statistics {
                cpu_time,
                ..Statistics::default()
            },
            traffic: sent.map(|sent| Traffic { received: 0, sent }),
        }
    }

    #[test]
    fn rates_are_of_the_time_between() {
        let mut meter = Meter::default();
        let at = Duration::from_secs;
        let first = meter.read(at(10), &[sample(5_000_000_000, Some(100))])[&Uuid::nil()];
        assert_eq!(first.cpu_percent, None);
        let second = meter.read(at(12), &[sample(8_000_000_000, Some(300))])[&Uuid::nil()];
        assert_eq!(second.cpu_percent, Some(150.0));
        assert_eq!(second.network_sent_bytes, Some(100.0));
        // It was restarted, and its agent does not answer yet.
        let third = meter.read(at(14), &[sample(1, None)])[&Uuid::nil()];
        assert_eq!(third.cpu_percent, None);
        assert_eq!(third.network_sent_bytes, None);
        meter.read(at(16), &[]);
        let back = meter.read(at(18), &[sample(2, None)])[&Uuid::nil()];
        assert_eq!(back.cpu_percent, None);
    }
}
