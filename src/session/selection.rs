//! Which machines of a project a command is about.

use std::collections::HashSet;

use crate::{failure::Failure, machinefile::Machine, report::clean::Shown};

use super::Session;

use std::collections::BTreeMap;

/// Which machines a command is about.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Machines; none means all
    pub names: Vec<String>,
    /// Machines with this label (KEY=VALUE); given twice, both must fit
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

impl Session {
    /// Machines that the selection names; with `needed`, also those they depend on.
    pub fn select(&self, selection: &Selection, needed: bool) -> Result<Vec<Machine>, Failure> {
        for name in &selection.names {
            if self.project.machine(name).is_none() && !self.is_leftover(name)? {
                return Err(self.unknown(name));
            }
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
                "`stead status` lists the machines; `labels` in the Machinefile sets them",
            ));
        }
        Ok(machines)
    }

    /// As [`Self::select`], for commands that go by the Machinefile.
    ///
    /// # Errors
    /// Where a machine is named that the Machinefile no longer has.
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
                "`stead destroy {name}` removes it; once its name is in the Machinefile again, it goes on as it is"
            ),
        )
    }

    /// The machine of that name in the Machinefile; `what_for` is what cannot be done without it
    /// there.
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

    fn is_leftover(&self, name: &str) -> Result<bool, Failure> {
        Ok(self.observe(name)?.is_some())
    }

    pub fn unknown(&self, name: &str) -> Failure {
        let names: Vec<&str> = self
            .project
            .machines
            .iter()
            .map(|machine| machine.name.as_str())
            .collect();
        Failure::usage(
            format!(
                "there is no machine {name} in {}",
                self.project.file.shown()
            ),
            match names.is_empty() {
                true => "it names no machine".to_string(),
                false => format!("its machines are: {}", names.join(", ")),
            },
        )
    }

    /// What is selected, where `--domain` may have done that.
    pub fn selection(&self, given: &Selection) -> Result<Selection, Failure> {
        let Some(only) = &self.only else {
            return Ok(given.clone());
        };
        if !given.is_all() {
            return Err(Failure::usage(
                "--domain names a machine already",
                format!("leave the others out; it is machine {only}"),
            ));
        }
        Ok(Selection {
            names: vec![only.clone()],
            labels: Vec::new(),
        })
    }

    /// The machine that is named, or the project's only one.
    pub fn the_machine(&self, name: Option<&str>) -> Result<String, Failure> {
        if let (Some(_), Some(only)) = (name, &self.only) {
            return Err(Failure::usage(
                "--domain names a machine already",
                format!("leave the other name out; it is machine {only}"),
            ));
        }
        let named = name.or(self.only.as_deref());
        match (named, self.project.machines.as_slice()) {
            (Some(name), _) => Ok(name.to_string()),
            (None, [only]) => Ok(only.name.clone()),
            (None, []) => Err(Failure::usage(
                format!("{} names no machine", self.project.file.shown()),
                "`stead status` shows what is left of machines that it named before",
            )),
            (None, machines) => {
                let names: Vec<&str> = machines.iter().map(|m| m.name.as_str()).collect();
                Err(Failure::usage(
                    "this project has several machines; name one",
                    format!("its machines are: {}", names.join(", ")),
                ))
            }
        }
    }
}
