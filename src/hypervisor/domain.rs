//! Domains that stead made.

use std::time::Duration;

use uuid::Uuid;
use virt::{domain::Domain as VirtDomain, sys};

use crate::machine::{
    Condition, Format, Identity, Layout, MACHINE_URI, Observed, Owner, PREFIX, Pause, Power,
    RECORD_FORMAT, RUNNING_URI, Record, Running, from_xml,
};

use super::{
    connection::Connection,
    domain_xml::{record_xml, running_xml},
    error::{Doing, HypervisorError},
};

/// The machines of every project on a connection.
#[derive(Debug, Default)]
pub struct Survey {
    pub machines: Vec<Observed>,
    /// Domains whose record cannot be read: made by another version of stead, or edited. One of
    /// them is no reason to stop working on the others.
    pub unreadable: Vec<Unreadable>,
}

#[derive(Debug)]
pub struct Unreadable {
    pub domain: String,
    pub uuid: Uuid,
    pub error: HypervisorError,
}

impl Survey {
    /// As [`Connection::identify`].
    pub fn identify(&self, owner: &Owner, machine: &str) -> Identity {
        match owner.find(&self.machines, machine) {
            Some(observed) => observed.identity.clone(),
            None => owner.free(&self.machines, machine),
        }
    }
}

/// A domain with stead's record in it.
#[derive(Clone)]
pub struct Domain {
    domain: VirtDomain,
    name: String,
}

/// What virErrorGenericFailure (libvirt, src/util/virerror.c) says of a failure without an error.
const NO_CAUSE: &str = "the cause is unknown";

const NO_DOMAIN: u32 = sys::VIR_ERR_NO_DOMAIN;
const NO_METADATA: u32 = sys::VIR_ERR_NO_DOMAIN_METADATA;

impl Connection {
    /// Every machine of every project on this connection.
    pub fn survey(&self) -> Result<Survey, HypervisorError> {
        let domains = self
            .connect
            .list_all_domains(0)
            .doing(|| "listing domains".into())?;
        let mut survey = Survey::default();
        for domain in domains {
            let name = domain.name().doing(|| "listing domains".into())?;
            let domain = Domain { domain, name };
            match domain.observe() {
                Ok(Some(observed)) => survey.machines.push(observed),
                Ok(None) => {}
                // It went away between the list and the look.
                Err(HypervisorError::Libvirt {
                    code: NO_DOMAIN, ..
                }) => {}
                Err(error @ HypervisorError::Record { .. }) => survey.unreadable.push(Unreadable {
                    uuid: domain.uuid()?,
                    domain: domain.name,
                    error,
                }),
                Err(error) => return Err(error),
            }
        }
        Ok(survey)
    }

    /// The machine's domain, if there is one.
    ///
    /// # Errors
    /// When a domain of that name or UUID exists that stead did not make.
    pub fn lookup(&self, identity: &Identity) -> Result<Option<Domain>, HypervisorError> {
        let found = match self.connect.lookup_domain_by_uuid(identity.uuid) {
            Ok(domain) => Some(domain),
            Err(error) if error.code().to_raw() == NO_DOMAIN => {
                match self.connect.lookup_domain_by_name(&identity.domain) {
                    Ok(domain) => Some(domain),
                    Err(error) if error.code().to_raw() == NO_DOMAIN => None,
                    Err(error) => {
                        return Err(HypervisorError::libvirt("looking up a domain", &error));
                    }
                }
            }
            Err(error) => return Err(HypervisorError::libvirt("looking up a domain", &error)),
        };
        let Some(domain) = found else {
            return Ok(None);
        };
        let name = domain.name().doing(|| "looking up a domain".into())?;
        let domain = Domain { domain, name };
        let uuid = domain.uuid()?;
        if uuid != identity.uuid || domain.record()?.is_none() {
            return Err(HypervisorError::NotOurs {
                kind: "domain",
                name: domain.name,
            });
        }
        Ok(Some(domain))
    }

    /// Which domain the project's machine of that name is: the one that is there, or the one that
    /// is to be made.
    pub fn identify(&self, owner: &Owner, machine: &str) -> Result<Identity, HypervisorError> {
        match self.first_choice(owner, machine)? {
            Some(identity) => Ok(identity),
            None => Ok(self.survey()?.identify(owner, machine)),
        }
    }

    /// As [`Self::identify`] of each, in the order of the names.
    pub fn identify_all(
        &self,
        owner: &Owner,
        machines: &[&str],
    ) -> Result<Vec<Identity>, HypervisorError> {
        let mut survey = None;
        let mut identities = Vec::new();
        for machine in machines {
            identities.push(match self.first_choice(owner, machine)? {
                Some(identity) => identity,
                None => {
                    let survey = match &mut survey {
                        Some(survey) => survey,
                        none => none.insert(self.survey()?),
                    };
                    survey.identify(owner, machine)
                }
            });
        }
        Ok(identities)
    }

