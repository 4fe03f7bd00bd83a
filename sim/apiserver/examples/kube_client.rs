//! An API server for the tests of any project that uses kube: `cargo run -p apiserver --example kube_client`.

use apiserver::{ApiServer, Options};
use clock::{Clock, Seed};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), kube::Error> {
    let options =
        Options { name: "test".into(), clock: Clock::live(1.0), seed: Seed::new(1), service_cidr: [10, 96] };
    let server = ApiServer::new(options);
    let client = Client::new(server.client_service("admin"), "default");

    // From here on nothing knows that the server is in memory.
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut map = ConfigMap::default();
    map.metadata.name = Some("settings".to_owned());
    maps.create(&PostParams::default(), &map).await?;
    for found in maps.list(&ListParams::default()).await? {
        println!("{}", found.metadata.name.unwrap_or_default());
    }
    Ok(())
}
