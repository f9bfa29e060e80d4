// SPDX-License-Identifier: EUPL-1.2
//! A real Prometheus that scrapes a cluster as the chart's monitors say.

mod targets;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::chart::Document;
use crate::cluster::Cluster;
use crate::cluster::daemon::Daemon;
use crate::http;
use tokio::task::JoinHandle;

/// It listens in the namespaces of a test, where nobody else does.
const PORT: u16 = 9095;
const PATIENCE: Duration = Duration::from_secs(60);

/// A running Prometheus.
pub struct Prometheus {
    daemon: Daemon,
    discovery: JoinHandle<()>,
    address: SocketAddr,
    began: SystemTime,
}

/// A pod that is scraped.
#[derive(Clone, Debug)]
pub struct Target {
    /// Job that alerts and dashboards ask for.
    pub job: String,
    /// Name of the pod.
    pub pod: String,
    /// Did it answer?
    pub up: bool,
    /// Why not.
    pub error: String,
}

impl Prometheus {
    /// Starts one on the cluster's first node, whose network reaches every pod. `monitors` are the objects of a render; `rules` is a
    /// file of alerts.
    ///
    /// # Errors
    /// When it does not start, or a monitor uses what is not known here.
    pub async fn start(
        cluster: &Cluster,
        monitors: &[Document],
        interval: Duration,
        rules: &Path,
    ) -> Result<Self> {
        let node = cluster.nodes().first().context("the cluster has a node")?;
        let folder = cluster.folder().join("prometheus");
        std::fs::create_dir_all(&folder)?;
        let mut monitored = Vec::new();
        for monitor in monitors {
            monitored.extend(targets::read(&monitor.value, &folder)?);
        }
        ensure!(!monitored.is_empty(), "the render holds no monitors");
        let jobs: Vec<Value> = monitored.iter().map(targets::Monitor::scrape).collect();
        let config = json!({
            "global": { "scrape_interval": text_of(interval), "evaluation_interval": text_of(interval) },
            "rule_files": [rules],
            "scrape_configs": jobs,
        });
        let file = folder.join("prometheus.json");
        std::fs::write(&file, serde_json::to_vec_pretty(&config)?)?;
        let address = SocketAddr::from((node.address(), PORT));
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn");
        let daemon = Daemon::start("prometheus", &command, &folder, Some(node.network()))?;
        let discovery = tokio::spawn(targets::follow(cluster.client(), monitored));
        let mut prometheus = Self {
            daemon,
            discovery,
            address,
            began: SystemTime::now(),
        };
        let end = Instant::now() + PATIENCE;
        while !prometheus.is_ready().await {
            prometheus.daemon.check()?;
            ensure!(
                Instant::now() < end,
                "Prometheus does not get ready\n{}",
                prometheus.daemon.tail(20)
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(prometheus)
    }

    async fn is_ready(&self) -> bool {
        let answer = http::get(self.address, "/-/ready").await;
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// Everything that is scraped.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub async fn targets(&self) -> Result<Vec<Target>> {
        let data = self.ask("/api/v1/targets?state=active").await?;
        let targets = data["activeTargets"].as_array().context("targets")?;
        let text = |target: &Value, pointer: &str| {
            let found = target.pointer(pointer).and_then(Value::as_str);
            found.unwrap_or_default().to_owned()
        };
        Ok(targets
            .iter()
            .map(|target| Target {
                job: text(target, "/labels/job"),
                pod: text(target, "/labels/pod"),
                up: target["health"] == "up",
                error: text(target, "/lastError"),
            })
            .collect())
    }

    /// What an expression says now: the label sets with their values.
    ///
    /// # Errors
    /// When Prometheus refuses the expression.
    pub async fn query(&self, expression: &str) -> Result<Vec<(BTreeMap<String, String>, f64)>> {
        let path = format!("/api/v1/query?query={}", encoded(expression));
        let data = self
            .ask(&path)
            .await
            .with_context(|| expression.to_owned())?;
        let result = data["result"].as_array().context("a result")?;
        let mut all = Vec::new();
        for sample in result {
            let labels = serde_json::from_value(sample["metric"].clone())?;
            let value = sample["value"][1].as_str().context("a value")?;
            all.push((labels, value.parse()?));
        }
        Ok(all)
    }

    /// How many samples a panel over the whole run would draw; those that are no number are not drawn.
    ///
    /// # Errors
    /// When Prometheus refuses the expression.
    pub async fn drawn(&self, expression: &str, step: Duration) -> Result<usize> {
        let seconds = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            since.as_secs()
        };
        let path = format!(
            "/api/v1/query_range?query={}&start={}&end={}&step={}",
            encoded(expression),
            seconds(self.began),
            seconds(SystemTime::now()),
            step.as_secs().max(1)
        );
        let data = self
            .ask(&path)
            .await
            .with_context(|| expression.to_owned())?;
        let series = data["result"].as_array().context("a result")?;
        let values = series.iter().filter_map(|one| one["values"].as_array());
        let numbers = values.flatten().filter_map(|sample| sample[1].as_str());
        let drawn = numbers.filter(|number| {
            let number = number.parse::<f64>();
            number.is_ok_and(f64::is_finite)
        });
        Ok(drawn.count())
    }

    /// Alerts that fire, or would if what they tell of lasted: name and state.
    ///
    /// # Errors
    /// When Prometheus does not answer.
    pub async fn alerts(&self) -> Result<Vec<(String, String)>> {
        let data = self.ask("/api/v1/alerts").await?;
        let alerts = data["alerts"].as_array().context("alerts")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(alerts
            .iter()
            .map(|alert| (text(&alert["labels"]["alertname"]), text(&alert["state"])))
            .collect())
    }

    /// Rules that could not be evaluated: name and why.
    ///
    /// # Errors
    /// When Prometheus does not answer, or has read no rules.
    pub async fn broken_rules(&self) -> Result<Vec<(String, String)>> {
        let data = self.ask("/api/v1/rules").await?;
        let groups = data["groups"].as_array().context("groups")?;
        let rules: Vec<&Value> = groups
            .iter()
            .filter_map(|group| group["rules"].as_array())
            .flatten()
            .collect();
        ensure!(!rules.is_empty(), "no rules are read");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(rules
            .iter()
            .filter(|rule| rule["health"] == "err")
            .map(|rule| (text(&rule["name"]), text(&rule["lastError"])))
            .collect())
    }

    async fn ask(&self, path: &str) -> Result<Value> {
        let answer = http::get(self.address, path).await?;
        let mut body = answer.json()?;
        if body["status"] != "success" {
            bail!("Prometheus says {}: {}", answer.status, body["error"]);
        }
        Ok(body["data"].take())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.discovery.abort();
    }
}

fn text_of(interval: Duration) -> String {
    format!("{}s", interval.as_secs().max(1))
}

fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_survives_its_way_in_a_query() {
        assert_eq!(encoded("up{a=\"b\"}"), "up%7Ba%3D%22b%22%7D");
    }
}
