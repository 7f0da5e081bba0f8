//! The project as an inventory for Ansible: hosts, groups, variables. Pure.
//!
//! `stead inventory`, runs on the host and runs in a guest all use it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
};

use serde_json::{Map, Value, json};

use crate::{
    guest::MachineFiles,
    host::ports::Protocol,
    machinefile::{ALL, Forward, Machine, Project, implied_groups},
};

/// How to reach a running machine.
#[derive(Clone, Debug)]
pub struct Reach {
    pub user: String,
    /// On 127.0.0.1.
    pub port: u16,
    pub files: MachineFiles,
    /// Its forwards, as it runs now.
    pub forwards: Vec<Forward>,
    /// Its addresses, by the names of networks.
    pub addresses: BTreeMap<String, Ipv4Addr>,
}

#[derive(Clone, Debug, Default)]
struct Group {
    hosts: BTreeSet<String>,
    children: BTreeSet<String>,
    vars: Map<String, Value>,
}

#[derive(Clone, Debug)]
pub struct Inventory {
    hosts: BTreeMap<String, Map<String, Value>>,
    /// All groups except `all`, which is made from the rest.
    groups: BTreeMap<String, Group>,
    /// Variables of `all`.
    vars: Map<String, Value>,
}

impl Inventory {
    /// Makes an inventory from the Machinefile alone, without how to reach machines.
    pub fn of(project: &Project) -> Self {
        let mut inventory = Inventory {
            hosts: BTreeMap::new(),
            groups: BTreeMap::new(),
            vars: Map::new(),
        };
        for machine in &project.machines {
            inventory
                .hosts
                .insert(machine.name.clone(), host_vars(project, machine));
            for group in implied_groups(machine) {
                let group = inventory.groups.entry(group).or_default();
                group.hosts.insert(machine.name.clone());
            }
        }
        for said in &project.groups {
            if said.name == ALL {
                inventory.vars = said.vars.to_json();
                continue;
            }
            let group = inventory.groups.entry(said.name.clone()).or_default();
            group.hosts.extend(said.machines.iter().cloned());
            group.children.extend(said.children.iter().cloned());
            group.vars.extend(said.vars.to_json());
            for child in &said.children {
                inventory.groups.entry(child.clone()).or_default();
            }
        }
        inventory
    }

    /// Adds how to reach a machine. Variables that the Machinefile sets take precedence.
    pub fn reach(&mut self, name: &str, reach: &Reach) {
        let Some(vars) = self.hosts.get_mut(name) else {
            return;
        };
        let mut all = connection_vars(reach);
        all.extend(std::mem::take(vars));
        all.remove(FAR);
        all.extend(forwards(&reach.forwards));
        // A record can be edited, and keys cannot be marked as data.
        let is_plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let addresses: BTreeMap<&String, Ipv4Addr> = (reach.addresses.iter())
            .filter(|(name, _)| is_plain(name))
            .map(|(name, address)| (name, *address))
            .collect();
        all.insert("stead_addresses".into(), json!(addresses));
        *vars = all;
    }

    /// Marks the machine as the one that Ansible itself runs in.
    pub fn is_local(&mut self, name: &str) {
        if let Some(vars) = self.hosts.get_mut(name) {
            vars.entry("ansible_connection").or_insert("local".into());
        }
    }

    /// Keeps these hosts and removes all others; groups are kept.
    pub fn keep(&mut self, kept: impl Fn(&str) -> bool) {
        self.hosts.retain(|name, _| kept(name));
        for group in self.groups.values_mut() {
            group.hosts.retain(|name| kept(name));
        }
    }

    /// The variables of a host itself, without those of its groups.
    pub fn host(&self, name: &str) -> Option<&Map<String, Value>> {
        self.hosts.get(name)
    }

    /// The names of the groups that a host is in, directly or by a child group.
    pub fn groups_of(&self, host: &str) -> Vec<&str> {
        let mut found: BTreeSet<&str> = (self.groups.iter())
            .filter(|(_, group)| group.hosts.contains(host))
            .map(|(name, _)| name.as_str())
            .collect();
        loop {
            let more: Vec<&str> = (self.groups.iter())
                .filter(|(name, group)| {
                    !found.contains(name.as_str())
                        && group.children.iter().any(|it| found.contains(it.as_str()))
                })
                .map(|(name, _)| name.as_str())
                .collect();
            if more.is_empty() {
                return found.into_iter().collect();
            }
            found.extend(more);
        }
    }

