//! Git repositories: real ones, on disk, worked on through the git command line tool.
//!
//! A run's repositories are bare. Commits are written by `git fast-import` and merges by `git merge-tree`, so there is
//! no work tree to keep in step; names, dates and configuration are given explicitly, so the same history has the
//! same hashes on every machine.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use jiff::Timestamp;

/// What went wrong with a repository, in words for a user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GitError {
    /// No branch, tag or commit of that name.
    #[error("unable to resolve '{revision}' to a commit SHA: the repository has {known}")]
    UnknownRevision {
        /// What was asked for.
        revision: String,
        /// The branches that exist.
        known: String,
    },
    /// No repository is served at that URL.
    #[error("repository '{0}' not found")]
    UnknownRepository(String),
    /// A merge has conflicts.
    #[error("merging '{branch}' into '{into}': conflict in {files}")]
    Conflict {
        /// The merged branch.
        branch: String,
        /// The target branch.
        into: String,
        /// The files that conflict.
        files: String,
    },
    /// The tool itself failed or is missing.
    #[error("git {command}: {message}")]
    Tool {
        /// The subcommand.
        command: String,
        /// What it said.
        message: String,
    },
}

/// Who commits, when, and why.
#[derive(Clone, Debug)]
pub struct CommitInfo {
    /// `Name <address>`.
    pub author: String,
    /// The commit's time: the run's, not the machine's.
    pub at: Timestamp,
    /// The message.
    pub message: String,
}

/// One change of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Writes a file.
    Write(String, Bytes),
    /// Removes a file or folder.
    Remove(String),
}

impl Change {
    /// Makes the change to the files of a commit.
    pub fn apply(&self, files: &mut BTreeMap<String, Bytes>) {
        match self {
            Change::Write(path, content) => {
                files.insert(path.clone(), content.clone());
            }
            Change::Remove(path) => {
                let inside = format!("{path}/");
                files.retain(|file, _| file != path && !file.starts_with(&inside));
            }
        }
    }

    /// The change in the language of `git fast-import`.
    fn write(&self, stream: &mut Vec<u8>) {
        match self {
            Change::Write(path, content) => {
                let head = format!("M 100644 inline {}\ndata {}\n", quoted(path), content.len());
                stream.extend_from_slice(head.as_bytes());
                stream.extend_from_slice(content);
                stream.push(b'\n');
            }
            Change::Remove(path) => stream.extend_from_slice(format!("D {}\n", quoted(path)).as_bytes()),
        }
    }
}

/// The files of a commit, by path.
pub type Files = Arc<BTreeMap<String, Bytes>>;

/// A bare repository on disk. Clones share what is remembered of it.
///
/// Starting git costs milliseconds, a hundred times as long as what it does here. So a branch is read from its file if
/// it has one, and a commit's files, which never change, are read once.
#[derive(Clone, Debug)]
pub struct Repository {
    path: PathBuf,
    /// Files by commit.
    read: Arc<Mutex<BTreeMap<String, Files>>>,
}

impl Repository {
    /// Creates a repository in the (new) folder `path`, whose `branch` has one commit with `files`.
    ///
    /// # Errors
    /// [`GitError::Tool`] when git is missing or the folder cannot be written.
    pub fn create(
        path: &Path,
        branch: &str,
        files: &BTreeMap<String, Bytes>,
        commit: &CommitInfo,
    ) -> Result<Repository, GitError> {
        let repository = Repository { path: path.to_owned(), read: Arc::default() };
        std::fs::create_dir_all(path).map_err(|error| GitError::Tool {
            command: "init".into(),
            message: format!("{}: {error}", path.display()),
        })?;
        repository
            .git(&["init", "--quiet", "--bare", "--object-format=sha1", "--template=", "-b", branch], None)?;
        let mut all = Vec::new();
        for (path, content) in files {
            Change::Write(path.clone(), content.clone()).write(&mut all);
        }
        let first = repository.import(branch, &[], &all, commit)?;
        repository.read().insert(first, Arc::new(files.clone()));
        Ok(repository)
    }

    /// The folder that holds the repository.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes `branch` point at `from` (a branch, tag or hash).
    ///
    /// # Errors
    /// [`GitError::UnknownRevision`] if `from` does not exist.
    pub fn branch(&self, branch: &str, from: &str) -> Result<(), GitError> {
        let commit = self.resolve(from)?;
        self.git(&["update-ref", &format!("refs/heads/{branch}"), &commit], None)?;
        Ok(())
    }

