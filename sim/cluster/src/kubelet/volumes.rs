//! What a container finds in its environment and its mounted volumes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, EnvVarSource, KeyToPath, ObjectFieldSelector, Pod,
    ResourceFieldSelector, Secret, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Client;
use program::{Api, Files};

use super::Host;
use crate::controllers::milli_value;

/// How long after a ConfigMap or Secret changed its mounted files do: within the kubelet's sync period of a minute.
pub(super) const SYNC_DELAY: Duration = Duration::from_secs(60);

/// Kinds of objects that volumes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    ConfigMap,
    Secret,
}

/// The container that files and variables are for.
pub(super) struct Place<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub pod_ip: IpAddr,
    pub host: &'a Host,
}

/// Whether volumes are mounted for a new container or brought up to date for a running one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mount {
    First,
    Update,
}

type Content = BTreeMap<String, Bytes>;

/// Whether the pod mounts an object.
pub(super) fn mounts(pod: &Pod, source: Source, name: &str) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.flat_map(sources).any(|(kind, found)| kind == source && found == name)
}

fn sources(volume: &Volume) -> Vec<(Source, String)> {
    let mut found = Vec::new();
    if let Some(map) = &volume.config_map {
        found.push((Source::ConfigMap, map.name.clone()));
    }
    if let Some(secret) = &volume.secret {
        found.extend(secret.secret_name.clone().map(|name| (Source::Secret, name)));
    }
    for projection in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        found.extend(projection.config_map.iter().map(|map| (Source::ConfigMap, map.name.clone())));
        found.extend(projection.secret.iter().map(|secret| (Source::Secret, secret.name.clone())));
    }
    found
}

/// Mounts a container's volumes, or brings them up to date.
///
/// # Errors
/// The kubelet's message for a ConfigMap or Secret that does not exist.
pub(super) async fn mount(
    client: &Client,
    place: &Place<'_>,
    files: &Files,
    mount_as: Mount,
) -> Result<(), String> {
    let Place { pod, container, .. } = *place;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    for volume in volumes {
        let mounts = container.volume_mounts.iter().flatten().filter(|mount| mount.name == volume.name);
        let mounts: Vec<_> = mounts.collect();
        if mounts.is_empty() {
            continue;
        }
        let Some(content) = content(client, namespace, place, volume).await? else { continue };
        for mount in mounts {
            match &mount.sub_path {
                // The kubelet does not follow a single mounted file.
                Some(_) if mount_as == Mount::Update => {}
                Some(path) => {
                    if let Some(bytes) = content.get(path) {
                        files.write(mount.mount_path.clone(), bytes.clone());
                    }
                }
                None => files.replace_folder(&mount.mount_path, content.clone()),
            }
        }
    }
    Ok(())
}

/// A volume's files; `None` for volumes that start empty.
async fn content(
    client: &Client,
    namespace: &str,
    place: &Place<'_>,
    volume: &Volume,
) -> Result<Option<Content>, String> {
    let failed = |why: String| format!("MountVolume.SetUp failed for volume {:?} : {why}", volume.name);
    if let Some(map) = &volume.config_map {
        let optional = map.optional.unwrap_or(false);
        let data = config_map(client, namespace, &map.name, optional).await.map_err(failed)?;
        return Ok(Some(select(data, map.items.as_deref())));
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.clone().unwrap_or_default();
        let data =
            secret(client, namespace, &name, source.optional.unwrap_or(false)).await.map_err(failed)?;
        return Ok(Some(select(data, source.items.as_deref())));
    }
    if let Some(api) = &volume.downward_api {
        return Ok(Some(downward(place, api.items.as_deref())));
    }
    if let Some(projected) = &volume.projected {
        let mut all = Content::new();
        for projection in projected.sources.iter().flatten() {
            if let Some(map) = &projection.config_map {
                let optional = map.optional.unwrap_or(false);
                let data = config_map(client, namespace, &map.name, optional).await.map_err(failed)?;
                all.extend(select(data, map.items.as_deref()));
            }
            if let Some(source) = &projection.secret {
                let optional = source.optional.unwrap_or(false);
                let data = secret(client, namespace, &source.name, optional).await.map_err(failed)?;
                all.extend(select(data, source.items.as_deref()));
            }
            if let Some(api) = &projection.downward_api {
                all.extend(downward(place, api.items.as_deref()));
            }
        }
        return Ok(Some(all));
    }
    Ok(None)
}

