//! A certificate for development: an authority of this machine's own, and a certificate for localhost that it signed.
//!
//! Both are kept in a folder, so that a browser that was told to trust the authority once goes on to do so. The authority
//! may sign for this machine alone (name constraints): whoever got its key could not pass for anybody else with it.

use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::certificates::Place;
use super::x509;
use crate::settings::TlsSettings;

/// For whom the certificate is. Not `*.localhost`: a star right below the last label is refused by clients.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// The certificate is made anew when it has fewer seconds left …
const RENEW: i64 = 30 * DAY;
/// … and lasts this long then; browsers refuse what lasts much longer than a year.
const LASTS: i64 = 365 * DAY;
const DAY: i64 = 24 * 60 * 60;

/// What stands in the way of a development certificate.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}", path = .path.display())]
pub(super) struct DevError {
    path: PathBuf,
    why: String,
}

impl DevError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self { path: path.to_owned(), why: error.to_string() }
    }

    fn made(path: &Path) -> impl FnOnce(rcgen::Error) -> Self {
        move |error| Self { path: path.to_owned(), why: error.to_string() }
    }
}

/// Where the certificate of the authority is.
pub(super) fn authority(folder: &Path) -> PathBuf {
    folder.join("dev-ca.pem")
}

/// Makes what is missing or about to end, and says where the certificate is.
///
/// # Errors
/// Where the folder cannot be written, or holds something else under these names.
pub(super) fn ensure(folder: &Path) -> Result<Place, DevError> {
    let place = Place {
        name: TlsSettings::DEV_NAME.into(),
        cert: folder.join("dev-cert.pem"),
        key: folder.join("dev-key.pem"),
    };
    make_folder(folder).map_err(DevError::at(folder))?;
    let (ca_cert, ca_key) = (authority(folder), folder.join("dev-ca-key.pem"));
    let is_kept = left(&ca_cert).is_some_and(|left| left > RENEW) && ca_key.exists();
    let (signer, params) = if is_kept {
        let text = fs::read_to_string(&ca_key).map_err(DevError::at(&ca_key))?;
        (KeyPair::from_pem(&text).map_err(DevError::made(&ca_key))?, authority_params())
    } else {
        let (signer, params) =
            (KeyPair::generate().map_err(DevError::made(&ca_key))?, authority_params());
        let cert = params.self_signed(&signer).map_err(DevError::made(&ca_cert))?;
        write(&ca_key, &signer.serialize_pem(), true)?;
        write(&ca_cert, &cert.pem(), false)?;
        (signer, params)
    };
    if !is_kept || left(&place.cert).is_none_or(|left| left < RENEW) || !place.key.exists() {
        let key = KeyPair::generate().map_err(DevError::made(&place.key))?;
        let issuer = Issuer::new(params, signer);
        let cert = certificate_params()
            .and_then(|params| params.signed_by(&key, &issuer))
            .map_err(DevError::made(&place.cert))?;
        write(&place.key, &key.serialize_pem(), true)?;
        write(&place.cert, &cert.pem(), false)?;
    }
    Ok(place)
}

/// The same each time: what the authority signs later must name it as it is.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Meridian development, this machine only");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let addresses = [
        CidrSubnet::from_addr_prefix(Ipv4Addr::LOCALHOST.into(), 32),
        CidrSubnet::from_addr_prefix(Ipv6Addr::LOCALHOST.into(), 128),
    ];
    let names = std::iter::once(GeneralSubtree::DnsName("localhost".to_owned()));
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: names.chain(addresses.map(GeneralSubtree::IpAddress)).collect(),
        excluded_subtrees: Vec::new(),
    });
    // Fixed: the same authority whenever it is asked.
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    params.not_after = rcgen::date_time_ymd(2046, 1, 1);
    params
}

fn certificate_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let start = rcgen::date_time_ymd(1970, 1, 1);
    let at = |seconds: i64| start + std::time::Duration::from_secs(seconds.max(0).unsigned_abs());
    // A day ago, for a clock that is behind.
    params.not_before = at(now() - DAY);
    params.not_after = at(now() + LASTS);
    Ok(params)
}

/// Seconds until the certificate in `file` ends; nothing where there is none.
fn left(file: &Path) -> Option<i64> {
    let leaf = CertificateDer::from_pem_slice(&fs::read(file).ok()?).ok()?;
    Some(x509::facts(&leaf)?.not_after - now())
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// Whole or not at all, so that a gateway beside this one never reads half a file.
fn write(path: &Path, text: &str, is_secret: bool) -> Result<(), DevError> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let written = (|| {
        let mut options = fs::File::options();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(
            &mut options,
            if is_secret { 0o600 } else { 0o644 },
        );
        let mut file = options.open(&beside)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&beside, path)
    })();
    written.map_err(DevError::at(path))
}

/// A folder that nobody else looks into, where there is none yet.
fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(test)]
mod tests {
    use super::super::certificates::read;
    use super::*;

    #[test]
    fn it_is_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("a/b");
        let first = read(&ensure(&folder).unwrap()).unwrap();
        let ca = fs::read(authority(&folder)).unwrap();
        for host in ["localhost", "127.0.0.1", "::1"] {
            assert!(first.covers(host), "{host}");
        }
        assert_eq!(read(&ensure(&folder).unwrap()).unwrap().content, first.content);
        // What the browser trusts outlives the certificate.
        fs::remove_file(&first.place.cert).unwrap();
        let second = read(&ensure(&folder).unwrap()).unwrap();
        assert_ne!(second.content, first.content);
        assert_eq!(fs::read(authority(&folder)).unwrap(), ca);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&second.place.key).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = ensure(&file.join("below")).unwrap_err();
        assert!(error.to_string().contains("below"), "{error}");
    }
}
