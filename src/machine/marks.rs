//! What is recorded of a running machine to see later that its Machinefile has changed: digests, because commands and
//! paths may have values of variables in them.

use std::collections::BTreeSet;

use crate::{
    host::digest::name_of,
    machinefile::{Ready, SyncFolder},
};

use super::Running;

/// Enough to tell checks and folders of one machine apart, in bytes.
const LENGTH: usize = 8;

/// Returns the mark of readiness checks. Their time limit is no part of it: it does not say what ready means.
pub fn mark_of_checks(ready: &Ready) -> String {
    name_of(format!("{:?}", (&ready.tcp, &ready.exec)), LENGTH)
}

/// Returns the mark of a folder that is copied: what is copied, from where and to where.
pub fn mark_of_copy(folder: &SyncFolder) -> String {
    let SyncFolder {
        from,
        to,
        kind,
        exclude,
        delete,
        gitignore,
        owner,
        readonly: _,
        watch: _,
        at: _,
    } = folder;
    let what = (from, to, kind, exclude, delete, gitignore, owner);
    name_of(format!("{what:?}"), LENGTH)
}

/// Whether a machine became ready by other checks. `false` if that is not known.
pub fn has_other_checks(running: Option<&Running>, ready: &Ready) -> bool {
    (running.and_then(|it| it.checks.as_ref())).is_some_and(|mark| *mark != mark_of_checks(ready))
}

/// Whether a folder has not been copied to a machine as it is now. `false` if that is not known.
pub fn lacks_copy(running: Option<&Running>, folder: &SyncFolder) -> bool {
    let copied: Option<&BTreeSet<String>> = running.and_then(|it| it.copied.as_ref());
    copied.is_some_and(|marks| !marks.contains(&mark_of_copy(folder)))
}
