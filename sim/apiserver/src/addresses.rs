//! Cluster IPs and node ports of Services.

use std::collections::BTreeSet;

use tree::{Value, json};

/// What is taken, and what comes next.
#[derive(Debug)]
pub(crate) struct Addresses {
    cidr: [u8; 2],
    taken: BTreeSet<[u8; 2]>,
    next: u16,
    next_port: u16,
}

/// The first and last node port, as the API server's default range has them.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

impl Addresses {
    pub(crate) fn new(cidr: [u8; 2]) -> Self {
        // .0.1 is the `kubernetes` Service's.
        Addresses { cidr, taken: BTreeSet::from([[0, 1]]), next: 10, next_port: *NODE_PORTS.start() }
    }

    /// The address of the `kubernetes` Service.
    pub(crate) fn kubernetes(&self) -> String {
        format!("{}.{}.0.1", self.cidr[0], self.cidr[1])
    }

    /// Gives a Service what it lacks.
    ///
    /// # Errors
    /// Why the address that it asks for cannot be had.
    pub(crate) fn assign(&mut self, service: &mut Value) -> Result<(), String> {
        let spec = &mut service["spec"];
        if spec["type"] == "ExternalName" {
            return Ok(());
        }
        match spec["clusterIP"].as_str().unwrap_or_default() {
            "None" => {}
            "" => {
                let ip = self.allocate();
                spec["clusterIP"] = json!(ip);
            }
            ip => self.take(ip)?,
        }
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
        if spec["ipFamilies"].is_null() {
            spec["ipFamilies"] = json!(["IPv4"]);
            spec["ipFamilyPolicy"] = json!("SingleStack");
        }
        if matches!(spec["type"].as_str(), Some("NodePort" | "LoadBalancer")) {
            for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
                if port["nodePort"].as_u64().unwrap_or(0) == 0 {
                    port["nodePort"] = json!(self.next_port);
                    self.next_port = if self.next_port == *NODE_PORTS.end() {
                        *NODE_PORTS.start()
                    } else {
                        self.next_port + 1
                    };
                }
            }
        }
        Ok(())
    }

    /// Marks what a Service has as taken.
    pub(crate) fn restore(&mut self, service: &Value) {
        if let Some(host) = service["spec"]["clusterIP"].as_str().and_then(|ip| self.host(ip)) {
            self.taken.insert(host);
        }
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        for port in ports.filter_map(|port| u16::try_from(port["nodePort"].as_u64()?).ok()) {
            if NODE_PORTS.contains(&port) && port >= self.next_port {
                self.next_port = if port == *NODE_PORTS.end() { *NODE_PORTS.start() } else { port + 1 };
            }
        }
    }

    /// Takes back the address of a Service that is gone.
    pub(crate) fn release(&mut self, service: &Value) {
        if let Some(host) = service["spec"]["clusterIP"].as_str().and_then(|ip| self.host(ip)) {
            self.taken.remove(&host);
        }
    }

    fn allocate(&mut self) -> String {
        loop {
            let host = self.next.to_be_bytes();
            self.next = self.next.checked_add(1).unwrap_or(10);
            if self.taken.insert(host) {
                return format!("{}.{}.{}.{}", self.cidr[0], self.cidr[1], host[0], host[1]);
            }
        }
    }

    fn take(&mut self, ip: &str) -> Result<(), String> {
        let host = self.host(ip).ok_or_else(|| {
            format!(
                "failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid range. The range of valid IPs is {}.{}.0.0/16",
                self.cidr[0], self.cidr[1]
            )
        })?;
        if self.taken.insert(host) {
            Ok(())
        } else {
            Err(format!("failed to allocate IP {ip}: provided IP is already allocated"))
        }
    }

    fn host(&self, ip: &str) -> Option<[u8; 2]> {
        let octets = ip.parse::<std::net::Ipv4Addr>().ok()?.octets();
        (octets[..2] == self.cidr).then_some([octets[2], octets[3]])
    }
}
