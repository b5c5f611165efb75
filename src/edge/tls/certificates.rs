//! The certificates of the TLS listener: read from their files, found by the host that a client asks for.
//!
//! Walk: [`read`] makes a [`Pair`] of two files; [`Table`] knows which pair is for which host; [`Certificates`] holds the table
//! that counts, which handshakes read without a lock and [`super::watch`] replaces whole.
//!
//! Invariants: a table is never empty; a pair whose key is not that of its certificate never gets into one.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use sha2::{Digest as _, Sha256};

use super::metrics::TlsMetrics;
use super::x509::{self, Facts};

/// A chain of certificates takes some kilobytes; a device or a log given by mistake is not read to its end.
const MAX_BYTES: u64 = 1024 * 1024;

/// The digest of both files, by which a change is known. Keys are not kept for that.
pub(super) use crate::settings::Content;

/// Where a pair stands, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) name: Arc<str>,
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) place: Place,
    pub(super) content: Content,
    pub(super) facts: Facts,
    certified: Arc<CertifiedKey>,
}

impl Pair {
    /// Whether this certificate is for `host`: a name in lower case, or an address.
    pub(super) fn covers(&self, host: &str) -> bool {
        if let Ok(address) = host.parse::<IpAddr>() {
            return self.facts.addresses.contains(&address);
        }
        // RFC 6125, 6.4.3: the star stands for one label, and is the whole of it.
        let above = host.split_once('.').map(|(_, above)| above);
        self.facts
            .names
            .iter()
            .any(|name| name == host || (above.is_some() && name.strip_prefix("*.") == above))
    }
}

/// Why a pair of files cannot be shown to anybody. Names no content.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadPair {
    #[error("{0}: {1}")]
    File(PathBuf, String),
    #[error("{key} is not the key of the certificate in {cert}", key = .0.display(), cert = .1.display())]
    Mismatch(PathBuf, PathBuf),
}

/// Both files as they are now.
pub(super) struct Files {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    pub(super) fn read(place: &Place) -> Result<Self, BadPair> {
        Ok(Self { cert: bytes(&place.cert)?, key: bytes(&place.key)? })
    }

    pub(super) fn content(&self) -> Content {
        let mut digest = Sha256::new();
        digest.update(self.cert.len().to_be_bytes());
        digest.update(&self.cert);
        digest.update(&self.key);
        digest.finalize().into()
    }

    /// The pair, where both are what they should be and belong together.
    pub(super) fn pair(&self, place: &Place) -> Result<Pair, BadPair> {
        let wrong = |file: &Path, why: &str| BadPair::File(file.to_owned(), why.to_owned());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&self.cert)
            .collect::<Result<_, pem::Error>>()
            .map_err(|_secret| wrong(&place.cert, "this is not a certificate in PEM"))?;
        let Some(leaf) = chain.first() else {
            return Err(wrong(&place.cert, "it holds no certificate in PEM"));
        };
        let facts = x509::facts(leaf)
            .ok_or_else(|| wrong(&place.cert, "its first certificate cannot be read"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_secret| wrong(&place.key, "it holds no private key in PEM"))?;
        let provider = rustls::crypto::ring::default_provider();
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(|why| match why {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                BadPair::Mismatch(place.key.clone(), place.cert.clone())
            }
            Error::InvalidCertificate(_) => wrong(&place.cert, "this is not a certificate"),
            _ => wrong(&place.key, "a key of this kind cannot be used; take RSA or ECDSA"),
        })?;
        let certified = Arc::new(certified);
        Ok(Pair { place: place.clone(), content: self.content(), facts, certified })
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, BadPair> {
    let wrong = |why: String| BadPair::File(path.to_owned(), why);
    let unreadable = |error: std::io::Error| wrong(format!("it cannot be read: {error}"));
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(wrong("this is not a file of a certificate or a key".to_owned()));
    }
    fs::read(path).map_err(unreadable)
}

/// The pair that stands at `place`.
pub(super) fn read(place: &Place) -> Result<Pair, BadPair> {
    Files::read(place)?.pair(place)
}

/// Which certificate is for which host.
#[derive(Debug)]
pub(super) struct Table {
    default: Arc<Pair>,
    pairs: Vec<Arc<Pair>>,
    exact: HashMap<String, Arc<Pair>>,
    /// By what stands behind `*.`.
    wildcards: HashMap<String, Arc<Pair>>,
}

impl Table {
    /// A table of `pairs`; nothing where there is none. Of two for the same host the first counts; who asks for none of
    /// them is shown the one called `default`, else the first.
    pub(super) fn new(pairs: Vec<Arc<Pair>>, default: Option<&str>) -> Option<Self> {
        let named = default.and_then(|name| pairs.iter().find(|pair| &*pair.place.name == name));
        let default = Arc::clone(named.or_else(|| pairs.first())?);
        let (mut exact, mut wildcards) = (HashMap::new(), HashMap::new());
        for pair in &pairs {
            for name in &pair.facts.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(above) => (&mut wildcards, above),
                    None => (&mut exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_insert_with(|| Arc::clone(pair));
            }
        }
        Some(Self { default, pairs, exact, wildcards })
    }

    pub(super) fn pairs(&self) -> &[Arc<Pair>] {
        &self.pairs
    }

    pub(super) fn default_name(&self) -> &str {
        &self.default.place.name
    }

