//! TLS, client certificates and HTTP/2, against hyper and rustls as servers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::server::report;

/// PEM files of an authority, a server for `localhost`, and a client.
pub struct Files {
    folder: String,
}

impl Files {
    pub fn create(name: &str) -> Self {
        let folder = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(&folder).unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let write = |file: &str, text: String| std::fs::write(format!("{folder}/{file}"), text).unwrap();
        write("ca.pem", issuer.pem());
        for name in ["localhost", "client"] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            write(&format!("{name}.pem"), params.signed_by(&key, &issuer).unwrap().pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Files { folder }
    }

    pub fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.folder)
    }

    fn certificate(&self, file: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.path(file)).unwrap()
    }

    pub fn server(&self, protocols: &[&str], wants_client: bool) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if wants_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.certificate("ca.pem")).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::from_pem_file(self.path("localhost.key")).unwrap();
        let mut config = builder.with_single_cert(vec![self.certificate("localhost.pem")], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// Serves with TLS, or HTTP/2 alone without it; answers with the version that was spoken.
pub fn serve(tls: Option<Arc<ServerConfig>>) -> SocketAddr {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let tls = tls.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
                        let body = format!("{:?}", request.version());
                        let mut response = hyper::Response::new(Full::new(Bytes::from(body.clone())));
                        response.headers_mut().insert("x-spoken", body.parse().unwrap());
                        Ok::<_, Infallible>(response)
                    });
                    let Some(tls) = tls else {
                        let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let _ = http2.serve_connection(TokioIo::new(stream), service).await;
                        return;
                    };
                    let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await else { return };
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        let _ = http2.serve_connection(TokioIo::new(stream), service).await;
                    } else {
                        let http1 = hyper::server::conn::http1::Builder::new();
                        let _ = http1.serve_connection(TokioIo::new(stream), service).await;
                    }
                });
            }
        });
    });
    receive.recv().unwrap()
}

/// What was spoken, and what went wrong.
fn spoken(address: SocketAddr, scheme: &str, flags: &[&str]) -> (serde_json::Value, String) {
    let url = format!("{scheme}://localhost:{}/", address.port());
    let pin = format!("localhost:{}:127.0.0.1", address.port());
    let report = report(
        &[&["-n", "12", "-c", "3", "--by", "header:x-spoken", "--resolve", &pin], flags, &[&url]].concat(),
    );
    let groups = report["groups"].as_object().unwrap();
    let counts: serde_json::Map<_, _> =
        groups.iter().map(|(name, group)| (name.clone(), group["requests"].clone())).collect();
    (json!(counts), report["errors"].to_string())
}

#[test]
fn certificates_are_checked_unless_told_otherwise() {
    let files = Files::create("checked");
    let address = serve(Some(files.server(&["http/1.1"], false)));
    let (ca, http1) = (files.path("ca.pem"), json!({"HTTP/1.1": 12}));
    assert_eq!(spoken(address, "https", &["--cacert", &ca]).0, http1);
    assert_eq!(spoken(address, "https", &["--insecure"]).0, http1);
    let (counts, errors) = spoken(address, "https", &[]);
    assert_eq!(counts, json!({}));
    assert!(errors.contains("failed to verify certificate") && errors.contains("--insecure"), "{errors}");
}

#[test]
fn a_client_certificate_opens_doors() {
    let files = Files::create("client");
    let address = serve(Some(files.server(&["http/1.1"], true)));
    let (ca, cert, key) = (files.path("ca.pem"), files.path("client.pem"), files.path("client.key"));
    let with = spoken(address, "https", &["--cacert", &ca, "--cert", &cert, "--key", &key]);
    assert_eq!(with.0, json!({"HTTP/1.1": 12}), "{}", with.1);
    assert_eq!(spoken(address, "https", &["--cacert", &ca]).0, json!({}));
}

#[test]
fn http2_is_spoken_where_it_is_agreed_on_or_known() {
    let files = Files::create("http2");
    let ca = files.path("ca.pem");
    let both = serve(Some(files.server(&["h2", "http/1.1"], false)));
    assert_eq!(spoken(both, "https", &["-h2", "--cacert", &ca]).0, json!({"HTTP/2.0": 12}));
    assert_eq!(spoken(both, "https", &["--cacert", &ca]).0, json!({"HTTP/1.1": 12}));
    let old = serve(Some(files.server(&["http/1.1"], false)));
    assert_eq!(spoken(old, "https", &["-h2", "--cacert", &ca]).0, json!({"HTTP/1.1": 12}));
    let clear = serve(None);
    assert_eq!(spoken(clear, "http", &["--h2c"]).0, json!({"HTTP/2.0": 12}));
}

#[test]
fn a_server_without_tls_is_no_mystery() {
    let plain = crate::server::Server::plain();
    let report = report(&["-n", "2", "-c", "1", &format!("https://{}/", plain.address)]);
    assert_eq!(report["failures"], json!({"tls": 2}), "{report}");
}
