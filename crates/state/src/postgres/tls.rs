//! TLS to a database: rustls, with the authorities of the system or those of `sslrootcert`.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_tokio_postgres::MakeRustlsConnect;
use sluicegate_core::{Code, Error, Result};

/// What speaks TLS. The authorities are read anew for each session, as they may be renewed.
pub(crate) fn connector(root: Option<&Path>) -> Result<MakeRustlsConnect> {
    let roots = match root {
        Some(path) => from_file(path)?,
        None => {
            let mut roots = RootCertStore::empty();
            // One that cannot be read is left out: a server that needs it is refused, and says so.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder =
        builder.map_err(|error| Error::new(Code::Internal, format!("state.postgres: TLS cannot be set up: {error}")))?;
    Ok(MakeRustlsConnect::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

fn from_file(path: &Path) -> Result<RootCertStore> {
    let unusable = |error: String| {
        let message =
            format!("state.postgres: `sslrootcert={}` cannot be used: {error}; expected certificates in PEM", path.display());
        Error::new(Code::BadConfig, message)
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))? {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(unusable("it has no certificate".to_owned())),
        false => Ok(roots),
    }
}
