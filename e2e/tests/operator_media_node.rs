// SPDX-License-Identifier: EUPL-1.2
//! The controllers of media nodes, pools and windows against a real API server with its controllers: pods, drains, evictions.
//!
//! No machine runs here, so the test stands in for kubelets (it places pods, says that they run, lets deleted ones end) and for the control
//! plane (it takes orders and reports rooms).

mod operator_world;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::cluster::ApiServer;
use e2e::health::{Kstatus, expect, kstatus};
use jiff::{Timestamp, ToSpan as _};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, ServiceAccount};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams},
};
use operator::{
    authority::Authority,
    context::Context,
    endpoints::Endpoints,
    events::Events,
    live::Live,
    maintenance, media_node, media_pool,
    orders::{OrderError, Orders},
    planner::Planned,
    stores::Stores,
    telemetry::Metrics,
};
use plenum_api::{
    MaintenanceWindow, MediaNode, MediaPool,
    media_node::{DrainPhase, DrainReason},
    names::LABEL_PROTECTED,
};
use plenum_proto::v1::{NodeState, publication::Item};
use plenum_publish::issuer::Issuer;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time::sleep};

use operator_world::{OPERATOR, settings, until};

const NAMESPACE: &str = "media";

/// What the control plane of the test knows and does.
#[derive(Default)]
struct ControlPlane {
    /// It answers no order.
    silent: bool,
    /// Whether each node takes rooms, by uid.
    accepting: BTreeMap<String, bool>,
    /// Rooms, by uid.
    rooms: BTreeMap<String, u32>,
    /// Nodes whose rooms were to move.
    moves: Vec<String>,
    /// Where STUN servers see every node.
    seen_at: Vec<String>,
}

type Shared = Arc<Mutex<ControlPlane>>;

fn lock(shared: &Shared) -> std::sync::MutexGuard<'_, ControlPlane> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

struct World {
    server: ApiServer,
    /// Without the client's own retries: an eviction that is refused is to be seen as refused.
    client: Client,
    control_plane: Shared,
    endpoints: Endpoints,
    _planned: watch::Sender<Arc<Planned>>,
    _tasks: JoinSet<()>,
}

