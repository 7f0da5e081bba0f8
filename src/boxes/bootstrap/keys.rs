//! Reads the keys that a recipe accepts.

use std::{io, path::Path};

use crate::{
    boxes::{
        error::BoxError,
        recipe::{KeyFile, Recipe, Tool},
    },
    fetch::PublicKey,
    host::open,
    report::clean::Shown,
};

use super::setting::{KEYS, Setting};

/// Largest file of keys in bytes. Arch Linux's has 2 MB.
const LARGEST: u64 = 16 << 20;

/// A file of keys.
pub(in crate::boxes) struct AcceptedKeys {
    /// All of the file.
    pub file: Vec<u8>,
    /// Those that the recipe accepts.
    pub keys: Vec<PublicKey>,
}

/// Reads all files of keys that a recipe names.
///
/// # Errors
/// If one cannot be read, has no key, or lacks one whose fingerprint the recipe has.
pub(in crate::boxes) fn read(recipe: &Recipe) -> Result<Vec<AcceptedKeys>, BoxError> {
    (recipe.keys.iter())
        .map(|key| {
            let file = bytes(recipe, key)?;
            let keys = accepted(&file, &key.fingerprints)
                .map_err(|message| wrong(recipe, key, &message))?;
            Ok(AcceptedKeys { file, keys })
        })
        .collect()
}

fn wrong(recipe: &Recipe, key: &KeyFile, message: &str) -> BoxError {
    BoxError::Recipe {
        recipe: recipe.folder.join("recipe.kdl").shown(),
        message: format!("key {}: {message}", key.path.shown()),
    }
}

fn bytes(recipe: &Recipe, key: &KeyFile) -> Result<Vec<u8>, BoxError> {
    let read = if key.path.is_absolute() {
        open::bytes(&key.path, LARGEST)
    } else {
        (recipe.folder.canonicalize())
            .and_then(|folder| open::bytes_within(&folder.join(&key.path), LARGEST, &folder))
    };
    read.map_err(|error| {
        let package = match recipe.tool {
            Tool::Pacman if key.path == Path::new("/usr/share/keyrings/archlinux.gpg") => {
                " (Debian: `apt install archlinux-keyring`)"
            }
            _ => "",
        };
        match error.kind() {
            io::ErrorKind::NotFound => {
                wrong(recipe, key, &format!("there is no such file{package}"))
            }
            _ => wrong(recipe, key, &error.to_string()),
        }
    })
}

/// Returns the keys with these fingerprints; all of the file if there are none.
fn accepted(file: &[u8], fingerprints: &[String]) -> Result<Vec<PublicKey>, String> {
    let found = PublicKey::parse_all(file)?;
    if fingerprints.is_empty() {
        return Ok(found);
    }
    (fingerprints.iter())
        .map(|wanted| {
            (found.iter())
                .find(|key| key.fingerprint() == *wanted)
                .cloned()
                .ok_or_else(|| {
                    let has: Vec<String> = found.iter().map(PublicKey::fingerprint).collect();
                    format!(
                        "it has no usable key {wanted}; it has {}",
                        match has.as_slice() {
                            [first, second, third, rest @ ..] if !rest.is_empty() =>
                                format!("{first}, {second}, {third} and {} more", rest.len()),
                            few => few.join(", "),
                        }
                    )
                })
        })
        .collect()
}

/// Returns a file for each accepted key, named by its fingerprint.
pub(super) fn each(recipe: &Recipe, keys: &[AcceptedKeys]) -> Result<Vec<Setting>, BoxError> {
    (keys.iter().zip(&recipe.keys))
        .flat_map(|(accepted, file)| accepted.keys.iter().map(move |key| (key, file)))
        .map(|(key, file)| {
            let armoured = key
                .armoured()
                .map_err(|message| wrong(recipe, file, &message))?;
            Ok(Setting::text(
                format!("{KEYS}/{}.asc", key.fingerprint()),
                armoured,
            ))
        })
        .collect()
}
