//! The machines as this computer knows them: their names, their addresses and the ports on which they listen.

use std::{collections::BTreeMap, fs, io, net::Ipv4Addr};

use crate::{
    failure::Failure,
    host::{
        file,
        ports::{Protocol, has_address},
        process::run_as_root,
    },
    hypervisor::Survey,
    machine::{Observed, Owner},
    machinefile::Forward,
    network::{self, GuestPort, GuestPorts, domain_of},
    report::{clean::words, counted},
};

use super::{Detail, Session, networks};

/// Where the C library looks for names first (hosts(5)).
const HOSTS: &str = "/etc/hosts";

const SCRIPT: &str = include_str!("../../provisioners/host-names");

/// A machine as this computer knows it.
pub struct HostName {
    pub machine: String,
    pub address: Ipv4Addr,
    /// Below the domain of the project: its own name, then its aliases.
    pub names: Vec<String>,
    /// Its addresses on networks of the project.
    pub networks: Vec<Ipv4Addr>,
}

/// Returns a line for each forward of a machine that reaches nothing, because the program that listens where it leads is
/// reached within the guest only. `ports` are those of the machine.
pub fn useless_forwards(forwards: &[Forward], ports: &GuestPorts) -> Vec<String> {
    let is_useless = |forward: &&Forward| {
        let listens = |it: &GuestPort| it.port == forward.guest && it.is_local;
        forward.protocol == Protocol::Tcp && ports.ports.iter().any(listens)
    };
    (forwards.iter().filter(is_useless))
        .map(|forward| {
            format!(
                "forward {} reaches nothing: what listens on port {} does so on 127.0.0.1 of the guest only; let it listen on 0.0.0.0",
                forward.host, forward.guest
            )
        })
        .collect()
}