impl World {
    async fn start() -> Result<Option<Self>> {
        let Some((server, client)) = operator_world::server().await? else {
            return Ok(None);
        };
        prepare(&client).await?;
        let own = server.client_of(&OPERATOR).await?;
        let metrics = Metrics::default();
        let (stores, mut tasks) = Stores::start(&own, &metrics);
        let (planned, planned_seen) = watch::channel(Arc::default());
        let (live, live_seen) = watch::channel(Arc::default());
        let (orders, mut taken) = Orders::channel();
        let authority = Authority::new("plenum.test", Timestamp::now);
        let ca_life = Duration::from_secs(365 * 24 * 3600);
        authority.use_ca(Issuer::make("test", Timestamp::now(), ca_life)?.0);
        let endpoints = Endpoints::default();
        let context = Arc::new(Context {
            client: own.clone(),
            settings: settings(),
            stores: stores.into(),
            planned: planned_seen,
            live: live_seen,
            endpoints: endpoints.clone(),
            orders,
            authority,
            events: Events::new(own, "operator-0", metrics.clone()),
            metrics,
            now: Timestamp::now,
        });
        context.stores.ready().await;
        let control_plane = Shared::default();
        let known = Arc::clone(&control_plane);
        tasks.spawn(async move {
            while let Some(order) = taken.recv().await {
                let mut known = lock(&known);
                let answer = if known.silent {
                    Err(OrderError::Unreachable)
                } else {
                    match order.item {
                        Item::Accepting(order) => {
                            known.accepting.insert(order.node_uid, order.accepting);
                        }
                        Item::Move(order) => known.moves.push(order.node_uid),
                        other => panic!("no order: {other:?}"),
                    }
                    Ok(())
                };
                // The controller may have given up waiting.
                let _ = order.answer.send(answer);
            }
        });
        tasks.spawn(reports(Arc::clone(&control_plane), endpoints.clone(), live));
        tasks.spawn(kubelets(client.clone()));
        tasks.spawn(media_pool::run(Arc::clone(&context)));
        tasks.spawn(media_node::run(Arc::clone(&context)));
        tasks.spawn(maintenance::run(context));
        Ok(Some(Self {
            server,
            client,
            control_plane,
            endpoints,
            _planned: planned,
            _tasks: tasks,
        }))
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn declare(&self, replicas: u32, drain: Value) -> Result<()> {
        let pool = json!({
            "apiVersion": "plenum.dev/v1alpha1", "kind": "MediaPool",
            "metadata": { "name": "a", "namespace": NAMESPACE },
            "spec": {
                "replicas": replicas,
                "network": {
                    "type": "HostPort", "hostPort": { "range": { "min": 20000, "max": 20255 } },
                    "addressSources": [{ "type": "NodeLabel", "key": "example.org/ip" }, { "type": "NodeInternalIP" }],
                    "ipFamilies": ["IPv4"],
                },
                "drain": drain,
                "template": { "image": "registry.test/media-node:1" },
            },
        });
        let params = PatchParams::apply("gitops").force();
        self.api::<MediaPool>()
            .patch("a", &params, &Patch::Apply(pool))
            .await?;
        Ok(())
    }

    async fn nodes(&self) -> Result<Vec<MediaNode>> {
        Ok(self.api().list(&ListParams::default()).await?.items)
    }

    async fn node(&self, name: &str) -> Result<MediaNode> {
        Ok(self.api().get(name).await?)
    }

    /// Nodes that take rooms.
    async fn serving(&self) -> Result<Vec<MediaNode>> {
        let mut all = self.nodes().await?;
        all.retain(|node| says(node, "Accepting", "True") && node.spec.drain.is_none());
        Ok(all)
    }

    async fn wait_for_serving(&self, count: usize) -> Result<Vec<MediaNode>> {
        until("nodes take rooms", || async {
            Ok(self.serving().await?.len() == count)
        })
        .await?;
        self.serving().await
    }

    async fn wait_for_phase(&self, name: &str, phase: DrainPhase) -> Result<()> {
        until(&format!("{name} is {phase}"), || async {
            Ok(phase_of(&self.node(name).await?) == Some(phase))
        })
        .await
    }

    fn set_rooms(&self, node: &MediaNode, rooms: u32) {
        let uid = node.uid().unwrap_or_default();
        lock(&self.control_plane).rooms.insert(uid, rooms);
    }

    /// Whether the eviction API lets a pod go.
    async fn evicts(&self, pod: &str) -> Result<bool> {
        match self.api::<Pod>().evict(pod, &EvictParams::default()).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 429 => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn cordon(&self, machine: &str, cordoned: bool) -> Result<()> {
        let patch = json!({ "spec": { "unschedulable": cordoned } });
        Api::<Node>::all(self.client.clone())
            .patch(machine, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }
}

/// Two machines, and a namespace that takes pods.
async fn prepare(client: &Client) -> Result<()> {
    for (name, address) in [("m1", "192.0.2.1"), ("m2", "192.0.2.2")] {
        let machine: Node = serde_json::from_value(
            json!({ "metadata": { "name": name, "labels": { "rack": name } } }),
        )?;
        let api = Api::<Node>::all(client.clone());
        api.create(&PostParams::default(), &machine).await?;
        let status =
            json!({ "status": { "addresses": [{ "type": "InternalIP", "address": address }] } });
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await?;
    }
    let namespace: Namespace =
        serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } }))?;
    Api::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), NAMESPACE);
    until("pods may be made", || async {
        Ok(accounts.get_opt("default").await?.is_some())
    })
    .await
}

