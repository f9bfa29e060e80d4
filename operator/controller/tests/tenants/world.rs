// SPDX-License-Identifier: EUPL-1.2
//! A real API server with the chart's roles, the controllers of this process as the operator's ServiceAccount, and a control
//! plane that says what a test wants it to say.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    future::Future,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use e2e::cluster::{ApiServer, AuditEntry, Identity};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use operator::{
    authority::Authority,
    class, conference,
    context::{Context, Settings},
    endpoints::Endpoints,
    events::Events,
    live::{Ack, Live},
    orders::Orders,
    planner::{Planned, Planner},
    secrets::Secrets,
    stores::Stores,
    telemetry::Metrics,
    tenant,
};
use operator_core::{RecordKind, records::NodeRecord};
use plenum_api::{Condition, ConditionStatus, ConditionType, Conference, Tenant, conditions::find};
use plenum_proto::v1::{ConferenceState, TenantState};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time::sleep};

/// Longest wait for anything, on a machine that is busy with other tests: the quota controller of Kubernetes learns of kinds that are
/// new to it within five minutes.
const PATIENCE: Duration = Duration::from_secs(330);
/// Namespace of the operator.
pub(crate) const SYSTEM: &str = "plenum-system";
/// The operator at the API server.
pub(crate) const OPERATOR: &str = "system:serviceaccount:plenum-system:plenum-operator";
/// Address of the pages.
pub(crate) const URL: &str = "https://meet.town.example";

/// Seconds that the operator's clock is ahead.
static AHEAD: AtomicI64 = AtomicI64::new(0);

fn now() -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(AHEAD.load(Ordering::Relaxed))
}

/// Everything.
pub(crate) struct World {
    /// The API server.
    pub(crate) server: ApiServer,
    /// The control plane.
    pub(crate) control: Arc<Control>,
    /// May do everything.
    pub(crate) client: Client,
    /// What the operator watches.
    pub(crate) stores: Arc<Stores>,
    _tasks: JoinSet<()>,
    _watches: JoinSet<()>,
}

/// A control plane that takes every record, unless a test wants otherwise.
pub(crate) struct Control {
    planned: watch::Receiver<Arc<Planned>>,
    live: watch::Sender<Arc<Live>>,
    says: Mutex<Says>,
}

#[derive(Default)]
struct Says {
    conferences: BTreeMap<String, ConferenceState>,
    tenants: BTreeMap<String, TenantState>,
    refused: BTreeMap<String, (String, String)>,
}

impl Control {
    /// A tenant has so many rooms and participants.
    pub(crate) fn usage(&self, tenant: &str, rooms: u32, participants: u32) {
        let state = TenantState {
            name: tenant.to_owned(),
            rooms,
            participants,
        };
        self.lock().tenants.insert(tenant.to_owned(), state);
        self.speak();
    }

    /// The room of a conference is so.
    pub(crate) fn room(&self, state: ConferenceState) {
        self.lock().conferences.insert(state.uid.clone(), state);
        self.speak();
    }

    /// A record is refused.
    pub(crate) fn refuse(&self, uid: &str, reason: &str, message: &str) {
        let why = (reason.to_owned(), message.to_owned());
        self.lock().refused.insert(uid.to_owned(), why);
        self.speak();
    }

    /// What is published of a media node.
    pub(crate) fn node(&self, uid: &str) -> Option<NodeRecord> {
        self.planned.borrow().plan.nodes.get(uid).cloned()
    }

