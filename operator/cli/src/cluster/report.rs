// SPDX-License-Identifier: EUPL-1.2
//! `kubectl plenum report`: reads what support asks for first, and writes it as one file.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, time::Duration};

use jiff::Timestamp;
use plenum_api::{KINDS, names::LABEL_POOL};
use serde_json::{Value, json};

use super::{
    Cluster, ClusterError, args::Report as Options, bundle::Bundle, escaped, status, tar::part,
    text, write_private,
};

/// Pods whose logs are read.
const PODS_MAX: usize = 300;
/// Events that are kept, the newest.
const EVENTS_MAX: usize = 2_000;
/// Other objects of one kind.
const OTHERS_MAX: usize = 2_000;

/// Objects of Kubernetes that belong to an installation: file, what it is, path, and whether all are wanted or those with our
/// label only.
const OTHERS: &[(&str, &str, &str, bool)] = &[
    (
        "deployments",
        "Deployments of the chart",
        "/apis/apps/v1/deployments",
        true,
    ),
    (
        "services",
        "Services of chart and pools",
        "/api/v1/services",
        true,
    ),
    (
        "poddisruptionbudgets",
        "budgets of the pools",
        "/apis/policy/v1/poddisruptionbudgets",
        true,
    ),
    (
        "networkpolicies",
        "NetworkPolicies of chart, pools and tenants",
        "/apis/networking.k8s.io/v1/networkpolicies",
        true,
    ),
    (
        "resourcequotas",
        "quotas of the tenants",
        "/api/v1/resourcequotas",
        true,
    ),
    (
        "leases",
        "leases of the installation",
        "/apis/coordination.k8s.io/v1/leases",
        true,
    ),
    (
        "clusterroles",
        "ClusterRoles of the chart",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        true,
    ),
    (
        "admissionpolicies",
        "admission policies of the chart",
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
        true,
    ),
];

/// Rights to ask for: group, resource, verbs. Of the person, and of the operator's account.
const RIGHTS: &[(&str, &str, &[&str])] = &[
    ("plenum.dev", "tenants", &["list", "watch", "patch"]),
    ("plenum.dev", "conferences", &["list", "watch", "patch"]),
    ("plenum.dev", "mediapools", &["list", "watch", "patch"]),
    (
        "plenum.dev",
        "medianodes",
        &["list", "watch", "create", "patch", "delete"],
    ),
    ("", "pods", &["list", "watch", "create", "delete"]),
    ("", "nodes", &["list", "watch"]),
    ("", "namespaces", &["list", "watch", "create", "patch"]),
    ("", "services", &["list", "patch"]),
    ("policy", "poddisruptionbudgets", &["list", "patch"]),
    ("events.k8s.io", "events", &["create", "patch"]),
    ("coordination.k8s.io", "leases", &["get", "update"]),
];

/// Reads, lists, writes.
pub(crate) async fn run(cluster: &Cluster, options: &Options) -> Result<ExitCode, ClusterError> {
    let bundle = gather(cluster, options).await?;
    sayln!("In the bundle:\n");
    say!("{}", bundle.index());
    if options.list {
        return Ok(ExitCode::SUCCESS);
    }
    let now = Timestamp::now();
    let folder = format!("plenum-report-{}", now.strftime("%Y%m%d-%H%M%S"));
    let file = options
        .output_file
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{folder}.tar.gz")));
    let archive = bundle
        .archive(&folder, now.as_second())
        .map_err(ClusterError::Asked)?;
    write_private(&file, &archive)?;
    sayln!(
        "\n{} written, {} bytes. Names of tenants and conferences are in it: look at it before you hand it on.",
        file.display(),
        archive.len()
    );
    Ok(ExitCode::SUCCESS)
}

async fn gather(cluster: &Cluster, options: &Options) -> Result<Bundle, ClusterError> {
    let mut bundle = Bundle::default();
    let facts = status::fetch(cluster).await?;
    bundle.text(
        "status.txt",
        "what `kubectl plenum status --all` shows",
        &status::shown(&facts),
    );
    for note in &facts.notes {
        bundle.missing(note.clone());
    }
    versions(cluster, &facts, &mut bundle).await;
    let deployments = facts.deployments.clone();
    for kind in KINDS {
        let Some(listed) = facts.objects.get(kind) else {
            continue;
        };
        let path = format!("plenum/{}.yaml", kind.to_ascii_lowercase());
        bundle.objects(&path, &format!("{kind} objects"), listed.items.clone());
    }
    for (name, about, path, labelled) in OTHERS {
        let query = if *labelled {
            selector(status::PART_OF)
        } else {
            String::new()
        };
        let path = scoped(path, cluster.namespace.as_deref());
        match cluster.list(about, &path, &query, OTHERS_MAX).await {
            Ok(listed) => bundle.objects(&format!("kubernetes/{name}.yaml"), about, listed.items),
            Err(error) => bundle.missing(error.to_string()),
        }
    }
    machines(cluster, &mut bundle).await;
    let pods = pods(cluster, &mut bundle).await;
    events(cluster, &pods, &mut bundle).await;
    rights(cluster, &deployments, &mut bundle).await;
    logs(cluster, &pods, options, &mut bundle).await;
    Ok(bundle)
}

