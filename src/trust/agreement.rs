//! What the user has agreed to, for one command. It is checked again right before something runs.

use std::collections::BTreeMap;

use crate::{
    host::digest::sha256_of,
    machinefile::{Hook, Playbook, Project},
};

use super::{
    demand::Demand, error::TrustError, hook::of_hook, playbook::of_playbook, shown::shown,
};

/// Demands that the user has agreed to. An empty agreement agrees to nothing.
#[derive(Clone, Debug, Default)]
pub struct Agreement {
    agreed: BTreeMap<String, Agreed>,
}

#[derive(Clone, Debug)]
struct Agreed {
    /// The digests of the files as they were shown. `None`: later content counts as agreed to, too.
    files: Option<BTreeMap<String, String>>,
}

impl Agreement {
    /// Adds a demand as it was shown. With `edits`, later content of its files counts as agreed to, too.
    pub fn add(&mut self, demand: &Demand, edits: bool) {
        let files = (!edits).then(|| demand.files.clone());
        self.agreed.insert(demand.id.clone(), Agreed { files });
    }

    pub fn has(&self, demand: &Demand) -> bool {
        self.agreed.contains_key(&demand.id)
    }

    /// Checks that the user has agreed to a hook, and that its files have not changed since.
    ///
    /// # Errors
    /// If the user has not agreed, or a file has changed.
    pub fn hook(&self, project: &Project, hook: &Hook) -> Result<(), TrustError> {
        of_hook(project, hook)?.map_or(Ok(()), |demand| self.still(&demand))
    }

    /// Like [`Self::hook`], for a playbook. `here`: it runs on the host, not in a machine.
    ///
    /// # Errors
    /// If the user has not agreed, or a file has changed.
    pub fn playbook(
        &self,
        project: &Project,
        playbook: &Playbook,
        here: bool,
    ) -> Result<(), TrustError> {
        for demand in of_playbook(project, playbook, here, &[])? {
            self.still(&demand)?;
        }
        Ok(())
    }

    fn still(&self, demand: &Demand) -> Result<(), TrustError> {
        let Some(agreed) = self.agreed.get(&demand.id) else {
            return Err(TrustError::NotAgreed {
                what: format!("runs {}", demand.what),
            });
        };
        let Some(files) = &agreed.files else {
            return Ok(());
        };
        let mut changed: Vec<String> = (demand.files.iter())
            .filter(|(name, digest)| files.get(*name) != Some(digest))
            .map(|(name, _)| name.clone())
            .collect();
        changed.extend(
            (files.keys())
                .filter(|name| !demand.files.contains_key(*name))
                .cloned(),
        );
        if changed.is_empty() {
            return Ok(());
        }
        Err(TrustError::Changed {
            what: demand.what.clone(),
            files: changed.iter().map(|name| shown(name)).collect(),
        })
    }
}

/// Returns the value for `--trust`: a digest of all demands and their files.
pub fn digest(demands: &[Demand]) -> String {
    let mut lines: Vec<String> = (demands.iter())
        .map(|demand| format!("{} {}\n", demand.id, demand.content()))
        .collect();
    lines.sort();
    format!("sha256:{}", sha256_of(lines.concat()))
}
