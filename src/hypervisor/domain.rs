//! The domains that stead made.

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
    /// Domains whose record cannot be read, because another version of stead wrote it, or it was edited. stead
    /// still works on the others.
    pub unreadable: Vec<Unreadable>,
}

#[derive(Debug)]
pub struct Unreadable {
    pub domain: String,
    pub uuid: Uuid,
    pub error: HypervisorError,
}

impl Survey {
    /// Like [`Connection::identify`], from this survey.
    pub fn identify(&self, owner: &Owner, machine: &str) -> Identity {
        match owner.find(&self.machines, machine) {
            Some(observed) => observed.identity.clone(),
            None => owner.free(&self.machines, machine),
        }
    }
}

/// A domain with stead's record.
#[derive(Clone)]
pub struct Domain {
    domain: VirtDomain,
    name: String,
}

/// The text of virErrorGenericFailure (libvirt, src/util/virerror.c) for a failure without an error.
const NO_CAUSE: &str = "the cause is unknown";

const NO_DOMAIN: u32 = sys::VIR_ERR_NO_DOMAIN;
const NO_METADATA: u32 = sys::VIR_ERR_NO_DOMAIN_METADATA;

impl Connection {
    /// Returns all machines of all projects on this connection.
    ///
    /// # Errors
    /// If libvirt does not answer.
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
                // It was removed after the list was made.
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

