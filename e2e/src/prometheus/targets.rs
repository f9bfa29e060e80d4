// SPDX-License-Identifier: EUPL-1.2
//! What a `ServiceMonitor` or a `PodMonitor` selects.
//!
//! Debian's Prometheus is built without Kubernetes discovery, and the Prometheus operator is not to be had here. So what the two do
//! with a monitor is done once more, as far as the chart's monitors go, and Prometheus reads it from files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Map, Value, json};

const AGAIN: Duration = Duration::from_secs(1);

/// One endpoint of a monitor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Monitor {
    of: Selected,
    namespaces: Vec<String>,
    /// Label selector, as the API server reads it.
    selector: String,
    /// Name of the port.
    port: String,
    path: String,
    interval: String,
    /// Labels that every target is given.
    labels: Map<String, Value>,
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selected {
    Services,
    Pods,
}

/// The endpoints of a monitor; none of any other object. Their targets are kept in `folder`.
pub(super) fn read(monitor: &Value, folder: &Path) -> Result<Vec<Monitor>> {
    let (of, endpoints) = match monitor["kind"].as_str() {
        Some("ServiceMonitor") => (Selected::Services, "endpoints"),
        Some("PodMonitor") => (Selected::Pods, "podMetricsEndpoints"),
        _ => return Ok(Vec::new()),
    };
    let text = |value: &Value, what: &str| -> Result<String> {
        let text = value.as_str().with_context(|| format!("{what}: {value}"))?;
        Ok(text.to_owned())
    };
    let name = text(&monitor["metadata"]["name"], "name of a monitor")?;
    let spec = &monitor["spec"];
    let namespaces = match spec["namespaceSelector"]["matchNames"].as_array() {
        None => vec![text(&monitor["metadata"]["namespace"], "namespace")?],
        Some(names) => {
            let names = names.iter().map(|name| text(name, "namespace"));
            names.collect::<Result<_>>()?
        }
    };
    ensure!(
        spec["selector"]["matchExpressions"].is_null(),
        "{name}: selectors with expressions are not known here"
    );
    let wanted = spec["selector"]["matchLabels"]
        .as_object()
        .with_context(|| format!("{name} selects by labels"))?;
    let selector: Vec<String> = wanted
        .iter()
        .map(|(label, value)| Ok(format!("{label}={}", text(value, "label")?)))
        .collect::<Result<_>>()?;
    let mut all = Vec::new();
    for (index, endpoint) in (0..).zip(spec[endpoints].as_array().context("endpoints")?) {
        let mut labels = Map::new();
        for relabel in endpoint["relabelings"].as_array().into_iter().flatten() {
            if relabel.get("sourceLabels").is_some() || relabel.get("action").is_some() {
                bail!("{name}: only labels that are set are known here, not {relabel}");
            }
            let label = text(&relabel["targetLabel"], "targetLabel")?;
            labels.insert(label, relabel["replacement"].clone());
        }
        all.push(Monitor {
            of,
            namespaces: namespaces.clone(),
            selector: selector.join(","),
            port: text(&endpoint["port"], "port")?,
            path: text(&endpoint["path"], "path")?,
            interval: text(&endpoint["interval"], "interval")?,
            labels,
            file: folder.join(format!("{name}-{index}.json")),
        });
    }
    Ok(all)
}

