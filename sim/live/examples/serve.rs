//! An empty cluster's API on loopback: `cargo run -p live --example serve -- KUBECONFIG`, then
//! `kubectl --kubeconfig KUBECONFIG get all -A`.

use std::error::Error;
use std::sync::Arc;

use apiserver::{ApiServer, Options, User};
use clock::{Clock, Seed};
use live::{Authority, Context, Credentials, kubeconfig, serve};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("usage: serve KUBECONFIG")?;
    let options =
        Options { name: "demo".into(), clock: Clock::live(1.0), seed: Seed::new(1), service_cidr: [10, 96] };
    let api = ApiServer::new(options);
    let authority = Authority::new("demo")?;
    let user = User::administrator("kubernetes-admin");
    let certificate = authority.client(&user)?;
    let credentials = Arc::new(Credentials::default());
    credentials.add_certificate(&certificate, user);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let serving = serve(listener, authority.server_config()?, api, credentials, None)?;
    let authority_pem = authority.certificate_pem();
    let context = Context {
        name: "demo",
        server: serving.url(),
        authority_pem: &authority_pem,
        certificate: Some(&certificate),
        token: None,
    };
    std::fs::write(&file, kubeconfig(&[context]))?;
    println!("demo is at {}; its kubeconfig is {file}", serving.url());
    std::future::pending::<()>().await;
    Ok(())
}