/// Every node that was said to be somewhere reports, as its facts and orders have it.
async fn reports(control_plane: Shared, endpoints: Endpoints, live: watch::Sender<Arc<Live>>) {
    loop {
        let nodes: BTreeMap<String, NodeState> = {
            let known = lock(&control_plane);
            let all = endpoints.all().into_iter();
            all.map(|(uid, endpoint)| {
                let ordered = known.accepting.get(&uid).copied();
                let state = NodeState {
                    uid: uid.clone(),
                    registered: true,
                    accepting: ordered.unwrap_or(endpoint.accepting),
                    rooms: known.rooms.get(&uid).copied().unwrap_or(0),
                    seen_at: known.seen_at.clone(),
                    ..NodeState::default()
                };
                (uid, state)
            })
            .collect()
        };
        live.send_modify(|live| {
            let mut new = Live::clone(live);
            new.nodes = nodes;
            new.reachable = true;
            new.replicas = 1;
            *live = Arc::new(new);
        });
        sleep(Duration::from_millis(100)).await;
    }
}

/// Places pods on machines that take them, says that they run, and lets deleted ones end.
async fn kubelets(client: Client) {
    loop {
        // What fails now is tried again in a moment.
        let _ = kubelets_pass(&client).await;
        sleep(Duration::from_millis(100)).await;
    }
}

async fn kubelets_pass(client: &Client) -> Result<()> {
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let machines = Api::<Node>::all(client.clone())
        .list(&ListParams::default())
        .await?
        .items;
    let open = |machine: &&Node| {
        let spec = machine.spec.as_ref();
        spec.and_then(|spec| spec.unschedulable) != Some(true)
    };
    let open: Vec<String> = machines
        .iter()
        .filter(open)
        .map(ResourceExt::name_any)
        .collect();
    let all = pods.list(&ListParams::default()).await?.items;
    for pod in &all {
        let name = pod.name_any();
        let placed = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        if pod.metadata.deletion_timestamp.is_some() {
            pods.delete(&name, &DeleteParams::default().grace_period(0))
                .await?;
        } else if let Some(machine) = placed
            .is_none()
            .then(|| emptiest(&all, pod, &open))
            .flatten()
        {
            let binding = json!({
                "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name },
                "target": { "apiVersion": "v1", "kind": "Node", "name": machine },
            });
            let request = kube::api::Request::new(format!("/api/v1/namespaces/{NAMESPACE}/pods"))
                .create_subresource(
                "binding",
                &name,
                &PostParams::default(),
                serde_json::to_vec(&binding)?,
            )?;
            client.request_text(request).await?;
        } else if placed.is_some()
            && pod
                .status
                .as_ref()
                .is_none_or(|status| status.pod_ip.is_none())
        {
            let running = json!({ "status": {
                "phase": "Running", "podIP": "10.97.0.9", "podIPs": [{ "ip": "10.97.0.9" }],
                "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": Timestamp::now().to_string() }],
                "containerStatuses": [{ "name": "media-node", "ready": true, "restartCount": 0, "image": "x", "imageID": "x", "state": { "running": {} } }],
            } });
            pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(running))
                .await?;
        }
    }
    Ok(())
}

/// The open machine with the fewest pods that the pod does not shun.
fn emptiest(all: &[Pod], pod: &Pod, open: &[String]) -> Option<String> {
    let shunned = serde_json::to_string(&pod.spec.as_ref()?.affinity).unwrap_or_default();
    let on = |machine: &String| {
        all.iter()
            .filter(|other| {
                other.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(machine)
            })
            .count()
    };
    open.iter()
        .filter(|machine| !shunned.contains(&format!("\"{machine}\"")))
        .min_by_key(|machine| on(machine))
        .cloned()
}

fn says(node: &MediaNode, type_: &str, status: &str) -> bool {
    let conditions = node.status.as_ref().map(|status| &status.conditions);
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == type_ && condition.status.as_str() == status)
}

