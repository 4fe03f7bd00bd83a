//! The command line, as Go's `flag` package reads it.

use std::time::Duration;

use canary::Dialect;

/// What the command line says.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Kubeconfig of the cluster to watch; the pod's own cluster if empty.
    pub kubeconfig: String,
    /// Kubeconfig of the mesh's control plane; the watched cluster if empty.
    pub kubeconfig_service_mesh: String,
    /// URL of the metrics server.
    pub metrics_server: String,
    /// Time between looks at the list of Canaries.
    pub control_loop_interval: Duration,
    /// The least level that is logged.
    pub log_level: String,
    /// The HTTP server's port.
    pub port: u16,
    /// Slack's hook, for alerts of Canaries that name no provider.
    pub slack_url: String,
    /// A Slack bot's token (newer dialect).
    pub slack_token: String,
    /// The name to post under in Slack.
    pub slack_user: String,
    /// Slack's channel.
    pub slack_channel: String,
    /// Teams' hook, in place of Slack's.
    pub msteams_url: String,
    /// A hook that is told every event.
    pub event_webhook: String,
    /// The namespace to watch; all if empty.
    pub namespace: String,
    /// The traffic provider of Canaries that name none.
    pub mesh_provider: String,
    /// Pod labels that selectors may use, the first that a workload has is taken.
    pub selector_labels: Vec<String>,
    /// Prefixes of labels that primaries keep (newer dialect).
    pub include_label_prefix: Vec<String>,
    /// The cluster's name in alerts (newer dialect).
    pub cluster_name: String,
    /// Whether ConfigMaps and Secrets are copied and watched.
    pub enable_config_tracking: bool,
    /// Whether references to other namespaces are refused (newer dialect).
    pub no_cross_namespace_refs: bool,
    /// Whether to work only as the elected leader.
    pub enable_leader_election: bool,
    /// The namespace of the leader's lock.
    pub leader_election_namespace: String,
    /// Prints the version and ends.
    pub version: bool,
}

/// What the program does instead of running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What is printed.
    pub text: String,
    /// The exit code: 2 after a mistake, 0 when help was asked for.
    pub code: i32,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Bool,
    Int,
    Duration,
}

struct Flag {
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
    /// Whether only the newer dialect has it.
    newer: bool,
}

const fn flag(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, help, newer: false }
}

const fn newer(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag { name, kind, default, help, newer: true }
}

/// In the order in which Go prints them.
const FLAGS: &[Flag] = &[
    newer("cluster-name", Kind::Text, "", "The cluster's name in alerts."),
    flag("control-loop-interval", Kind::Duration, "10s", "Time between looks at the list of canaries."),
    flag("enable-config-tracking", Kind::Bool, "true", "Copy and watch the targets' ConfigMaps and Secrets."),
    flag("enable-leader-election", Kind::Bool, "false", "Work only as the elected leader."),
    flag("event-webhook", Kind::Text, "", "URL that is told every event."),
    newer("include-label-prefix", Kind::Text, "", "Prefixes of labels that primaries keep, * for all."),
    flag(
        "ingress-annotations-prefix",
        Kind::Text,
        "nginx.ingress.kubernetes.io",
        "Prefix of ingress annotations.",
    ),
    newer("ingress-class", Kind::Text, "", "Ingress class of HTTPProxy objects."),
    flag("kubeconfig", Kind::Text, "", "Path to a kubeconfig, outside of a cluster."),
    newer("kubeconfig-burst", Kind::Int, "250", "Burst of API requests."),
    newer("kubeconfig-qps", Kind::Int, "100", "API requests per second."),
    flag(
        "kubeconfig-service-mesh",
        Kind::Text,
        "",
        "Path to a kubeconfig of the mesh's control plane cluster.",
    ),
    flag("leader-election-namespace", Kind::Text, "kube-system", "Namespace of the leader's lock."),
    flag("log-level", Kind::Text, "debug", "Least level to log: debug, info, warning, error."),
    flag("master", Kind::Text, "", "Address of the API server, in place of the kubeconfig's."),
    flag("mesh-provider", Kind::Text, "istio", "Traffic provider."),
    flag("metrics-server", Kind::Text, "http://prometheus:9090", "Prometheus URL."),
    newer("msteams-proxy-url", Kind::Text, "", "Proxy to MS Teams."),
    flag("msteams-url", Kind::Text, "", "MS Teams hook URL."),
    flag("namespace", Kind::Text, "", "Namespace to watch, all if empty."),
    newer("no-cross-namespace-refs", Kind::Bool, "false", "Refuse references to other namespaces."),
    flag("port", Kind::Text, "8080", "Port to listen on."),
    flag(
        "selector-labels",
        Kind::Text,
        "app,name,app.kubernetes.io/name",
        "Pod labels that selectors may use, by precedence.",
    ),
    flag("slack-channel", Kind::Text, "", "Slack channel."),
    newer("slack-proxy-url", Kind::Text, "", "Proxy to Slack."),
    newer("slack-token", Kind::Text, "", "Slack bot token."),
    flag("slack-url", Kind::Text, "", "Slack hook URL."),
    flag("slack-user", Kind::Text, "flagger", "Slack user name."),
    flag("threadiness", Kind::Int, "2", "Number of workers."),
    flag("version", Kind::Bool, "false", "Print the version."),
    flag("zap-encoding", Kind::Text, "json", "Log format."),
    flag("zap-replace-globals", Kind::Bool, "false", "Replace the global logger's level too."),
];