/// Keeps the files of targets at what the cluster has, for ever.
pub(super) async fn follow(client: Client, monitors: Vec<Monitor>) {
    loop {
        for monitor in &monitors {
            // The API server may be away: what was known last holds.
            if let Err(error) = monitor.refresh(&client).await {
                eprintln!("{}: {error:#}", monitor.file.display());
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

impl Monitor {
    /// As Prometheus is told of it.
    pub(super) fn scrape(&self) -> Value {
        json!({
            "job_name": self.file.file_stem().map(|name| name.to_string_lossy()),
            "scrape_interval": self.interval,
            "scrape_timeout": self.interval,
            "metrics_path": self.path,
            "file_sd_configs": [{ "files": [self.file], "refresh_interval": "5s" }],
        })
    }

    async fn refresh(&self, client: &Client) -> Result<()> {
        let mut targets = Vec::new();
        for namespace in &self.namespaces {
            match self.of {
                Selected::Pods => self.pods(client, namespace, &mut targets).await?,
                Selected::Services => self.services(client, namespace, &mut targets).await?,
            }
        }
        targets.sort_by_key(Value::to_string);
        let text = serde_json::to_vec_pretty(&targets)?;
        if std::fs::read(&self.file).is_ok_and(|old| old == text) {
            return Ok(());
        }
        // Prometheus must not read half a file.
        let new = self.file.with_extension("new");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(&new, &self.file)?)
    }

    async fn pods(&self, client: &Client, namespace: &str, into: &mut Vec<Value>) -> Result<()> {
        let api = Api::<Pod>::namespaced(client.clone(), namespace);
        let wanted = ListParams::default().labels(&self.selector);
        for pod in api.list(&wanted).await? {
            let name = pod.name_any();
            let running = pod
                .status
                .filter(|status| status.phase.as_deref() == Some("Running"));
            let Some(address) = running.and_then(|status| status.pod_ip) else {
                continue;
            };
            for container in pod.spec.into_iter().flat_map(|spec| spec.containers) {
                for port in container.ports.into_iter().flatten() {
                    if port.name.as_deref() == Some(&self.port) {
                        let own = json!({ "namespace": namespace, "pod": name, "container": container.name });
                        into.push(self.target(&address, port.container_port, own));
                    }
                }
            }
        }
        Ok(())
    }

    async fn services(
        &self,
        client: &Client,
        namespace: &str,
        into: &mut Vec<Value>,
    ) -> Result<()> {
        let services = Api::<Service>::namespaced(client.clone(), namespace);
        let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
        let wanted = ListParams::default().labels(&self.selector);
        for service in services.list_metadata(&wanted).await? {
            let service = service.name_any();
            let of = format!("kubernetes.io/service-name={service}");
            for slice in slices.list(&ListParams::default().labels(&of)).await? {
                let ports = slice.ports.iter().flatten();
                for port in ports.filter(|port| port.name.as_deref() == Some(&self.port)) {
                    for endpoint in &slice.endpoints {
                        let pod = endpoint
                            .target_ref
                            .as_ref()
                            .and_then(|pod| pod.name.clone());
                        let own = json!({ "namespace": namespace, "pod": pod, "service": service });
                        for address in &endpoint.addresses {
                            into.push(self.target(
                                address,
                                port.port.unwrap_or_default(),
                                own.clone(),
                            ));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn target(&self, address: &str, port: i32, mut labels: Value) -> Value {
        if let Some(labels) = labels.as_object_mut() {
            labels.extend(self.labels.clone());
        }
        json!({ "targets": [format!("{address}:{port}")], "labels": labels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_says_what_is_scraped_and_how_it_is_named() {
        let monitor = json!({
            "kind": "PodMonitor",
            "metadata": { "name": "plenum-media-node", "namespace": "plenum-system" },
            "spec": {
                "namespaceSelector": { "matchNames": ["media"] },
                "selector": { "matchLabels": { "a": "b", "c": "d" } },
                "podMetricsEndpoints": [{
                    "port": "probes", "path": "/metrics", "interval": "5s",
                    "relabelings": [{ "targetLabel": "job", "replacement": "plenum-media-node" }],
                }],
            },
        });
        let monitors = read(&monitor, Path::new("/run")).expect("a monitor");
        let [monitor] = &monitors[..] else {
            panic!("{monitors:?}")
        };
        assert_eq!(monitor.selector, "a=b,c=d");
        assert_eq!(monitor.namespaces, ["media"]);
        assert_eq!(
            monitor.target("10.97.1.2", 7881, json!({ "pod": "city-1" })),
            json!({
                "targets": ["10.97.1.2:7881"],
                "labels": { "pod": "city-1", "job": "plenum-media-node" },
            })
        );
        assert_eq!(
            read(&json!({ "kind": "Service" }), Path::new("/run")).expect("nothing"),
            []
        );
    }

    #[test]
    fn what_is_not_known_here_is_refused() {
        let monitor = |relabel: Value| {
            json!({
                "kind": "ServiceMonitor",
                "metadata": { "name": "x", "namespace": "y" },
                "spec": {
                    "selector": { "matchLabels": {} },
                    "endpoints": [{ "port": "p", "path": "/", "interval": "5s", "relabelings": [relabel] }],
                },
            })
        };
        let known = json!({ "targetLabel": "job", "replacement": "z" });
        assert!(read(&monitor(known), Path::new("/run")).is_ok());
        let strange = json!({ "action": "drop", "sourceLabels": ["a"], "regex": "b" });
        assert!(read(&monitor(strange), Path::new("/run")).is_err());
    }
}
