//! TLS to Redis: whom to trust, and what to show. Read from the files once, before anything connects.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use super::server::SetupError;
use crate::settings::RedisSettings;

/// What a client of these settings trusts and shows.
pub(super) fn config(settings: &RedisSettings) -> Result<Arc<ClientConfig>, SetupError> {
    let mut roots = RootCertStore::empty();
    // A system without any is no fault, where there is a file.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(file) = &settings.tls_ca {
        let (added, _) = roots.add_parsable_certificates(certificates(file)?);
        if added == 0 {
            return Err(SetupError::tls(file, "it holds no certificate"));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError::Tls(error.to_string()))?
        .with_root_certificates(roots);
    identify(builder, settings).map(Arc::new)
}

fn identify(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    settings: &RedisSettings,
) -> Result<ClientConfig, SetupError> {
    let (Some(cert), Some(key)) = (&settings.tls_cert, &settings.tls_key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|why| SetupError::tls(key, why))?;
    builder.with_client_auth_cert(chain, private).map_err(|why| SetupError::tls(cert, why))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<_, _>>);
    read.map_err(|why| SetupError::tls(file, why))
}
