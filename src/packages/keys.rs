//! The keys of the distributions' archives. keys/README.md lists where they come from.

use crate::fetch::PublicKey;

use super::error::PackageError;

/// Keyrings by ID of os-release(5).
const KNOWN: [(&str, &str); 6] = [
    ("debian", include_str!("keys/debian.asc")),
    ("ubuntu", include_str!("keys/ubuntu.asc")),
    ("fedora", include_str!("keys/fedora.asc")),
    ("almalinux", include_str!("keys/almalinux.asc")),
    ("rocky", include_str!("keys/rocky.asc")),
    ("centos", include_str!("keys/centos.asc")),
];

/// Returns all keys that a distribution signs its archives or packages with.
pub(super) fn of(id: &str) -> Result<Vec<PublicKey>, PackageError> {
    let Some((_, armoured)) = KNOWN.iter().find(|(known, _)| *known == id) else {
        let known: Vec<&str> = KNOWN.iter().map(|(known, _)| *known).collect();
        return Err(PackageError::UnknownDistribution {
            id: id.to_string(),
            known: known.join(", "),
        });
    };
    read(armoured.as_bytes(), &format!("the keyring of {id}"))
}

/// Reads a keyring, armoured or binary. `from` is its name in errors.
pub(super) fn read(keyring: &[u8], from: &str) -> Result<Vec<PublicKey>, PackageError> {
    PublicKey::parse_all(keyring).map_err(|message| PackageError::Keys {
        from: from.to_string(),
        message,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys that keys/README.md lists, and no others.
    #[test]
    fn all_are_known_by_their_fingerprints() {
        let listed = include_str!("keys/README.md");
        let mut count = 0;
        for (id, _) in KNOWN {
            for key in of(id).unwrap() {
                let row = format!("`{}`", key.fingerprint().to_uppercase());
                assert!(
                    listed
                        .lines()
                        .any(|line| line.contains(&row) && line.contains(&format!("`{id}.asc`"))),
                    "{id} {row}"
                );
                count += 1;
            }
        }
        assert_eq!(
            count,
            listed.lines().filter(|it| it.contains(".asc`")).count()
        );
    }

    #[test]
    fn invalid_keyrings_are_refused() {
        for bytes in [
            &b""[..],
            b"hello",
            b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nx",
        ] {
            assert!(read(bytes, "x").is_err());
        }
        assert!(of("plan9").unwrap_err().to_string().contains("plan9"));
    }
}