    /// What the planner makes of everything, for failures.
    fn plan(&self) -> String {
        let planned = self.planned.borrow();
        format!(
            "planned: {}, waiting: {:?}, problems: {:?}, records: {:?}",
            planned.ready,
            planned.waiting,
            planned.problems,
            planned
                .plan
                .tenants
                .values()
                .map(|record| &record.name)
                .collect::<Vec<_>>(),
        )
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Says> {
        self.says.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn speak(&self) {
        let planned = Arc::clone(&self.planned.borrow());
        let says = self.lock();
        let tenants = planned.plan.tenants.values();
        let tenants = tenants.map(|record| (RecordKind::Tenant, &record.uid, &record.revision));
        let conferences = planned.plan.conferences.values();
        let conferences =
            conferences.map(|record| (RecordKind::Conference, &record.uid, &record.revision));
        let acks = tenants.chain(conferences).map(|(kind, uid, revision)| {
            let ack = match says.refused.get(uid) {
                Some((reason, message)) => Ack::Refused {
                    reason: reason.clone(),
                    message: message.clone(),
                },
                None => Ack::Taken {
                    revision: revision.clone(),
                },
            };
            ((kind, uid.clone()), ack)
        });
        let live = Live {
            conferences: says.conferences.clone(),
            tenants: says.tenants.clone(),
            acks: acks.collect(),
            reachable: true,
            since: Some(Timestamp::UNIX_EPOCH),
            replicas: 1,
            ..Live::default()
        };
        self.live.send_replace(Arc::new(live));
    }
}

impl World {
    /// Starts everything; `None` where the programs are missing and the tests may be skipped.
    pub(crate) async fn start() -> Result<Option<Self>> {
        let Some(server) = ApiServer::start_with_crds().await? else {
            return Ok(None);
        };
        let client = server.client();
        install(&server).await?;
        let operator = server
            .client_of(&Identity {
                user: OPERATOR,
                groups: &[
                    "system:serviceaccounts",
                    "system:serviceaccounts:plenum-system",
                ],
            })
            .await?;
        let metrics = Metrics::default();
        let (stores, watches) = Stores::start(&operator, &metrics);
        let stores = Arc::new(stores);
        let settings = settings();
        let (planned_to, planned) = watch::channel(Arc::new(Planned::default()));
        let (live_to, live) = watch::channel(Arc::new(Live::default()));
        let endpoints = Endpoints::default();
        let planner = Planner {
            settings: settings.clone(),
            stores: Arc::clone(&stores),
            endpoints: endpoints.clone(),
            secrets: Secrets::new(operator.clone()),
            metrics: metrics.clone(),
            now,
            planned: planned_to,
        };
        let control = Arc::new(Control {
            planned: planned.clone(),
            live: live_to,
            says: Mutex::default(),
        });
        let (orders, _) = Orders::channel();
        let context = Arc::new(Context {
            client: operator.clone(),
            settings,
            stores: Arc::clone(&stores),
            planned: planned.clone(),
            live,
            endpoints,
            orders,
            authority: Authority::default(),
            events: Events::new(operator, "plenum-operator-test", metrics.clone()),
            metrics,
            now,
        });
        context.stores.ready().await;
        let mut tasks = JoinSet::new();
        tasks.spawn(planner.run());
        tasks.spawn(speak(Arc::clone(&control), planned));
        tasks.spawn(tenant::run(Arc::clone(&context)));
        tasks.spawn(class::run(Arc::clone(&context)));
        tasks.spawn(conference::run(context));
        Ok(Some(Self {
            server,
            control,
            client,
            stores,
            _tasks: tasks,
            _watches: watches,
        }))
    }

    /// Lets the operator believe that it is so much later, from its next look on.
    pub(crate) fn put_forward(&self, seconds: i64) {
        AHEAD.store(seconds, Ordering::Relaxed);
    }

    /// Applies a manifest as somebody who may do everything.
    pub(crate) async fn apply<K>(&self, manifest: Value) -> Result<K>
    where
        K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + Debug,
    {
        let metadata = &manifest["metadata"];
        let name = metadata["name"].as_str().context("a name")?.to_owned();
        let namespace = metadata["namespace"].as_str();
        let params = PatchParams::apply("test").force();
        let request = kube::api::Request::new(K::url_path(&(), namespace));
        let request = request.patch(&name, &params, &Patch::Apply(&manifest))?;
        Ok(self.client.request::<K>(request).await?)
    }

    /// A tenant, with what else its specification says.
    pub(crate) async fn tenant(&self, name: &str, spec: Value) -> Result<Tenant> {
        let mut manifest = json!({
            "apiVersion": "plenum.dev/v1alpha1", "kind": "Tenant", "metadata": { "name": name },
            "spec": {
                "displayName": name,
                "contacts": [
                    { "type": "Technical", "mailbox": "it@town.example" },
                    { "type": "Functional", "mailbox": "office@town.example" },
                ],
            },
        });
        for (key, value) in spec.as_object().context("members")? {
            manifest["spec"][key] = value.clone();
        }
        self.apply(manifest).await
    }

    /// A tenant that is ready.
    pub(crate) async fn ready_tenant(&self, name: &str, spec: Value) -> Result<Tenant> {
        self.tenant(name, spec).await?;
        self.tenant_is(name, ConditionType::Ready, ConditionStatus::True)
            .await
    }

    /// A conference of a namespace with an opener key that nobody brings.
    pub(crate) async fn conference(
        &self,
        namespace: &str,
        name: &str,
        spec: Value,
    ) -> Result<Conference> {
        let mut manifest = conference_manifest(namespace, name);
        for (key, value) in spec.as_object().context("members")? {
            manifest["spec"][key] = value.clone();
        }
        self.apply(manifest).await
    }

    /// Waits for a condition of a tenant.
    pub(crate) async fn tenant_is(
        &self,
        name: &str,
        type_: ConditionType,
        status: ConditionStatus,
    ) -> Result<Tenant> {
        let api = Api::<Tenant>::all(self.client.clone());
        let what = format!("{type_}={} of Tenant {name}", status.as_str());
        eventually(&what, || async {
            let tenant = api.get(name).await?;
            let conditions = tenant
                .status
                .as_ref()
                .map_or(&[][..], |status| &status.conditions);
            let seen = (conditions.to_vec(), self.control.plan());
            Ok(met(conditions, tenant.metadata.generation, type_, status)
                .then_some(tenant)
                .ok_or(seen))
        })
        .await
    }

    /// Waits until what a tenant says of being ready is this.
    pub(crate) async fn tenant_says(
        &self,
        name: &str,
        what: &str,
        said: impl Fn(&Condition) -> bool,
    ) -> Result<Tenant> {
        let api = Api::<Tenant>::all(self.client.clone());
        eventually(what, || async {
            let tenant = api.get(name).await?;
            let conditions = tenant
                .status
                .as_ref()
                .map_or(&[][..], |status| &status.conditions);
            let ready = find(conditions, ConditionType::Ready).cloned();
            Ok(if ready.as_ref().is_some_and(&said) {
                Ok(tenant)
            } else {
                Err(ready)
            })
        })
        .await
    }

    /// Waits until a tenant is gone.
    pub(crate) async fn tenant_ends(&self, name: &str) -> Result<()> {
        let api = Api::<Tenant>::all(self.client.clone());
        eventually("the end of the tenant", || async {
            Ok(match api.get_opt(name).await? {
                None => Ok(()),
                Some(tenant) => Err(tenant.status),
            })
        })
        .await
    }

    /// Waits for a condition of a conference.
    pub(crate) async fn conference_is(
        &self,
        namespace: &str,
        name: &str,
        type_: ConditionType,
        status: ConditionStatus,
    ) -> Result<Conference> {
        let api = Api::<Conference>::namespaced(self.client.clone(), namespace);
        let what = format!("{type_}={} of Conference {name}", status.as_str());
        eventually(&what, || async {
            let object = api.get(name).await?;
            let conditions = object
                .status
                .as_ref()
                .map_or(&[][..], |status| &status.conditions);
            let seen = (conditions.to_vec(), self.control.plan());
            Ok(met(conditions, object.metadata.generation, type_, status)
                .then_some(object)
                .ok_or(seen))
        })
        .await
    }

    /// Objects of a namespace.
    pub(crate) fn of<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// What the operator wrote so far.
    pub(crate) fn writes(&self) -> Result<Vec<AuditEntry>> {
        let all = self.server.audit()?;
        let own = all.into_iter();
        Ok(own
            .filter(|entry| entry.user.username == OPERATOR && entry.is_write())
            .collect())
    }

    /// Waits until the operator has written nothing for a while, and gives how much it wrote so far.
    pub(crate) async fn quiet(&self) -> Result<usize> {
        let end = Instant::now() + PATIENCE;
        let mut last = self.writes()?.len();
        let mut since = Instant::now();
        while Instant::now() < end {
            sleep(Duration::from_millis(250)).await;
            let now = self.writes()?.len();
            if now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > Duration::from_secs(3) {
                return Ok(last);
            }
        }
        bail!(
            "the operator writes without end: {:#?}",
            self.writes()?.last()
        )
    }
}

fn met(
    conditions: &[Condition],
    generation: Option<i64>,
    type_: ConditionType,
    status: ConditionStatus,
) -> bool {
    find(conditions, type_).is_some_and(|condition| {
        condition.status == status && condition.observed_generation == generation
    })
}

/// A conference as a manifest.
pub(crate) fn conference_manifest(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "plenum.dev/v1alpha1", "kind": "Conference",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "openers": [{ "type": "Key", "key": { "name": format!("{name}-opener") } }] },
    })
}