    /// Returns the part of the inventory that a run over these machines depends on: their variables and
    /// groups.
    pub fn input(&self, hosts: &[&str]) -> Value {
        let hosts: BTreeMap<&str, Value> = (hosts.iter())
            .map(|host| {
                let groups: BTreeMap<&str, &Map<String, Value>> =
                    (self.groups_of(host).into_iter())
                        .filter_map(|name| Some((name, &self.groups.get(name)?.vars)))
                        .collect();
                (*host, json!([self.host(host), groups]))
            })
            .collect();
        json!([hosts, self.vars])
    }

    /// Returns the output of a dynamic inventory for `--list`
    /// (docs.ansible.com, "Developing dynamic inventory").
    pub fn list(&self) -> Value {
        let mut all = Map::new();
        all.insert("_meta".into(), json!({ "hostvars": self.hosts }));
        all.insert(
            ALL.into(),
            json!({ "children": self.top(), "vars": self.vars }),
        );
        all.insert("ungrouped".into(), json!({ "hosts": self.ungrouped() }));
        for (name, group) in &self.groups {
            let value = json!({
                "hosts": group.hosts,
                "children": group.children,
                "vars": group.vars,
            });
            all.insert(name.clone(), value);
        }
        Value::Object(all)
    }

    /// Returns a file for Ansible's `yaml` plugin, which reads JSON too.
    pub fn file(&self) -> Value {
        let groups: BTreeMap<&str, Value> = (self.groups.iter())
            .map(|(name, group)| {
                let hosts: BTreeMap<&str, Value> = (group.hosts.iter())
                    .map(|it| (it.as_str(), json!({})))
                    .collect();
                let children: BTreeMap<&str, Value> = (group.children.iter())
                    .map(|it| (it.as_str(), json!({})))
                    .collect();
                let value = json!({ "hosts": hosts, "children": children, "vars": group.vars });
                (name.as_str(), value)
            })
            .collect();
        json!({ ALL: { "hosts": self.hosts, "children": groups, "vars": self.vars } })
    }

    /// The groups that are in no other group, and `ungrouped`.
    fn top(&self) -> Vec<&str> {
        let inner: BTreeSet<&str> = (self.groups.values())
            .flat_map(|group| group.children.iter().map(String::as_str))
            .collect();
        (self.groups.keys().map(String::as_str))
            .filter(|name| !inner.contains(name))
            .chain(["ungrouped"])
            .collect()
    }

    fn ungrouped(&self) -> Vec<&str> {
        (self.hosts.keys().map(String::as_str))
            .filter(|host| !(self.groups.values()).any(|group| group.hosts.contains(*host)))
            .collect()
    }
}

fn host_vars(project: &Project, machine: &Machine) -> Map<String, Value> {
    let mut vars = Map::new();
    vars.insert("stead_project".into(), project.name.clone().into());
    vars.insert("stead_machine".into(), machine.name.clone().into());
    vars.insert("stead_hostname".into(), machine.hostname.clone().into());
    vars.insert("stead_labels".into(), json!(machine.labels));
    vars.extend(forwards(&machine.forwards));
    vars.extend(machine.vars.to_json());
    vars
}

/// The variable with the addresses of forwards that 127.0.0.1 does not lead to.
const FAR: &str = "stead_forward_addresses";

/// Returns a variable with ports of the host by ports of the guest (`80`, `53/udp`: keys in JSON are text). If
/// 127.0.0.1 does not lead to one of them, the second variable has its address.
fn forwards(forwards: &[Forward]) -> Map<String, Value> {
    let mut found: BTreeMap<String, &Forward> = BTreeMap::new();
    let is_near = |forward: &Forward| {
        forward.address == Ipv4Addr::LOCALHOST || forward.address.is_unspecified()
    };
    for forward in forwards {
        let port = match forward.protocol {
            Protocol::Tcp => forward.guest.to_string(),
            Protocol::Udp => format!("{}/udp", forward.guest),
        };
        let known = found.entry(port).or_insert(forward);
        if is_near(forward) || !is_near(known) {
            *known = forward;
        }
    }
    let ports: BTreeMap<&String, u16> = found.iter().map(|(port, it)| (port, it.host)).collect();
    let far: BTreeMap<&String, Ipv4Addr> = (found.iter())
        .filter(|(_, forward)| !is_near(forward))
        .map(|(port, forward)| (port, forward.address))
        .collect();
    let mut vars = Map::new();
    vars.insert("stead_forwards".into(), json!(ports));
    // Absent where it says nothing: what a provisioner gets decides whether it has changed.
    if !far.is_empty() {
        vars.insert(FAR.into(), json!(far));
    }
    vars
}

