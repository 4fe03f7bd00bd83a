//! A scenario with all that its file refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;

use super::{Apply, GitChange, Located, Position, RepositoryFields, Scenario, ScenarioError, Testbed};

/// A scenario that has been read and checked, with the manifests and repository files that it names.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The file, as it was named.
    pub file: String,
    /// The folder that its paths are relative to.
    pub folder: PathBuf,
    /// The document, with what it took over from its testbed.
    pub scenario: Scenario,
    /// The testbed that it starts from, as a scenario of its own.
    pub testbed: Option<Box<Loaded>>,
    /// The objects of each `apply` step, by the step's index.
    pub(crate) manifests: BTreeMap<usize, Vec<Value>>,
    /// The files of each repository.
    pub(crate) repositories: Vec<BTreeMap<String, Bytes>>,
}

impl Loaded {
    /// Reads and checks a scenario file.
    ///
    /// # Errors
    /// Every problem that was found, with its place.
    pub fn read(path: &Path) -> Result<Loaded, ScenarioError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ScenarioError::of(&file, None, error))?;
        Loaded::parse(&file, path.parent().unwrap_or(Path::new("")), &text)
    }

    /// Reads and checks a scenario's text; its paths are relative to `folder`.
    ///
    /// # Errors
    /// Every problem that was found, with its place.
    pub fn parse(file: &str, folder: &Path, text: &str) -> Result<Loaded, ScenarioError> {
        let scenario: Scenario = document(file, text)?;
        let testbed = match &scenario.spec.testbed {
            None => None,
            Some(name) => {
                let path = plain(&folder.join(&name.value));
                let loaded =
                    Loaded::read_testbed(&path).map_err(|error| match error.problems.as_slice() {
                        [problem] if !path.exists() => ScenarioError::of(file, Some(name.at), problem),
                        _ => error,
                    })?;
                Some(Box::new(loaded))
            }
        };
        Loaded::check(file, folder, scenario, testbed)
    }

    /// Reads and checks a testbed file.
    ///
    /// # Errors
    /// Every problem that was found, with its place.
    pub fn read_testbed(path: &Path) -> Result<Loaded, ScenarioError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ScenarioError::of(&file, None, error))?;
        let testbed: Testbed = document(&file, &text)?;
        Loaded::check(&file, path.parent().unwrap_or(Path::new("")), testbed.into(), None)
    }

    fn check(
        file: &str,
        folder: &Path,
        mut scenario: Scenario,
        testbed: Option<Box<Loaded>>,
    ) -> Result<Loaded, ScenarioError> {
        let mut wrong = Vec::new();
        let mut contents = BTreeMap::new();
        for repository in &scenario.spec.repositories {
            let base = testbed.as_ref().and_then(|testbed| testbed.repository(&repository.url));
            match content(folder, repository, base) {
                Ok(files) => drop(contents.insert(repository.url.clone(), files)),
                Err((at, error)) => wrong.push((at, format!("repository {}: {error}", repository.url))),
            }
        }
        let setup = testbed.as_ref().map(|loaded| &loaded.scenario);
        if let Some(setup) = setup {
            scenario.spec.take_over(&setup.spec);
        }
        let files = |repository: &Located<RepositoryFields>| {
            let theirs = || testbed.as_ref()?.repository(&repository.url).cloned();
            contents.remove(&repository.url).or_else(theirs).unwrap_or_default()
        };
        let repositories = scenario.spec.repositories.iter().map(files).collect();
        let mut problems = super::validate::problems(&scenario, setup);
        problems.append(&mut wrong);
        let mut manifests = BTreeMap::new();
        for (index, step) in scenario.spec.steps.iter().enumerate() {
            let Some(apply) = &step.apply else { continue };
            match objects(folder, apply) {
                Ok(objects) => drop(manifests.insert(index, objects)),
                Err(error) => problems.push((step.at, format!("apply: {error}"))),
            }
        }
        if problems.is_empty() {
            let (file, folder) = (file.to_owned(), folder.to_owned());
            return Ok(Loaded { file, folder, scenario, testbed, manifests, repositories });
        }
        problems.sort();
        let problems = problems.into_iter().map(|(at, problem)| format!("{file}:{at}: {problem}")).collect();
        Err(ScenarioError { problems })
    }

    /// The files of the repository with a URL.
    fn repository(&self, url: &str) -> Option<&BTreeMap<String, Bytes>> {
        let all = self.scenario.spec.repositories.iter().zip(&self.repositories);
        all.into_iter().find(|(repository, _)| repository.url == url).map(|(_, files)| files)
    }

    /// The path of a file that the scenario names.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.join(relative)
    }
}

