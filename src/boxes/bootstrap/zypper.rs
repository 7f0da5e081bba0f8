//! Settings of zypper (zypp.conf, and .repo files as zypper(8) describes them).

use crate::boxes::{error::BoxError, recipe::Recipe};

use super::{
    dnf::RPM_MACROS,
    keys::{self, AcceptedKeys},
    setting::Setting,
};

/// Lists of packages must be signed by one of the keys. They have the digests of the packages, which are checked.
/// Packages have other signatures too: the repositories of openSUSE have packages of SUSE's.
pub(super) fn settings(recipe: &Recipe, keys: &[AcceptedKeys]) -> Result<Vec<Setting>, BoxError> {
    let mut all = vec![
        Setting::text("zypp/zypp.conf", "[main]\nrpm.install.excludedocs = yes\n"),
        Setting::text("rpm/macros", RPM_MACROS),
    ];
    all.extend(recipe.repositories.iter().map(|repository| {
        Setting::text(
            format!("zypp/repos.d/{}.repo", repository.name),
            format!(
                "[{name}]
name={name}
enabled=1
autorefresh=0
keeppackages=0
type=rpm-md
baseurl={}
gpgcheck=1
repo_gpgcheck=1
",
                repository.url,
                name = repository.name,
            ),
        )
    }));
    all.extend(keys::each(recipe, keys)?);
    Ok(all)
}
