pub mod model;
pub use model::{
    Accel, Bytes, Forward, Machine, Project, Provisioner, ProvisionerKind, Ready, RunPolicy,
    ScriptSource, SyncFolder,
};
use std::path::{Path, PathBuf};
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{0}")]
pub struct MachinefileErrors(String);
/// STUB
pub fn load(file: &Path, _env: &dyn Fn(&str) -> Option<String>) -> Result<Project, MachinefileErrors> {
    let text = std::fs::read_to_string(file).map_err(|e| MachinefileErrors(e.to_string()))?;
    let mk = |name: &str| Machine { name: name.into(), hostname: name.into(), box_ref: "debian-12".into(), cpus: 1, memory: Bytes(512 << 20), disk: None, labels: Default::default(), depends_on: vec![], forwards: vec![], syncs: vec![SyncFolder{from: file.parent().unwrap().to_path_buf(), to: "/srv/app".into(), exclude: vec![], delete: true}],
      provisioners: vec![Provisioner{name:"hello".into(), run: RunPolicy::Once, kind: ProvisionerKind::Shell{source: ScriptSource::Inline("echo hello from $(hostname) as $(id -un)\n".into()), args: vec![], env: Default::default(), privileged: true, user: None}}], ready: Default::default(), user: None, user_data: None, accel: None };
    let machines = text.split_whitespace().map(mk).collect();
    Ok(Project { name: "stub".into(), root: file.parent().unwrap().canonicalize().unwrap(), file: file.to_path_buf(), connect: None, machines })
}
pub fn find(start: &Path) -> Option<PathBuf> { start.ancestors().map(|d| d.join("Machinefile")).find(|p| p.is_file()) }
pub fn format(text: &str, _name: &str) -> Result<String, MachinefileErrors> { Ok(text.into()) }
pub fn template(_n: &str) -> String { String::new() }