/// Reads a command line without the program's name. As in Go, the first word that is no flag ends the flags.
///
/// # Errors
/// [`Usage`] with Go's text after a mistake or a call for help.
pub fn parse(args: &[String], dialect: Dialect) -> Result<Options, Usage> {
    let known = |name: &str| {
        FLAGS.iter().find(|flag| flag.name == name && (dialect == Dialect::Latest || !flag.newer))
    };
    let mut given: Vec<(&'static str, String)> = Vec::new();
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        if word == "--" || word.len() < 2 || !word.starts_with('-') {
            break;
        }
        let body = word.strip_prefix("--").unwrap_or(&word[1..]);
        if body.is_empty() || body.starts_with('-') || body.starts_with('=') {
            return Err(mistake(format!("bad flag syntax: {word}"), dialect));
        }
        let (name, value) = body.split_once('=').map_or((body, None), |(n, v)| (n, Some(v.to_owned())));
        let Some(flag) = known(name) else {
            if matches!(name, "help" | "h") {
                return Err(Usage { text: usage(dialect), code: 0 });
            }
            return Err(mistake(format!("flag provided but not defined: -{name}"), dialect));
        };
        let value = match value {
            Some(value) => value,
            None if flag.kind == Kind::Bool => "true".to_owned(),
            None => rest
                .next()
                .cloned()
                .ok_or_else(|| mistake(format!("flag needs an argument: -{name}"), dialect))?,
        };
        check(flag, &value).map_err(|text| mistake(text, dialect))?;
        given.push((flag.name, value));
    }
    let text = |name: &'static str| -> String {
        let last = given.iter().rev().find(|(given, _)| *given == name);
        match last {
            Some((_, value)) => value.clone(),
            None => known(name).map_or(String::new(), |flag| flag.default.to_owned()),
        }
    };
    let list = |name: &'static str| text(name).split(',').map(str::to_owned).collect::<Vec<_>>();
    let port = text("port");
    Ok(Options {
        kubeconfig: text("kubeconfig"),
        kubeconfig_service_mesh: text("kubeconfig-service-mesh"),
        metrics_server: text("metrics-server"),
        control_loop_interval: canary::parse_duration(&text("control-loop-interval")).unwrap_or_default(),
        log_level: text("log-level"),
        port: port.parse().map_err(|_| Usage {
            text: format!("HTTP server crashed listen tcp: address {port}: invalid port"),
            code: 1,
        })?,
        slack_url: text("slack-url"),
        slack_token: text("slack-token"),
        slack_user: text("slack-user"),
        slack_channel: text("slack-channel"),
        msteams_url: text("msteams-url"),
        event_webhook: text("event-webhook"),
        namespace: text("namespace"),
        mesh_provider: text("mesh-provider"),
        selector_labels: list("selector-labels"),
        include_label_prefix: list("include-label-prefix"),
        cluster_name: text("cluster-name"),
        enable_config_tracking: boolean(&text("enable-config-tracking")) == Some(true),
        no_cross_namespace_refs: boolean(&text("no-cross-namespace-refs")) == Some(true),
        enable_leader_election: boolean(&text("enable-leader-election")) == Some(true),
        leader_election_namespace: text("leader-election-namespace"),
        version: boolean(&text("version")) == Some(true),
    })
}

