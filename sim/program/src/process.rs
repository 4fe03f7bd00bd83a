//! The life of a container's process: its tasks, its SIGTERM, its exit code, and commands executed inside it.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// A process's exit code: 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCode(pub i32);

impl ExitCode {
    /// Success.
    pub const SUCCESS: ExitCode = ExitCode(0);
    /// The usual code of failure.
    pub const FAILURE: ExitCode = ExitCode(1);
}

/// The background tasks of one container. They end when the container does. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<Mutex<Vec<AbortHandle>>>);

impl Tasks {
    /// Runs `task` in the background until it ends or the container stops.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(task).abort_handle();
        let mut handles = self.0.lock().expect("no holder of this lock panics");
        if handles.len() == handles.capacity() {
            handles.retain(|handle| !handle.is_finished());
        }
        handles.push(handle);
    }

    /// Stops all tasks. Called by the kubelet when the container is killed or its main function has returned.
    pub fn abort_all(&self) {
        for handle in self.0.lock().expect("no holder of this lock panics").drain(..) {
            handle.abort();
        }
    }
}

/// The container's SIGTERM. Cheap to clone; clones share the signal.
#[derive(Clone, Debug, Default)]
pub struct Termination(Arc<(AtomicBool, Notify)>);

impl Termination {
    /// Sends the signal. Called by the kubelet.
    pub fn request(&self) {
        self.0.0.store(true, Ordering::SeqCst);
        self.0.1.notify_waiters();
    }

    /// Whether the signal has been sent.
    pub fn is_requested(&self) -> bool {
        self.0.0.load(Ordering::SeqCst)
    }

    /// Waits for the signal; returns at once if it was sent before.
    pub async fn requested(&self) {
        let notified = self.0.1.notified();
        let mut notified = std::pin::pin!(notified);
        notified.as_mut().enable();
        if !self.is_requested() {
            notified.await;
        }
    }
}

/// What a command executed inside a container gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutput {
    /// The command's exit code.
    pub code: ExitCode,
    /// What it printed.
    pub output: String,
}

/// Commands that a program understands when they are executed inside its container, e.g. podinfo's
/// `podcli check http localhost:9898/readyz`.
pub trait Exec: Send + Sync {
    /// Runs one command.
    fn exec(&self, argv: Vec<String>) -> BoxFuture<'_, ExecOutput>;
}

/// Where a program registers its [`Exec`]. Cheap to clone.
#[derive(Clone, Default)]
pub struct ExecTable(Arc<Mutex<Option<Arc<dyn Exec>>>>);

impl ExecTable {
    /// Registers the program's commands.
    pub fn set(&self, exec: Arc<dyn Exec>) {
        *self.0.lock().expect("no holder of this lock panics") = Some(exec);
    }

    /// The program's commands, if it registered any.
    pub fn get(&self) -> Option<Arc<dyn Exec>> {
        self.0.lock().expect("no holder of this lock panics").clone()
    }
}
