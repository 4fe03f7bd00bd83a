//! TLS to an API server: whom a kubeconfig trusts, and who its user is.

use std::sync::Arc;

use base64::Engine as _;
use kube::Config;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use secrecy::ExposeSecret as _;

/// How to speak TLS to the cluster.
///
/// # Errors
/// The field of the kubeconfig that cannot be used, and why.
pub(crate) fn client_config(config: &Config) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?;
    let builder = if config.accept_invalid_certs {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(NoCheck(provider)))
    } else {
        builder.with_root_certificates(roots(config)?)
    };
    let config = match identity(config)? {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("client-certificate-data and client-key-data: {error}"))?,
    };
    Ok(Arc::new(config))
}

/// The cluster's authority, or the system's if it names none.
fn roots(config: &Config) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match &config.root_cert {
        Some(certificates) => {
            for certificate in certificates {
                store
                    .add(CertificateDer::from(certificate.clone()))
                    .map_err(|error| format!("certificate-authority: {error}"))?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(store)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The user's client certificate and its key.
fn identity(config: &Config) -> Result<Option<Identity>, String> {
    let user = &config.auth_info;
    let key = user.client_key_data.as_ref().map(|key| key.expose_secret());
    let chain = pem(
        "client-certificate",
        user.client_certificate_data.as_deref(),
        user.client_certificate.as_deref(),
    )?;
    let key = pem("client-key", key, user.client_key.as_deref())?;
    let (Some(chain), Some(key)) = (chain, key) else { return Ok(None) };
    let chain = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("client-certificate: no usable PEM certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| format!("client-key: no usable PEM private key: {error}"))?;
    Ok(Some((chain, key)))
}

/// A field of a user: its data in the kubeconfig, or else the file that it names.
fn pem(field: &str, data: Option<&str>, file: Option<&str>) -> Result<Option<Vec<u8>>, String> {
    match (data.filter(|data| !data.is_empty()), file.filter(|file| !file.is_empty())) {
        (Some(data), _) => base64::engine::general_purpose::STANDARD
            .decode(data)
            .map(Some)
            .map_err(|error| format!("{field}-data: no base64: {error}")),
        (None, Some(file)) => {
            std::fs::read(file).map(Some).map_err(|error| format!("{field}: {file}: {error}"))
        }
        (None, None) => Ok(None),
    }
}

/// Accepts every certificate, as `insecure-skip-tls-verify` says, but not a broken handshake.
#[derive(Debug)]
struct NoCheck(Arc<CryptoProvider>);

impl ServerCertVerifier for NoCheck {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
