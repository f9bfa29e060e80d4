// SPDX-License-Identifier: EUPL-1.2
//! The controller of media pools against a real API server with its controllers: budgets, evictions, Services, `/scale`.
//!
//! No machine runs here, so the test stands in for kubelets and for the controller of media nodes: it makes the pods, rendered as they
//! are in a cluster, says that they run, and lets drained ones go.

mod operator_world;

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::cluster::ApiServer;
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Namespace, Pod, Service},
    events::v1::Event,
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams},
};
use operator::{
    authority::Authority, context::Context, endpoints::Endpoints, events::Events, live::Live,
    media_pool, orders::Orders, planner::Planned, stores::Stores, telemetry::Metrics,
};
use operator_core::media_node::pod::{PodSettings, pod_of};
use plenum_api::{
    MediaNode, MediaPool,
    media_node::DrainReason,
    names::{FINALIZER_NODE, LABEL_PROTECTED, MANAGER_AUTOSCALER},
};
use plenum_proto::v1::NodeState;
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};

use operator_world::{OPERATOR, settings, until};

/// A running controller of pools, and what it is told.
struct World {
    server: ApiServer,
    /// Without the client's own retries: an eviction that is refused is to be seen as refused.
    client: Client,
    live: watch::Sender<Arc<Live>>,
    _planned: watch::Sender<Arc<Planned>>,
    _tasks: JoinSet<()>,
}

impl World {
    async fn start() -> Result<Option<Self>> {
        let Some((server, client)) = operator_world::server().await? else {
            return Ok(None);
        };
        let own = server.client_of(&OPERATOR).await?;
        let metrics = Metrics::default();
        let (stores, mut tasks) = Stores::start(&own, &metrics);
        let (planned, planned_seen) = watch::channel(Arc::default());
        let (live, live_seen) = watch::channel(Arc::default());
        let context = Arc::new(Context {
            client: own.clone(),
            settings: settings(),
            stores: stores.into(),
            planned: planned_seen,
            live: live_seen,
            endpoints: Endpoints::default(),
            orders: Orders::channel().0,
            authority: Authority::default(),
            events: Events::new(own, "operator-0", metrics.clone()),
            metrics,
            now: Timestamp::now,
        });
        context.stores.ready().await;
        tasks.spawn(media_pool::run(context));
        Ok(Some(Self {
            server,
            client,
            live,
            _planned: planned,
            _tasks: tasks,
        }))
    }

    async fn media<'a>(&'a self, namespace: &'a str) -> Result<Media<'a>> {
        let object: Namespace =
            serde_json::from_value(json!({ "metadata": { "name": namespace } }))?;
        Api::all(self.client.clone())
            .create(&PostParams::default(), &object)
            .await?;
        Ok(Media {
            world: self,
            namespace,
        })
    }
}

/// A namespace with media nodes.
struct Media<'a> {
    world: &'a World,
    namespace: &'a str,
}