    /// Nearly always a machine has the first identity that it may have, and then nobody else is asked for.
    fn first_choice(
        &self,
        owner: &Owner,
        machine: &str,
    ) -> Result<Option<Identity>, HypervisorError> {
        let first = owner.first(machine);
        let Ok(domain) = self.connect.lookup_domain_by_uuid(first.uuid) else {
            return Ok(None);
        };
        let name = domain.name().doing(|| "looking up a domain".into())?;
        let domain = Domain { domain, name };
        let record = domain.record()?;
        Ok(record
            .is_some_and(|it| it.machine == machine && owner.owns(&it))
            .then_some(Identity {
                uuid: first.uuid,
                domain: domain.name,
            }))
    }

    /// The machine as libvirt has it now.
    pub fn observe(&self, identity: &Identity) -> Result<Option<Observed>, HypervisorError> {
        match self.lookup(identity)? {
            Some(domain) => domain.observe(),
            None => Ok(None),
        }
    }

    /// Defines a machine's domain, or replaces the definition of one that stead made.
    pub fn define(&self, identity: &Identity, xml: &str) -> Result<Domain, HypervisorError> {
        // libvirt would redefine a domain of the same UUID without a word.
        if let Some(there) = self.lookup(identity)? {
            there.check_format()?;
        }
        let define = || {
            self.connect
                .define_domain_xml_flags(xml, sys::VIR_DOMAIN_DEFINE_VALIDATE)
        };
        let domain = match define() {
            // libvirt 9 fails so, now and then, while it probes QEMU for another definition too.
            Err(error) if error.message().contains(NO_CAUSE) => define(),
            done => done,
        }
        .doing(|| format!("defining domain {}", identity.domain))?;
        Ok(Domain {
            domain,
            name: identity.domain.clone(),
        })
    }
}

impl Domain {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For calls that the `virt` crate does not wrap; valid as long as self.
    pub(super) fn as_ptr(&self) -> sys::virDomainPtr {
        // SAFETY: who uses the pointer does so while self is there, as said above.
        unsafe { self.domain.as_ptr() }
    }

    /// For calls that it does wrap.
    pub(super) fn virt(&self) -> &VirtDomain {
        &self.domain
    }

    fn uuid(&self) -> Result<Uuid, HypervisorError> {
        self.domain
            .uuid()
            .doing(|| format!("reading domain {}", self.name))
    }

    pub fn power(&self) -> Result<Power, HypervisorError> {
        Ok(self.state()?.0)
    }

    /// The definition as it runs.
    pub(super) fn live_xml(&self) -> Result<String, HypervisorError> {
        self.xml(0)
    }

    /// The definition of the next boot, with passwords that libvirt shows to nobody else.
    pub fn next_xml(&self) -> Result<String, HypervisorError> {
        self.xml(sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE)
    }

    fn xml(&self, flags: u32) -> Result<String, HypervisorError> {
        self.domain
            .xml_desc(flags)
            .doing(|| format!("reading the definition of domain {}", self.name))
    }

    pub fn is_saved(&self) -> Result<bool, HypervisorError> {
        self.domain
            .has_managed_save(0)
            .doing(|| format!("reading the state of domain {}", self.name))
    }

    /// As it was when it was saved.
    fn saved_xml(&self) -> Option<String> {
        // SAFETY: the domain is valid as long as self; what libvirt hands out is a C string of its
        // own making, which is ours to free, once.
        unsafe {
            let text = sys::virDomainManagedSaveGetXMLDesc(self.as_ptr(), 0);
            if text.is_null() {
                return None;
            }
            let copy = std::ffi::CStr::from_ptr(text)
                .to_string_lossy()
                .into_owned();
            nix::libc::free(text.cast());
            Some(copy)
        }
    }

    /// What else there is to say of it than its record.
    fn condition(&self, power: Power, pause: Option<Pause>) -> Result<Condition, HypervisorError> {
        let saved = power == Power::Off && self.is_saved()?;
        let live = match power {
            Power::Off if saved => self.saved_xml(),
            Power::Off => None,
            _ => Some(self.live_xml()?),
        };
        // libvirt's own XML: one that cannot be read says nothing, and stops nobody.
        let parse = |xml: String| Layout::parse(&xml).ok();
        Ok(Condition {
            pause,
            saved,
            failed: power == Power::Off && self.has_failed()?,
            live: live.and_then(parse),
            // Without passwords, which a connection that only looks is not given.
            next: parse(self.xml(sys::VIR_DOMAIN_XML_INACTIVE)?),
        })
    }

    /// `None` for a domain that stead did not make.
    fn observe(&self) -> Result<Option<Observed>, HypervisorError> {
        let Some(mut record) = self.record()? else {
            return Ok(None);
        };
        let (power, pause) = self.state()?;
        let condition = self.condition(power, pause)?;
        if let Some(live) = &condition.live {
            record.take_over(live);
        }
        let running = match power {
            Power::Off => None,
            _ => self.running()?,
        };
        Ok(Some(Observed {
            identity: Identity {
                uuid: self.uuid()?,
                domain: self.name.clone(),
            },
            record,
            power,
            running,
            condition,
        }))
    }