fn selector(label: &str) -> String {
    format!("&labelSelector={}", escaped(label))
}

/// The path inside a namespace, where its objects have one and one is asked for.
fn scoped(path: &str, namespace: Option<&str>) -> String {
    let cluster_wide = ["clusterroles", "validatingadmissionpolicies", "nodes"]
        .iter()
        .any(|plural| path.ends_with(plural));
    match (namespace, path.rsplit_once('/')) {
        (Some(namespace), Some((base, plural))) if !cluster_wide => {
            format!("{base}/namespaces/{namespace}/{plural}")
        }
        _ => path.to_owned(),
    }
}

async fn versions(cluster: &Cluster, facts: &status::Facts, bundle: &mut Bundle) {
    let mut found = json!({
        "plenum": env!("CARGO_PKG_VERSION"), "kubernetes": facts.version, "server": facts.server, "kinds": {},
        "images": facts.deployments.iter().map(|deployment| json!({
            "deployment": deployment["metadata"]["name"],
            "image": deployment.pointer("/spec/template/spec/containers/0/image"),
        })).collect::<Vec<_>>(),
    });
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    match cluster.list("definitions", path, "", OTHERS_MAX).await {
        Ok(listed) => {
            for definition in &listed.items {
                if text(definition, "/spec/group") != plenum_api::names::GROUP {
                    continue;
                }
                let mine = plenum_api::crd(text(definition, "/spec/names/kind"))
                    .and_then(|known| serde_json::to_value(&known.spec.versions).ok());
                let theirs = definition.pointer("/spec/versions");
                found["kinds"][text(definition, "/metadata/name")] = json!({
                    "versions": definition.pointer("/spec/versions").and_then(Value::as_array).into_iter().flatten()
                        .map(|version| version["name"].clone()).collect::<Vec<_>>(),
                    "stored": definition.pointer("/status/storedVersions"),
                    "fieldsOfThisProgram": mine.as_ref().map(fields) == theirs.map(fields),
                });
            }
        }
        Err(error) => bundle.missing(error.to_string()),
    }
    bundle.text(
        "versions.json",
        "versions of program, cluster, images and kinds",
        &format!("{found:#}\n"),
    );
}

/// Paths of all fields of a schema, to compare two definitions by what they know.
fn fields(versions: &Value) -> Vec<String> {
    fn walk(schema: &Value, at: &str, found: &mut Vec<String>) {
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{at}.{name}");
            walk(property, &path, found);
            found.push(path);
        }
        if schema["items"].is_object() {
            walk(&schema["items"], &format!("{at}[]"), found);
        }
    }
    let mut found = Vec::new();
    if let Some(schema) = versions.pointer("/0/schema/openAPIV3Schema/properties") {
        for part in ["spec", "status"] {
            walk(&schema[part], part, &mut found);
        }
    }
    found.sort();
    found
}

/// Machines: what the operator looks at, and no more.
async fn machines(cluster: &Cluster, bundle: &mut Bundle) {
    match cluster.list("nodes", "/api/v1/nodes", "", OTHERS_MAX).await {
        Ok(listed) => {
            let machines = listed
                .items
                .iter()
                .map(|node| {
                    let status = &node["status"];
                    json!({
                        "apiVersion": "v1", "kind": "Node",
                        "metadata": { "name": node["metadata"]["name"], "labels": node["metadata"]["labels"] },
                        "spec": { "unschedulable": node["spec"]["unschedulable"], "taints": node["spec"]["taints"] },
                        "status": {
                            "addresses": status["addresses"], "allocatable": status["allocatable"],
                            "conditions": status["conditions"], "nodeInfo": status["nodeInfo"],
                        },
                    })
                })
                .collect();
            bundle.objects(
                "kubernetes/nodes.yaml",
                "machines: labels, taints, addresses, conditions",
                machines,
            );
        }
        Err(error) => bundle.missing(error.to_string()),
    }
}

