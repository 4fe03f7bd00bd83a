//! The local provider: a testbed on sockets of this machine, in real time.
//!
//! API servers answer over HTTPS; every pod and Service really listens on its address in 127.0.0.0/8, in front of the
//! in-memory network that the programs use; a DNS server per cluster knows their names; repositories can be cloned and
//! pushed to over HTTP; a status page shows what goes on. Everything ends, and every file is removed, when [`Local`] is dropped.

mod apis;
mod dns;
mod folder;
mod git;
mod pods;
mod snapshot;
mod sockets;
mod status;

use std::path::PathBuf;
use std::sync::Arc;

use clock::Clock;
use program::Tasks;
use testbed::scenario::Loaded;
use testbed::{Session, SessionOptions};
use tokio::net::TcpListener;
use tokio::sync::Notify;

pub use folder::{Folder, STATE_FILE};
pub use snapshot::Snapshot;
pub use status::{Cluster, Forwarded, Repository, Setup, State};

use apis::Apis;
use status::StatusPage;

/// How a testbed is brought up.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many times faster than real time it lives.
    pub speed: f64,
    /// Workloads, by name, that are not started.
    pub without: Vec<String>,
    /// The seed, instead of the file's.
    pub seed: Option<u64>,
    /// Whether role-based access control is enforced.
    pub rbac: bool,
    /// Where kubeconfigs and `testbed.json` go; a temporary folder without one.
    pub dir: Option<PathBuf>,
    /// The state to begin with, instead of the file's steps.
    pub from: Option<Snapshot>,
    /// Whether the folder stays when the testbed ends.
    pub keep: bool,
}

/// How many testbeds can run on one machine at the same time: each has addresses of its own.
const PLACES: u8 = 5;
/// The port whose listener holds a place.
const PLACE_PORT: u16 = 6440;

/// A running testbed.
pub struct Local<'a> {
    session: Session<'a>,
    /// Whether the file's steps were carried out before the snapshot that it began with.
    restored: bool,
    status: Arc<StatusPage>,
    /// Says that somebody wants the testbed to end.
    stopping: Arc<Notify>,
    _doors: Doors,
    folder: Folder,
    _place: TcpListener,
}

struct Doors {
    tasks: Tasks,
    _apis: Apis,
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

impl<'a> Local<'a> {
    /// Starts the clusters and opens their doors; the file's steps are not carried out yet.
    ///
    /// # Errors
    /// A sentence that names what is in the way and what to do.
    pub async fn open(loaded: &'a Loaded, options: &Options) -> Result<Local<'a>, String> {
        if let Some(from) = &options.from {
            from.check(loaded)?;
        }
        let (place, place_number) = claim_place(options.from.as_ref().map(|from| from.place)).await?;
        let folder = Folder::create(options.dir.as_deref(), options.keep)?;
        let clock = match &options.from {
            // Nothing that is saved may lie in the future.
            Some(from) => Clock::live_from(from.time, options.speed),
            None => Clock::live(options.speed),
        };
        let session_options =
            SessionOptions { seed: options.seed, place: place_number, without: options.without.clone() };
        let session = Session::open(loaded, &session_options, clock, &folder.workspace()).await?;
        let world = session.world();
        if let Some(from) = &options.from {
            from.restore(world, folder.path())?;
        }
        let tasks = Tasks::default();
        let servers = dns::serve(world, place_number, &tasks).await;
        let apis = Apis::serve(world, &folder, options.rbac).await?;
        let clusters = apis.clusters().into_iter().map(|cluster| {
            let dns = servers.get(&cluster.name).and_then(|server| server.as_ref().ok());
            Cluster { dns: dns.map(ToString::to_string), ..cluster }
        });
        let clusters = clusters.collect();
        let repositories = git::serve(world, loaded, &tasks).await?;
        let stopping = Arc::new(Notify::new());
        let status = StatusPage::open(
            loaded,
            options,
            &folder,
            (Arc::clone(world), place_number, clock),
            (clusters, repositories),
            Arc::clone(&stopping),
            &tasks,
        )
        .await?;
        servers.into_values().filter_map(Result::err).for_each(|why| status.problem(why));
        let doors = Doors { tasks, _apis: apis };
        for cluster in world.clusters() {
            sockets::open(world, &cluster, clock, &doors.tasks, Arc::clone(&status));
        }
        status.write()?;
        Ok(Local {
            session,
            restored: options.from.is_some(),
            status,
            stopping,
            _doors: doors,
            folder,
            _place: place,
        })
    }

    /// Everything that a user needs to know, as in `testbed.json`.
    pub fn state(&self) -> State {
        self.status.state()
    }

    /// Carries out the steps of the file and sends its traffic; `told` hears how the steps ended. Goes on for as long
    /// as it is polled.
    pub async fn live(&self, told: impl Fn(Result<(), String>)) {
        let mut traffic = std::pin::pin!(self.session.send_traffic());
        let done = tokio::select! { biased;
            done = async { if self.restored { Ok(()) } else { self.session.set_up().await } } => done,
            failed = &mut traffic => Err(failed),
        };
        let done = done.map_err(|failure| format!("{}: {}", failure.place, failure.message));
        let setup = match &done {
            Ok(()) => Setup::Done,
            Err(why) => Setup::Failed(why.clone()),
        };
        let went_on = done.is_ok();
        let written = self.status.set_up(setup);
        told(done.and(written));
        if went_on {
            let failure = traffic.await;
            told(Err(format!("{}: {}", failure.place, failure.message)));
        }
        std::future::pending::<()>().await;
    }

    /// Returns when `coalmine down` asks for the end.
    pub async fn stop_requested(&self) {
        self.stopping.notified().await;
    }
}

impl Drop for Local<'_> {
    fn drop(&mut self) {
        self.folder.close();
    }
}

/// Takes the first free place; whoever listens on its port has it, and a process that dies gives it back.
async fn claim_place(only: Option<u8>) -> Result<(TcpListener, u8), String> {
    for place in (0..PLACES).filter(|place| only.is_none_or(|only| only == *place)) {
        if let Ok(listener) =
            TcpListener::bind((std::net::Ipv4Addr::new(127, 254, place, 1), PLACE_PORT)).await
        {
            return Ok((listener, place));
        }
    }
    if only.is_some() {
        return Err("the addresses of the snapshot's testbed are in use by a testbed that runs on this machine: end it with `coalmine down --dir DIR`".to_owned());
    }
    Err(format!(
        "{PLACES} testbeds run on this machine already, and there are addresses for no more: end one with `coalmine down --dir DIR`"
    ))
}