fn reason_of(node: &MediaNode, type_: &str) -> String {
    let conditions = node.status.as_ref().map(|status| &status.conditions);
    let found = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition.type_ == type_);
    found.map_or_else(String::new, |condition| condition.reason.clone())
}

fn phase_of(node: &MediaNode) -> Option<DrainPhase> {
    Some(node.status.as_ref()?.drain.as_ref()?.phase)
}

fn machine_of(node: &MediaNode) -> &str {
    let status = node.status.as_ref();
    status
        .and_then(|status| status.node_name.as_deref())
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_serve_and_go_only_when_they_are_empty() -> Result<()> {
    let Some(world) = World::start().await? else {
        return Ok(());
    };
    a_node_gets_a_certificate_one_pod_and_addresses(&world).await?;
    a_settled_node_is_not_written_again(&world).await?;
    flux_and_argo_cd_take_a_settled_pool_for_done(&world).await?;
    unschedulable_takes_no_rooms_and_can_be_taken_back(&world).await?;
    a_drain_is_taken_back_until_it_is_announced(&world).await?;
    cordoning_a_machine_drains_what_it_carries(&world).await?;
    deleting_a_node_is_a_drain(&world).await?;
    a_lost_pod_is_lost_and_its_node_gets_no_second_one(&world).await?;
    a_window_empties_a_machine_one_node_at_a_time(&world).await?;
    a_node_is_offered_where_a_stun_server_sees_it(&world).await
}

/// And takes no rooms before.
async fn a_node_is_offered_where_a_stun_server_sees_it(world: &World) -> Result<()> {
    let pool = json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "MediaPool",
        "metadata": { "name": "s", "namespace": NAMESPACE },
        "spec": {
            "replicas": 1,
            "network": {
                "type": "None", "ipFamilies": ["IPv4"],
                "addressSources": [{ "type": "Stun", "server": "stun.test:3478" }],
            },
            "template": { "image": "registry.test/media-node:1" },
        },
    });
    let params = PatchParams::apply("gitops").force();
    world
        .api::<MediaPool>()
        .patch("s", &params, &Patch::Apply(pool))
        .await?;
    let own = || async {
        let all = world.nodes().await?.into_iter();
        let mut own = all.filter(|node| node.spec.pool_ref.name == "s");
        Ok::<_, anyhow::Error>(own.next_back())
    };
    until("nobody knows its address", || async {
        let node = own().await?;
        Ok(node.is_some_and(|node| reason_of(&node, "Ready") == "NoPublicAddress"))
    })
    .await?;
    let node = own().await?.context("a node")?;
    ensure!(!says(&node, "Accepting", "True"));
    let pod: Pod = world.api().get(&node.name_any()).await?;
    let args = serde_json::to_string(&pod.spec)?;
    ensure!(args.contains("--stun-server=stun.test:3478"), "{args}");
    lock(&world.control_plane).seen_at = vec!["203.0.113.7".to_owned()];
    until("it is offered where it is seen", || async {
        let node = own().await?.context("a node")?;
        let offered = node.status.iter().flat_map(|status| &status.addresses);
        let offered: Vec<&str> = offered.map(|offered| offered.address.as_str()).collect();
        Ok(offered == ["203.0.113.7"] && says(&node, "Accepting", "True"))
    })
    .await?;
    // Nobody says it any more: what was offered holds.
    lock(&world.control_plane).seen_at.clear();
    sleep(Duration::from_secs(1)).await;
    let node = own().await?.context("a node")?;
    ensure!(says(&node, "Ready", "True"), "{:?}", node.status);
    Ok(())
}