impl Media<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.world.client.clone(), self.namespace)
    }

    async fn declare(&self, name: &str, spec: serde_json::Value) -> Result<MediaPool> {
        let pool = json!({
            "apiVersion": "plenum.dev/v1alpha1",
            "kind": "MediaPool",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": spec,
        });
        let params = PatchParams::apply("gitops").force();
        Ok(self.api().patch(name, &params, &Patch::Apply(pool)).await?)
    }

    async fn nodes(&self) -> Result<Vec<MediaNode>> {
        Ok(self.api().list(&ListParams::default()).await?.items)
    }

    async fn budget(&self, pool: &str) -> Result<i32> {
        let budget: PodDisruptionBudget = self.api().get(pool).await?;
        let number = budget
            .spec
            .and_then(|spec| spec.min_available)
            .context("minAvailable")?;
        match number {
            k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(number) => Ok(number),
            other => bail!("{other:?} is no integer"),
        }
    }

    /// Brings every node's pod to life, as the controller of nodes and a kubelet do. Each birth checks that the budget covers it.
    async fn bring_up(&self, pool: &str) -> Result<()> {
        let object: MediaPool = self.api().get(pool).await?;
        let settings = settings();
        let settings = PodSettings {
            image: &settings.media_image,
            control_plane: &settings.control_plane,
            site: &settings.site,
            version: "0",
        };
        let pods: Api<Pod> = self.api();
        for node in self.nodes().await? {
            let name = node.name_any();
            if !is_unborn(&node) || node.spec.pool_ref.name != pool {
                continue;
            }
            let protected = pods
                .list(
                    &ListParams::default()
                        .labels(&format!("{LABEL_PROTECTED}=true,plenum.dev/pool={pool}")),
                )
                .await?;
            let covered = usize::try_from(self.budget(pool).await?)?;
            ensure!(
                covered > protected.items.len(),
                "{name} is born outside of the budget of {covered}"
            );
            let pod = pod_of(&object, &node, &settings);
            until("a pod is taken", || async {
                Ok(pods.create(&PostParams::default(), &pod).await.is_ok())
            })
            .await?;
            let running = json!({ "status": { "phase": "Running", "podIP": "10.97.0.9", "conditions": [
                { "type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": Timestamp::now().to_string() } ] } });
            let born: Pod = pods
                .patch_status(&name, &PatchParams::default(), &Patch::Merge(running))
                .await?;
            self.say(
                &node,
                &born,
                &[
                    ("Ready", "True", "Reconciled"),
                    ("Accepting", "True", "Reconciled"),
                ],
            )
            .await?;
        }
        Ok(())
    }

    async fn say(
        &self,
        node: &MediaNode,
        pod: &Pod,
        conditions: &[(&str, &str, &str)],
    ) -> Result<()> {
        let conditions: Vec<_> = conditions
            .iter()
            .map(|(type_, status, reason)| json!({ "type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": now() }))
            .collect();
        let status = json!({ "status": {
            "podUID": pod.uid(),
            "addresses": [{ "family": "IPv4", "address": "192.0.2.1", "port": node.spec.ports.base }],
            "conditions": conditions,
        } });
        let params = PatchParams::default();
        self.api::<MediaNode>()
            .patch_status(&node.name_any(), &params, &Patch::Merge(status))
            .await?;
        Ok(())
    }

    /// The drain machine at its end: the label goes first, then the pod.
    async fn let_go(&self, node: &str) -> Result<()> {
        let pods: Api<Pod> = self.api();
        let unlabel = json!({ "metadata": { "labels": { LABEL_PROTECTED: null } } });
        let pod = pods
            .patch(node, &PatchParams::default(), &Patch::Merge(unlabel))
            .await?;
        let object = self.api::<MediaNode>().get(node).await?;
        let said = [
            ("Ready", "True", "Reconciled"),
            ("Accepting", "False", "Draining"),
            ("Drained", "True", "Empty"),
        ];
        self.say(&object, &pod, &said).await?;
        pods.delete(node, &DeleteParams::default().grace_period(0))
            .await?;
        Ok(())
    }

    /// Whether the eviction API lets a pod go.
    async fn evicts(&self, pod: &str) -> Result<bool> {
        match self.api::<Pod>().evict(pod, &EvictParams::default()).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 429 => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn nobody_is_evicted(&self) -> Result<()> {
        for pod in self.api::<Pod>().list(&ListParams::default()).await?.items {
            let name = pod.name_any();
            if pod.labels().contains_key(LABEL_PROTECTED) {
                ensure!(
                    !self.evicts(&name).await?,
                    "the protected pod {name} was evicted"
                );
            }
        }
        Ok(())
    }

    async fn condition(&self, pool: &str, type_: &str) -> Result<String> {
        let pool: MediaPool = self.api().get(pool).await?;
        let conditions = pool
            .status
            .map(|status| status.conditions)
            .unwrap_or_default();
        let found = conditions
            .into_iter()
            .find(|condition| condition.type_ == type_);
        Ok(found.map_or_else(String::new, |condition| condition.status.to_string()))
    }

    /// What the control plane reports of the rooms on each node.
    fn report(&self, nodes: &[MediaNode], rooms: impl Fn(&MediaNode) -> u32) {
        let of = |node: &MediaNode| {
            let uid = node.uid()?;
            let state = NodeState {
                uid: uid.clone(),
                registered: true,
                accepting: true,
                rooms: rooms(node),
                participants: rooms(node) * 4,
                ..NodeState::default()
            };
            Some((uid, state))
        };
        let nodes: BTreeMap<String, NodeState> = nodes.iter().filter_map(of).collect();
        self.world.live.send_modify(|live| {
            let mut new = Live::clone(live);
            new.nodes.extend(nodes);
            new.reachable = true;
            *live = Arc::new(new);
        });
    }
}

