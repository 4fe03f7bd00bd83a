//! Leader election: of several controllers one works. The lock is an annotated ConfigMap in the older
//! dialect, a Lease in the newer.

use std::sync::Arc;
use std::time::Duration;

use canary::Dialect;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use program::Api;
use serde::{Deserialize, Serialize};

use crate::kubernetes::is_not_found;
use crate::log::{Level, Site, site};
use crate::shell::Shell;

const NAME: &str = "flagger-leader-election";
const ANNOTATION: &str = "control-plane.alpha.kubernetes.io/leader";
/// How long others respect a lock that is not renewed.
const LEASE: Duration = Duration::from_secs(60);
/// How long renewing may fail before the leader resigns.
const DEADLINE: Duration = Duration::from_secs(15);
/// The time between attempts.
const RETRY: Duration = Duration::from_secs(5);

const STARTING: Site = site("flagger/main.go:285", "flagger/main.go:352");
const LEADING: Site = site("flagger/main.go:294", "flagger/main.go:361");
const LOST: Site = site("flagger/main.go:298", "flagger/main.go:365");
const OTHER: Site = site("flagger/main.go:303", "flagger/main.go:370");

/// Who holds the lock, as client-go records it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    holder_identity: String,
    lease_duration_seconds: i32,
    acquire_time: String,
    renew_time: String,
    leader_transitions: i32,
}

/// Waits for the lock, then runs `work` until it ends or the lock is lost.
pub async fn lead(shell: &Shell, work: impl Future<Output = ()>) {
    let namespace = match shell.options.namespace.as_str() {
        "" => &shell.options.leader_election_namespace,
        namespace => namespace,
    };
    let id = format!("{}_{}", shell.context.identity.pod, shell.uuid());
    let message = format!("Starting leader election id: {id} configmap: {NAME} namespace: {namespace}");
    shell.log.print(Level::Info, STARTING, &message);
    let mut election = Election { shell, namespace, id: &id, seen: None, reported: String::new() };
    let (clock, termination) = (shell.context.clock, &shell.context.termination);
    while !election.try_acquire().await {
        tokio::select! { biased;
            () = termination.requested() => return,
            () = clock.sleep(RETRY) => {}
        }
    }
    shell.log.print(Level::Info, LEADING, "Acting as elected leader");
    let renewing = async {
        let mut renewed = clock.elapsed();
        while clock.elapsed() - renewed < DEADLINE {
            clock.sleep(RETRY).await;
            if election.try_acquire().await {
                renewed = clock.elapsed();
            }
        }
        shell.log.print(Level::Info, LOST, "Leadership lost");
        election
    };
    tokio::select! { biased;
        () = work => {}
        _ = renewing => return,
    }
    let mut election = Election { shell, namespace, id: &id, seen: None, reported: id.clone() };
    election.release().await;
}

struct Election<'a> {
    shell: &'a Shell,
    namespace: &'a str,
    id: &'a str,
    /// The record last read, and when it was first seen like that.
    seen: Option<(Record, Duration)>,
    reported: String,
}

/// The lock's object, as it was read.
enum Lock {
    ConfigMap(Arc<ConfigMap>),
    Lease(Arc<Lease>),
    Missing,
}