/// Variables for OpenSSH with the machine's own configuration, in which 127.0.0.1 is this machine.
fn connection_vars(reach: &Reach) -> Map<String, Value> {
    let files = &reach.files;
    let mut vars = Map::new();
    vars.insert("ansible_host".into(), "127.0.0.1".into());
    vars.insert("ansible_port".into(), reach.port.into());
    vars.insert("ansible_user".into(), data(reach.user.clone()));
    // Ansible's default of 10 s is too short for a guest with emulated CPUs.
    vars.insert("ansible_ssh_timeout".into(), 60.into());
    vars.insert(
        "ansible_ssh_private_key_file".into(),
        data(text(files.client_key())),
    );
    vars.insert(
        "ansible_ssh_common_args".into(),
        data(format!("-F {}", word(&text(files.ssh_config())))),
    );
    // The configuration has these too, but Ansible must see that connections outlive commands, or it waits
    // for the end of one.
    let control = text(files.control_socket().to_path_buf()).replace('%', "%%");
    vars.insert(
        "ansible_ssh_args".into(),
        data(format!(
            "-o ControlMaster=auto -o ControlPersist=600 -o {}",
            word(&format!("ControlPath=\"{control}\""))
        )),
    );
    // The machine's host key is known, so it is checked even if an ansible.cfg says otherwise.
    vars.insert("ansible_host_key_checking".into(), true.into());
    // Pipelining needs sudo without a terminal, which stead's own provisioners use too.
    vars.insert("ansible_pipelining".into(), true.into());
    vars
}

/// Returns a text that is not from the Machinefile, so that Ansible never takes it for a template. Every
/// template begins with a brace, so other texts need no mark, and are plain text for other programs.
fn data(text: String) -> Value {
    if text.contains('{') {
        json!({ UNSAFE: text })
    } else {
        text.into()
    }
}

/// The key in JSON that tells Ansible not to template a text (ansible/parsing/ajson.py).
const UNSAFE: &str = "__ansible_unsafe";

/// Returns the text of a variable, if it is a text.
pub fn text_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get(UNSAFE)?.as_str())
}

fn text(path: PathBuf) -> String {
    path.to_string_lossy().into_owned()
}