/// Parses a document.
fn document<T: serde::de::DeserializeOwned>(file: &str, text: &str) -> Result<T, ScenarioError> {
    yaml::parse(text).map_err(|error| ScenarioError::of_yaml(file, &error))
}

/// The objects of an `apply` step.
fn objects(folder: &Path, apply: &Apply) -> Result<Vec<Value>, String> {
    let mut objects = Vec::new();
    for name in apply.file.iter().chain(&apply.files) {
        let text = std::fs::read_to_string(folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
        objects.extend(gitops::manifests::parse(name, &text).map_err(|error| error.to_string())?);
    }
    for (name, kustomization) in
        apply.folder.iter().map(|name| (name, false)).chain(apply.kustomize.iter().map(|name| (name, true)))
    {
        objects.extend(rendered(folder, name, kustomization)?);
    }
    for (index, object) in apply.objects.iter().enumerate() {
        let text = object.to_string();
        let place = format!("objects[{index}]");
        objects.extend(gitops::manifests::parse(&place, &text).map_err(|error| error.to_string())?);
    }
    Ok(objects)
}

/// A folder rendered as Argo CD and kustomize do. A kustomization may refer to files beside its own folder: those are
/// handed over too, and paths begin where all of them meet.
fn rendered(folder: &Path, name: &str, kustomization: bool) -> Result<Vec<Value>, String> {
    let path = std::path::absolute(folder.join(name)).map_err(|error| format!("{name}: {error}"))?;
    let path = plain(&path);
    let gathered = gathered(&path).map_err(|error| format!("{name}: {error}"))?;
    let root = gathered.keys().fold(path.clone(), |root, file| {
        root.ancestors().find(|ancestor| file.starts_with(ancestor)).unwrap_or(Path::new("")).to_owned()
    });
    let files = gathered.into_iter().map(|(file, content)| (slashed(&file, &root), content)).collect();
    let inside = slashed(&path, &root);
    let objects = if kustomization {
        gitops::kustomize::build(&files, &inside)
    } else {
        gitops::manifests::render(&files, &inside)
    };
    objects.map_err(|error| format!("{name}: {error}"))
}

/// All files of a folder, and those that its kustomizations refer to.
fn gathered(folder: &Path) -> Result<BTreeMap<PathBuf, Bytes>, String> {
    let (mut files, mut open) = (BTreeMap::new(), vec![folder.to_owned()]);
    let mut seen = BTreeSet::from([folder.to_owned()]);
    while let Some(path) = open.pop() {
        let new: Vec<(PathBuf, Bytes)> = if path.is_file() {
            let content = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            vec![(path, Bytes::from(content))]
        } else {
            tree(&path)?.into_iter().map(|(inside, content)| (path.join(inside), content)).collect()
        };
        for (file, content) in new {
            let is_kustomization =
                file.file_stem().is_some_and(|stem| stem.eq_ignore_ascii_case("kustomization"));
            if let Some(base) = file.parent().filter(|_| is_kustomization) {
                for reference in references(&content) {
                    let target = plain(&base.join(reference));
                    // What does not exist is named by the renderer, with the field.
                    if target.exists() && seen.insert(target.clone()) {
                        open.push(target);
                    }
                }
            }
            files.insert(file, content);
        }
    }
    Ok(files)
}

/// The paths in a kustomization that leave its folder.
fn references(kustomization: &Bytes) -> Vec<String> {
    fn collect(value: Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) if text.starts_with("../") => found.push(text),
            Value::Array(items) => items.into_iter().for_each(|item| collect(item, found)),
            Value::Object(fields) => fields.into_iter().for_each(|(_, value)| collect(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    let text = String::from_utf8_lossy(kustomization);
    if let Ok(value) = yaml::parse::<Value>(&text) {
        collect(value, &mut found);
    }
    found
}

/// A path below `root` with slashes.
fn slashed(path: &Path, root: &Path) -> String {
    let inside = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = inside.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

/// The first content of a repository; `base` is that of the testbed's repository with the same URL.
fn content(
    folder: &Path,
    repository: &Located<RepositoryFields>,
    base: Option<&BTreeMap<String, Bytes>>,
) -> Result<BTreeMap<String, Bytes>, (Position, String)> {
    let mut files = match &repository.folder {
        Some(name) => {
            tree(&folder.join(name)).map_err(|error| (repository.at, format!("folder {name}: {error}")))?
        }
        None => base.cloned().unwrap_or_default(),
    };
    files.extend(repository.files.iter().map(|(path, text)| (path.clone(), Bytes::from(text.clone()))));
    for change in &repository.changes {
        for applied in changed(&files, change).map_err(|error| (change.at, error))? {
            match applied {
                gitops::git::Change::Write(path, content) => drop(files.insert(path, content)),
                gitops::git::Change::Remove(path) => {
                    files.retain(|file, _| file != &path && !file.starts_with(&format!("{path}/")))
                }
            }
        }
    }
    if files.is_empty() {
        return Err((repository.at, "it has no files: give a folder or files".into()));
    }
    Ok(files)
}

/// A change of a repository's files as commits want it.
pub(crate) fn changed(
    files: &BTreeMap<String, Bytes>,
    change: &GitChange,
) -> Result<Vec<gitops::git::Change>, String> {
    let path = &change.file;
    if let Some(content) = &change.content {
        return Ok(vec![gitops::git::Change::Write(path.clone(), Bytes::from(content.clone()))]);
    }
    let inside = format!("{path}/");
    if change.remove {
        return if files.keys().any(|file| file == path || file.starts_with(&inside)) {
            Ok(vec![gitops::git::Change::Remove(path.clone())])
        } else {
            Err(missing(files, path))
        };
    }
    let text = files.get(path).ok_or_else(|| missing(files, path))?;
    let text = std::str::from_utf8(text).map_err(|_| format!("{path} is not UTF-8"))?;
    let new = if let Some(replace) = &change.replace {
        if !text.contains(&replace.from) {
            return Err(format!("{path}: the text to replace does not occur: {:?}", replace.from));
        }
        text.replace(&replace.from, &replace.to)
    } else if let Some(image) = &change.image {
        with_image(text, image).map_err(|error| format!("{path}: {error}"))?
    } else {
        return Err(format!("{path}: nothing is said about what changes"));
    };
    Ok(vec![gitops::git::Change::Write(path.clone(), Bytes::from(new))])
}

fn missing(files: &BTreeMap<String, Bytes>, path: &str) -> String {
    let near = super::error::nearest(path, files.keys().map(String::as_str));
    match near {
        Some(near) => format!("there is no file {path:?} in the repository; did you mean {near:?}?"),
        None => format!("there is no file {path:?} in the repository"),
    }
}

/// The text with every `image: NAME:…` set to the given tag.
fn with_image(text: &str, image: &str) -> Result<String, String> {
    let (name, tag) = image.rsplit_once(':').ok_or_else(|| format!("the image {image:?} has no tag"))?;
    let (mut new, mut found) = (String::with_capacity(text.len()), false);
    for line in text.split_inclusive('\n') {
        let value = line.trim_start().trim_start_matches("- ").strip_prefix("image:").map(str::trim);
        let current = value.map(|value| value.trim_matches(['"', '\'']));
        let same = |current: &str| {
            current == name || current.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'))
        };
        match current.filter(|current| same(current)) {
            Some(current) => {
                found = true;
                new.push_str(&line.replace(current, &format!("{name}:{tag}")));
            }
            None => new.push_str(line),
        }
    }
    if found { Ok(new) } else { Err(format!("no line `image: {name}:…` to change")) }
}

/// All files below a folder by their paths relative to it, in order. Hidden files and links are left out.
fn tree(root: &Path) -> Result<BTreeMap<String, Bytes>, String> {
    let mut files = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries {
            let entry = entry.map_err(|error| format!("{}: {error}", folder.display()))?;
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            let kind = entry.file_type().map_err(|error| format!("{}: {error}", path.display()))?;
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() {
                let content = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                files.insert(slashed(&path, root), Bytes::from(content));
            }
        }
    }
    Ok(files)
}

/// A path without `.` and `..`, as text: links are not followed.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if plain.file_name().is_some_and(|name| name != "..") => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}
