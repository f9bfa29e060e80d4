// SPDX-License-Identifier: EUPL-1.2
//! Three primaries that share the slots.

use super::{Server, Setup, free_port, until};

/// See the module.
pub struct Cluster {
    pub nodes: Vec<Server>,
}

impl Cluster {
    pub fn start() -> Self {
        let nodes: Vec<Server> = (0..3)
            .map(|_| {
                let bus = free_port().to_string();
                let options = ["--cluster-enabled", "yes", "--cluster-port", &bus];
                let options = options.map(str::to_owned).to_vec();
                Server::with(Setup {
                    options,
                    ..Setup::default()
                })
            })
            .collect();
        for (node, (first, last)) in
            nodes
                .iter()
                .zip([(0, 5_460), (5_461, 10_922), (10_923, 16_383)])
        {
            let (first, last) = (first.to_string(), last.to_string());
            node.run(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
        }
        for (number, node) in nodes.iter().enumerate() {
            node.run(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        }
        let (port, bus) = (nodes[0].port.to_string(), nodes[0].option("--cluster-port"));
        for node in &nodes[1..] {
            node.run(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        until("the cluster is whole", || {
            nodes.iter().all(|node| {
                let info: String =
                    redis::from_redis_value(node.run(&["CLUSTER", "INFO"])).unwrap_or_default();
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            })
        });
        Self { nodes }
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }
}
