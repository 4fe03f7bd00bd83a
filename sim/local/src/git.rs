//! The testbed's repositories over HTTP: `git clone`, `git fetch` and `git push`, by git's own server program.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use live::{Port, Reset};
use program::Tasks;
use testbed::World;
use testbed::scenario::Loaded;
use tokio::net::TcpListener;

use crate::status::Repository;

/// The largest push.
const BODY_MAX: usize = 256 << 20;

/// Serves the repositories of a testbed until `tasks` end.
pub(crate) async fn serve(
    world: &Arc<World>,
    loaded: &Loaded,
    tasks: &Tasks,
) -> Result<Vec<Repository>, String> {
    let mut paths = BTreeMap::new();
    let mut names = Vec::new();
    for url in loaded.scenario.spec.repositories.iter().map(|repository| &repository.url) {
        let repository = world.remotes().get(url).map_err(|error| error.to_string())?;
        let base = url.trim_end_matches('/').rsplit('/').next().unwrap_or_default().trim_end_matches(".git");
        let name = match paths.contains_key(&format!("{base}.git")) {
            true => format!("{base}-{}.git", paths.len()),
            false => format!("{base}.git"),
        };
        paths.insert(name.clone(), repository.path().to_owned());
        names.push((url.clone(), name));
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .map_err(|error| format!("no port for the git remote: {error}"))?;
    let paths = Arc::new(paths);
    let answer = move |request: Request<Bytes>, _| {
        let paths = Arc::clone(&paths);
        async move {
            let done = tokio::task::spawn_blocking(move || answer(&paths, &request)).await;
            done.unwrap_or(Err(Reset))
        }
    };
    let port = Port::open(listener, BODY_MAX, Arc::new(answer)).map_err(|error| error.to_string())?;
    let address = port.address();
    tasks.spawn(async move {
        let _open = port;
        std::future::pending::<()>().await;
    });
    Ok(names
        .into_iter()
        .map(|(url, name)| Repository { url, clone: format!("http://{address}/{name}") })
        .collect())
}

/// Hands a request to `git http-backend`, by CGI.
fn answer(paths: &BTreeMap<String, PathBuf>, request: &Request<Bytes>) -> Result<Response<Bytes>, Reset> {
    let path = request.uri().path().trim_start_matches('/');
    let (name, inside) = path.split_once('/').unwrap_or((path, ""));
    let known = paths.get(name).or_else(|| paths.get(&format!("{name}.git")));
    let (Some(repository), false) = (known, inside.split('/').any(|part| part == "..")) else {
        let names: Vec<&str> = paths.keys().map(String::as_str).collect();
        let text = format!("there is no repository {name:?} here; there are: {}\n", names.join(", "));
        return Ok(plain(StatusCode::NOT_FOUND, text));
    };
    let header = |name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let mut command = Command::new("git");
    command
        .args(["-c", "http.receivepack=true", "-c", "safe.directory=*", "http-backend"])
        .env("GIT_PROJECT_ROOT", repository)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", format!("/{inside}"))
        .env("QUERY_STRING", request.uri().query().unwrap_or_default())
        .env("REQUEST_METHOD", request.method().as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", request.body().len().to_string())
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("REMOTE_USER", "coalmine")
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let text = format!("cannot run git, which serves repositories: {error}\n");
            return Ok(plain(StatusCode::INTERNAL_SERVER_ERROR, text));
        }
    };
    let (stdin, body) = (child.stdin.take(), request.body().clone());
    // git may answer before it has read everything.
    let writer = std::thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            let _ = stdin.write_all(&body);
        }
    });
    let output = child.wait_with_output().map_err(|_| Reset)?;
    let _ = writer.join();
    Ok(from_cgi(&output.stdout))
}

fn from_cgi(output: &[u8]) -> Response<Bytes> {
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let Some(end) = end else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "git gave no answer\n".to_owned());
    };
    let mut answer = Response::new(Bytes::copy_from_slice(&output[end + 4..]));
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse::<u16>().ok());
            if let Some(code) = code.and_then(|code| StatusCode::from_u16(code).ok()) {
                *answer.status_mut() = code;
            }
        } else if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

fn plain(status: StatusCode, text: String) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