async fn a_node_gets_a_certificate_one_pod_and_addresses(world: &World) -> Result<()> {
    world
        .declare(2, json!({ "timeout": "1h", "announceBefore": "1m" }))
        .await?;
    for node in world.wait_for_serving(2).await? {
        let name = node.name_any();
        let status = node.status.clone().unwrap_or_default();
        let wanted = if machine_of(&node) == "m1" {
            "192.0.2.1"
        } else {
            "192.0.2.2"
        };
        ensure!(
            status.addresses.len() == 1
                && status.addresses[0].address == wanted
                && status.addresses[0].port == node.spec.ports.base,
            "{:?} on {}",
            status.addresses,
            machine_of(&node)
        );
        ensure!(status.grpc_endpoint.as_deref() == Some("10.97.0.9:7882"));
        let uid = node.uid().context("a uid")?;
        let endpoint = world.endpoints.get(&uid).context("an endpoint")?;
        ensure!(endpoint.accepting && endpoint.epoch == 1, "{endpoint:?}");
        let pod: Pod = world.api().get(&name).await?;
        ensure!(pod.labels().get(LABEL_PROTECTED).map(String::as_str) == Some("true"));
        ensure!(status.pod_uid == pod.uid());
        let secret: Secret = world.api().get(&format!("{name}-tls")).await?;
        let data = secret.data.unwrap_or_default();
        for key in ["ca.crt", "tls.crt", "tls.key"] {
            ensure!(data.contains_key(key), "{key} is missing in {name}-tls");
        }
        ensure!(secret.metadata.owner_references.unwrap_or_default()[0].uid == uid);
    }
    Ok(())
}

async fn flux_and_argo_cd_take_a_settled_pool_for_done(world: &World) -> Result<()> {
    for node in world.wait_for_serving(2).await? {
        expect(&node, Kstatus::Current, "Healthy")?;
    }
    let pool = || async { Ok::<_, anyhow::Error>(world.api::<MediaPool>().get("a").await?) };
    until("the pool is done", || async {
        Ok(kstatus(&serde_json::to_value(pool().await?)?) == Kstatus::Current)
    })
    .await?;
    expect(&pool().await?, Kstatus::Current, "Healthy")
}

async fn a_settled_node_is_not_written_again(world: &World) -> Result<()> {
    let versions = || async {
        let nodes = world.nodes().await?;
        Ok::<_, anyhow::Error>(
            nodes
                .iter()
                .map(|node| (node.name_any(), node.resource_version()))
                .collect::<Vec<_>>(),
        )
    };
    // Each label makes the pool, and with it every node, be looked at again.
    let before = versions().await?;
    for look in ["one", "two", "three"] {
        let label = json!({ "metadata": { "labels": { "looked": look } } });
        world
            .api::<MediaPool>()
            .patch("a", &PatchParams::default(), &Patch::Merge(label))
            .await?;
        sleep(Duration::from_millis(500)).await;
    }
    let after = versions().await?;
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}

async fn unschedulable_takes_no_rooms_and_can_be_taken_back(world: &World) -> Result<()> {
    let node = world.serving().await?.remove(0);
    let (name, uid) = (node.name_any(), node.uid().unwrap_or_default());
    for (wish, accepting) in [("true", "False"), ("false", "True")] {
        let patch = format!("{{\"spec\":{{\"unschedulable\":{wish}}}}}");
        world
            .server
            .kubectl(&[
                "-n", NAMESPACE, "patch", "mn", &name, "--type", "merge", "-p", &patch,
            ])
            .await?;
        until("it is as people wish", || async {
            Ok(says(&world.node(&name).await?, "Accepting", accepting))
        })
        .await?;
        let ordered = lock(&world.control_plane).accepting.get(&uid).copied();
        ensure!(ordered == Some(accepting == "True"), "{ordered:?}");
    }
    ensure!(phase_of(&world.node(&name).await?).is_none());
    Ok(())
}

