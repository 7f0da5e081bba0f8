//! The certificate of a machine.

use std::{collections::BTreeSet, fmt, net::Ipv4Addr, path::Path, time::Duration};

use jiff::Timestamp;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use serde::{Deserialize, Serialize};

use crate::host::{file, open};

use super::{
    Authority, DAY, HOUR, LARGEST, TlsError, Validity,
    authority::{DOMAIN, NETWORKS},
};

const LIFE: Duration = Duration::from_secs(90 * DAY.as_secs());

/// If less is left, it is made again. A third is what other clients of authorities take, too.
const LEFT: Duration = Duration::from_secs(LIFE.as_secs() / 3);

/// A longer name does not fit the subject (RFC 5280, ub-common-name), and is only among the other names.
const LONGEST_COMMON_NAME: usize = 64;

/// The names and addresses of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    names: BTreeSet<String>,
    addresses: BTreeSet<Ipv4Addr>,
    /// The machine's own name, which is among `names`.
    own: String,
}

impl Names {
    /// `own` is the machine's name with its domain. Names and addresses for which the authority may not speak are left
    /// out, because programs refuse a certificate with any of them.
    pub fn new(
        own: String,
        others: impl IntoIterator<Item = String>,
        addresses: impl IntoIterator<Item = Ipv4Addr>,
    ) -> Self {
        let may = |name: &String| name.ends_with(&format!(".{DOMAIN}"));
        let is_in = |address: Ipv4Addr, (base, prefix): (Ipv4Addr, u8)| {
            (address.to_bits() ^ base.to_bits()) >> (32 - u32::from(prefix)) == 0
        };
        Names {
            names: (std::iter::once(own.clone()).chain(others))
                .filter(may)
                .collect(),
            addresses: (addresses.into_iter())
                .filter(|address| NETWORKS.iter().any(|it| is_in(*address, *it)))
                .collect(),
            own,
        }
    }
}

/// A certificate with its key. Both are in one file, so that they always match.
#[derive(Serialize, Deserialize)]
pub struct Leaf {
    names: Names,
    /// The fingerprint of the authority that signed it.
    authority: String,
    validity: Validity,
    /// As PEM.
    certificate: String,
    key: String,
}