    pub fn record(&self) -> Result<Option<Record>, HypervisorError> {
        // The persistent definition, not the live one: it is what the next start will use.
        self.element(MACHINE_URI, sys::VIR_DOMAIN_AFFECT_CONFIG)
    }

    pub fn running(&self) -> Result<Option<Running>, HypervisorError> {
        self.element(RUNNING_URI, sys::VIR_DOMAIN_AFFECT_LIVE)
            .or_else(|error| match error {
                // It stopped between the two looks.
                HypervisorError::Libvirt { code, .. } if code == sys::VIR_ERR_OPERATION_INVALID => {
                    Ok(None)
                }
                other => Err(other),
            })
    }

    fn element<T: for<'de> serde::Deserialize<'de>>(
        &self,
        uri: &'static str,
        flags: u32,
    ) -> Result<Option<T>, HypervisorError> {
        let xml =
            match self
                .domain
                .metadata(sys::VIR_DOMAIN_METADATA_ELEMENT as i32, Some(uri), flags)
            {
                Ok(xml) => xml,
                Err(error) if error.code().to_raw() == NO_METADATA => return Ok(None),
                Err(error) => {
                    return Err(HypervisorError::libvirt(
                        format!("reading the metadata of domain {}", self.name),
                        &error,
                    ));
                }
            };
        from_xml(&xml)
            .map(Some)
            .map_err(|message| HypervisorError::Record {
                domain: self.name.clone(),
                uri,
                message,
            })
    }

    /// Writes the record into the definition, and into the live domain too so that both agree.
    pub fn set_record(&self, record: &Record) -> Result<(), HypervisorError> {
        let xml = record_xml(record).map_err(|message| HypervisorError::Record {
            domain: self.name.clone(),
            uri: MACHINE_URI,
            message,
        })?;
        self.set(MACHINE_URI, &xml, sys::VIR_DOMAIN_AFFECT_CONFIG)
    }

    /// Marks the live domain; libvirt drops the mark when the domain stops.
    pub fn set_running(&self, running: &Running) -> Result<(), HypervisorError> {
        let xml = running_xml(running).map_err(|message| HypervisorError::Record {
            domain: self.name.clone(),
            uri: RUNNING_URI,
            message,
        })?;
        self.set(RUNNING_URI, &xml, sys::VIR_DOMAIN_AFFECT_LIVE)
    }

    /// What a newer stead wrote would lose what this one does not know.
    fn check_format(&self) -> Result<(), HypervisorError> {
        let found: Option<Format> = self.element(MACHINE_URI, sys::VIR_DOMAIN_AFFECT_CONFIG)?;
        match found {
            Some(Format { format }) if format > RECORD_FORMAT => {
                Err(HypervisorError::NewerRecord {
                    domain: self.name.clone(),
                    format,
                    known: RECORD_FORMAT,
                })
            }
            _ => Ok(()),
        }
    }

    fn set(&self, uri: &'static str, xml: &str, flags: u32) -> Result<(), HypervisorError> {
        self.check_format()?;
        self.domain
            .set_metadata(
                sys::VIR_DOMAIN_METADATA_ELEMENT as i32,
                Some(xml),
                Some(PREFIX),
                Some(uri),
                flags,
            )
            .doing(|| format!("writing the metadata of domain {}", self.name))
    }

    pub fn start(&self) -> Result<(), HypervisorError> {
        self.domain
            .create()
            .doing(|| format!("starting domain {}", self.name))
    }

    /// Asks the guest to shut down, through its agent or by ACPI. Returns at once.
    pub fn shut_down(&self, by: Ask) -> Result<(), HypervisorError> {
        let flags = match by {
            Ask::Agent => sys::VIR_DOMAIN_SHUTDOWN_GUEST_AGENT,
            Ask::Acpi => sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN,
        };
        self.domain
            .shutdown_flags(flags)
            .doing(|| format!("asking domain {} to shut down", self.name))
    }

    /// Whether something in the guest answers on the agent's channel within `timeout`.
    pub fn agent_answers(&self, timeout: Duration) -> bool {
        self.domain
            .qemu_agent_command(
                r#"{"execute":"guest-ping"}"#,
                i32::try_from(timeout.as_secs().max(1)).unwrap_or(1),
                0,
            )
            .is_ok()
    }

    /// Stops QEMU; the guest is not asked. That it is off already is no error.
    pub fn power_off(&self) -> Result<(), HypervisorError> {
        match self.domain.destroy() {
            Err(error) if error.code().to_raw() == sys::VIR_ERR_OPERATION_INVALID => Ok(()),
            Err(error) if error.code().to_raw() == NO_DOMAIN => Ok(()),
            other => other.doing(|| format!("stopping domain {}", self.name)),
        }
    }

    /// Takes the definition away, with saved state if any. That it is gone already is no error.
    pub fn undefine(&self) -> Result<(), HypervisorError> {
        let flags =
            sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA;
        match self.domain.undefine_flags(flags) {
            Err(error) if error.code().to_raw() == NO_DOMAIN => Ok(()),
            other => other.doing(|| format!("undefining domain {}", self.name)),
        }
    }
}

/// How to ask a guest to shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Agent,
    Acpi,
}