/// Whether the node never had a pod.
fn is_unborn(node: &MediaNode) -> bool {
    let status = node.status.as_ref();
    status.is_none_or(|status| status.pod_uid.is_none())
}

fn now() -> String {
    Timestamp::from_second(Timestamp::now().as_second())
        .unwrap_or_default()
        .to_string()
}

fn host_ports(replicas: u32, image: &str) -> serde_json::Value {
    json!({
        "replicas": replicas,
        "network": { "type": "HostPort", "hostPort": { "range": { "min": 20000, "max": 20255 } } },
        "update": { "maxSurge": 1, "maxUnavailable": 0 },
        "template": { "image": image },
    })
}

fn draining(nodes: &[MediaNode]) -> Vec<(String, DrainReason)> {
    let of = |node: &MediaNode| Some((node.name_any(), node.spec.drain.as_ref()?.reason));
    nodes.iter().filter_map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_made_updated_and_taken_away_and_no_protected_pod_is_ever_evicted() -> Result<()>
{
    let Some(world) = World::start().await? else {
        return Ok(());
    };
    let media = world.media("media").await?;
    three_nodes_come(&media).await?;
    the_settled_pool_is_not_written_again(&media).await?;
    fewer_nodes_are_wanted(&media).await?;
    a_new_image_comes(&media).await?;
    the_pool_is_deleted(&media).await
}

async fn three_nodes_come(media: &Media<'_>) -> Result<()> {
    media
        .declare("a", host_ports(3, "registry.test/media-node:1"))
        .await?;
    until("three nodes", || async {
        Ok(media.nodes().await?.len() == 3)
    })
    .await?;
    let nodes = media.nodes().await?;
    let mut ports: Vec<u16> = nodes.iter().map(|node| node.spec.ports.base).collect();
    ports.sort_unstable();
    ensure!(ports == [20_000, 20_001, 20_002], "{ports:?}");
    for node in &nodes {
        let name = node.name_any();
        ensure!(
            name == format!("a-{}-{}", node.spec.revision, &name[name.len() - 5..]),
            "{name}"
        );
        ensure!(
            node.finalizers() == [FINALIZER_NODE],
            "{name} may go without a drain"
        );
        let owners = node.owner_references();
        ensure!(
            owners
                .iter()
                .any(|owner| owner.kind == "MediaPool" && owner.name == "a"),
            "{name} has no owner"
        );
    }
    ensure!(media.budget("a").await? == 3);
    ensure!(media.condition("a", "Ready").await? == "False");
    ensure!(media.condition("a", "Reconciling").await? == "True");
    media.bring_up("a").await?;
    until("the pool is ready", || async {
        Ok(media.condition("a", "Ready").await? == "True")
    })
    .await?;
    until("the pool is settled", || async {
        Ok(media.condition("a", "Reconciling").await? == "False")
    })
    .await?;
    until(
        "the budget counts three healthy pods and allows no disruption",
        || async {
            let budget: PodDisruptionBudget = media.api().get("a").await?;
            let status = budget.status.unwrap_or_default();
            Ok(status.current_healthy == 3
                && status.desired_healthy == 3
                && status.disruptions_allowed == 0)
        },
    )
    .await?;
    media.nobody_is_evicted().await?;
    let policy: NetworkPolicy = media.api().get("a").await?;
    ensure!(
        policy
            .spec
            .is_some_and(|spec| spec.ingress.is_some_and(|rules| rules.len() == 3))
    );
    let services: Api<Service> = media.api();
    ensure!(
        services
            .list(&ListParams::default())
            .await?
            .items
            .is_empty(),
        "a host port needs no Service"
    );
    Ok(())
}

async fn the_settled_pool_is_not_written_again(media: &Media<'_>) -> Result<()> {
    let nodes = media.nodes().await?;
    media.report(&nodes, |_| 0);
    // One report that says something new makes the pool tell its load.
    until("the load is told", || async {
        let pool: MediaPool = media.api().get("a").await?;
        Ok(pool.status.is_some_and(|status| status.used.is_some()))
    })
    .await?;
    let before = writes(media)?;
    // Equal reports make every pool be looked at again, and a label on the pool too.
    let seen = reads(media)?;
    let label = json!({ "metadata": { "labels": { "looked": "at" } } });
    media
        .api::<MediaPool>()
        .patch("a", &PatchParams::default(), &Patch::Merge(label))
        .await?;
    until("it was looked at twice", || async {
        media.report(&nodes, |_| 0);
        Ok(reads(media)? >= seen + 2)
    })
    .await?;
    let after = writes(media)?;
    ensure!(
        after.len() == before.len(),
        "written without need: {:?}",
        &after[before.len()..]
    );
    Ok(())
}

fn writes(media: &Media<'_>) -> Result<Vec<String>> {
    let audit = media.world.server.audit()?;
    let own = audit
        .iter()
        .filter(|entry| entry.user.username == OPERATOR.user && entry.is_write());
    Ok(own
        .map(|entry| format!("{} {}", entry.verb, entry.uri))
        .collect())
}

fn reads(media: &Media<'_>) -> Result<usize> {
    let audit = media.world.server.audit()?;
    let own = audit
        .iter()
        .filter(|entry| entry.user.username == OPERATOR.user);
    Ok(own
        .filter(|entry| entry.verb == "get" && entry.resource() == "networkpolicies")
        .count())
}

async fn fewer_nodes_are_wanted(media: &Media<'_>) -> Result<()> {
    let nodes = media.nodes().await?;
    let empty = nodes[1].name_any();
    media.report(&nodes, |node| if node.name_any() == empty { 0 } else { 7 });
    media
        .declare("a", host_ports(2, "registry.test/media-node:1"))
        .await?;
    until("one node is to go", || async {
        Ok(!draining(&media.nodes().await?).is_empty())
    })
    .await?;
    ensure!(draining(&media.nodes().await?) == [(empty.clone(), DrainReason::ScaleDown)]);
    ensure!(
        media.budget("a").await? == 3,
        "it is protected until it is drained"
    );
    media.nobody_is_evicted().await?;
    media.let_go(&empty).await?;
    until("the budget sinks", || async {
        Ok(media.budget("a").await? == 2)
    })
    .await?;
    until("the disruption controller saw it", || async {
        settled_budget(media).await
    })
    .await?;
    media.nobody_is_evicted().await?;
    until("the pool tells", || async {
        let pool: MediaPool = media.api().get("a").await?;
        let status = pool.status.context("a status")?;
        let scaled = status
            .last_scale
            .is_some_and(|scale| (scale.from, scale.to) == (3, 2));
        Ok(scaled && status.replicas == 2 && status.desired_replicas == 2)
    })
    .await
}

async fn settled_budget(media: &Media<'_>) -> Result<bool> {
    let budget: PodDisruptionBudget = media.api().get("a").await?;
    let seen = budget
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    Ok(seen == budget.meta().generation)
}

async fn a_new_image_comes(media: &Media<'_>) -> Result<()> {
    let old: Vec<MediaNode> = media
        .nodes()
        .await?
        .into_iter()
        .filter(|node| node.spec.drain.is_none())
        .collect();
    ensure!(old.len() == 2);
    let (full, empty) = (old[0].name_any(), old[1].name_any());
    media.report(&old, |node| if node.name_any() == full { 9 } else { 1 });
    media
        .declare("a", host_ports(2, "registry.test/media-node:2"))
        .await?;
    for round in [&empty, &full] {
        // One more at a time, and the budget covers it before it is there.
        until("a node of the new revision", || async {
            Ok(media.nodes().await?.iter().any(is_unborn))
        })
        .await?;
        let serving = media
            .nodes()
            .await?
            .iter()
            .filter(|node| node.spec.drain.is_none())
            .count();
        ensure!(serving == 3, "{serving} instead of two and a surge of one");
        ensure!(media.budget("a").await? == 3);
        let known = draining(&media.nodes().await?);
        media.bring_up("a").await?;
        until("one goes", || async {
            Ok(draining(&media.nodes().await?).len() > known.len())
        })
        .await?;
        let now: Vec<_> = draining(&media.nodes().await?)
            .into_iter()
            .filter(|one| !known.contains(one))
            .collect();
        ensure!(now == [((*round).clone(), DrainReason::Update)], "{now:?}");
        until("the disruption controller saw it", || async {
            settled_budget(media).await
        })
        .await?;
        media.nobody_is_evicted().await?;
        media.let_go(round).await?;
    }
    until("the update is done", || async {
        let pool: MediaPool = media.api().get("a").await?;
        let status = pool.status.context("a status")?;
        Ok(status.updated_replicas == 2 && status.replicas == 2 && status.draining_replicas == 0)
    })
    .await?;
    until("the budget is right", || async {
        Ok(media.budget("a").await? == 2)
    })
    .await?;
    media.nobody_is_evicted().await
}

async fn the_pool_is_deleted(media: &Media<'_>) -> Result<()> {
    // As Argo CD deletes: the garbage collector takes dependents away first.
    let params = DeleteParams::foreground();
    media.api::<MediaPool>().delete("a", &params).await?;
    until("all nodes are asked to go", || async {
        Ok(media
            .nodes()
            .await?
            .iter()
            .all(|node| node.meta().deletion_timestamp.is_some()))
    })
    .await?;
    ensure!(
        media
            .api::<PodDisruptionBudget>()
            .get_opt("a")
            .await?
            .is_some(),
        "the budget goes before the nodes do"
    );
    ensure!(
        media.api::<NetworkPolicy>().get_opt("a").await?.is_some(),
        "the policy goes before the nodes do"
    );
    for node in media.nodes().await? {
        let name = node.name_any();
        let release = json!({ "metadata": { "finalizers": null } });
        media
            .api::<MediaNode>()
            .patch(&name, &PatchParams::default(), &Patch::Merge(release))
            .await?;
        let gone = media
            .api::<Pod>()
            .delete(&name, &DeleteParams::default().grace_period(0))
            .await;
        ensure!(
            gone.is_ok() || matches!(gone, Err(kube::Error::Api(status)) if status.is_not_found())
        );
    }
    until("the pool is gone", || async {
        Ok(media.api::<MediaPool>().get_opt("a").await?.is_none())
    })
    .await?;
    ensure!(
        media
            .api::<PodDisruptionBudget>()
            .get_opt("a")
            .await?
            .is_none()
    );
    ensure!(media.api::<NetworkPolicy>().get_opt("a").await?.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn services_and_the_number_of_nodes_are_what_the_api_server_makes_of_them() -> Result<()> {
    let Some(world) = World::start().await? else {
        return Ok(());
    };
    node_ports_of_others_are_left_alone(&world.media("ports").await?).await?;
    a_budget_of_somebody_else_is_told_on_the_pool(&world.media("foreign").await?).await?;
    the_autoscaler_writes_scale_and_yields_to_another(&world.media("scaled").await?).await
}

/// And it is true: the API server evicts nothing then, not even what has drained.
async fn a_budget_of_somebody_else_is_told_on_the_pool(media: &Media<'_>) -> Result<()> {
    let theirs: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": { "name": "everything" }, "spec": { "maxUnavailable": 1, "selector": {} },
    }))?;
    let budgets = media.api::<PodDisruptionBudget>();
    budgets.create(&PostParams::default(), &theirs).await?;
    let spec = json!({ "replicas": 1, "network": { "type": "None" } });
    media.declare("f", spec).await?;
    until("a node", || async { Ok(media.nodes().await?.len() == 1) }).await?;
    ensure!(
        media.condition("f", "Evictable").await? != "False",
        "no pod yet"
    );
    media.bring_up("f").await?;
    until("the pool names it", || async {
        Ok(media.condition("f", "Evictable").await? == "False")
    })
    .await?;
    let pod = media.nodes().await?.remove(0).name_any();
    let error = media.evicts(&pod).await.err().context("it is evicted")?;
    ensure!(
        format!("{error:#}").contains("more than one PodDisruptionBudget"),
        "{error:#}"
    );
    until("an Event says so", || async {
        let events = media.api::<Event>().list(&ListParams::default()).await?;
        Ok(events.items.iter().any(|event| {
            event.reason.as_deref() == Some("ForeignBudget")
                && event
                    .note
                    .as_ref()
                    .is_some_and(|note| note.contains("everything"))
        }))
    })
    .await?;
    budgets
        .delete("everything", &DeleteParams::default())
        .await?;
    until("it is said no more", || async {
        Ok(media.condition("f", "Evictable").await? == "True")
    })
    .await
}