/// The forms of a bool that Go's `strconv.ParseBool` takes.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn check(flag: &Flag, value: &str) -> Result<(), String> {
    let name = flag.name;
    match flag.kind {
        Kind::Bool if boolean(value).is_none() => {
            Err(format!("invalid boolean value {value:?} for -{name}: parse error"))
        }
        Kind::Int if value.parse::<i64>().is_err() => {
            Err(format!("invalid value {value:?} for flag -{name}: parse error"))
        }
        Kind::Duration if canary::parse_duration(value).is_none_or(|interval| interval.is_zero()) => {
            Err(format!("invalid value {value:?} for flag -{name}: parse error"))
        }
        _ => Ok(()),
    }
}

fn mistake(text: String, dialect: Dialect) -> Usage {
    Usage { text: format!("{text}\n{}", usage(dialect)), code: 2 }
}

fn usage(dialect: Dialect) -> String {
    let mut text = "Usage of ./flagger:\n".to_owned();
    for flag in FLAGS.iter().filter(|flag| dialect == Dialect::Latest || !flag.newer) {
        let kind = match flag.kind {
            Kind::Text => " string",
            Kind::Bool => "",
            Kind::Int => " int",
            Kind::Duration => " duration",
        };
        let default = match (flag.kind, flag.default) {
            (_, "" | "false") => String::new(),
            (Kind::Text, default) => format!(" (default {default:?})"),
            (_, default) => format!(" (default {default})"),
        };
        text.push_str(&format!("  -{}{kind}\n    \t{}{default}\n", flag.name, flag.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn flags_read_as_in_go() {
        let line = "-log-level=info --mesh-provider kubernetes -metrics-server=http://prom:9090 -version=F \
                    -enable-config-tracking=false -control-loop-interval=5s stray -no-such-flag";
        let options = parse(&words(line), Dialect::Rc1).unwrap();
        assert_eq!(options.log_level, "info");
        assert_eq!(options.mesh_provider, "kubernetes");
        assert_eq!(options.metrics_server, "http://prom:9090");
        assert_eq!(options.control_loop_interval, Duration::from_secs(5));
        assert!(!options.enable_config_tracking);
        assert_eq!(options.port, 8080);
        assert_eq!(options.selector_labels, ["app", "name", "app.kubernetes.io/name"]);
        assert!(parse(&words("-enable-leader-election"), Dialect::Rc1).unwrap().enable_leader_election);
    }

    #[test]
    fn mistakes_print_gos_usage() {
        let check = |line: &str, dialect, first: &str, code| {
            let usage = parse(&words(line), dialect).unwrap_err();
            assert_eq!(usage.text.lines().next(), Some(first), "{line}");
            assert_eq!(usage.code, code, "{line}");
            assert!(usage.text.contains("\n  -control-loop-interval duration\n    \t"), "{}", usage.text);
        };
        check("-no-such-flag=1", Dialect::Rc1, "flag provided but not defined: -no-such-flag", 2);
        check("--cluster-name=a", Dialect::Rc1, "flag provided but not defined: -cluster-name", 2);
        check("-port", Dialect::Latest, "flag needs an argument: -port", 2);
        check("-threadiness=x", Dialect::Latest, "invalid value \"x\" for flag -threadiness: parse error", 2);
        check("-version=x", Dialect::Rc1, "invalid boolean value \"x\" for -version: parse error", 2);
        check("-help", Dialect::Rc1, "Usage of ./flagger:", 0);
        assert!(parse(&words("--cluster-name=a"), Dialect::Latest).is_ok());
    }
}
