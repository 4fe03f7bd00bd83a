//! TLS: whom to trust, and who we are.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

/// Whose certificates are good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those that the system's authorities signed.
    #[default]
    System,
    /// Those that an authority in this PEM file signed.
    File(PathBuf),
    /// All of them: nothing is checked.
    Anyone,
}

/// How a client does TLS. `identity` is a certificate chain and its key, in PEM files; `http2` offers HTTP/2 besides
/// HTTP/1.1.
///
/// # Errors
/// A file that cannot be read or used, by name.
pub fn client_config(
    trust: &Trust,
    identity: Option<(&str, &str)>,
    http2: bool,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS: {error}"))?;
    let builder = match trust {
        Trust::Anyone => builder.dangerous().with_custom_certificate_verifier(Arc::new(NoCheck(provider))),
        Trust::System | Trust::File(_) => builder.with_root_certificates(roots(trust)?),
    };
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain_certificates = certificates(chain)?;
            let private = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| format!("client key {key}: no usable PEM private key: {error}"))?;
            builder
                .with_client_auth_cert(chain_certificates, private)
                .map_err(|error| format!("client certificate {chain} with key {key}: {error}"))?
        }
    };
    config.alpn_protocols = if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { Vec::new() };
    Ok(Arc::new(config))
}

fn certificates(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(|found| found.collect::<Result<Vec<_>, _>>())
        .map_err(|error| format!("certificates {file}: {error}"))?;
    if certificates.is_empty() {
        return Err(format!("certificates {file}: no PEM certificate in it"));
    }
    Ok(certificates)
}

fn roots(trust: &Trust) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match trust {
        Trust::File(file) => {
            for certificate in certificates(&file.to_string_lossy())? {
                store
                    .add(certificate)
                    .map_err(|error| format!("certificates {}: {error}", file.display()))?;
            }
        }
        Trust::System | Trust::Anyone => {
            // A system without authorities is no error before someone presents a certificate.
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(store)
}

/// Accepts every certificate, but not a broken handshake.
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