async fn a_drain_is_taken_back_until_it_is_announced(world: &World) -> Result<()> {
    let node = world.serving().await?.remove(0);
    let name = node.name_any();
    world.set_rooms(&node, 3);
    lock(&world.control_plane).silent = true;
    let drain = |value: &str| format!("{{\"spec\":{{\"drain\":{value}}}}}");
    let patch = |value: String| {
        let name = name.clone();
        async move {
            world
                .server
                .try_kubectl(&[
                    "-n", NAMESPACE, "patch", "mn", &name, "--type", "merge", "-p", &value,
                ])
                .await
        }
    };
    ensure!(patch(drain("{}")).await?.status.success());
    world.wait_for_phase(&name, DrainPhase::Closing).await?;
    ensure!(
        says(&world.node(&name).await?, "Accepting", "True"),
        "a node that may still be given rooms says that it takes none"
    );
    ensure!(patch(drain("null")).await?.status.success());
    lock(&world.control_plane).silent = false;
    until("the node goes on", || async {
        let node = world.node(&name).await?;
        Ok(phase_of(&node).is_none() && says(&node, "Accepting", "True"))
    })
    .await?;

    ensure!(patch(drain("{}")).await?.status.success());
    world.wait_for_phase(&name, DrainPhase::Waiting).await?;
    ensure!(says(&world.node(&name).await?, "Accepting", "False"));
    let moves = lock(&world.control_plane).moves.clone();
    ensure!(moves.contains(&node.uid().unwrap_or_default()), "{moves:?}");
    let refused = patch(drain("null")).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(
        !refused.status.success()
            && said.contains("a drain can be cancelled only before it is announced"),
        "{said}"
    );
    // Nobody may take the pod meanwhile, and the drained one stays until the person says so.
    ensure!(!world.evicts(&name).await?);
    world.set_rooms(&node, 0);
    let place = format!("mn/{name}");
    world
        .server
        .kubectl(&[
            "-n",
            NAMESPACE,
            "wait",
            "--for=condition=Drained",
            &place,
            "--timeout=90s",
        ])
        .await?;
    until("the label falls", || async {
        let pod: Pod = world.api().get(&name).await?;
        Ok(!pod.labels().contains_key(LABEL_PROTECTED))
    })
    .await?;
    until("the eviction is let through", || world.evicts(&name)).await?;
    world.wait_for_serving(2).await?;
    Ok(())
}

async fn cordoning_a_machine_drains_what_it_carries(world: &World) -> Result<()> {
    let node = world.serving().await?.remove(0);
    let (name, machine) = (node.name_any(), machine_of(&node).to_owned());
    world.set_rooms(&node, 2);
    world.cordon(&machine, true).await?;
    world.wait_for_phase(&name, DrainPhase::Waiting).await?;
    let drain = world.node(&name).await?.spec.drain.context("a drain")?;
    ensure!(drain.reason == DrainReason::NodeCordoned, "{drain:?}");
    ensure!(!world.evicts(&name).await?, "a pod with rooms was evicted");
    world.set_rooms(&node, 0);
    until("the pod is gone", || async {
        Ok(world.api::<Pod>().get_opt(&name).await?.is_none())
    })
    .await?;
    until("the node says why", || async {
        let node = world.node(&name).await?;
        Ok(says(&node, "Drained", "True") && reason_of(&node, "Ready") == "PodRemoved")
    })
    .await?;
    world.cordon(&machine, false).await?;
    world.wait_for_serving(2).await?;
    Ok(())
}

async fn deleting_a_node_is_a_drain(world: &World) -> Result<()> {
    let node = world.serving().await?.remove(0);
    let name = node.name_any();
    world.set_rooms(&node, 1);
    world
        .server
        .kubectl(&["-n", NAMESPACE, "delete", "mn", &name, "--wait=false"])
        .await?;
    world.wait_for_phase(&name, DrainPhase::Waiting).await?;
    let pod: Pod = world.api().get(&name).await?;
    ensure!(
        pod.metadata.deletion_timestamp.is_none(),
        "the pod goes before its rooms"
    );
    expect(&world.node(&name).await?, Kstatus::Terminating, "Healthy")?;
    world.set_rooms(&node, 0);
    until("the node is gone", || async {
        Ok(world.api::<MediaNode>().get_opt(&name).await?.is_none())
    })
    .await?;
    until("what it owned is gone", || async {
        let secret = world
            .api::<Secret>()
            .get_opt(&format!("{name}-tls"))
            .await?;
        let pod = world.api::<Pod>().get_opt(&name).await?;
        Ok(secret.is_none() && pod.is_none())
    })
    .await?;
    ensure!(
        world
            .endpoints
            .get(&node.uid().unwrap_or_default())
            .is_none()
    );
    world.wait_for_serving(2).await?;
    Ok(())
}

