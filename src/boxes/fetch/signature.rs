//! OpenPGP signatures on checksum files (RFC 9580).

use pgp::{
    composed::{CleartextSignedMessage, Deserializable, DetachedSignature, SignedPublicKey},
    crypto::hash::HashAlgorithm,
    packet::Signature,
    types::KeyDetails,
};

/// A key whose signatures count. When it expires is not looked at: who names it here answers for
/// it, and files stay published longer than keys last.
#[derive(Clone, Debug, PartialEq)]
pub struct PublicKey(SignedPublicKey);

impl PublicKey {
    /// Reads an armoured key. `Err` says what is wrong with it.
    pub fn parse(armoured: &str) -> Result<Self, String> {
        let (key, _) = SignedPublicKey::from_string(armoured)
            .map_err(|error| format!("it is no OpenPGP key: {error}"))?;
        key.verify_bindings()
            .map_err(|error| format!("its self-signatures are not good: {error}"))?;
        if !key.details.revocation_signatures.is_empty() {
            return Err("it is revoked".into());
        }
        Ok(PublicKey(key))
    }

    /// Lower-case hex digits.
    pub fn fingerprint(&self) -> String {
        self.0.primary_key.fingerprint().to_string()
    }

    /// Whether it, or a subkey of it that may sign, made this signature.
    fn made(&self, signature: &Signature, data: &[u8]) -> bool {
        signature.verify(&self.0.primary_key, data).is_ok()
            || self.0.public_subkeys.iter().any(|subkey| {
                subkey.signatures.iter().any(|it| it.key_flags().sign())
                    && signature.verify(&subkey.key, data).is_ok()
            })
    }
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
    let (found, _) = DetachedSignature::from_reader_many(signatures)
        .map_err(|error| format!("it is no OpenPGP signature: {error}"))?;
    let mut weak = false;
    for signature in found.flatten() {
        if key.made(&signature.signature, data) {
            if strong(&signature.signature) {
                return Ok(());
            }
            weak = true;
        }
    }
    Err(not_good(key, weak))
}

/// The text of a clearsigned file (RFC 9580 §7), and nothing that stands around it. Fails unless
/// one of its signatures is good and made by `key`.
pub fn verify_clearsigned(key: &PublicKey, file: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(file).map_err(|_| "it is no text".to_string())?;
    let (message, _) = CleartextSignedMessage::from_string(text)
        .map_err(|error| format!("it is not clearsigned: {error}"))?;
    let signed = message.signed_text();
    let mut weak = false;
    for signature in message.signatures() {
        if key.made(signature, signed.as_bytes()) {
            if strong(signature) {
                return Ok(signed);
            }
            weak = true;
        }
    }
    Err(not_good(key, weak))
}

fn not_good(key: &PublicKey, weak: bool) -> String {
    if weak {
        "it is made with a hash that is no longer safe".into()
    } else {
        format!("it was not made by key {}", key.fingerprint())
    }
}