/// Looks until it is there; what was seen last stands in the failure.
pub(crate) async fn eventually<T, S, F, R>(what: &str, mut look: F) -> Result<T>
where
    S: Debug,
    F: FnMut() -> R,
    R: Future<Output = Result<Result<T, S>>>,
{
    let end = Instant::now() + PATIENCE;
    loop {
        match look().await? {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() >= end => bail!("{what} does not come; seen: {seen:#?}"),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn speak(control: Arc<Control>, mut planned: watch::Receiver<Arc<Planned>>) {
    loop {
        control.speak();
        if planned.changed().await.is_err() {
            return;
        }
    }
}

fn settings() -> Settings {
    Settings {
        namespace: SYSTEM.to_owned(),
        pod_name: "plenum-operator-test".to_owned(),
        site: "local".to_owned(),
        jurisdiction: String::new(),
        trust_domain: "plenum.internal".to_owned(),
        control_plane: "plenum-control-plane-replicas:7882".to_owned(),
        media_image: "localhost/plenum-media-node:dev".to_owned(),
        gateway_url: URL.to_owned(),
        gateway_dns: Vec::new(),
        issue_gateway_certificate: false,
        issue_control_plane_certificate: true,
        authority_spread: operator_core::rotation::SPREAD,
        cluster_domain: "cluster.local".to_owned(),
    }
}

/// Namespaces, the chart's roles, a class and a pool.
async fn install(server: &ApiServer) -> Result<()> {
    let client = server.client();
    for name in [SYSTEM, "media"] {
        let namespace = serde_json::from_value(json!({ "metadata": { "name": name } }))?;
        Api::<k8s_openapi::api::core::v1::Namespace>::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
    }
    let roles = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/plenum/templates/rbac");
    for file in ["operator.yaml", "tenant.yaml"] {
        let text = std::fs::read_to_string(roles.join(file))?;
        let path = server.folder().join(file);
        std::fs::write(&path, rendered(&text))?;
        let path = path.to_str().context("a path")?;
        server
            .kubectl(&["apply", "--server-side", "-f", path])
            .await?;
    }
    let class = serde_json::from_value(json!({
        "metadata": { "name": "meeting", "annotations": { "plenum.dev/is-default-class": "true" } },
        "spec": { "preset": "Meeting" },
    }))?;
    Api::<plenum_api::ConferenceClass>::all(client.clone())
        .create(&PostParams::default(), &class)
        .await?;
    let pool = serde_json::from_value(json!({
        "metadata": { "name": "local", "namespace": "media" },
        "spec": { "replicas": 1, "network": { "type": "None" } },
    }))?;
    Api::<plenum_api::MediaPool>::namespaced(client, "media")
        .create(&PostParams::default(), &pool)
        .await?;
    Ok(())
}

/// The roles without Helm: what decides stands in them as plain text.
fn rendered(template: &str) -> String {
    let lines = template
        .lines()
        .filter(|line| !line.trim_start().starts_with("{{"))
        .map(|line| {
            let mut line = line.replace("{{ .Release.Namespace }}", SYSTEM);
            while let (Some(from), Some(to)) = (line.find("{{"), line.find("}}")) {
                line.replace_range(from..to + 2, "another");
            }
            line
        });
    lines.collect::<Vec<_>>().join("\n")
}
