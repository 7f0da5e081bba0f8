//! Settings of dnf (dnf.conf(5)) and of the rpm library.

use crate::boxes::{error::BoxError, recipe::Recipe};

use super::{
    keys::{self, AcceptedKeys},
    setting::Setting,
};

/// Where rpm of the host keeps its database until the guest's own takes it over (boxes/bootstrap.sh), and what it leaves
/// alone, since it is mounted.
pub(super) const RPM_MACROS: &str = "\
%_dbpath /usr/lib/sysimage/rpm
%_db_backend sqlite
%_netsharedpath /dev:/proc:/sys
%_excludedocs 1
%_install_langs en
";

/// Packages must be signed by one of the keys. Lists of packages too, where the server could be another.
pub(super) fn settings(recipe: &Recipe, keys: &[AcceptedKeys]) -> Result<Vec<Setting>, BoxError> {
    let files = keys::each(recipe, keys)?;
    let addresses: Vec<String> = (files.iter())
        .map(|file| format!("file:///etc/{}", file.path))
        .collect();
    let mut text = String::from(
        "[main]
gpgcheck=1
localpkg_gpgcheck=1
install_weak_deps=0
tsflags=nodocs
best=1
skip_if_unavailable=0
retries=3
timeout=30
plugins=0
color=never
reposdir=/etc/stead-none
",
    );
    if let Some(platform) = platform(recipe) {
        text.push_str(&format!("module_platform_id=platform:{platform}\n"));
    }
    for repository in &recipe.repositories {
        text.push_str(&format!(
            "\n[{name}]\nname={name}\nbaseurl={}\ngpgkey={}\nrepo_gpgcheck={}\n",
            repository.url,
            addresses.join(" "),
            u8::from(repository.needs_signed_list()),
            name = repository.name,
        ));
    }
    let mut all = vec![
        Setting::text("dnf/dnf.conf", text),
        Setting::text("rpm/macros", RPM_MACROS),
    ];
    all.extend(files);
    Ok(all)
}

/// PLATFORM_ID in os-release(5), by which dnf knows which modules there are.
fn platform(recipe: &Recipe) -> Option<String> {
    let major = recipe.release.split('.').next().unwrap_or_default();
    match recipe.distribution.as_str() {
        "fedora" => Some(format!("f{major}")),
        "almalinux" | "rocky" | "centos" => Some(format!("el{major}")),
        _ => None,
    }
}
