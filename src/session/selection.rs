//! Selects the machines of a project that a command acts on.

use std::collections::HashSet;

use crate::{
    failure::Failure,
    host::names::nearest,
    machinefile::Machine,
    report::clean::{Shown, escaped},
};

use super::Session;

use std::collections::BTreeMap;

/// The machines that a command acts on.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Names of machines; none means all.
    pub names: Vec<String>,
    /// Labels that a machine must have, all of them.
    pub labels: Vec<(String, String)>,
}

impl Selection {
    pub fn is_all(&self) -> bool {
        self.names.is_empty() && self.labels.is_empty()
    }

    pub fn fits(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        (self.names.is_empty() || self.names.iter().any(|wanted| wanted == name))
            && self
                .labels
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
    }
}

/// Joins names, but only as many as one reads.
fn listed(names: &[&str]) -> String {
    const MOST: usize = 30;
    match names.len().checked_sub(MOST) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..MOST].join(", ")),
    }
}

impl Session {
    /// Returns the selected machines; with `needed`, also those that they depend on.
    pub fn select(&self, selection: &Selection, needed: bool) -> Result<Vec<Machine>, Failure> {
        for name in &selection.names {
            self.known(name)?;
        }
        let mut chosen: HashSet<&str> = self
            .project
            .machines
            .iter()
            .filter(|machine| selection.fits(&machine.name, &machine.labels))
            .map(|machine| machine.name.as_str())
            .collect();
        if needed {
            let mut open: Vec<&str> = chosen.iter().copied().collect();
            while let Some(name) = open.pop() {
                if let Some(machine) = self.project.machine(name) {
                    for other in &machine.depends_on {
                        if chosen.insert(other) {
                            open.push(other);
                        }
                    }
                }
            }
        }
        let machines: Vec<Machine> = self
            .project
            .machines
            .iter()
            .filter(|machine| chosen.contains(machine.name.as_str()))
            .cloned()
            .collect();
        if machines.is_empty() && !selection.labels.is_empty() {
            return Err(Failure::usage(
                "no machine has these labels",
                "`stead status` lists the machines; set labels with `labels` in the Machinefile",
            ));
        }
        Ok(machines)
    }

    /// As [`Self::select`], for commands that need the machines to be in the Machinefile.
    ///
    /// # Errors
    /// The Machinefile no longer describes a named machine.
    pub fn select_named(
        &self,
        selection: &Selection,
        needed: bool,
    ) -> Result<Vec<Machine>, Failure> {
        let machines = self.select(selection, needed)?;
        let gone = (selection.names.iter()).find(|name| self.project.machine(name).is_none());
        match gone {
            Some(name) => Err(self.no_longer(name)),
            None => Ok(machines),
        }
    }

    pub(super) fn no_longer(&self, name: &str) -> Failure {
        Failure::usage(
            format!(
                "machine {name} is no longer in {}",
                self.project.file.shown()
            ),
            format!(
                "remove it with `stead destroy {name}`, or put it back into the Machinefile to keep using it"
            ),
        )
    }

    /// Returns the machine of that name in the Machinefile. `what_for` completes the hint "put it back
    /// there to …".
    pub fn one(&self, name: &str, what_for: &str) -> Result<Machine, Failure> {
        let selection = Selection {
            names: vec![name.to_string()],
            labels: Vec::new(),
        };
        (self.select(&selection, false)?.into_iter().next()).ok_or_else(|| {
            Failure::usage(
                format!("machine {name} is no longer in the Machinefile"),
                format!("put it back there to {what_for}"),
            )
        })
    }

    /// Fails if neither the Machinefile nor libvirt has a machine of that name.
    pub fn known(&self, name: &str) -> Result<(), Failure> {
        if self.project.machine(name).is_none() && self.observe(name)?.is_none() {
            return Err(self.unknown(name));
        }
        Ok(())
    }

    pub fn unknown(&self, name: &str) -> Failure {
        let names: Vec<&str> = self
            .project
            .machines
            .iter()
            .map(|machine| machine.name.as_str())
            .collect();
        // The name of a `count` stands for all its machines in a Machinefile, but not here.
        let numbered: Vec<&str> = (self.project.machines.iter())
            .filter(|machine| machine.one_of.as_deref() == Some(name))
            .map(|machine| machine.name.as_str())
            .collect();
        Failure::usage(
            format!(
                "there is no machine {} in {}",
                escaped(name),
                self.project.file.shown()
            ),
            if names.is_empty() {
                "it describes no machine".to_string()
            } else if !numbered.is_empty() {
                format!(
                    "{name} has a `count`: name its machines, {}",
                    listed(&numbered)
                )
            } else if let Some(near) = nearest(&name.to_lowercase(), names.iter().copied()) {
                format!("did you mean {near}? its machines are: {}", listed(&names))
            } else {
                format!("its machines are: {}", listed(&names))
            },
        )
    }

    /// Returns the selection of the arguments, or the machine of `--domain`.
    pub fn selection(&self, given: &Selection) -> Result<Selection, Failure> {
        let Some(only) = &self.only else {
            return Ok(given.clone());
        };
        if !given.is_all() {
            return Err(Failure::usage(
                "--domain names a machine already",
                format!("remove the other names; it is machine {only}"),
            ));
        }
        Ok(Selection {
            names: vec![only.clone()],
            labels: Vec::new(),
        })
    }

    /// Returns the named machine, or the project's only one.
    pub fn the_machine(&self, name: Option<&str>) -> Result<String, Failure> {
        if let (Some(_), Some(only)) = (name, &self.only) {
            return Err(Failure::usage(
                "--domain names a machine already",
                format!("remove the other name; it is machine {only}"),
            ));
        }
        let named = name.or(self.only.as_deref());
        match (named, self.project.machines.as_slice()) {
            (Some(name), _) => Ok(name.to_string()),
            (None, [only]) => Ok(only.name.clone()),
            (None, []) => Err(Failure::usage(
                format!("{} describes no machine", self.project.file.shown()),
                "`stead status` shows machines that it described before",
            )),
            (None, machines) => {
                let names: Vec<&str> = machines.iter().map(|m| m.name.as_str()).collect();
                Err(Failure::usage(
                    "this project has several machines; name one",
                    format!("its machines are: {}", listed(&names)),
                ))
            }
        }
    }
}
