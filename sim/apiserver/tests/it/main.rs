//! The API server as kube clients see it.

mod objects;
mod reads;
mod replay;

use apiserver::{ApiServer, Options};
use clock::{Clock, Seed};
use kube::Client;

/// Runs `test` with a fresh server and an administrator's client.
fn with_server<F>(test: impl FnOnce(ApiServer, Client, Clock) -> F)
where
    F: Future<Output = ()>,
{
    clock::run_simulated("2020-03-17T11:00:00Z".parse().unwrap(), |clock| async move {
        let options = Options { name: "mesh01".into(), clock, seed: Seed::new(1), service_cidr: [10, 96] };
        let server = ApiServer::new(options);
        let client = Client::new(server.client_service("admin"), "default");
        test(server, client, clock).await;
    });
}