/// Quotes a word for Python's `shlex.split`.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:@+,%".contains(c);
    if text.chars().all(plain) {
        text.to_string()
    } else {
        format!("'{}'", text.replace('\'', "'\"'\"'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::paths::DataDir,
        machinefile::{MACHINEFILE, load},
    };

    fn inventory(text: &str) -> Inventory {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(MACHINEFILE);
        std::fs::write(&file, text).unwrap();
        std::fs::write(folder.path().join("site.yml"), "[]\n").unwrap();
        Inventory::of(&load(&file, &|_| None).unwrap())
    }

    const SHOP: &str = r#"
project "shop"
defaults { box "debian-12"; vars region="eu" level=1; }
machine "db" {
    labels role="db"
    vars level=2 debug=#true
    forward 15432 to=5432
    provision "x" { ansible "site.yml" { groups "stores"; }; }
}
machine "web-app" count=2
machine "lone"
group "front" { machines "web-app"; vars port=80; }
group "prod" { children "front" "role_db"; }
group "all" { vars domain="shop.test"; }
"#;

    #[test]
    fn a_project_as_json() {
        let mut inventory = inventory(SHOP);
        inventory.reach(
            "db",
            &Reach {
                user: "stead".into(),
                port: 22022,
                files: MachineFiles::new(&DataDir::at("/home/a b/100%"), &uuid::Uuid::nil()),
                forwards: Vec::new(),
                addresses: BTreeMap::from([("back".into(), Ipv4Addr::new(10, 77, 0, 10))]),
            },
        );
        let host = inventory.hosts.get_mut("db").unwrap();
        // The path differs from user to user.
        host.insert("ansible_ssh_args".into(), "…".into());
        insta::assert_snapshot!(serde_json::to_string_pretty(&inventory.list()).unwrap());
        let file = inventory.file();
        assert_eq!(
            file["all"]["children"]["front"]["hosts"]["web-app-2"],
            json!({})
        );
        assert_eq!(file["all"]["hosts"]["db"]["level"], 2);
    }

    #[test]
    fn what_is_not_the_machinefiles_is_no_template() {
        let mut inventory = inventory(SHOP);
        let reach = Reach {
            user: "{{lookup('pipe','id')}}".into(),
            port: 22022,
            files: MachineFiles::new(&DataDir::at("/home/{{x}}"), &uuid::Uuid::nil()),
            forwards: Vec::new(),
            addresses: BTreeMap::from([("{{x}}".into(), Ipv4Addr::new(10, 77, 0, 10))]),
        };
        inventory.reach("db", &reach);
        let vars = inventory.host("db").unwrap();
        for (name, value) in vars {
            assert!(
                !value.as_str().is_some_and(|text| text.contains('{')),
                "{name}: {value}"
            );
        }
        assert_eq!(vars["stead_addresses"], json!({}));
        assert_eq!(vars["ansible_user"], json!({ UNSAFE: reach.user }));
        assert_eq!(text_of(&vars["ansible_user"]), Some(&*reach.user));
    }

    #[test]
    fn ports_have_their_protocol_and_an_address_if_it_is_another() {
        let vars = |forwards: &str| {
            let text = format!("project \"p\"\nmachine \"a\" {{ box \"b\"; {forwards} }}\n");
            let vars = inventory(&text).host("a").unwrap().clone();
            json!([vars.get("stead_forwards"), vars.get(FAR)])
        };
        assert_eq!(
            vars("forward 8080 to=80; forward 5353 to=53 protocol=\"udp\" address=\"0.0.0.0\""),
            json!([{ "80": 8080, "53/udp": 5353 }, null])
        );
        assert_eq!(
            vars("forward 8080 to=80 address=\"192.0.2.7\"; forward 9000"),
            json!([{ "80": 8080, "9000": 9000 }, { "80": "192.0.2.7" }])
        );
        // One that 127.0.0.1 leads to comes first.
        for two in [
            "forward 8080 to=80 address=\"127.0.0.2\"; forward 8081 to=80",
            "forward 8081 to=80; forward 8080 to=80 address=\"127.0.0.2\"",
        ] {
            assert_eq!(vars(two), json!([{ "80": 8081 }, null]));
        }
    }

    #[test]
    fn groups_of_groups_hold_hosts() {
        let mut inventory = inventory(SHOP);
        assert_eq!(
            inventory.groups_of("web-app-1"),
            ["front", "prod", "web_app"]
        );
        assert_eq!(inventory.groups_of("db"), ["prod", "role_db", "stores"]);
        assert!(inventory.groups_of("lone").is_empty());
        assert_eq!(inventory.ungrouped(), ["lone"]);
        inventory.keep(|name| name == "db");
        assert!(inventory.ungrouped().is_empty());
        assert!(inventory.groups.contains_key("front"));
    }

    #[test]
    fn what_goes_into_a_run_is_that_of_its_machines() {
        let before = inventory(SHOP).input(&["db"]);
        let other = inventory(&SHOP.replace("vars port=80", "vars port=81"));
        assert_eq!(before, other.input(&["db"]));
        assert_ne!(
            inventory(SHOP).input(&["web-app-1"]),
            other.input(&["web-app-1"])
        );
        let own = inventory(&SHOP.replace("vars level=2", "vars level=3"));
        assert_ne!(before, own.input(&["db"]));
    }

    #[test]
    fn words_are_quoted_for_shlex() {
        assert_eq!(word("/a/b"), "/a/b");
        assert_eq!(word("/a b/it's"), "'/a b/it'\"'\"'s'");
    }
}