/// Without the key.
impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl Leaf {
    /// Returns the certificate in that file, and makes it if it is missing, damaged, old or for other names.
    pub fn get(
        path: &Path,
        names: &Names,
        authority: &Authority,
        now: Timestamp,
    ) -> Result<Self, TlsError> {
        let found = (open::text(path, LARGEST).ok())
            .and_then(|text| serde_json::from_str::<Leaf>(&text).ok())
            .filter(|leaf| leaf.is_good(names, authority, now));
        if let Some(leaf) = found {
            return Ok(leaf);
        }
        let leaf = Self::make(names, authority, now)?;
        let text = serde_json::to_string_pretty(&leaf).map_err(|error| leaf.not_made(&error))?;
        file::replace(path, text.as_bytes(), file::PRIVATE)
            .map_err(TlsError::file("write", path))?;
        Ok(leaf)
    }

    fn is_good(&self, names: &Names, authority: &Authority, now: Timestamp) -> bool {
        self.names == *names
            && self.authority == authority.fingerprint()
            && !self.validity.is_over(now, LEFT)
    }

    fn make(names: &Names, authority: &Authority, now: Timestamp) -> Result<Self, TlsError> {
        let failed = |error: rcgen::Error| TlsError::Made {
            what: names.own.clone(),
            why: error.to_string(),
        };
        let validity = Validity::begin(now, LIFE, HOUR);
        let mut params = CertificateParams::default();
        validity.write(&mut params);
        params.distinguished_name = rcgen::DistinguishedName::new();
        (params.distinguished_name).push(DnType::OrganizationName, "stead");
        if names.own.len() <= LONGEST_COMMON_NAME {
            (params.distinguished_name).push(DnType::CommonName, names.own.as_str());
        }
        for name in &names.names {
            let name = name.as_str().try_into().map_err(failed)?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        let addresses = names.addresses.iter();
        (params.subject_alt_names).extend(addresses.map(|it| SanType::IpAddress((*it).into())));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let certificate = (params.signed_by(&key, &authority.issuer()?)).map_err(failed)?;
        Ok(Leaf {
            names: names.clone(),
            authority: authority.fingerprint(),
            validity,
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    fn not_made(&self, error: &dyn fmt::Display) -> TlsError {
        TlsError::Made {
            what: self.names.own.clone(),
            why: error.to_string(),
        }
    }

    /// The certificate as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The key as PEM. It is a secret.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// When it has to be made again.
    pub fn renew_after(&self) -> Timestamp {
        self.validity.until(LEFT)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::{
        super::authority::tests::{NOW, authority, verify, verify_by_openssl},
        *,
    };

    fn names(aliases: &[&str]) -> Names {
        Names::new(
            "db.shop.internal".into(),
            aliases.iter().map(ToString::to_string),
            [[10, 77, 0, 10], [127, 77, 0, 10], [100, 64, 0, 9]].map(Ipv4Addr::from),
        )
    }

    #[test]
    fn programs_accept_it_for_all_names_of_the_machine() {
        let authority = authority();
        let leaf = Leaf::make(&names(&["pg.shop.internal", "pg"]), &authority, NOW).unwrap();
        for (name, good) in [
            ("db.shop.internal", true),
            ("pg.shop.internal", true),
            ("10.77.0.10", true),
            ("127.77.0.10", true),
            // The authority may not speak for these, and one of them would spoil all.
            ("100.64.0.9", false),
            ("pg", false),
            ("web.shop.internal", false),
        ] {
            let said = verify(&authority, leaf.certificate(), name, NOW);
            assert_eq!(said.is_ok(), good, "{name}: {said:?}");
            if let Some(said) = verify_by_openssl(&authority, leaf.certificate(), name) {
                assert_eq!(said.is_ok(), good, "{name}: {said:?}");
            }
        }
        let later = |days: u32| {
            let at = NOW + DAY * days;
            verify(&authority, leaf.certificate(), "db.shop.internal", at)
        };
        assert!(later(89).is_ok() && later(91).is_err());
        let other = super::super::authority::tests::authority();
        assert!(verify(&other, leaf.certificate(), "db.shop.internal", NOW).is_err());
    }

    #[test]
    fn it_is_made_again_when_it_must_be() {
        let ours = authority();
        let leaf = Leaf::make(&names(&[]), &ours, NOW).unwrap();
        let good = |names: &Names, authority: &Authority, now| leaf.is_good(names, authority, now);
        assert!(good(&names(&[]), &ours, NOW));
        assert!(good(&names(&[]), &ours, NOW + DAY * 59));
        assert_eq!(leaf.renew_after(), NOW + DAY * 60);
        assert!(!good(&names(&[]), &ours, NOW + DAY * 60));
        // The clock was wrong when it was made.
        assert!(!good(&names(&[]), &ours, NOW - DAY));
        assert!(!good(&names(&["pg.shop.internal"]), &ours, NOW));
        let moved = Names::new("db.shop.internal".into(), [], [[10, 77, 0, 11].into()]);
        assert!(!good(&moved, &ours, NOW));
        assert!(!good(&names(&[]), &authority(), NOW));
    }

    #[test]
    fn it_is_kept_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("certificate.json");
        let ours = authority();
        let get = |now| Leaf::get(&path, &names(&[]), &ours, now).unwrap();
        let first = get(NOW);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(get(NOW + DAY).certificate(), first.certificate());
        let renewed = get(NOW + DAY * 61);
        assert_ne!(renewed.certificate(), first.certificate());
        assert_ne!(renewed.key(), first.key());
        assert!(!format!("{renewed:?}").contains("PRIVATE"));
        fs::write(&path, "{").unwrap();
        assert_ne!(get(NOW).key(), renewed.key());
    }

    #[test]
    fn a_long_name_is_among_the_names_only() {
        let long = format!("{}.shop.internal", "a".repeat(63));
        let authority = authority();
        let leaf = Leaf::make(&Names::new(long.clone(), [], []), &authority, NOW).unwrap();
        verify(&authority, leaf.certificate(), &long, NOW).unwrap();
        assert!(
            verify_by_openssl(&authority, leaf.certificate(), &long).is_none_or(|it| it.is_ok())
        );
    }
}