impl Election<'_> {
    /// Takes or renews the lock, if nobody else holds it.
    async fn try_acquire(&mut self) -> bool {
        let Some((lock, record)) = self.read().await else { return false };
        let elapsed = self.shell.context.clock.elapsed();
        let since = match &self.seen {
            Some((seen, since)) if *seen == record => *since,
            _ => elapsed,
        };
        self.seen = Some((record.clone(), since));
        let free = matches!(lock, Lock::Missing) || record.holder_identity.is_empty();
        let mine = record.holder_identity == self.id;
        if !free && !mine {
            self.report(&record.holder_identity);
            if since + LEASE > elapsed {
                return false;
            }
        }
        let now = self.shell.context.clock.now().to_string();
        let taken = Record {
            holder_identity: self.id.to_owned(),
            lease_duration_seconds: LEASE.as_secs() as i32,
            acquire_time: if mine { record.acquire_time.clone() } else { now.clone() },
            renew_time: now,
            leader_transitions: record.leader_transitions
                + i32::from(!mine && !matches!(lock, Lock::Missing)),
        };
        let written = self.write(lock, &taken).await;
        if written {
            self.seen = Some((taken, elapsed));
        }
        written
    }

    /// Gives the lock back.
    async fn release(&mut self) {
        let Some((lock, record)) = self.read().await else { return };
        if record.holder_identity == self.id {
            let released = Record {
                leader_transitions: record.leader_transitions,
                lease_duration_seconds: 1,
                acquire_time: self.shell.context.clock.now().to_string(),
                renew_time: self.shell.context.clock.now().to_string(),
                ..Default::default()
            };
            self.write(lock, &released).await;
        }
    }

    fn report(&mut self, holder: &str) {
        if self.reported != holder {
            holder.clone_into(&mut self.reported);
            let message = format!("Another instance has been elected as leader: {holder}");
            self.shell.log.print(Level::Info, OTHER, &message);
        }
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.shell.client.clone(), self.namespace)
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.shell.client.clone(), self.namespace)
    }

    /// The lock and its record; `None` when the API does not answer.
    async fn read(&self) -> Option<(Lock, Record)> {
        let missing = |error: kube::Error| is_not_found(&error).then(|| (Lock::Missing, Record::default()));
        match self.shell.dialect {
            Dialect::Rc1 => match self.config_maps().get(NAME).await {
                Ok(object) => {
                    let mark = object.metadata.annotations.as_ref().and_then(|marks| marks.get(ANNOTATION));
                    let record = mark.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
                    Some((Lock::ConfigMap(object), record))
                }
                Err(error) => missing(error),
            },
            Dialect::Latest => match self.leases().get(NAME).await {
                Ok(object) => {
                    let spec = object.spec.clone().unwrap_or_default();
                    let time =
                        |time: Option<MicroTime>| time.map_or(String::new(), |time| time.0.to_string());
                    let record = Record {
                        holder_identity: spec.holder_identity.unwrap_or_default(),
                        lease_duration_seconds: spec.lease_duration_seconds.unwrap_or_default(),
                        acquire_time: time(spec.acquire_time),
                        renew_time: time(spec.renew_time),
                        leader_transitions: spec.lease_transitions.unwrap_or_default(),
                    };
                    Some((Lock::Lease(object), record))
                }
                Err(error) => missing(error),
            },
        }
    }

    async fn write(&self, lock: Lock, record: &Record) -> bool {
        let metadata = ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(self.namespace.to_owned()),
            ..Default::default()
        };
        let text = serde_json::to_string(record).expect("a record is always JSON");
        let time = |text: &str| text.parse().ok().map(MicroTime);
        let spec = LeaseSpec {
            holder_identity: Some(record.holder_identity.clone()),
            lease_duration_seconds: Some(record.lease_duration_seconds),
            acquire_time: time(&record.acquire_time),
            renew_time: time(&record.renew_time),
            lease_transitions: Some(record.leader_transitions),
            ..Default::default()
        };
        match (lock, self.shell.dialect) {
            (Lock::ConfigMap(object), _) => {
                let mut object = Arc::unwrap_or_clone(object);
                object.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), text);
                self.config_maps().replace(NAME, &object).await.is_ok()
            }
            (Lock::Lease(object), _) => {
                let mut object = Arc::unwrap_or_clone(object);
                object.spec = Some(spec);
                self.leases().replace(NAME, &object).await.is_ok()
            }
            (Lock::Missing, Dialect::Rc1) => {
                let mut object = ConfigMap { metadata, ..Default::default() };
                object.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), text);
                self.config_maps().create(&object).await.is_ok()
            }
            (Lock::Missing, Dialect::Latest) => {
                let object = Lease { metadata, spec: Some(spec) };
                self.leases().create(&object).await.is_ok()
            }
        }
    }
}