impl Session {
    /// Returns the machines that have an address of their own on this computer, in the order of the Machinefile.
    pub fn host_names(&self, survey: &Survey) -> Vec<HostName> {
        let wiring = self.wiring(survey, None);
        let domain = domain_of(&self.project.name);
        (wiring.guests.iter())
            .map(|guest| {
                let cards = wiring.networks.iter().flat_map(|network| &network.cards);
                let own = cards.filter(|card| card.machine == guest.machine);
                let mut names = vec![format!("{}.{domain}", guest.machine)];
                for alias in own.flat_map(|card| &card.aliases) {
                    let name = format!("{alias}.{domain}");
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                HostName {
                    machine: guest.machine.clone(),
                    address: guest.host_address,
                    names,
                    networks: guest.addresses.clone(),
                }
            })
            .collect()
    }

    /// Returns the ports on which machines listen, by their names. Machines that do not run are left out.
    pub fn guest_ports(&self, survey: &Survey) -> Result<BTreeMap<String, GuestPorts>, Failure> {
        let reply = networks::ask(self, Some(survey), network::look)?;
        let mut ports = reply.map(|reply| reply.ports).unwrap_or_default();
        let owner = self.owner();
        ports.retain(|machine, ports| {
            let observed = owner.find(&survey.machines, machine);
            let Some(observed) = observed.filter(|it| it.is_up()) else {
                return false;
            };
            self.name_holders(survey, observed, ports);
            true
        });
        Ok(ports)
    }

    /// Says of ports that another project's machine has at the same address of this computer that it has them.
    fn name_holders(&self, survey: &Survey, observed: &Observed, ports: &mut GuestPorts) {
        let missing = ports.ports.iter_mut().filter(|it| it.missing.is_some());
        let missing: Vec<_> = missing.collect();
        if missing.is_empty() {
            return;
        }
        let Some((address, other)) = networks::shares_address(self, survey, observed) else {
            return;
        };
        let files = networks::files_of(self, &Owner::of_record(&other.record));
        let reply = files.and_then(|files| network::look(&files).ok().flatten());
        let Some(theirs) = reply.and_then(|mut it| it.ports.remove(&other.record.machine)) else {
            return;
        };
        for port in missing {
            let is_theirs =
                |it: &GuestPort| it.port == port.port && it.addresses.contains(&address);
            if theirs.ports.iter().any(is_theirs) {
                port.missing = Some(format!(
                    "{} has port {} at {address}",
                    networks::named(other),
                    port.port
                ));
            }
        }
    }

    /// Returns what people should know of addresses on this computer that machines of other projects have too, by the
    /// names of the machines that run.
    pub fn shared_addresses(&self, survey: &Survey) -> BTreeMap<String, String> {
        let guests = self.wiring(survey, None).guests;
        (guests.iter())
            .filter_map(|guest| {
                let observed = self.owner().find(&survey.machines, &guest.machine)?;
                let observed = Some(observed).filter(|it| it.is_up())?;
                let (address, other) = networks::shares_address(self, survey, observed)?;
                Some((guest.machine.clone(), networks::shared(address, other)))
            })
            .collect()
    }

    /// Returns what people should know of the ways into machines and out of them, by their names. Nothing if none that
    /// runs has a network that leads there.
    pub fn way_notes(&self, survey: &Survey) -> BTreeMap<String, Vec<String>> {
        let led = survey.machines.iter().filter(|it| {
            let spec = &it.record.spec;
            let is_led = spec.login_card.is_some() || spec.egress.is_some();
            self.owner().owns(&it.record) && it.is_up() && is_led
        });
        let led: Vec<_> = led.collect();
        if led.is_empty() {
            return BTreeMap::new();
        }
        let Ok(Some(reply)) = networks::look_at_led(self, survey, &led) else {
            return BTreeMap::new();
        };
        (led.into_iter())
            .map(|observed| {
                let name = &observed.record.machine;
                let cards = observed.record.wired_cards();
                let is_guarded = observed.record.spec.egress.is_some();
                let way = (cards.first().filter(|_| is_guarded))
                    .and_then(|card| reply.ways_out.get(&card.network));
                let mut notes: Vec<String> = (way.iter())
                    .map(|said| format!("has no way out: {}", words(said)))
                    .collect();
                let unopened = reply.unopened.get(name).into_iter().flatten();
                notes.extend(
                    unopened
                        .map(|it| format!("{} does not lead to it: {}", it.host, words(&it.said))),
                );
                if let Some(ports) = reply.ports.get(name) {
                    notes.extend(useless_forwards(&observed.record.spec.forwards, ports));
                }
                let times = reply
                    .refusals
                    .get(name)
                    .map_or(0, |refusals| refusals.times);
                if times > 0 {
                    notes.push(format!(
                        "tried {} to reach what it may not; `stead link` lists it",
                        counted(times, "time")
                    ));
                }
                (name.clone(), notes)
            })
            .collect()
    }

    /// The name of the project's lines in /etc/hosts.
    fn mark(&self) -> String {
        format!("{} {}", self.project.name, self.owner().short())
    }

    fn has_lines(&self) -> bool {
        hosts().is_some_and(|text| {
            let begin = format!("# begin stead {}", self.mark());
            text.lines().any(|line| line == begin)
        })
    }

    /// Returns what this computer still has of machines that are gone, and how to remove it: names in /etc/hosts, and
    /// `addresses` on its loopback interface.
    pub fn names_left(&self, addresses: &[Ipv4Addr]) -> Option<String> {
        let own: Vec<Ipv4Addr> = (addresses.iter().copied())
            .filter(|it| has_address(*it))
            .collect();
        let by_hand = matches!(self.detail, Detail::Recorded { .. });
        left(
            self.has_lines(),
            &own,
            by_hand.then(|| self.mark()).as_deref(),
        )
    }

    /// Puts lines into /etc/hosts, instead of those that the project has there, and `addresses` on the loopback
    /// interface. Asks for root's rights through sudo.
    pub fn install_names(
        &self,
        survey: &Survey,
        lines: &str,
        addresses: &[Ipv4Addr],
    ) -> Result<(), Failure> {
        let given = addresses.iter().map(|it| format!("+{it}")).collect();
        self.change_hosts(lines, given)?;
        networks::addresses_changed(self, survey)
    }

    /// Removes them again. Returns whether there was anything.
    pub fn remove_names(&self, survey: &Survey, addresses: &[Ipv4Addr]) -> Result<bool, Failure> {
        let own: Vec<String> = (addresses.iter().filter(|it| has_address(**it)))
            .map(|it| format!("-{it}"))
            .collect();
        if !self.has_lines() && own.is_empty() {
            return Ok(false);
        }
        self.change_hosts("", own)?;
        networks::addresses_changed(self, survey)?;
        Ok(true)
    }

    fn change_hosts(&self, lines: &str, addresses: Vec<String>) -> Result<(), Failure> {
        let input = file::without_name(lines.as_bytes())
            .map_err(|error| Failure::io("write the lines to a temporary file", &error))?;
        let mark = self.mark();
        let fixed = ["host-names", HOSTS, &mark].map(String::from);
        let status = run_as_root(SCRIPT, fixed.into_iter().chain(addresses), input);
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::error(
                format!("{HOSTS} has not been changed: {status}"),
                "`stead hosts` prints the lines, to put them there by hand",
            )),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::error(
                "only root can change /etc/hosts, and there is no sudo",
                "`stead hosts` prints the lines, to put them there as root",
            )),
            Err(error) => Err(Failure::io("run sudo", &error)),
        }
    }
}

