//! Cluster names, asked for from outside.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use super::testbed::with_testbed;
use super::{Kubectl, kubectl};

const PATIENCE: Duration = Duration::from_secs(10);

fn query(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(7);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let question =
        Question::new(Name::new(name).unwrap(), QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false);
    packet.questions.push(question);
    packet.build_bytes_vec().unwrap()
}

fn over_udp(server: &str, query: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(query, server).unwrap();
    let mut answer = vec![0; 4096];
    let length = socket.recv(&mut answer).unwrap();
    answer.truncate(length);
    answer
}

fn over_tcp(server: &str, query: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(server).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(&u16::try_from(query.len()).unwrap().to_be_bytes()).unwrap();
    socket.write_all(query).unwrap();
    let mut length = [0; 2];
    socket.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    socket.read_exact(&mut answer).unwrap();
    answer
}

fn read(answer: &[u8]) -> (RCODE, BTreeSet<IpAddr>) {
    let answer = Packet::parse(answer).unwrap();
    assert_eq!(answer.id(), 7);
    assert!(answer.has_flags(PacketFlag::RESPONSE | PacketFlag::RECURSION_DESIRED));
    let addresses = answer.answers.iter().map(|record| match &record.rdata {
        RData::A(address) => IpAddr::V4(address.address.into()),
        other => panic!("an address was asked for: {other:?}"),
    });
    (answer.rcode(), addresses.collect())
}

/// The addresses of a name; the answers over UDP and TCP must be the same.
pub(super) fn addresses(server: &str, name: &str) -> (RCODE, BTreeSet<IpAddr>) {
    let query = query(name, TYPE::A);
    let answer = read(&over_udp(server, &query));
    assert_eq!(read(&over_tcp(server, &query)), answer, "{name}");
    answer
}

#[test]
fn a_cluster_s_names_are_answered() {
    let Some(program) = kubectl() else { return };
    with_testbed(|state, home| {
        let kubectl = Kubectl { program, kubeconfig: state.kubeconfig.clone().into(), home: home.to_owned() };
        let server = state.clusters[0].dns.as_deref().unwrap();
        kubectl.ok("create service clusterip headless --clusterip=None --tcp=9898");
        kubectl.ok("patch service headless -p {\"spec\":{\"selector\":{\"app\":\"podinfo\"}}}");
        let ips =
            |text: &str| text.split_whitespace().map(|ip| ip.parse().unwrap()).collect::<BTreeSet<IpAddr>>();
        let service = ips(&kubectl.ok("get service podinfo -o jsonpath={.spec.clusterIP}"));
        let pods = ips(&kubectl.ok("get pods -o jsonpath={.items[*].status.podIP}"));
        assert_eq!((service.len(), pods.len()), (1, 2));
        for name in ["podinfo", "podinfo.default", "PodInfo.default.svc", "podinfo.default.svc.cluster.local"]
        {
            assert_eq!(addresses(server, name), (RCODE::NoError, service.clone()), "{name}");
        }
        super::until("the headless Service has endpoints", || {
            addresses(server, "headless.default.svc.cluster.local") == (RCODE::NoError, pods.clone())
        });
        for (name, code) in [
            ("nothing.default.svc.cluster.local", RCODE::NameError),
            ("podinfo.other.svc.cluster.local", RCODE::NameError),
            ("example.com", RCODE::Refused),
        ] {
            assert_eq!(addresses(server, name), (code, BTreeSet::new()), "{name}");
        }
        // The name is there, but has no such address.
        let six = over_udp(server, &query("podinfo.default.svc.cluster.local", TYPE::AAAA));
        assert_eq!(read(&six), (RCODE::NoError, BTreeSet::new()));
        let broken = over_udp(server, &[0, 9, 1, 0, 0, 1]);
        assert_eq!(broken[..2], [0, 9]);
        assert_eq!(broken[3] & 0xf, RCODE::FormatError as u8);
        // The other cluster has names of its own.
        let other = state.clusters[1].dns.as_deref().unwrap();
        assert_eq!(addresses(other, "podinfo.default.svc.cluster.local").0, RCODE::NameError);
        assert_eq!(addresses(other, "kubernetes.default").0, RCODE::NoError);
    });
}