    /// Commits changes on top of `branch`; returns the commit's hash.
    ///
    /// # Errors
    /// [`GitError::UnknownRevision`] if the branch does not exist.
    pub fn commit(&self, branch: &str, changes: &[Change], commit: &CommitInfo) -> Result<String, GitError> {
        let parent = self.resolve(branch)?;
        let mut written = Vec::new();
        changes.iter().for_each(|change| change.write(&mut written));
        self.import(branch, &[&parent], &written, commit)
    }

    /// Merges `branch` into `into` with a merge commit, as a pull request's merge does; returns its hash.
    ///
    /// # Errors
    /// [`GitError::UnknownRevision`] if either does not exist, [`GitError::Conflict`] with the files' names.
    pub fn merge(&self, branch: &str, into: &str, commit: &CommitInfo) -> Result<String, GitError> {
        let ours = self.resolve(into)?;
        let theirs = self.resolve(branch)?;
        let output =
            self.run(&["merge-tree", "--write-tree", "--name-only", "--no-messages", &ours, &theirs], None)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines();
        let tree = lines.next().unwrap_or_default().to_owned();
        if output.status.code() == Some(1) {
            let files: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
            return Err(GitError::Conflict {
                branch: branch.into(),
                into: into.into(),
                files: files.join(", "),
            });
        }
        check("merge-tree", &output)?;
        self.import(into, &[&ours, &theirs], format!("M 040000 {tree} \"\"\n").as_bytes(), commit)
    }

    /// The hash of the commit that a branch, tag or (abbreviated) hash names.
    ///
    /// # Errors
    /// [`GitError::UnknownRevision`], naming the branches that exist.
    pub fn resolve(&self, revision: &str) -> Result<String, GitError> {
        if let Some(commit) = self.branch_file(revision) {
            return Ok(commit);
        }
        let output =
            self.run(&["rev-parse", "--quiet", "--verify", &format!("{revision}^{{commit}}")], None)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let branches = self.git(&["for-each-ref", "--format=%(refname:short)", "refs/heads"], None)?;
        let branches = String::from_utf8_lossy(&branches).lines().collect::<Vec<_>>().join(", ");
        let known =
            if branches.is_empty() { "no branches".into() } else { format!("the branches {branches}") };
        Err(GitError::UnknownRevision { revision: revision.into(), known })
    }

    /// The commit of a branch that has a file of its own, as it has until git packs it away (gitrepository-layout(5)).
    fn branch_file(&self, revision: &str) -> Option<String> {
        let branch = revision.strip_prefix("refs/heads/").unwrap_or(revision);
        let is_name = |part: &str| !part.is_empty() && !part.starts_with('.');
        if !branch.split('/').all(is_name) {
            return None;
        }
        let text = std::fs::read_to_string(self.path.join("refs/heads").join(branch)).ok()?;
        let commit = text.trim_end();
        is_hash(commit).then(|| commit.to_owned())
    }

    /// All files at a revision, by path.
    ///
    /// # Errors
    /// [`GitError::UnknownRevision`].
    pub fn files(&self, revision: &str) -> Result<Files, GitError> {
        let known = |commit: &str| self.read().get(commit).cloned();
        if let Some(files) = known(revision) {
            return Ok(files);
        }
        let commit = self.resolve(revision)?;
        if let Some(files) = known(&commit) {
            return Ok(files);
        }
        let files = Arc::new(self.read_files(&commit)?);
        self.read().insert(commit, Arc::clone(&files));
        Ok(files)
    }