    /// What is shown to a client that asks for `host`, in lower case.
    pub(super) fn find(&self, host: &str) -> &Arc<Pair> {
        let above = || host.split_once('.').and_then(|(_, above)| self.wildcards.get(above));
        self.exact.get(host).or_else(above).unwrap_or(&self.default)
    }
}

/// The table that counts now.
#[derive(Debug)]
pub(super) struct Certificates {
    table: ArcSwap<Table>,
    pub(super) metrics: Arc<TlsMetrics>,
}

impl Certificates {
    pub(super) fn new(table: Table, metrics: Arc<TlsMetrics>) -> Arc<Self> {
        for pair in table.pairs() {
            metrics.certificate(&pair.place.name, pair.facts.not_after);
        }
        Arc::new(Self { table: ArcSwap::from_pointee(table), metrics })
    }

    pub(super) fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// From now on `table` counts; open connections keep what they were shown.
    pub(super) fn replace(&self, table: Table) {
        let table = Arc::new(table);
        let before = self.table.swap(Arc::clone(&table));
        self.tell(&table, &before);
    }

    /// The same, unless the one that counts is no longer `before`; says whether it was done.
    pub(super) fn replace_if(&self, before: &Arc<Table>, table: Table) -> bool {
        let table = Arc::new(table);
        let found = self.table.compare_and_swap(before, Arc::clone(&table));
        let is_done = Arc::ptr_eq(&found, before);
        if is_done {
            self.tell(&table, before);
        }
        is_done
    }

    fn tell(&self, now: &Table, before: &Table) {
        for pair in now.pairs() {
            self.metrics.certificate(&pair.place.name, pair.facts.not_after);
        }
        for gone in before.pairs() {
            if now.pairs().iter().all(|pair| pair.place.name != gone.place.name) {
                self.metrics.forget(&gone.place.name);
            }
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.table.load();
        // rustls gives the name in lower case.
        let pair = hello.server_name().map_or(&table.default, |name| table.find(name));
        Some(Arc::clone(&pair.certified))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A certificate for `names` and its key, as files of `folder` that are called `name`.
    pub(in crate::edge::tls) fn write(folder: &Path, name: &str, names: &[&str]) -> Place {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let [cert_file, key_file] = ["pem", "key"].map(|end| folder.join(format!("{name}.{end}")));
        fs::write(&cert_file, cert.pem()).unwrap();
        fs::write(&key_file, key.serialize_pem()).unwrap();
        Place { name: name.into(), cert: cert_file, key: key_file }
    }

    fn table(folder: &Path, of: &[(&str, &[&str])], default: Option<&str>) -> Table {
        let pair =
            |(name, hosts): &(&str, &[&str])| Arc::new(read(&write(folder, name, hosts)).unwrap());
        Table::new(of.iter().map(pair).collect(), default).unwrap()
    }

    #[test]
    fn the_host_finds_its_certificate() {
        let folder = tempfile::tempdir().unwrap();
        let table = table(
            folder.path(),
            &[
                ("a", &["a.example", "*.a.example"]),
                ("b", &["b.example", "deep.a.example", "127.0.0.1"]),
                ("c", &["*.b.example", "a.example"]),
            ],
            None,
        );
        for (host, expected) in [
            ("a.example", "a"),
            ("x.a.example", "a"),
            ("deep.a.example", "b"),
            ("x.y.a.example", "a"), // the default: a star is one label
            ("b.example", "b"),
            ("x.b.example", "c"),
            ("elsewhere", "a"),
            ("", "a"),
        ] {
            assert_eq!(&*table.find(host).place.name, expected, "{host}");
        }
        let [a, b, c] = table.pairs() else { panic!("three pairs") };
        assert!(a.covers("a.example") && a.covers("x.a.example") && !a.covers("x.y.a.example"));
        assert!(!a.covers("example") && !a.covers("") && !a.covers("evil-a.example"));
        assert!(b.covers("127.0.0.1") && !b.covers("127.0.0.2") && !b.covers("::1"));
        assert!(c.covers("x.b.example") && !c.covers("b.example") && !c.covers("*.b.example.x"));
    }

    #[test]
    fn the_default_can_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let of: &[(&str, &[&str])] = &[("a", &["a"]), ("b", &["b"])];
        assert_eq!(table(folder.path(), of, None).default_name(), "a");
        assert_eq!(table(folder.path(), of, Some("b")).find("x").place.name.as_ref(), "b");
        assert!(Table::new(Vec::new(), None).is_none());
    }

    #[test]
    fn files_that_are_no_pair_are_told_of_without_their_content() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) =
            (write(folder.path(), "one", &["a"]), write(folder.path(), "other", &["a"]));
        let said = |cert: &Path, key: &Path| {
            let place = Place { name: "x".into(), cert: cert.to_owned(), key: key.to_owned() };
            read(&place).unwrap_err().to_string()
        };
        assert!(said(&one.cert, &other.key).contains("is not the key of the certificate"));
        assert!(said(&one.key, &one.key).contains("it holds no certificate"));
        assert!(said(&one.cert, &one.cert).contains("it holds no private key"));
        assert!(said(folder.path(), &one.key).contains("not a file of a certificate"));
        assert!(said(&folder.path().join("none"), &one.key).contains("it cannot be read"));
        let broken = folder.path().join("broken");
        fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
            .unwrap();
        assert!(said(&broken, &one.key).contains("cannot be read"));
    }
}