async fn node_ports_of_others_are_left_alone(media: &Media<'_>) -> Result<()> {
    let stranger: Service = serde_json::from_value(json!({
        "metadata": { "name": "stranger" },
        "spec": { "type": "NodePort", "selector": { "a": "b" },
                  "ports": [{ "name": "udp", "protocol": "UDP", "port": 1, "nodePort": 30100 }] },
    }))?;
    media
        .api()
        .create(&PostParams::default(), &stranger)
        .await?;
    media
        .declare("n", json!({ "replicas": 2, "network": { "type": "NodePort", "nodePort": { "range": { "min": 30100, "max": 30102 } } } }))
        .await?;
    until("two nodes", || async {
        Ok(media.nodes().await?.len() == 2)
    })
    .await?;
    let nodes = media.nodes().await?;
    for node in &nodes {
        let service: Service = media.api().get(&node.name_any()).await?;
        let spec = service.spec.context("a spec")?;
        ensure!(spec.external_traffic_policy.as_deref() == Some("Local"));
        ensure!(spec.publish_not_ready_addresses == Some(true));
        let ports: Vec<_> = spec
            .ports
            .unwrap_or_default()
            .iter()
            .filter_map(|port| port.node_port)
            .collect();
        ensure!(ports == [i32::from(node.spec.ports.base); 2], "{ports:?}");
        ensure!(
            node.spec.ports.base != 30_100,
            "the port belongs to somebody else"
        );
    }
    // A third one finds no port, and the pool says so.
    media
        .declare("n", json!({ "replicas": 3, "network": { "type": "NodePort", "nodePort": { "range": { "min": 30100, "max": 30102 } } } }))
        .await?;
    until("the pool is stalled", || async {
        Ok(media.condition("n", "Stalled").await? == "True")
    })
    .await?;
    ensure!(media.nodes().await?.len() == 2);
    // The Service outlives the pod, and goes with its node.
    media.bring_up("n").await?;
    let name = nodes[0].name_any();
    let gone = DeleteParams::default().grace_period(0);
    media.api::<Pod>().delete(&name, &gone).await?;
    let node = media.api::<MediaNode>().get(&name).await?;
    let lost = json!({ "status": { "conditions": [
        { "type": "Ready", "status": "False", "reason": "PodLost", "message": "", "lastTransitionTime": now() } ] } });
    let params = PatchParams::default();
    media
        .api::<MediaNode>()
        .patch_status(&name, &params, &Patch::Merge(lost))
        .await?;
    until("the budget lets go of the lost pod", || async {
        Ok(media.budget("n").await? == 1)
    })
    .await?;
    ensure!(media.api::<Service>().get_opt(&name).await?.is_some());
    ensure!(node.finalizers() == [FINALIZER_NODE]);
    media
        .api::<MediaNode>()
        .delete(&name, &DeleteParams::default())
        .await?;
    let release = json!({ "metadata": { "finalizers": null } });
    media
        .api::<MediaNode>()
        .patch(&name, &params, &Patch::Merge(release))
        .await?;
    until("the Service is gone", || async {
        Ok(media.api::<Service>().get_opt(&name).await?.is_none())
    })
    .await?;
    // Its port is free again.
    until("another node", || async {
        Ok(media.nodes().await?.len() == 3 - 1)
    })
    .await
}