/// The files of the downward API.
fn downward(place: &Place<'_>, items: Option<&[DownwardAPIVolumeFile]>) -> Content {
    let items = items.into_iter().flatten().filter_map(|item| {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(selector), _) => field(place, selector)?,
            (None, Some(selector)) => resource(place, selector),
            (None, None) => return None,
        };
        Some((item.path.clone(), Bytes::from(value)))
    });
    items.collect()
}

fn select(data: Content, items: Option<&[KeyToPath]>) -> Content {
    match items {
        None | Some([]) => data,
        Some(items) => {
            items.iter().filter_map(|item| Some((item.path.clone(), data.get(&item.key)?.clone()))).collect()
        }
    }
}

async fn config_map(client: &Client, namespace: &str, name: &str, optional: bool) -> Result<Content, String> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    match api.get_opt(name).await {
        Err(error) => Err(error.to_string()),
        Ok(None) if optional => Ok(Content::new()),
        Ok(None) => Err(format!("configmap \"{name}\" not found")),
        Ok(Some(map)) => {
            let texts = map.data.iter().flatten();
            let texts = texts.map(|(name, text)| (name.clone(), Bytes::from(text.clone())));
            Ok(texts.chain(files(&map.binary_data)).collect())
        }
    }
}

async fn secret(client: &Client, namespace: &str, name: &str, optional: bool) -> Result<Content, String> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match api.get_opt(name).await {
        Err(error) => Err(error.to_string()),
        Ok(None) if optional => Ok(Content::new()),
        Ok(None) => Err(format!("secret \"{name}\" not found")),
        Ok(Some(secret)) => Ok(files(&secret.data).collect()),
    }
}

fn files(data: &Option<BTreeMap<String, ByteString>>) -> impl Iterator<Item = (String, Bytes)> {
    data.iter().flatten().map(|(name, data)| (name.clone(), Bytes::from(data.0.clone())))
}

/// The container's environment, in the order of its definition: later variables may refer to earlier ones.
///
/// # Errors
/// The kubelet's message for a reference that leads nowhere.
pub(super) async fn environment(
    client: &Client,
    place: &Place<'_>,
) -> Result<BTreeMap<String, String>, String> {
    let Place { pod, container, .. } = *place;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let mut environment = BTreeMap::new();
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.clone().unwrap_or_default();
        let mut data = Content::new();
        if let Some(map) = &source.config_map_ref {
            data.extend(config_map(client, namespace, &map.name, map.optional.unwrap_or(false)).await?);
        }
        if let Some(found) = &source.secret_ref {
            data.extend(secret(client, namespace, &found.name, found.optional.unwrap_or(false)).await?);
        }
        for (name, value) in data {
            environment.insert(format!("{prefix}{name}"), String::from_utf8_lossy(&value).into_owned());
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) => Some(expand(value, &environment)),
            (None, Some(source)) => referenced(client, place, source).await?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            environment.insert(variable.name.clone(), value);
        }
    }
    Ok(environment)
}

