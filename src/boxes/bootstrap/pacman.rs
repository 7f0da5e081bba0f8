//! Settings of pacman (pacman.conf(5)), and its keyrings as pacman-key(8) describes them.

use crate::boxes::recipe::Recipe;

use super::{
    keys::AcceptedKeys,
    setting::{KEYS, Setting},
};

/// Packages must be signed by a trusted key: one whose fingerprint the recipe has, or one of the same file that three of
/// those have signed. Lists of packages too, where the server could be another; where they have a signature, it is checked.
pub(super) fn settings(recipe: &Recipe, keys: &[AcceptedKeys]) -> Vec<Setting> {
    let mut text = format!(
        "[options]
Architecture = {}
GPGDir = /etc/pacman.d/gnupg
SigLevel = PackageRequired PackageTrustedOnly DatabaseRequired DatabaseTrustedOnly
NoProgressBar
NoExtract = usr/share/man/* usr/share/doc/* usr/share/gtk-doc/* usr/share/info/* usr/share/locale/*
",
        std::env::consts::ARCH
    );
    for repository in &recipe.repositories {
        text.push_str(&format!("\n[{}]\n", repository.name));
        if !repository.needs_signed_list() {
            text.push_str("SigLevel = DatabaseOptional\n");
        }
        text.push_str(&format!("Server = {}\n", repository.url));
    }
    let mut all = vec![
        Setting::text("pacman.conf", text),
        // No key comes from anywhere else.
        Setting::text("pacman.d/gnupg/gpg.conf", "disable-dirmngr\n"),
    ];
    for (n, accepted) in keys.iter().enumerate() {
        all.push(Setting {
            path: format!("{KEYS}/{n}.gpg"),
            content: accepted.file.clone(),
        });
        // 4: marginal, as distributions have it. One such signature alone makes no key valid.
        let trusted: String = (accepted.keys.iter())
            .map(|key| format!("{}:4:\n", key.fingerprint().to_uppercase()))
            .collect();
        all.push(Setting::text(format!("{KEYS}/{n}-trusted"), trusted));
    }
    all
}
