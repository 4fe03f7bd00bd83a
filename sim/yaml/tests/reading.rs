//! Documents as types.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use yaml::{Position, parse};

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Server {
    name: String,
    #[serde(default)]
    ports: Vec<u16>,
    weight: Option<f64>,
    protocol: Option<Protocol>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    limit: Option<Placed>,
    #[serde(default)]
    is_fast: bool,
    pair: Option<[u8; 2]>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Http,
    Tcp { port: u16 },
}

#[derive(Debug, PartialEq)]
struct Placed(Position, u32);

impl<'de> Deserialize<'de> for Placed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (at, value) = yaml::located(deserializer)?;
        Ok(Placed(at, value))
    }
}

#[test]
fn values_are_read_as_their_types() {
    let text = "name: 3.10\nports: [80, 0x50]\nweight: 1\nprotocol: {tcp: {port: 5}}\nlabels: &labels {a: yes, 1: '2'}\nlimit: 7\nisFast: true\npair: [1, 2]\n";
    let server: Server = parse(text).unwrap();
    assert_eq!(server.name, "3.10", "text is as it is written");
    assert_eq!((server.ports, server.weight), (vec![80, 80], Some(1.0)));
    assert_eq!(server.protocol, Some(Protocol::Tcp { port: 5 }));
    assert_eq!(server.labels, [("a", "yes"), ("1", "2")].map(|(a, b)| (a.to_owned(), b.to_owned())).into());
    assert_eq!(server.limit, Some(Placed(Position { line: 6, column: 8 }, 7)));
    assert_eq!((server.is_fast, server.pair), (true, Some([1, 2])));
    let server: Server = parse("name: x\nweight: null\nprotocol: http").unwrap();
    assert_eq!((server.weight, server.protocol), (None, Some(Protocol::Http)));
}

#[test]
fn anchors_aliases_and_merges_are_followed() {
    let text = "a: &base {x: one}\nb: *base\nc:\n  <<: *base\n  y: two\n";
    let read: BTreeMap<String, BTreeMap<String, String>> = parse(text).unwrap();
    assert_eq!(read["b"]["x"], "one");
    assert_eq!((read["c"]["x"].as_str(), read["c"]["y"].as_str()), ("one", "two"));
}

#[test]
fn errors_name_the_place() {
    let error = |text: &str| parse::<Server>(text).unwrap_err().to_string();
    assert!(error("name: x\n  port: 1\n").starts_with("line 2, column"), "{}", error("name: x\n  port: 1\n"));
    let unknown = error("name: x\nport: 80\n");
    assert!(unknown.starts_with("line 2, column 1: unknown field \"port\" (known: name, ports"), "{unknown}");
    assert_eq!(error("ports: [1]\n"), "line 1, column 1: the field \"name\" is missing");
    assert_eq!(
        error("name: x\nports:\n- 1\n- no\n"),
        "line 4, column 3: found boolean `false` where u16 belongs"
    );
    assert_eq!(
        error("name: x\nprotocol: udp\n"),
        "line 2, column 11: unknown value \"udp\" (known: http, tcp)"
    );
    assert_eq!(error("name: x\nlabels: 5\n"), "line 2, column 9: found integer `5` where a map belongs");
    assert_eq!(error("name: [x]\n"), "line 1, column 7: found sequence where a string belongs");
    assert_eq!(error("name:\n"), "line 1, column 5: found null where a string belongs");
    assert!(error("name: x\nname: y\n").contains("line 2, column 1: "), "{}", error("name: x\nname: y\n"));
    assert!(error("name: x\npair: [1, 2, 3]\n").starts_with("line 2, column 7: "));
    assert!(error("name: x\n---\nname: y\n").contains("document"), "{}", error("name: x\n---\nname: y\n"));
}
