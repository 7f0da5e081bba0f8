//! The user's own certificate authority.

use std::{
    fmt, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
    PKCS_ECDSA_P256_SHA256,
};
use serde::{Deserialize, Serialize};

use crate::host::{
    digest::sha256_bytes,
    file,
    lock::{Lock, LockName, own_holder},
    open,
    paths::DataDir,
};

use super::{DAY, LARGEST, TlsError, Validity};

/// The domain below which all names have to be.
pub const DOMAIN: &str = "internal";

/// The networks in which all addresses have to be: the private ones (RFC 1918), and the computer's own. Their lengths
/// are bits of the prefix.
pub const NETWORKS: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
];

const LIFE: Duration = Duration::from_secs(3652 * DAY.as_secs());

/// If less is left, another authority takes its place, so that no certificate outlives it.
const LEFT: Duration = Duration::from_secs(180 * DAY.as_secs());

/// The longest common name (RFC 5280, ub-common-name), in characters.
const LONGEST_NAME: usize = 64;

/// An authority with its key. Both are in one file, so that they always match.
#[derive(Serialize, Deserialize)]
pub struct Authority {
    /// The common name of its subject, which says whose it is.
    name: String,
    validity: Validity,
    /// As PEM.
    certificate: String,
    key: String,
}

/// Without the key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Returns the user's authority, and makes it if there is none or it is about to expire.
    pub fn get(data: &DataDir, now: Timestamp) -> Result<Self, TlsError> {
        Self::get_named(data, now, &|| {
            let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
            let user = match user {
                Ok(Some(user)) => user.name,
                _ => format!("user {}", nix::unistd::geteuid()),
            };
            let host = open::text(Path::new("/proc/sys/kernel/hostname"), 1024);
            format!("stead, {user} on {}", host.unwrap_or_default().trim())
        })
    }

    fn get_named(
        data: &DataDir,
        now: Timestamp,
        name: &dyn Fn() -> String,
    ) -> Result<Self, TlsError> {
        let is_good = |it: &Self| !it.validity.is_over(now, LEFT);
        if let Some(found) = Self::find(data)?.filter(is_good)
            && Self::certificate_file(data).exists()
        {
            return Ok(found);
        }
        let folder = data.authority();
        file::create_folder(&folder, crate::host::paths::CLOSED)
            .map_err(TlsError::file("create", &folder))?;
        let _lock = Lock::acquire(&data.locks(), LockName::Authority, &own_holder())
            .map_err(TlsError::file("lock", &folder))?;
        // Another stead may have made it meanwhile.
        let authority = match Self::find(data)?.filter(is_good) {
            Some(found) => found,
            None => Self::make(&name(), now)?,
        };
        let text =
            serde_json::to_string_pretty(&authority).map_err(|error| authority.not_made(&error))?;
        for (path, content) in [
            (Self::certificate_file(data), &authority.certificate),
            (Self::own_file(data), &text),
        ] {
            file::ensure(&path, content.as_bytes(), file::PRIVATE)
                .map_err(TlsError::file("write", path))?;
        }
        Ok(authority)
    }

    /// Returns the authority, if there is one.
    pub fn find(data: &DataDir) -> Result<Option<Self>, TlsError> {
        let path = Self::own_file(data);
        let text = match open::text(&path, LARGEST) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(TlsError::file("read", &path))?,
        };
        match serde_json::from_str(&text) {
            Ok(authority) => Ok(Some(authority)),
            // Its text may have the key.
            Err(error) => Err(TlsError::Damaged {
                path,
                why: format!("line {}, column {}", error.line(), error.column()),
            }),
        }
    }

    /// The certificate, for people and their programs.
    pub fn certificate_file(data: &DataDir) -> PathBuf {
        data.authority().join("ca.pem")
    }

    fn own_file(data: &DataDir) -> PathBuf {
        data.authority().join("authority.json")
    }

    fn make(name: &str, now: Timestamp) -> Result<Self, TlsError> {
        let name: String = crate::report::clean::words(name)
            .chars()
            .take(LONGEST_NAME)
            .collect();
        let failed = |error: rcgen::Error| TlsError::Made {
            what: "the authority".into(),
            why: error.to_string(),
        };
        let validity = Validity::begin(now, LIFE, DAY);
        let mut params = Self::subject(&name);
        validity.write(&mut params);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // So it vouches for no e-mail and no program.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let networks = NETWORKS.iter().map(|(address, prefix)| {
            let mask = u32::MAX << (32 - u32::from(*prefix));
            GeneralSubtree::IpAddress(CidrSubnet::V4(address.octets(), mask.to_be_bytes()))
        });
        let domain = GeneralSubtree::DnsName(DOMAIN.into());
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: std::iter::once(domain).chain(networks).collect(),
            // The networks above say nothing of IPv6 to some programs.
            excluded_subtrees: vec![GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16]))],
        });
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let certificate = params.self_signed(&key).map_err(failed)?;
        Ok(Authority {
            name,
            validity,
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// What its certificate and what it signs have in common.
    fn subject(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        (params.distinguished_name).push(DnType::OrganizationName, "stead");
        params.distinguished_name.push(DnType::CommonName, name);
        params
    }

    pub(super) fn issuer(&self) -> Result<Issuer<'static, KeyPair>, TlsError> {
        let key = KeyPair::from_pem(&self.key).map_err(|error| self.not_made(&error))?;
        Ok(Issuer::new(Self::subject(&self.name), key))
    }

    fn not_made(&self, error: &dyn fmt::Display) -> TlsError {
        TlsError::Made {
            what: self.name.clone(),
            why: error.to_string(),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The certificate as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    pub fn not_after(&self) -> Timestamp {
        self.validity.not_after
    }

    /// Returns the SHA-256 of the certificate as programs show it: `A1:B2:…`.
    pub fn fingerprint(&self) -> String {
        let words: Vec<String> = sha256_bytes(der(&self.certificate))
            .iter()
            .map(|byte| format!("{byte:02X}"))
            .collect();
        words.join(":")
    }
}

/// Returns the content of a PEM file; nothing if it is damaged, which every program that reads it reports.
fn der(pem: &str) -> Vec<u8> {
    use base64::Engine;
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    (base64::engine::general_purpose::STANDARD.decode(text)).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests {
    use std::{fs, os::unix::fs::MetadataExt, sync::Arc};

    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        pki_types::{CertificateDer, ServerName, UnixTime},
    };

    use super::*;

    pub(crate) const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    pub(crate) fn data() -> (tempfile::TempDir, DataDir) {
        let place = tempfile::tempdir().unwrap();
        let data = DataDir::at(place.path());
        data.prepare().unwrap();
        (place, data)
    }

    pub(crate) fn authority() -> Authority {
        Authority::make("stead, ann on laptop", NOW).unwrap()
    }

    /// Signs whatever it is asked for, as somebody with a stolen key would.
    fn signed(authority: &Authority, names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        Validity::begin(NOW, DAY, DAY).write(&mut params);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().unwrap();
        let issuer = authority.issuer().unwrap();
        params.signed_by(&key, &issuer).unwrap().pem()
    }

    fn verifier(authority: &Authority) -> Arc<WebPkiServerVerifier> {
        let mut roots = RootCertStore::empty();
        roots.add(der(authority.certificate()).into()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap()
    }

    fn at(time: Timestamp) -> UnixTime {
        let seconds = u64::try_from(time.as_second()).unwrap();
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    /// What a program with rustls says of a server.
    pub(crate) fn verify(
        authority: &Authority,
        certificate: &str,
        name: &str,
        now: Timestamp,
    ) -> Result<(), String> {
        let name = ServerName::try_from(name.to_string()).unwrap();
        let leaf = CertificateDer::from(der(certificate));
        (verifier(authority).verify_server_cert(&leaf, &[], &name, &[], at(now)))
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// What openssl(1) says; `None` if it is not installed.
    pub(crate) fn verify_by_openssl(
        authority: &Authority,
        certificate: &str,
        name: &str,
    ) -> Option<Result<(), String>> {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let option = match name.parse::<std::net::IpAddr>() {
            Ok(_) => "-verify_ip",
            Err(_) => "-verify_hostname",
        };
        let output = std::process::Command::new("openssl")
            .args(["verify", "-x509_strict", "-purpose", "sslserver"])
            .args(["-no-CApath", "-no-CAstore", "-attime"])
            .arg(NOW.as_second().to_string())
            .args([option, name, "-CAfile"])
            .arg(file("ca.pem", authority.certificate()))
            .arg(file("leaf.pem", certificate))
            .output();
        let output = output.ok()?;
        Some(match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        })
    }

    /// Somebody who has its key can speak for machines of projects, and for nothing else.
    #[test]
    fn a_stolen_authority_speaks_for_private_names_and_addresses_only() {
        let authority = authority();
        for (name, is_private) in [
            ("db.shop.internal", true),
            ("10.77.0.10", true),
            ("172.16.0.1", true),
            ("192.168.56.10", true),
            ("127.77.0.10", true),
            ("github.com", false),
            ("internal.github.com", false),
            ("db.shop.internal.com", false),
            ("notinternal", false),
            ("localhost", false),
            ("8.8.8.8", false),
            ("172.32.0.1", false),
            ("100.64.0.1", false),
            ("::1", false),
            ("2001:4860:4860::8888", false),
        ] {
            let certificate = signed(&authority, &[name]);
            let answers = [
                Some(verify(&authority, &certificate, name, NOW)),
                verify_by_openssl(&authority, &certificate, name),
            ];
            for said in answers.into_iter().flatten() {
                assert_eq!(said.is_ok(), is_private, "{name}: {said:?}");
                if let Err(why) = said {
                    let why = why.to_lowercase();
                    assert!(
                        why.contains("constraint") || why.contains("permitted subtree"),
                        "{name}: {why}"
                    );
                }
            }
        }
        // A private name beside a public one makes it no better.
        let both = signed(&authority, &["db.shop.internal", "github.com"]);
        assert!(verify(&authority, &both, "db.shop.internal", NOW).is_err());
    }

    /// What it signs is bound by its limits, too.
    #[test]
    fn an_authority_below_it_speaks_for_no_more() {
        let authority = authority();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        Validity::begin(NOW, DAY, DAY).write(&mut params);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let below = params.signed_by(&key, &authority.issuer().unwrap());
        let below = [CertificateDer::from(below.unwrap())];
        let issuer = Issuer::new(params, key);
        let mut leaf = CertificateParams::new(vec!["github.com".into()]).unwrap();
        Validity::begin(NOW, DAY, DAY).write(&mut leaf);
        let key = KeyPair::generate().unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let name = ServerName::try_from("github.com").unwrap();
        let said = verifier(&authority).verify_server_cert(leaf.der(), &below, &name, &[], at(NOW));
        let said = said.unwrap_err().to_string();
        assert!(said.contains("Constraint"), "{said}");
    }

    #[test]
    fn it_is_made_once_and_closed_to_others() {
        let (_place, data) = data();
        assert!(Authority::find(&data).unwrap().is_none());
        // Two commands at once, and more.
        let made: Vec<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| Authority::get(&data, NOW).unwrap().fingerprint()))
                .collect();
            threads.into_iter().map(|it| it.join().unwrap()).collect()
        });
        assert!(made.iter().all(|it| *it == made[0]), "{made:?}");
        for file in fs::read_dir(data.authority()).unwrap() {
            let file = file.unwrap();
            assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600, "{file:?}");
        }
        let mode = fs::metadata(data.authority()).unwrap().mode() & 0o7777;
        assert_eq!(mode, 0o700);
        let public = fs::read_to_string(Authority::certificate_file(&data)).unwrap();
        let authority = Authority::find(&data).unwrap().unwrap();
        assert_eq!(public, authority.certificate());
        assert!(!public.contains("PRIVATE"));
        assert!(!format!("{authority:?}").contains("PRIVATE"));
        // A file for people that somebody deleted comes back.
        fs::remove_file(Authority::certificate_file(&data)).unwrap();
        assert_eq!(Authority::get(&data, NOW).unwrap().fingerprint(), made[0]);
        assert!(Authority::certificate_file(&data).exists());
    }

    #[test]
    fn another_takes_its_place_before_it_expires() {
        let (_place, data) = data();
        let at = |days: u64| NOW + DAY * u32::try_from(days).unwrap();
        let first = Authority::get(&data, NOW).unwrap();
        assert_eq!(first.not_after(), at(3652));
        let later = Authority::get(&data, at(3652 - 181)).unwrap();
        assert_eq!(later.fingerprint(), first.fingerprint());
        let next = Authority::get(&data, at(3652 - 179)).unwrap();
        assert_ne!(next.fingerprint(), first.fingerprint());
        // It comes from the future of a clock that was wrong.
        let again = Authority::get(&data, NOW).unwrap();
        assert_ne!(again.fingerprint(), next.fingerprint());
    }

    #[test]
    fn a_damaged_file_is_not_replaced() {
        let (_place, data) = data();
        Authority::get(&data, NOW).unwrap();
        let path = Authority::own_file(&data);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
        let error = Authority::get(&data, NOW).unwrap_err().to_string();
        assert!(error.contains("authority.json is damaged: line"), "{error}");
        assert!(!error.contains("PRIVATE"), "{error}");
    }

    #[test]
    fn whose_it_is_fits_its_subject() {
        let name = format!("stead, {}\n on x", "é".repeat(100));
        let authority = Authority::make(&name, NOW).unwrap();
        assert_eq!(authority.name().chars().count(), LONGEST_NAME);
        let certificate = signed(&authority, &["db.shop.internal"]);
        verify(&authority, &certificate, "db.shop.internal", NOW).unwrap();
        assert_eq!(authority.fingerprint().len(), 32 * 3 - 1);
    }
}
