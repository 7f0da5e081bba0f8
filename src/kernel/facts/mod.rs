//! Facts about a host's kernel, which a script on that host collects (provisioners/guest/facts).

mod answer;
mod check;
mod hardware;
mod model;

#[cfg(test)]
pub(super) use answer::tests;
pub use answer::{FACTS_LIMIT, FactsError, facts_script, parse_facts};
pub use hardware::{hardware_modules, plain};
pub use model::{
    Cpu, FACTS_FORMAT, Facts, KernelPackage, Offer, OfferedFile, OfferedTree, Os, PackageKind,
    sysctl_name, sysctl_path,
};