/// Pods of the chart and of the pools.
async fn pods(cluster: &Cluster, bundle: &mut Bundle) -> Vec<Value> {
    let path = scoped("/api/v1/pods", cluster.namespace.as_deref());
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    for label in [status::PART_OF, LABEL_POOL] {
        match cluster
            .list("pods", &path, &selector(label), PODS_MAX)
            .await
        {
            Ok(listed) => {
                if listed.cut {
                    bundle.missing(format!(
                        "more than {PODS_MAX} pods with {label}; narrow it with --namespace"
                    ));
                }
                for pod in listed.items {
                    found.insert(text(&pod, "/metadata/uid").to_owned(), pod);
                }
            }
            Err(error) => {
                bundle.missing(error.to_string());
                break;
            }
        }
    }
    let pods: Vec<Value> = found.into_values().collect();
    bundle.objects(
        "kubernetes/pods.yaml",
        "pods of the chart and of the pools",
        pods.clone(),
    );
    pods
}

async fn events(cluster: &Cluster, pods: &[Value], bundle: &mut Bundle) {
    let path = scoped(
        "/apis/events.k8s.io/v1/events",
        cluster.namespace.as_deref(),
    );
    match cluster.list("Events", &path, "", super::OBJECTS_MAX).await {
        Ok(listed) => {
            let mut ours: Vec<Value> = listed
                .items
                .into_iter()
                .filter(|event| is_ours(event, pods))
                .collect();
            ours.sort_by(|a, b| moment(b).cmp(moment(a)));
            if ours.len() > EVENTS_MAX {
                ours.truncate(EVENTS_MAX);
                bundle.missing(format!("Events before the newest {EVENTS_MAX}"));
            }
            bundle.objects(
                "kubernetes/events.yaml",
                "Events about our objects and pods, the newest first",
                ours,
            );
        }
        Err(error) => bundle.missing(error.to_string()),
    }
}

/// About an object of ours, or a pod of ours.
fn is_ours(event: &Value, pods: &[Value]) -> bool {
    let regarding = &event["regarding"];
    text(regarding, "/apiVersion").starts_with("plenum.dev/")
        || (regarding["kind"] == "Pod"
            && pods.iter().any(|pod| {
                pod["metadata"]["name"] == regarding["name"]
                    && pod["metadata"]["namespace"] == regarding["namespace"]
            }))
}

/// When it happened last.
fn moment(event: &Value) -> &str {
    [
        "/series/lastObservedTime",
        "/eventTime",
        "/deprecatedLastTimestamp",
        "/metadata/creationTimestamp",
    ]
    .iter()
    .map(|pointer| text(event, pointer))
    .find(|text| !text.is_empty())
    .unwrap_or_default()
}

/// What may be done, by the person and by the operator.
async fn rights(cluster: &Cluster, deployments: &[Value], bundle: &mut Bundle) {
    let mut said = String::new();
    let operator = deployments.iter().find(|deployment| {
        text(deployment, "/metadata/labels/app.kubernetes.io~1component") == "operator"
            || text(deployment, "/metadata/name").ends_with("operator")
    });
    let account = operator.map(|deployment| {
        format!(
            "system:serviceaccount:{}:{}",
            text(deployment, "/metadata/namespace"),
            text(deployment, "/spec/template/spec/serviceAccountName")
        )
    });
    for who in [None, account] {
        let name = who.clone().unwrap_or_else(|| "you".to_owned());
        for (group, resource, verbs) in RIGHTS {
            for verb in *verbs {
                match may(cluster, who.as_deref(), group, resource, verb).await {
                    Ok(allowed) => {
                        let answer = if allowed { "yes" } else { "no" };
                        let dot = if group.is_empty() { "" } else { "." };
                        said.push_str(&format!(
                            "{name}: {verb} {resource}{dot}{group}: {answer}\n"
                        ));
                    }
                    Err(error) => {
                        bundle.missing(format!("rights of {name}: {error}"));
                        break;
                    }
                }
            }
        }
    }
    bundle.text(
        "rights.txt",
        "what the writer of this bundle and the operator may do, in all namespaces",
        &said,
    );
}

async fn may(
    cluster: &Cluster,
    who: Option<&str>,
    group: &str,
    resource: &str,
    verb: &str,
) -> Result<bool, ClusterError> {
    let attributes = json!({ "group": group, "resource": resource, "verb": verb });
    let (kind, plural) = match who {
        Some(_) => ("SubjectAccessReview", "subjectaccessreviews"),
        None => ("SelfSubjectAccessReview", "selfsubjectaccessreviews"),
    };
    let mut review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": { "resourceAttributes": attributes },
    });
    if let Some(who) = who {
        review["spec"]["user"] = who.into();
    }
    let path = format!("/apis/authorization.k8s.io/v1/{plural}");
    let answer = cluster
        .send(
            "POST",
            "an access review",
            &path,
            "application/json",
            &review,
        )
        .await?;
    Ok(answer["status"]["allowed"] == true)
}