/// Who owns the number of a pool's nodes, and through which subresource.
fn owners(pool: &MediaPool) -> Vec<(&str, Option<&str>)> {
    let owning = pool.managed_fields().iter().filter(|entry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
    });
    owning
        .map(|entry| {
            (
                entry.manager.as_deref().unwrap_or_default(),
                entry.subresource.as_deref(),
            )
        })
        .collect()
}

async fn the_autoscaler_writes_scale_and_yields_to_another(media: &Media<'_>) -> Result<()> {
    let start = Timestamp::now().strftime("%Y-%m-%dT00:00").to_string();
    let spec = json!({
        "network": { "type": "None" },
        "autoscaling": { "minReplicas": 1, "maxReplicas": 6, "schedule": [
            { "start": start, "timeZone": "Etc/UTC", "duration": "48h", "minReplicas": 3 } ] },
    });
    media.declare("s", spec).await?;
    until("the floor of the schedule", || async {
        Ok(media.nodes().await?.len() == 3)
    })
    .await?;
    let pool: MediaPool = media.api().get("s").await?;
    ensure!(pool.spec.replicas == Some(3));
    ensure!(
        owners(&pool) == [(MANAGER_AUTOSCALER, None)],
        "{:?}",
        owners(&pool)
    );
    // Load beyond what three nodes may hold with a quarter free.
    media.report(&media.nodes().await?, |_| 200);
    until("four nodes", || async {
        Ok(media.nodes().await?.len() == 4)
    })
    .await?;
    let pool: MediaPool = media.api().get("s").await?;
    ensure!(
        owners(&pool) == [(MANAGER_AUTOSCALER, Some("scale"))],
        "{:?}",
        owners(&pool)
    );
    until("the pool tells why", || async {
        let pool: MediaPool = media.api().get("s").await?;
        let scale = pool.status.and_then(|status| status.last_scale);
        Ok(scale.is_some_and(|scale| (scale.to, &*scale.reason) == (4, "Load")))
    })
    .await?;
    // What a HorizontalPodAutoscaler does.
    let params = PatchParams {
        field_manager: Some("kube-controller-manager".to_owned()),
        ..PatchParams::default()
    };
    let five = json!({ "spec": { "replicas": 5 } });
    media
        .api::<MediaPool>()
        .patch_scale("s", &params, &Patch::Merge(five))
        .await?;
    until("five nodes", || async {
        Ok(media.nodes().await?.len() == 5)
    })
    .await?;
    let pool: MediaPool = media.api().get("s").await?;
    ensure!(
        pool.spec.replicas == Some(5),
        "the number is not ours any more"
    );
    Ok(())
}
