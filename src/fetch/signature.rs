//! OpenPGP signatures of checksum files (RFC 9580).

use pgp::{
    composed::{
        ArmorOptions, CleartextSignedMessage, Deserializable, DetachedSignature, SignedPublicKey,
    },
    crypto::hash::HashAlgorithm,
    packet::{Signature, SignatureType},
    types::KeyDetails,
};

/// A key. Its signatures are valid if it, or the subkey that made them, had not expired when they were made. Whether it has
/// expired since does not matter, because files stay published longer than keys last.
#[derive(Clone, Debug, PartialEq)]
pub struct PublicKey(SignedPublicKey);

impl PublicKey {
    /// Parses an armoured key. The error says what is wrong with it.
    pub fn parse(armoured: &str) -> Result<Self, String> {
        let (key, _) = SignedPublicKey::from_string(armoured)
            .map_err(|error| format!("it is not an OpenPGP key: {error}"))?;
        Self::checked(key)
    }

    /// Parses a keyring: several keys, binary (`.gpg`, `.pgp`) or armoured (`.asc`, any number of blocks). Unusable keys
    /// (revoked ones, or those of an unknown kind) are skipped.
    ///
    /// # Errors
    /// If no key is left. The error says why.
    pub fn parse_all(keyring: &[u8]) -> Result<Vec<Self>, String> {
        let blocks = match armoured_blocks(keyring) {
            blocks if blocks.is_empty() => vec![keyring],
            blocks => blocks,
        };
        let (mut keys, mut last) = (Vec::new(), "it contains no key".to_string());
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
            return Err(format!("it is not a usable OpenPGP keyring: {last}"));
        }
        Ok(keys)
    }

    /// Removes the signatures of others from a key. Keyrings contain them too.
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
            .map_err(|error| format!("its self-signatures are invalid: {error}"))?;
        if !key.details.revocation_signatures.is_empty() {
            return Err("it is revoked".into());
        }
        Ok(PublicKey(key))
    }

    /// Returns the key as text for [`PublicKey::parse`].
    pub fn armoured(&self) -> Result<String, String> {
        self.0
            .to_armored_string(ArmorOptions::default())
            .map_err(|error| error.to_string())
    }

    /// Returns the fingerprint in lower-case hex digits.
    pub fn fingerprint(&self) -> String {
        self.0.primary_key.fingerprint().to_string()
    }

    /// Whether this key, or one of its subkeys that may sign, made the signature.
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

/// Whether a key existed and had not expired at a time, in seconds. The newest self-signature counts.
fn lasts<'a>(created: u64, own: impl Iterator<Item = &'a Signature>, at: u64) -> bool {
    let newest = own
        .filter(|it| it.created().is_some())
        .max_by_key(|it| it.created().map(|time| time.as_secs()));
    let ends = newest
        .and_then(Signature::key_expiration_time)
        .map(|time| u64::from(time.as_secs()))
        .filter(|seconds| *seconds > 0)
        .map_or(u64::MAX, |seconds| created + seconds);
    // Clocks differ, so a day is allowed.
    created <= at + 86_400 && at < ends
}

/// Splits a keyring before each line that begins an armoured key.
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

/// Whether the hash is safe. Collisions can be made for older ones.
fn strong(signature: &Signature) -> bool {
    matches!(
        signature.hash_alg(),
        Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512)
    )
}

/// Checks that `key` made one of the detached signatures, armoured or not.
pub fn verify_detached(key: &PublicKey, data: &[u8], signatures: &[u8]) -> Result<(), String> {
    verify_detached_by_any(std::slice::from_ref(key), data, signatures)
}

/// Like [`verify_detached`], for any of these keys.
pub fn verify_detached_by_any(
    keys: &[PublicKey],
    data: &[u8],
    signatures: &[u8],
) -> Result<(), String> {
    let (found, _) = DetachedSignature::from_reader_many(signatures)
        .map_err(|error| format!("it is not an OpenPGP signature: {error}"))?;
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

/// Returns the signed text of a clearsigned file (RFC 9580 §7), without the text around it.
///
/// # Errors
/// If `key` made none of its signatures.
pub fn verify_clearsigned(key: &PublicKey, file: &[u8]) -> Result<String, String> {
    verify_clearsigned_by_any(std::slice::from_ref(key), file)
}

/// Like [`verify_clearsigned`], for any of these keys.
pub fn verify_clearsigned_by_any(keys: &[PublicKey], file: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(file).map_err(|_| "it is not text".to_string())?;
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
        return "it uses a hash that is not safe any more".into();
    }
    match keys {
        [] => "there is no key to check it with".into(),
        [key] => format!("it was not made by key {}", key.fingerprint()),
        keys => {
            let prints: Vec<String> = keys.iter().map(PublicKey::fingerprint).collect();
            format!("it was made by none of the keys {}", prints.join(", "))
        }
    }
}
