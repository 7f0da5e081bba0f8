//! What machines use, for all of them in one call. The `virt` crate returns libvirt's records as pointers, so there
//! is unsafe code here (libvirt.org/html/libvirt-libvirt-domain.html).

use std::{ffi::CStr, net::IpAddr, ptr, slice};

use uuid::Uuid;
use virt::{error::Error, sys};

use crate::network::Mac;

use super::{connection::Connection, domain::Domain, error::HypervisorError};

/// What a running machine has used since it started, and uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub uuid: Uuid,
    /// The CPU time of the vCPUs and of QEMU itself, in ns.
    pub cpu_time: u64,
    /// The guest's memory, in bytes; less than its maximum if a balloon has taken some away.
    pub memory: u64,
    /// The host's memory that QEMU takes up, in bytes.
    pub resident: u64,
    pub disk: Transfer,
}

/// What all disks of a machine together have transferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// What a guest's network cards together have transferred, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub received: u64,
    pub sent: u64,
}

const WANTED: u32 =
    sys::VIR_DOMAIN_STATS_CPU_TOTAL | sys::VIR_DOMAIN_STATS_BALLOON | sys::VIR_DOMAIN_STATS_BLOCK;

/// NOWAIT: if a domain is busy with a job on its monitor, libvirt leaves out what only its QEMU knows, instead of
/// waiting.
const HOW: u32 =
    sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE | sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;

impl Connection {
    /// Returns the statistics of every running domain, even if stead did not make it.
    ///
    /// # Errors
    /// If libvirt does not answer.
    pub fn statistics(&self) -> Result<Vec<Statistics>, HypervisorError> {
        tracing::debug!("libvirt: reading the statistics of all domains");
        let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
        // SAFETY: the connection is valid as long as self; libvirt sets the list.
        let count = unsafe {
            sys::virConnectGetAllDomainStats(self.connect.as_ptr(), WANTED, &mut records, HOW)
        };
        let Ok(count) = usize::try_from(count) else {
            return Err(HypervisorError::libvirt(
                "asking for the statistics of domains",
                &Error::last_error(),
            ));
        };
        let mut all = Vec::with_capacity(count);
        for n in 0..count {
            // SAFETY: the list has `count` records until it is freed below, and none of them is NULL.
            let record = unsafe { &**records.add(n) };
            let parameters = match usize::try_from(record.nparams) {
                Ok(length) if length > 0 && !record.params.is_null() => {
                    // SAFETY: a record has as many parameters as it says; the pointer may be NULL if there are none.
                    unsafe { slice::from_raw_parts(record.params, length) }
                }
                _ => &[],
            };
            let mut uuid = [0u8; 16];
            // SAFETY: the record's domain is valid until the list is freed; a UUID has 16 bytes.
            if unsafe { sys::virDomainGetUUID(record.dom, uuid.as_mut_ptr()) } < 0 {
                continue;
            }
            all.push(read(
                Uuid::from_bytes(uuid),
                parameters.iter().filter_map(number),
            ));
        }
        // SAFETY: libvirt allocated the list for the caller, and nothing points into it any more.
        unsafe { sys::virDomainStatsRecordListFree(records) };
        Ok(all)
    }
}

/// Returns a parameter's name and value, if it is an unsigned number.
fn number(parameter: &sys::virTypedParameter) -> Option<(String, u64)> {
    // SAFETY: libvirt ends the name within its field, and `type_` tells which member is set.
    let (name, value) = unsafe {
        let value = match u32::try_from(parameter.type_).ok()? {
            sys::VIR_TYPED_PARAM_ULLONG => parameter.value.ul,
            sys::VIR_TYPED_PARAM_UINT => u64::from(parameter.value.ui),
            _ => return None,
        };
        (CStr::from_ptr(parameter.field.as_ptr()), value)
    };
    Some((name.to_str().ok()?.to_string(), value))
}

fn read(uuid: Uuid, parameters: impl Iterator<Item = (String, u64)>) -> Statistics {
    let mut found = Statistics {
        uuid,
        ..Statistics::default()
    };
    for (name, value) in parameters {
        match name.as_str() {
            "cpu.time" => found.cpu_time = value,
            "balloon.current" => found.memory = value * 1024,
            "balloon.rss" => found.resident = value * 1024,
            name => {
                // block.<number>.<what>
                let disk = &mut found.disk;
                match name
                    .strip_prefix("block.")
                    .and_then(|rest| rest.split_once('.'))
                {
                    Some((_, "rd.bytes")) => disk.read_bytes += value,
                    Some((_, "wr.bytes")) => disk.written_bytes += value,
                    Some((_, "rd.reqs")) => disk.reads += value,
                    Some((_, "wr.reqs")) => disk.writes += value,
                    _ => {}
                }
            }
        }
    }
    found
}

