//! API servers and testbeds on sockets, as tools see them that nobody here wrote.
//!
//! `.ci/tools` installs the tools into `target/tools`. A test whose tool is missing says so and passes, but fails in CI.

mod conformance;
mod dns;
mod helm;
mod metrics;
mod python;
mod robustness;
mod snapshot;
mod testbed;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use apiserver::{ApiServer, Options, User};
use clock::{Clock, Seed};
use live::{Authority, Context, Credentials, Serving, kubeconfig, serve};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::root;

/// A tool of `target/tools`; `None`, said aloud, if it is not installed.
fn tool(path: &str) -> Option<PathBuf> {
    let path = root().join("target/tools").join(path);
    if path.exists() {
        return Some(path);
    }
    let missing = format!("{} is missing: run .ci/tools to install it", path.display());
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{missing}");
    eprintln!("skipped: {missing}");
    None
}

/// The current kubectl.
fn kubectl() -> Option<PathBuf> {
    tool("python/bin/kubectl")
}

/// Debian's kubectl, 1.20.
fn old_kubectl() -> Option<PathBuf> {
    tool("debian/usr/bin/kubectl")
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("coalmine-it-{name}-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An API server without anything behind it, over HTTPS.
struct Server {
    api: ApiServer,
    token: String,
    folder: Folder,
    serving: Serving,
    _runtime: Runtime,
}

impl Server {
    fn start() -> Server {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = Folder::new("api");
        let (api, token, serving) = runtime.block_on(async {
            let clock = Clock::live(1.0);
            let options = Options { name: "test".into(), clock, seed: Seed::new(1), service_cidr: [10, 96] };
            let api = ApiServer::new(options);
            api.track_field_managers();
            let authority = Authority::new("test").unwrap();
            let user = User::administrator("kubernetes-admin");
            let certificate = authority.client(&user).unwrap();
            let credentials = Arc::new(Credentials::default());
            credentials.add_certificate(&certificate, user.clone());
            let token = credentials.add_token(user);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let tls = authority.server_config().unwrap();
            let serving = serve(listener, tls, api.clone(), credentials, None).unwrap();
            let authority_pem = authority.certificate_pem();
            let context = Context {
                name: "test",
                server: serving.url(),
                authority_pem: &authority_pem,
                certificate: Some(&certificate),
                token: None,
            };
            folder.write("kubeconfig", &kubeconfig(&[context]));
            folder.write("ca.crt", &authority_pem);
            (api, token, serving)
        });
        Server { api, token, folder, serving, _runtime: runtime }
    }

    /// A kubectl for this server, with a home of its own: it caches discovery there.
    fn kubectl(&self, program: &Path) -> Kubectl {
        Kubectl {
            program: program.to_owned(),
            kubeconfig: self.folder.0.join("kubeconfig"),
            home: self.folder.0.clone(),
        }
    }
}

struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

/// What a command said.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Kubectl {
    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments.split_whitespace())
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .env_remove("CI")
            .stdin(Stdio::null());
        command
    }

    /// Runs `kubectl ARGUMENTS`; they are split at blanks.
    fn run(&self, arguments: &str) -> Said {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// The output of a command that must succeed.
    fn ok(&self, arguments: &str) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, 0, "kubectl {arguments}: {said:?}");
        said.out
    }

    /// The error of a command that must fail.
    fn fails(&self, arguments: &str) -> String {
        let said = self.run(arguments);
        assert_ne!(said.code, 0, "kubectl {arguments}: {said:?}");
        said.err
    }
}

/// Waits, for at most 20 seconds, until something is so.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "what other processes do is waited for, in real time")]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..400 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("waited in vain: {what}");
}

/// Checks that a text has a part.
#[track_caller]
fn assert_has(text: &str, part: &str) {
    assert!(text.contains(part), "no {part:?} in:\n{text}");
}
