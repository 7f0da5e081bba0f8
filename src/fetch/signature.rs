//! OpenPGP signatures on checksum files (RFC 9580).

use pgp::{
    composed::{
        ArmorOptions, CleartextSignedMessage, Deserializable, DetachedSignature, SignedPublicKey,
    },
    crypto::hash::HashAlgorithm,
    packet::{Signature, SignatureType},
    types::KeyDetails,
};

/// A key whose signatures count, if they were made while it, or the subkey that made them, was not
/// expired. Files stay published longer than keys last, so when they are looked at does not matter.
#[derive(Clone, Debug, PartialEq)]
pub struct PublicKey(SignedPublicKey);

impl PublicKey {
    /// Reads an armoured key. `Err` says what is wrong with it.
    pub fn parse(armoured: &str) -> Result<Self, String> {
        let (key, _) = SignedPublicKey::from_string(armoured)
            .map_err(|error| format!("it is no OpenPGP key: {error}"))?;
        Self::checked(key)
    }

    /// Reads a keyring: several keys, binary (`.gpg`, `.pgp`) or armoured (`.asc`, any number of blocks).
    /// Keys that cannot be used are left out (revoked, of a kind that is not known); `Err` says why
    /// where none is left.
    pub fn parse_all(keyring: &[u8]) -> Result<Vec<Self>, String> {
        let blocks = match armoured_blocks(keyring) {
            blocks if blocks.is_empty() => vec![keyring],
            blocks => blocks,
        };
        let (mut keys, mut last) = (Vec::new(), "it holds no key".to_string());
        for block in blocks {
            match SignedPublicKey::from_reader_many(block) {
                Ok((found, _)) => {
                    for key in found {
                        match key
                            .map_err(|error| error.to_string())
                            .and_then(Self::usable)
                        {
                            Ok(key) => keys.push(key),
                            Err(why) => last = why,
                        }
                    }
                }
                Err(error) => last = error.to_string(),
            }
        }
        if keys.is_empty() {
            return Err(format!("it is no OpenPGP keyring that can be used: {last}"));
        }
        Ok(keys)
    }

    /// What its owner says of it, and no more: keyrings carry what others say of keys too.
    fn usable(mut key: SignedPublicKey) -> Result<Self, String> {
        let owner = key.primary_key.legacy_key_id();
        let own = |signature: &Signature| signature.issuer_key_id().contains(&&owner);
        for user in &mut key.details.users {
            user.signatures.retain(own);
        }
        key.details.users.retain(|user| !user.signatures.is_empty());
        key.details.user_attributes.clear();
        key.details.direct_signatures.retain(own);
        Self::checked(key)
    }

    fn checked(key: SignedPublicKey) -> Result<Self, String> {
        key.verify_bindings()
            .map_err(|error| format!("its self-signatures are not good: {error}"))?;
        if !key.details.revocation_signatures.is_empty() {
            return Err("it is revoked".into());
        }
        Ok(PublicKey(key))
    }

    /// As text that [`PublicKey::parse`] reads.
    pub fn armoured(&self) -> Result<String, String> {
        self.0
            .to_armored_string(ArmorOptions::default())
            .map_err(|error| error.to_string())
    }

    /// Lower-case hex digits.
    pub fn fingerprint(&self) -> String {
        self.0.primary_key.fingerprint().to_string()
    }

    /// Whether it, or a subkey of it that may sign, made this signature.
    fn made(&self, signature: &Signature, data: &[u8]) -> bool {
        let Some(at) = signature.created().map(|time| u64::from(time.as_secs())) else {
            return false;
        };
        let primary = self.0.primary_key.created_at().as_secs();
        let of_users = (self.0.details.users.iter()).flat_map(|user| &user.signatures);
        let owner = self.0.primary_key.legacy_key_id();
        let own = (of_users.chain(&self.0.details.direct_signatures))
            .filter(|it| it.issuer_key_id().contains(&&owner));
        if !lasts(u64::from(primary), own, at) {
            return false;
        }
        signature.verify(&self.0.primary_key, data).is_ok()
            || self.0.public_subkeys.iter().any(|subkey| {
                let revoked = |it: &Signature| it.typ() == Some(SignatureType::SubkeyRevocation);
                subkey.signatures.iter().any(|it| it.key_flags().sign())
                    && !subkey.signatures.iter().any(revoked)
                    && lasts(
                        u64::from(subkey.key.created_at().as_secs()),
                        subkey.signatures.iter(),
                        at,
                    )
                    && signature.verify(&subkey.key, data).is_ok()
            })
    }
}