async fn a_lost_pod_is_lost_and_its_node_gets_no_second_one(world: &World) -> Result<()> {
    let node = world.serving().await?.remove(0);
    let name = node.name_any();
    world
        .api::<Pod>()
        .delete(&name, &DeleteParams::default().grace_period(0))
        .await?;
    until("the loss is said", || async {
        Ok(reason_of(&world.node(&name).await?, "Ready") == "PodLost")
    })
    .await?;
    expect(
        &world.node(&name).await?,
        Kstatus::InProgress,
        "Progressing",
    )?;
    ensure!(
        world
            .endpoints
            .get(&node.uid().unwrap_or_default())
            .is_none()
    );
    world.wait_for_serving(2).await?;
    ensure!(
        world.api::<Pod>().get_opt(&name).await?.is_none(),
        "the node got a second pod"
    );
    Ok(())
}

async fn a_window_empties_a_machine_one_node_at_a_time(world: &World) -> Result<()> {
    world
        .declare(4, json!({ "timeout": "1h", "announceBefore": "1m" }))
        .await?;
    let nodes = world.wait_for_serving(4).await?;
    for node in &nodes {
        world.set_rooms(node, 1);
    }
    let on_m1: Vec<MediaNode> = nodes
        .into_iter()
        .filter(|node| machine_of(node) == "m1")
        .collect();
    ensure!(on_m1.len() > 1, "one machine carries several nodes");
    let begin = Timestamp::now().checked_sub(1.minute())?;
    let start = begin.to_string();
    let start = start.get(..16).context("a moment")?;
    let window: MaintenanceWindow = serde_json::from_value(json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "MaintenanceWindow", "metadata": { "name": "rack" },
        "spec": {
            "schedule": { "start": start, "timeZone": "UTC", "duration": "2h" },
            "action": "Drain", "selector": { "nodes": { "matchLabels": { "rack": "m1" } } },
        },
    }))?;
    Api::all(world.client.clone())
        .create(&PostParams::default(), &window)
        .await?;
    let maintained = || async {
        let all = world.nodes().await?;
        Ok::<_, anyhow::Error>(
            all.into_iter()
                .filter(|node| {
                    let drain = node.spec.drain.as_ref();
                    drain.is_some_and(|drain| drain.reason == DrainReason::Maintenance)
                        && phase_of(node) != Some(DrainPhase::Drained)
                })
                .collect::<Vec<_>>(),
        )
    };
    for _ in on_m1 {
        until("one node is being emptied", || async {
            Ok(maintained().await?.len() == 1)
        })
        .await?;
        let node = maintained().await?.remove(0);
        ensure!(machine_of(&node) == "m1", "{}", machine_of(&node));
        world
            .wait_for_phase(&node.name_any(), DrainPhase::Waiting)
            .await?;
        ensure!(maintained().await?.len() == 1, "more than one at a time");
        world.set_rooms(&node, 0);
        world
            .wait_for_phase(&node.name_any(), DrainPhase::Drained)
            .await?;
    }
    for node in world.wait_for_serving(4).await? {
        ensure!(machine_of(&node) == "m2", "a pod came back to the machine");
    }
    let window: MaintenanceWindow = Api::all(world.client.clone()).get("rack").await?;
    expect(&window, Kstatus::Current, "Healthy")?;
    let status = window.status.context("a status")?;
    ensure!(
        status.phase.map(|phase| phase.as_str()) == Some("Active"),
        "{status:?}"
    );
    Ok(())
}