async fn logs(cluster: &Cluster, pods: &[Value], options: &Options, bundle: &mut Bundle) {
    for pod in pods {
        let (namespace, name) = (
            text(pod, "/metadata/namespace"),
            text(pod, "/metadata/name"),
        );
        for (container, restarted) in containers(pod) {
            for previous in [false, true] {
                if previous && !restarted {
                    continue;
                }
                let path = log_path(
                    namespace,
                    name,
                    &container,
                    previous,
                    options.since,
                    options.log_bytes,
                );
                let kind = if previous { ".previous.log" } else { ".log" };
                let file = format!(
                    "logs/{}/{}/{}{kind}",
                    part(namespace),
                    part(name),
                    part(&container)
                );
                match cluster
                    .text(&format!("the log of {namespace}/{name}"), &path)
                    .await
                {
                    Ok(log) => bundle.text(&file, "log", last(&log, options.log_bytes)),
                    Err(error) => bundle.missing(format!("{file}: {error}")),
                }
            }
        }
    }
}

/// Containers of a pod that have begun, and whether there was an earlier one.
fn containers(pod: &Value) -> Vec<(String, bool)> {
    pod.pointer("/status/containerStatuses")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|status| {
            status.pointer("/state/waiting").is_none() || status["restartCount"].as_u64() > Some(0)
        })
        .map(|status| {
            (
                text(status, "/name").to_owned(),
                status["restartCount"].as_u64() > Some(0),
            )
        })
        .collect()
}

fn log_path(
    namespace: &str,
    pod: &str,
    container: &str,
    previous: bool,
    since: Duration,
    bytes: u64,
) -> String {
    // `limitBytes` keeps the first ones, so it only guards against a flood; `tailLines` brings the end.
    format!(
        "/api/v1/namespaces/{namespace}/pods/{pod}/log?container={}&previous={previous}&timestamps=true&sinceSeconds={}&tailLines={}&limitBytes={}",
        escaped(container),
        since.as_secs().max(1),
        (bytes / 80).max(1),
        bytes.saturating_mul(8).max(1),
    )
}

/// The last bytes of a log, from the beginning of a line.
fn last(log: &str, bytes: u64) -> &str {
    let over = log
        .len()
        .saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
    if over == 0 {
        return log;
    }
    match log.as_bytes()[over..]
        .iter()
        .position(|byte| *byte == b'\n')
    {
        Some(at) => log.get(over + at + 1..).unwrap_or_default(),
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_namespace_that_was_asked_for() {
        assert_eq!(
            scoped("/api/v1/pods", Some("media")),
            "/api/v1/namespaces/media/pods"
        );
        assert_eq!(scoped("/api/v1/pods", None), "/api/v1/pods");
        assert_eq!(
            scoped(
                "/apis/rbac.authorization.k8s.io/v1/clusterroles",
                Some("media")
            ),
            "/apis/rbac.authorization.k8s.io/v1/clusterroles"
        );
    }

    #[test]
    fn a_log_is_cut_at_the_beginning_of_a_line() {
        assert_eq!(last("one\ntwo\nthree\n", 8), "three\n");
        assert_eq!(last("one\n", 100), "one\n");
        assert_eq!(last("ääääää", 3), "");
    }

    #[test]
    fn events_of_others_stay_out() {
        let pods = [json!({ "metadata": { "name": "a", "namespace": "media" } })];
        let about = |kind: &str, version: &str, namespace: &str| json!({ "regarding": { "kind": kind, "apiVersion": version, "name": "a", "namespace": namespace } });
        assert!(is_ours(
            &about("MediaNode", "plenum.dev/v1alpha1", "media"),
            &pods
        ));
        assert!(is_ours(&about("Pod", "v1", "media"), &pods));
        assert!(!is_ours(&about("Pod", "v1", "other"), &pods));
        assert!(!is_ours(&about("Secret", "v1", "media"), &pods));
    }

    #[test]
    fn an_earlier_container_is_asked_for_only_where_there_was_one() {
        let pod = json!({ "status": { "containerStatuses": [
            { "name": "media-node", "restartCount": 2, "state": { "running": {} } },
            { "name": "waits", "restartCount": 0, "state": { "waiting": {} } },
        ] } });
        assert_eq!(containers(&pod), [("media-node".to_owned(), true)]);
    }
}