    /// Returns the machine's domain, if there is one.
    ///
    /// # Errors
    /// If a domain of that name or UUID exists that stead did not make, or libvirt does not answer.
    pub fn lookup(&self, identity: &Identity) -> Result<Option<Domain>, HypervisorError> {
        tracing::debug!("libvirt: looking up domain {}", identity.domain);
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

    /// Returns the identity of the project's machine of that name: that of the existing domain, or the one for a new
    /// domain.
    ///
    /// # Errors
    /// If libvirt does not answer.
    pub fn identify(&self, owner: &Owner, machine: &str) -> Result<Identity, HypervisorError> {
        match self.first_choice(owner, machine)? {
            Some(identity) => Ok(identity),
            None => Ok(self.survey()?.identify(owner, machine)),
        }
    }

    /// Does what [`Self::identify`] does for each name, in their order, with at most one survey.
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

    /// Returns a machine's first possible identity, if it has that one, as it nearly always does. Then no other domain
    /// needs to be read.
    fn first_choice(
        &self,
        owner: &Owner,
        machine: &str,
    ) -> Result<Option<Identity>, HypervisorError> {
        let first = owner.first(machine);
        tracing::debug!("libvirt: looking up domain {}", first.domain);
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

    /// Returns the machine's present state; `None` if it does not exist.
    ///
    /// # Errors
    /// If its record cannot be read, or libvirt does not answer.
    pub fn observe(&self, identity: &Identity) -> Result<Option<Observed>, HypervisorError> {
        match self.lookup(identity)? {
            Some(domain) => domain.observe(),
            None => Ok(None),
        }
    }

    /// Defines a machine's domain, or replaces the definition of one that stead made.
    ///
    /// # Errors
    /// If another program or a newer stead made the domain, or libvirt refuses the definition.
    pub fn define(&self, identity: &Identity, xml: &str) -> Result<Domain, HypervisorError> {
        // libvirt would redefine any domain of the same UUID.
        if let Some(there) = self.lookup(identity)? {
            there.check_format()?;
        }
        let define = || {
            self.connect
                .define_domain_xml_flags(xml, sys::VIR_DOMAIN_DEFINE_VALIDATE)
        };
        let domain = match define() {
            // libvirt 9 sometimes fails like this while it probes QEMU for another definition.
            Err(error) if error.message().contains(NO_CAUSE) => define(),
            done => done,
        }
        .doing(|| format!("defining domain {}", identity.domain))?;
        Ok(Domain {
            domain,
            name: identity.domain.clone(),
        })
    }

    /// Stores the definition of a domain that runs without one, as it runs.
    ///
    /// # Errors
    /// If it is gone, or libvirt refuses.
    pub fn persist(&self, identity: &Identity) -> Result<(), HypervisorError> {
        match self.lookup(identity)? {
            Some(domain) if !domain.is_persistent()? => {
                let xml = domain.next_xml()?;
                self.define(identity, &xml)?.store_no_mark()
            }
            _ => Ok(()),
        }
    }
}

impl Domain {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// For calls that the `virt` crate does not wrap. The pointer is valid as long as self.
    pub(super) fn as_ptr(&self) -> sys::virDomainPtr {
        // SAFETY: callers use the pointer only while self lives, as said above.
        unsafe { self.domain.as_ptr() }
    }

    /// For calls that the `virt` crate wraps.
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

    /// Returns the definition as it runs.
    pub(super) fn live_xml(&self) -> Result<String, HypervisorError> {
        self.xml(0)
    }

    /// Returns the definition for the next boot, with passwords, which libvirt shows only to connections that may
    /// write.
    ///
    /// # Errors
    /// If libvirt does not answer.
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

    /// Returns the definition with which the domain was saved.
    fn saved_xml(&self) -> Option<String> {
        tracing::debug!(
            "libvirt: reading the saved definition of domain {}",
            self.name
        );
        // SAFETY: the domain is valid as long as self; libvirt returns a C string, which the caller must free
        // once.
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

    /// Returns what is not in its record.
    fn condition(&self, power: Power, pause: Option<Pause>) -> Result<Condition, HypervisorError> {
        let saved = power == Power::Off && self.is_saved()?;
        let live = match power {
            Power::Off if saved => self.saved_xml(),
            Power::Off => None,
            _ => Some(self.live_xml()?),
        };
        // If libvirt's own XML cannot be read, stead works without it.
        let parse = |xml: String| Layout::parse(&xml).ok();
        Ok(Condition {
            pause,
            was_paused: power == Power::Running && self.was_paused()?,
            rebooting: false,
            saved,
            failed: power == Power::Off && self.has_failed()?,
            transient: power != Power::Off && !self.is_persistent()?,
            live: live.and_then(parse),
            // Without passwords, which a read-only connection does not get.
            next: parse(self.xml(sys::VIR_DOMAIN_XML_INACTIVE)?),
        })
    }

    /// Returns the machine's present state; `None` for a domain that stead did not make.
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
        self.stored(MACHINE_URI)
    }

    /// Reads metadata of the stored definition, because the next start uses that one. A transient domain (`virsh create`,
    /// or `virsh undefine` while it runs) has only the live one.
    fn stored<T: for<'de> serde::Deserialize<'de>>(
        &self,
        uri: &'static str,
    ) -> Result<Option<T>, HypervisorError> {
        match self.element(uri, sys::VIR_DOMAIN_AFFECT_CONFIG) {
            Err(HypervisorError::Libvirt { code, .. }) if self.has_no_definition(code) => {
                self.live(uri)
            }
            other => other,
        }
    }

    fn is_persistent(&self) -> Result<bool, HypervisorError> {
        self.domain
            .is_persistent()
            .doing(|| format!("reading the state of domain {}", self.name))
    }

    /// Whether an operation on the stored definition failed with this code because there is none.
    fn has_no_definition(&self, code: u32) -> bool {
        code == sys::VIR_ERR_OPERATION_INVALID && self.domain.is_persistent().is_ok_and(|is| !is)
    }

    pub fn running(&self) -> Result<Option<Running>, HypervisorError> {
        self.live(RUNNING_URI)
    }

    fn live<T: for<'de> serde::Deserialize<'de>>(
        &self,
        uri: &'static str,
    ) -> Result<Option<T>, HypervisorError> {
        self.element(uri, sys::VIR_DOMAIN_AFFECT_LIVE)
            .or_else(|error| match error {
                // It stopped between the two calls.
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
        tracing::debug!("libvirt: reading the metadata of domain {}", self.name);
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

    /// Writes the record into the stored definition.
    ///
    /// # Errors
    /// If a newer stead wrote the present record, or libvirt refuses.
    pub fn set_record(&self, record: &Record) -> Result<(), HypervisorError> {
        let xml = record_xml(record).map_err(|message| HypervisorError::Record {
            domain: self.name.clone(),
            uri: MACHINE_URI,
            message,
        })?;
        match self.set(MACHINE_URI, &xml, sys::VIR_DOMAIN_AFFECT_CONFIG) {
            Err(HypervisorError::Libvirt { code, .. }) if self.has_no_definition(code) => {
                self.set(MACHINE_URI, &xml, sys::VIR_DOMAIN_AFFECT_LIVE)
            }
            other => other,
        }
    }

    /// Marks the live domain. libvirt drops the mark when the domain stops.
    ///
    /// # Errors
    /// If a newer stead wrote the machine's record, or libvirt refuses.
    pub fn set_running(&self, running: &Running) -> Result<(), HypervisorError> {
        let xml = running_xml(running).map_err(|message| HypervisorError::Record {
            domain: self.name.clone(),
            uri: RUNNING_URI,
            message,
        })?;
        self.set(RUNNING_URI, &xml, sys::VIR_DOMAIN_AFFECT_LIVE)
    }

    /// Changes the mark of the live domain. One without a mark gets one.
    ///
    /// # Errors
    /// As [`Domain::running`] and [`Domain::set_running`].
    pub fn change_running(&self, change: impl FnOnce(&mut Running)) -> Result<(), HypervisorError> {
        let mut running = self.running()?.unwrap_or_default();
        change(&mut running);
        self.set_running(&running)
    }

    /// Removes the mark of a live domain from the stored definition, where it would outlast the run.
    fn store_no_mark(&self) -> Result<(), HypervisorError> {
        self.domain
            .set_metadata(
                sys::VIR_DOMAIN_METADATA_ELEMENT as i32,
                None,
                Some(PREFIX),
                Some(RUNNING_URI),
                sys::VIR_DOMAIN_AFFECT_CONFIG,
            )
            .doing(|| format!("writing the metadata of domain {}", self.name))
    }

    /// Refuses to change a domain of a newer stead: this one would lose what it does not know.
    fn check_format(&self) -> Result<(), HypervisorError> {
        let found: Option<Format> = self.stored(MACHINE_URI)?;
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

    /// As [`Self::start`], with the variables of UEFI that the firmware comes with. What the machine had is lost.
    ///
    /// # Errors
    /// If libvirt cannot start it.
    pub fn start_with_new_variables(&self) -> Result<(), HypervisorError> {
        self.domain
            .create_with_flags(sys::VIR_DOMAIN_START_RESET_NVRAM)
            .doing(|| format!("starting domain {} with new UEFI variables", self.name))
    }

    /// Asks the guest to shut down, through its agent or by ACPI. Returns at once.
    ///
    /// # Errors
    /// If libvirt or the agent does not answer.
    pub fn shut_down(&self, by: ShutdownMethod) -> Result<(), HypervisorError> {
        let flags = match by {
            ShutdownMethod::Agent => sys::VIR_DOMAIN_SHUTDOWN_GUEST_AGENT,
            ShutdownMethod::Acpi => sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN,
        };
        self.domain
            .shutdown_flags(flags)
            .doing(|| format!("asking domain {} to shut down", self.name))
    }

    /// Whether the guest's agent has opened its channel.
    ///
    /// # Errors
    /// If libvirt does not answer.
    pub fn has_agent(&self) -> Result<bool, HypervisorError> {
        let xml = self.live_xml()?;
        Ok(Layout::parse(&xml).is_ok_and(|live| live.agent))
    }

    /// Whether an agent in the guest answers within `timeout`.
    pub fn agent_answers(&self, timeout: Duration) -> bool {
        self.domain
            .qemu_agent_command(
                r#"{"execute":"guest-ping"}"#,
                i32::try_from(timeout.as_secs().max(1)).unwrap_or(1),
                0,
            )
            .is_ok()
    }

    /// Stops QEMU without asking the guest. If it is off already, there is nothing to do.
    ///
    /// # Errors
    /// If libvirt cannot stop it.
    pub fn power_off(&self) -> Result<(), HypervisorError> {
        tracing::debug!("libvirt: ending domain {}", self.name);
        match self.domain.destroy() {
            Err(error) if error.code().to_raw() == sys::VIR_ERR_OPERATION_INVALID => Ok(()),
            Err(error) if error.code().to_raw() == NO_DOMAIN => Ok(()),
            other => other.doing(|| format!("stopping domain {}", self.name)),
        }
    }

    /// Removes the definition, with saved memory, the variables of UEFI and the state of a TPM if it has any. If it does
    /// not exist, there is nothing to do.
    ///
    /// # Errors
    /// If libvirt cannot remove it.
    pub fn undefine(&self) -> Result<(), HypervisorError> {
        // The state of a TPM goes without a flag, unless the definition asks libvirt to keep it. Only some of libvirt's
        // drivers know variables.
        let variables = match self.record() {
            Ok(Some(record)) if record.firmware.variables => sys::VIR_DOMAIN_UNDEFINE_NVRAM,
            _ => 0,
        };
        let flags = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
            | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | variables;
        tracing::debug!("libvirt: removing the definition of domain {}", self.name);
        let is_gone = |code| code == NO_DOMAIN || self.has_no_definition(code);
        match self.domain.undefine_flags(flags) {
            Err(error) if is_gone(error.code().to_raw()) => Ok(()),
            other => other.doing(|| format!("undefining domain {}", self.name)),
        }
    }
}

/// How to ask a guest to shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMethod {
    Agent,
    Acpi,
}