    fn read(&self) -> MutexGuard<'_, BTreeMap<String, Files>> {
        self.read.lock().expect("no holder of this lock panics")
    }

    fn read_files(&self, commit: &str) -> Result<BTreeMap<String, Bytes>, GitError> {
        let listing = self.git(&["ls-tree", "-r", "-z", "--full-tree", commit], None)?;
        let listing = String::from_utf8_lossy(&listing).into_owned();
        let entries: Vec<(&str, &str)> = listing
            .split('\0')
            .filter_map(|entry| entry.split_once('\t'))
            .filter_map(|(meta, path)| meta.split(' ').nth(2).map(|object| (object, path)))
            .collect();
        let request: String = entries.iter().map(|(object, _)| format!("{object}\n")).collect();
        let blobs = Bytes::from(self.git(&["cat-file", "--batch"], Some(request.as_bytes()))?);
        let broken = || GitError::Tool { command: "cat-file".into(), message: "unexpected output".into() };
        let (mut files, mut offset) = (BTreeMap::new(), 0);
        for (_, path) in entries {
            let end = blobs[offset..].iter().position(|byte| *byte == b'\n').ok_or_else(broken)? + offset;
            let header = std::str::from_utf8(&blobs[offset..end]).map_err(|_| broken())?;
            let size: usize =
                header.rsplit(' ').next().and_then(|size| size.parse().ok()).ok_or_else(broken)?;
            if blobs.len() < end + 1 + size {
                return Err(broken());
            }
            files.insert(path.to_owned(), blobs.slice(end + 1..end + 1 + size));
            offset = end + 1 + size + 1;
        }
        Ok(files)
    }

    /// Commits on a branch: `changes` are in the language of `git fast-import`.
    fn import(
        &self,
        branch: &str,
        parents: &[&str],
        changes: &[u8],
        commit: &CommitInfo,
    ) -> Result<String, GitError> {
        let mut stream = Vec::new();
        let message = format!("{}\n", commit.message.trim_end());
        let _ = write!(
            stream,
            "commit refs/heads/{branch}\ncommitter {} {} +0000\ndata {}\n{message}",
            commit.author,
            commit.at.as_second(),
            message.len(),
        );
        for (place, parent) in parents.iter().enumerate() {
            let _ = writeln!(stream, "{} {parent}", if place == 0 { "from" } else { "merge" });
        }
        stream.extend_from_slice(changes);
        self.git(&["fast-import", "--quiet", "--date-format=raw"], Some(&stream))?;
        self.resolve(&format!("refs/heads/{branch}"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(&self.path).args(args);
        // Neither the user's configuration nor the environment may reach a hash.
        for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_CONFIG"] {
            command.env_remove(variable);
        }
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("LC_ALL", "C");
        command.env("GIT_TERMINAL_PROMPT", "0").env("TZ", "UTC");
        command
    }

    fn run(&self, args: &[&str], input: Option<&[u8]>) -> Result<std::process::Output, GitError> {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().map_err(|error| missing(args[0], &error))?;
        // All input is written from a thread: git may fill its output pipe before it has read everything.
        std::thread::scope(|scope| {
            if let Some((input, mut stdin)) = input.zip(child.stdin.take()) {
                scope.spawn(move || {
                    // A git that stops reading says why on its standard error.
                    let _ = stdin.write_all(input);
                });
            }
            child.wait_with_output().map_err(|error| missing(args[0], &error))
        })
    }

    fn git(&self, args: &[&str], input: Option<&[u8]>) -> Result<Vec<u8>, GitError> {
        let output = self.run(args, input)?;
        check(args[0], &output)?;
        Ok(output.stdout)
    }
}

/// Whether a text is a commit's whole SHA-1.
fn is_hash(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn quoted(path: &str) -> String {
    format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn missing(command: &str, error: &std::io::Error) -> GitError {
    let hint = if error.kind() == std::io::ErrorKind::NotFound { " (is git installed?)" } else { "" };
    GitError::Tool { command: command.into(), message: format!("{error}{hint}") }
}

fn check(command: &str, output: &std::process::Output) -> Result<(), GitError> {
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(GitError::Tool { command: command.into(), message })
}

/// The repositories that a run serves, by URL. Cheap to clone; clones share the table.
#[derive(Clone, Debug, Default)]
pub struct Remotes(Arc<Mutex<BTreeMap<String, Repository>>>);

impl Remotes {
    /// Serves a repository at a URL.
    pub fn insert(&self, url: &str, repository: Repository) {
        self.0.lock().expect("no holder of this lock panics").insert(normalised(url), repository);
    }

    /// The repository at a URL; a trailing `.git` or `/` makes no difference.
    ///
    /// # Errors
    /// [`GitError::UnknownRepository`].
    pub fn get(&self, url: &str) -> Result<Repository, GitError> {
        let remotes = self.0.lock().expect("no holder of this lock panics");
        remotes.get(&normalised(url)).cloned().ok_or_else(|| GitError::UnknownRepository(url.into()))
    }
}

/// A repository URL without what makes no difference (Argo CD's `git.NormalizeGitURL`, in part).
pub(crate) fn normalised(url: &str) -> String {
    url.trim_end_matches('/').trim_end_matches(".git").to_lowercase()
}