/// As [`Session::names_left`]. `mark`: the name of the lines, if they must be removed by hand, because no Machinefile is
/// left to run `stead hosts` with.
fn left(has_lines: bool, addresses: &[Ipv4Addr], mark: Option<&str>) -> Option<String> {
    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let mut what: Vec<String> = Vec::new();
    let mut remedies: Vec<String> = Vec::new();
    if has_lines {
        what.push(format!("the project's names in {HOSTS}"));
        remedies.extend(mark.map(|mark| {
            format!("delete the lines from `# begin stead {mark}` to `# end stead {mark}` as root")
        }));
    }
    if !list.is_empty() {
        what.push(format!(
            "its addresses on this computer's loopback interface ({})",
            list.join(", ")
        ));
        remedies.extend(mark.and(list.first()).map(|first| {
            format!("run `ip address delete {first}/32 dev lo` as root for each address")
        }));
    }
    if what.is_empty() {
        return None;
    }
    let remedy = match mark {
        Some(_) => remedies.join(", and "),
        None => "`stead hosts --remove` removes them".into(),
    };
    Some(format!("{} stay: {remedy}", what.join(", and ")))
}

fn hosts() -> Option<String> {
    let text = fs::read(HOSTS).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Whether this computer knows the address by this name.
pub fn is_known(name: &str, address: Ipv4Addr) -> bool {
    hosts().is_some_and(|text| knows(&text, name, address))
}

/// The first line with the name counts (hosts(5)).
fn knows(hosts: &str, name: &str, address: Ipv4Addr) -> bool {
    let line = (hosts.lines())
        .map(|line| line.split('#').next().unwrap_or_default())
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|line| line.iter().skip(1).any(|it| *it == name));
    line.is_some_and(|line| line.first().is_some_and(|it| *it == address.to_string()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::host::process;

    #[test]
    fn a_name_is_what_the_first_line_says() {
        let text = "127.0.0.1 localhost # db.shop.internal\n127.77.0.10 x.internal db.shop.internal\n\
                    127.77.0.11 db.shop.internal\n";
        let address = |last| Ipv4Addr::new(127, 77, 0, last);
        assert!(knows(text, "db.shop.internal", address(10)));
        assert!(knows(text, "x.internal", address(10)));
        assert!(!knows(text, "db.shop.internal", address(11)));
        assert!(!knows(text, "internal", address(10)));
        assert!(!knows("", "db.shop.internal", address(10)));
    }

    #[test]
    fn a_forward_to_what_is_reached_within_the_guest_only_is_named() {
        let port = |port, is_local| GuestPort {
            port,
            addresses: Vec::new(),
            is_local,
            missing: None,
        };
        let ports = GuestPorts {
            known: true,
            ports: vec![port(80, true), port(81, false)],
        };
        let udp = Forward {
            protocol: Protocol::Udp,
            ..Forward::tcp(8082, 80)
        };
        let forwards = [Forward::tcp(8080, 80), Forward::tcp(8081, 81), udp];
        assert_eq!(
            useless_forwards(&forwards, &ports),
            [
                "forward 8080 reaches nothing: what listens on port 80 does so on 127.0.0.1 of the guest only; let it listen on 0.0.0.0"
            ]
        );
    }

    #[test]
    fn what_stays_of_a_destroyed_project_is_said_with_how_to_remove_it() {
        let addresses = [Ipv4Addr::new(10, 77, 0, 10), Ipv4Addr::new(10, 77, 0, 11)];
        assert_eq!(left(false, &[], None), None);
        let said = [
            left(true, &[], None),
            left(false, &addresses, None),
            left(true, &addresses[..1], Some("shop 1a2b3c")),
        ];
        let said: Vec<String> = said.into_iter().flatten().collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    /// Runs the script on a file. Returns whether it succeeded.
    fn change(file: &Path, lines: &str) -> Result<(), String> {
        let said = process::Command::new("sh", "dash")
            .args(["-c", SCRIPT, "host-names"])
            .arg(file)
            .arg("shop 1a2b3c")
            .input(lines)
            .succeed();
        said.map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_are_put_there_replaced_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("hosts"), dir.path().join("link"));
        let others = "127.0.0.1 localhost\n# begin stead other 000000\n# end stead other 000000\n";
        fs::write(&file, others.trim_end()).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let text = || fs::read_to_string(&file).unwrap();
        let block = |lines: &str| {
            format!("{others}# begin stead shop 1a2b3c\n{lines}\n# end stead shop 1a2b3c\n")
        };
        change(&link, "127.77.0.10 db.shop.internal\n").unwrap();
        assert_eq!(text(), block("127.77.0.10 db.shop.internal"));
        change(
            &file,
            "127.77.0.10 db.shop.internal\n127.77.0.11 web.shop.internal",
        )
        .unwrap();
        assert_eq!(
            text(),
            block("127.77.0.10 db.shop.internal\n127.77.0.11 web.shop.internal")
        );
        change(&file, "").unwrap();
        assert_eq!(text(), others);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        // Somebody deleted the end: nothing of what follows may be lost.
        let broken = format!("# begin stead shop 1a2b3c\n{others}");
        for broken in [&broken, &broken.replace("begin", "end")] {
            fs::write(&file, broken).unwrap();
            let said = change(&file, "127.77.0.10 db").unwrap_err();
            assert!(said.contains("are no pair any more"), "{said}");
            assert_eq!(text(), *broken);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn lines_that_end_in_crlf_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts");
        let text = || fs::read_to_string(&file).unwrap();
        let others = "127.0.0.1 localhost\r\n10.0.0.1 router\n::1 ip6\r\n";
        let block = "# begin stead shop 1a2b3c\n127.77.0.10 db\n# end stead shop 1a2b3c\n";
        fs::write(&file, others).unwrap();
        change(&file, "127.77.0.10 db").unwrap();
        assert_eq!(text(), format!("{others}{block}"));
        // An editor has turned all lines into CRLF, also those of the project.
        let windows = text().replace("\r\n", "\n").replace('\n', "\r\n");
        fs::write(&file, windows).unwrap();
        change(&file, "127.77.0.10 db").unwrap();
        let others = others.replace("\r\n", "\n").replace('\n', "\r\n");
        assert_eq!(text(), format!("{others}{block}"));
        change(&file, "").unwrap();
        assert_eq!(text(), others);
    }
}