/// Whether a key was there and not expired at a time, in seconds: what its newest self-signature
/// says of it counts.
fn lasts<'a>(created: u64, own: impl Iterator<Item = &'a Signature>, at: u64) -> bool {
    let newest = own
        .filter(|it| it.created().is_some())
        .max_by_key(|it| it.created().map(|time| time.as_secs()));
    let ends = newest
        .and_then(Signature::key_expiration_time)
        .map(|time| u64::from(time.as_secs()))
        .filter(|seconds| *seconds > 0)
        .map_or(u64::MAX, |seconds| created + seconds);
    // Clocks differ somewhat.
    created <= at + 86_400 && at < ends
}

/// From each line that begins an armoured key to the next.
fn armoured_blocks(keyring: &[u8]) -> Vec<&[u8]> {
    const BEGIN: &[u8] = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";
    let starts: Vec<usize> = (0..keyring.len())
        .filter(|at| keyring[*at] == b'-' && keyring[*at..].starts_with(BEGIN))
        .collect();
    starts
        .iter()
        .enumerate()
        .map(|(n, start)| &keyring[*start..starts.get(n + 1).copied().unwrap_or(keyring.len())])
        .collect()
}

/// Collisions can be made for older ones.
fn strong(signature: &Signature) -> bool {
    matches!(
        signature.hash_alg(),
        Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512)
    )
}

/// Fails unless one of the detached signatures, armoured or not, is good and made by `key`.
pub fn verify_detached(key: &PublicKey, data: &[u8], signatures: &[u8]) -> Result<(), String> {
    verify_detached_by_any(std::slice::from_ref(key), data, signatures)
}

/// The same, made by any of these keys.
pub fn verify_detached_by_any(
    keys: &[PublicKey],
    data: &[u8],
    signatures: &[u8],
) -> Result<(), String> {
    let (found, _) = DetachedSignature::from_reader_many(signatures)
        .map_err(|error| format!("it is no OpenPGP signature: {error}"))?;
    let mut weak = false;
    for signature in found.flatten() {
        if keys.iter().any(|key| key.made(&signature.signature, data)) {
            if strong(&signature.signature) {
                return Ok(());
            }
            weak = true;
        }
    }
    Err(not_good(keys, weak))
}

/// The text of a clearsigned file (RFC 9580 §7), and nothing that stands around it. Fails unless
/// one of its signatures is good and made by `key`.
pub fn verify_clearsigned(key: &PublicKey, file: &[u8]) -> Result<String, String> {
    verify_clearsigned_by_any(std::slice::from_ref(key), file)
}

/// The same, made by any of these keys.
pub fn verify_clearsigned_by_any(keys: &[PublicKey], file: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(file).map_err(|_| "it is no text".to_string())?;
    let (message, _) = CleartextSignedMessage::from_string(text)
        .map_err(|error| format!("it is not clearsigned: {error}"))?;
    let signed = message.signed_text();
    let mut weak = false;
    for signature in message.signatures() {
        if keys
            .iter()
            .any(|key| key.made(signature, signed.as_bytes()))
        {
            if strong(signature) {
                return Ok(signed);
            }
            weak = true;
        }
    }
    Err(not_good(keys, weak))
}

fn not_good(keys: &[PublicKey], weak: bool) -> String {
    if weak {
        return "it is made with a hash that is no longer safe".into();
    }
    match keys {
        [] => "no key is known that could have made it".into(),
        [key] => format!("it was not made by key {}", key.fingerprint()),
        keys => {
            let prints: Vec<String> = keys.iter().map(PublicKey::fingerprint).collect();
            format!("it was made by none of the keys {}", prints.join(", "))
        }
    }
}