async fn referenced(
    client: &Client,
    place: &Place<'_>,
    source: &EnvVarSource,
) -> Result<Option<String>, String> {
    let pod = place.pod;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let text = |value: &Bytes| String::from_utf8_lossy(value).into_owned();
    if let Some(selector) = &source.field_ref {
        return Ok(field(place, selector));
    }
    if let Some(key) = &source.config_map_key_ref {
        let optional = key.optional.unwrap_or(false);
        let data = config_map(client, namespace, &key.name, optional).await?;
        return match data.get(&key.key) {
            Some(value) => Ok(Some(text(value))),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", key.key, key.name)),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let optional = key.optional.unwrap_or(false);
        let data = secret(client, namespace, &key.name, optional).await?;
        return match data.get(&key.key) {
            Some(value) => Ok(Some(text(value))),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {} in Secret {namespace}/{}", key.key, key.name)),
        };
    }
    if let Some(selector) = &source.resource_field_ref {
        return Ok(Some(resource(place, selector)));
    }
    Ok(None)
}

/// A container's request or limit in units of the divisor, rounded up; a missing limit is what the node has.
fn resource(place: &Place<'_>, selector: &ResourceFieldSelector) -> String {
    let named = |name: &String| place.pod.spec.as_ref()?.containers.iter().find(|found| found.name == *name);
    let container = selector.container_name.as_ref().and_then(named).unwrap_or(place.container);
    let (part, name) = selector.resource.split_once('.').unwrap_or(("limits", &selector.resource));
    let resources = container.resources.as_ref();
    let amount = |amounts: Option<&BTreeMap<String, Quantity>>| amounts?.get(name).and_then(milli_value);
    let limit = amount(resources.and_then(|resources| resources.limits.as_ref()));
    let whole_node = || match name {
        "cpu" => place.host.cpu_millis as i64,
        "memory" => (place.host.memory_bytes as i64).saturating_mul(1000),
        _ => 0,
    };
    let milli = match part {
        "requests" => amount(resources.and_then(|resources| resources.requests.as_ref())).unwrap_or(0),
        _ => limit.unwrap_or_else(whole_node),
    };
    let divisor =
        selector.divisor.as_ref().and_then(milli_value).filter(|divisor| *divisor > 0).unwrap_or(1000);
    (milli.max(0) as u64).div_ceil(divisor as u64).to_string()
}

/// A field of the pod that the downward API offers.
fn field(place: &Place<'_>, selector: &ObjectFieldSelector) -> Option<String> {
    let pod = place.pod;
    let (metadata, spec) = (&pod.metadata, pod.spec.as_ref()?);
    let path = selector.field_path.as_str();
    let of_map = |prefix: &str, map: Option<&BTreeMap<String, String>>| {
        let key = path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']")?;
        Some(map.and_then(|map| map.get(key)).cloned().unwrap_or_default())
    };
    let lines = |map: Option<&BTreeMap<String, String>>| {
        let lines = map.into_iter().flatten().map(|(name, value)| format!("{name}={value:?}\n"));
        Some(lines.collect::<String>())
    };
    match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => spec.node_name.clone(),
        "spec.serviceAccountName" => {
            Some(spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned()))
        }
        "status.podIP" | "status.podIPs" => Some(place.pod_ip.to_string()),
        "status.hostIP" | "status.hostIPs" => Some(place.host.ip.to_string()),
        _ => of_map("metadata.labels", metadata.labels.as_ref())
            .or_else(|| of_map("metadata.annotations", metadata.annotations.as_ref())),
    }
}

/// Replaces `$(NAME)` by the variable's value; unknown ones stay, `$$` is a dollar sign.
pub(super) fn expand(text: &str, environment: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        out.push_str(&rest[..start]);
        let after = &rest[start + 1..];
        let reference = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((value, tail)) =
            reference.and_then(|(name, tail)| Some((environment.get(name)?, tail)))
        {
            out.push_str(value);
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn references_expand_once() {
        let environment = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "$(A)".to_owned())].into();
        let check = |text: &str, expected: &str| assert_eq!(expand(text, &environment), expected, "{text}");
        check("--a=$(A)", "--a=1");
        check("$(B)", "$(A)");
        check("$(MISSING) $$(A) $", "$(MISSING) $(A) $");
    }
}