impl Domain {
    /// Returns what the guest counts on its network cards; `None` if its agent does not answer within a second. The
    /// agent is asked because libvirt does not know of the card of QEMU's user-mode network.
    pub fn traffic(&self) -> Option<Traffic> {
        traffic_of(&self.guest_interfaces()?)
    }

    /// Returns the addresses that the guest has on its network cards; nothing if its agent does not answer within a
    /// second. Those that it needs no network for (loopback, link-local) are left out.
    pub fn guest_addresses(&self) -> Vec<(Mac, IpAddr)> {
        (self.guest_interfaces().as_deref()).map_or_else(Vec::new, addresses_of)
    }

    fn guest_interfaces(&self) -> Option<String> {
        (self.virt())
            .qemu_agent_command(r#"{"execute":"guest-network-get-interfaces"}"#, 1, 0)
            .ok()
    }
}

/// How many addresses of a guest are read. It may report any number.
const MOST_ADDRESSES: usize = 64;

fn addresses_of(answer: &str) -> Vec<(Mac, IpAddr)> {
    let answer: serde_json::Value = serde_json::from_str(answer).unwrap_or_default();
    let cards = answer["return"].as_array().into_iter().flatten();
    let of_card = |card: &serde_json::Value| -> Vec<(Mac, IpAddr)> {
        let mac = card["hardware-address"].as_str();
        let Some(mac) = mac.and_then(|mac| mac.parse().ok()) else {
            return Vec::new();
        };
        let all = card["ip-addresses"].as_array().into_iter().flatten();
        all.filter_map(|it| it["ip-address"].as_str()?.parse().ok())
            .filter(|address: &IpAddr| match address {
                IpAddr::V4(it) => !it.is_loopback() && !it.is_link_local(),
                IpAddr::V6(it) => !it.is_loopback() && !it.is_unicast_link_local(),
            })
            .map(|address| (mac, address))
            .collect()
    };
    cards.flat_map(of_card).take(MOST_ADDRESSES).collect()
}

fn traffic_of(answer: &str) -> Option<Traffic> {
    let answer: serde_json::Value = serde_json::from_str(answer).ok()?;
    let mut total = Traffic::default();
    let cards = answer.get("return")?.as_array()?;
    for card in cards.iter().filter(|card| card["name"] != "lo") {
        // The guest may report anything, so the sums must not overflow.
        let bytes = |what: &str| card["statistics"][what].as_u64().unwrap_or(0);
        total.received = total.received.saturating_add(bytes("rx-bytes"));
        total.sent = total.sent.saturating_add(bytes("tx-bytes"));
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_add_up() {
        let parameters = [
            ("cpu.time", 5),
            ("balloon.current", 2),
            ("balloon.rss", 3),
            ("block.count", 2),
            ("block.0.rd.bytes", 10),
            ("block.0.wr.reqs", 1),
            ("block.1.rd.bytes", 20),
            ("block.1.wr.bytes", 7),
            ("block.0.rd.times", 99),
        ];
        let found = read(
            Uuid::nil(),
            parameters
                .map(|(name, value)| (name.into(), value))
                .into_iter(),
        );
        assert_eq!(
            found,
            Statistics {
                uuid: Uuid::nil(),
                cpu_time: 5,
                memory: 2048,
                resident: 3072,
                disk: Transfer {
                    read_bytes: 30,
                    written_bytes: 7,
                    reads: 0,
                    writes: 1
                },
            }
        );
    }

    #[test]
    fn a_guest_is_not_believed_to_answer_well() {
        let answer = r#"{"return":[{"name":"lo","statistics":{"rx-bytes":9}},
            {"name":"ens16","statistics":{"rx-bytes":100,"tx-bytes":18446744073709551615}},
            {"name":"odd","statistics":{"rx-bytes":"x","tx-bytes":7}},{}]}"#;
        assert_eq!(
            traffic_of(answer),
            Some(Traffic {
                received: 100,
                sent: u64::MAX
            })
        );
        assert_eq!(addresses_of(answer), []);
        let answer = r#"{"return":[{"name":"lo","ip-addresses":[{"ip-address":"127.0.0.1"}]},
            {"name":"ens24","hardware-address":"52:54:00:0a:0b:0c","ip-addresses":[
                {"ip-address-type":"ipv4","ip-address":"192.168.1.50","prefix":24},
                {"ip-address":"fe80::1"},{"ip-address":"2001:db8::5"},{"ip-address":"x; reboot"},{}]},
            {"hardware-address":7,"ip-addresses":3}]}"#;
        let mac: Mac = "52:54:00:0a:0b:0c".parse().unwrap();
        assert_eq!(
            addresses_of(answer),
            [
                (mac, IpAddr::from([192, 168, 1, 50])),
                (mac, "2001:db8::5".parse().unwrap())
            ]
        );
        assert_eq!(traffic_of("{}"), None);
        assert_eq!(traffic_of("no JSON"), None);
    }
}
