//! Samples everything that runs.

use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::Serialize;
use uuid::Uuid;

use crate::{
    cli::status::state,
    failure::Failure,
    hypervisor::{Connection, Domain, HypervisorError},
    resources::{Meter, Rates, Sample},
    session::rebooting::survey_all,
};

/// Names and states of machines change seldom, so they are read less often than the rates.
const SURVEY_EVERY: Duration = Duration::from_secs(10);

/// How long not to ask a guest whose agent did not answer: each try may take a second.
const SILENCE: Duration = Duration::from_secs(30);

/// The use of resources by machines, in one sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Usage {
    pub at: jiff::Timestamp,
    pub connect: String,
    pub machines: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    pub project: String,
    pub machine: String,
    pub root: PathBuf,
    pub uuid: Uuid,
    pub state: &'static str,
    pub cpus: u32,
    #[serde(flatten)]
    pub rates: Rates,
}

pub(super) struct Collector {
    connection: Connection,
    meter: Meter,
    started: Instant,
    surveyed: Option<Instant>,
    known: HashMap<Uuid, Known>,
}

struct Known {
    row: Row,
    domain: Option<Domain>,
    silent_until: Option<Instant>,
}

impl Collector {
    pub(super) fn new(connection: Connection) -> Self {
        Collector {
            connection,
            meter: Meter::default(),
            started: Instant::now(),
            surveyed: None,
            known: HashMap::new(),
        }
    }

    /// Takes a sample. Blocks until libvirt and the guests' agents have answered.
    pub(super) fn sample(&mut self) -> Result<Usage, Failure> {
        let statistics = self.connection.statistics()?;
        let old = self
            .surveyed
            .is_none_or(|when| when.elapsed() >= SURVEY_EVERY);
        let gone = self
            .known
            .keys()
            .any(|uuid| !statistics.iter().any(|one| one.uuid == *uuid));
        if old || gone {
            self.survey()?;
        }
        let now = self.started.elapsed();
        let samples: Vec<Sample> = statistics
            .into_iter()
            .filter_map(|statistics| {
                let known = self.known.get_mut(&statistics.uuid)?;
                Some(Sample {
                    statistics,
                    traffic: known.traffic(),
                })
            })
            .collect();
        let mut rates = self.meter.read(now, &samples);
        let mut machines: Vec<Row> = samples
            .iter()
            .filter_map(|sample| {
                let uuid = sample.statistics.uuid;
                let mut row = self.known.get(&uuid)?.row.clone();
                row.rates = rates.remove(&uuid)?;
                Some(row)
            })
            .collect();
        machines.sort_by(|a, b| {
            (&a.project, &a.machine, a.uuid).cmp(&(&b.project, &b.machine, b.uuid))
        });
        Ok(Usage {
            at: jiff::Timestamp::now(),
            connect: self.connection.uri().uri.clone(),
            machines,
        })
    }

    fn survey(&mut self) -> Result<(), HypervisorError> {
        let mut known = HashMap::new();
        for machine in survey_all(&self.connection)?.machines {
            if !machine.is_up() {
                continue;
            }
            let uuid = machine.identity.uuid;
            let before = self.known.remove(&uuid);
            let (domain, silent_until) = match before {
                Some(before) => (before.domain, before.silent_until),
                None => (self.connection.lookup(&machine.identity)?, None),
            };
            let record = &machine.record;
            known.insert(
                uuid,
                Known {
                    row: Row {
                        project: record.project.clone(),
                        machine: record.machine.clone(),
                        root: record.root.clone(),
                        uuid,
                        state: state(Some(&machine)),
                        cpus: record.spec.cpus,
                        rates: Rates::default(),
                    },
                    domain,
                    silent_until,
                },
            );
        }
        self.known = known;
        self.surveyed = Some(Instant::now());
        Ok(())
    }
}

impl Known {
    fn traffic(&mut self) -> Option<crate::hypervisor::Traffic> {
        // An agent answers only when its guest is up.
        if self.row.state != "ready"
            || self
                .silent_until
                .is_some_and(|until| Instant::now() < until)
        {
            return None;
        }
        let traffic = self.domain.as_ref()?.traffic();
        if traffic.is_none() {
            self.silent_until = Some(Instant::now() + SILENCE);
        }
        traffic
    }
}
