// SPDX-License-Identifier: EUPL-1.2
//! The operator's process against a real API server: who leads, what it keeps, and what it does while the API server is away.
//!
//! One API server for all cases, one after the other and each in a namespace of its own; the last takes the server away.

mod control_plane;
mod operator;

use std::{
    future::Future,
    path::PathBuf,
    pin::Pin,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use control_plane::ControlPlane;
use e2e::cluster::ApiServer;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Namespace, Secret},
};
use kube::{Api, Client, api::PostParams};
use libtest_mimic::{Arguments, Trial};
use operator::Operator;
use plenum_api::{ConditionStatus, ConditionType, Conference, conditions::find};
use plenum_publish::issuer;
use rustix::process::Signal;
use serde_json::json;
use tokio::{sync::Mutex, time::sleep};

type Case = fn(Place) -> Pin<Box<dyn Future<Output = Result<()>> + Send>>;

macro_rules! cases {
    ($($name:ident),+ $(,)?) => {
        &[$((stringify!($name), |place| Box::pin($name(place)))),+]
    };
}

const CASES: &[(&str, Case)] = cases![
    one_of_two_leads_and_the_other_follows_a_leader_that_is_killed_or_told_to_stop,
    a_leader_that_slept_past_its_lease_follows_when_it_wakes,
    the_leader_makes_a_ca_and_certificates_and_leaves_alone_what_is_not_its_own,
    an_authority_gives_way_to_another_and_is_trusted_until_nobody_shows_its_certificates,
    what_is_declared_reaches_every_control_plane_that_comes_and_goes,
    without_an_api_server_the_process_lives_unready_and_goes_on_where_it_was,
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = if arguments.list {
        None
    } else {
        match runtime.block_on(ApiServer::start_with_crds()) {
            Ok(server) => server.map(|server| Arc::new(Mutex::new(server))),
            Err(error) => {
                eprintln!("{error:#}");
                return ExitCode::FAILURE;
            }
        }
    };
    let skipped = server.is_none() && !arguments.list;
    let trials = CASES.iter().enumerate().map(|(index, (name, case))| {
        let (server, handle) = (server.clone(), runtime.handle().clone());
        let trial = Trial::test(*name, move || {
            let server = server.ok_or("there is no API server")?;
            let run = async {
                let place = Place::new(server, &format!("operator-{index}")).await?;
                case(place).await
            };
            handle
                .block_on(run)
                .map_err(|error| format!("{error:#}").into())
        });
        trial.with_ignored_flag(skipped)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // The server is to go before the runtime.
    drop(server);
    conclusion.exit_code()
}

/// A namespace of an operator.
struct Place {
    server: Arc<Mutex<ApiServer>>,
    client: Client,
    kubeconfig: PathBuf,
    namespace: String,
}

impl Place {
    async fn new(server: Arc<Mutex<ApiServer>>, namespace: &str) -> Result<Self> {
        let (client, kubeconfig) = {
            let server = server.lock().await;
            (server.client(), server.kubeconfig().to_owned())
        };
        let object: Namespace =
            serde_json::from_value(json!({ "metadata": { "name": namespace } }))?;
        Api::all(client.clone())
            .create(&PostParams::default(), &object)
            .await?;
        Ok(Self {
            server,
            client,
            kubeconfig,
            namespace: namespace.to_owned(),
        })
    }

    async fn operator(&self, name: &str, args: &[&str]) -> Result<Operator> {
        Operator::start(name, &self.namespace, &self.kubeconfig, args).await
    }

    async fn holder(&self) -> Result<Option<String>> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let lease = leases.get("plenum-operator").await?;
        Ok(lease.spec.context("a lease has a spec")?.holder_identity)
    }

    /// Waits until somebody holds the lease whose name begins so.
    async fn held_by(&self, name: &str) -> Result<()> {
        let end = Instant::now() + operator::PATIENCE;
        loop {
            let holder = self.holder().await?;
            if holder
                .as_deref()
                .is_some_and(|holder| holder.starts_with(name))
            {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{holder:?} holds the lease, not {name}"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Applies manifests, as often as it takes until the namespaces and quotas that the operator makes are in force.
    async fn apply(&self, manifests: &str) -> Result<()> {
        let server = self.server.lock().await;
        let file = server.folder().join("declared.yaml");
        std::fs::write(&file, manifests)?;
        let file = file.to_str().context("a path in UTF-8")?;
        let end = Instant::now() + operator::PATIENCE;
        loop {
            let output = server
                .try_kubectl(&["apply", "--server-side", "-f", file])
                .await?;
            if output.status.success() {
                return Ok(());
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            let passes = ["not found", "status unknown for quota"];
            let passes = passes.iter().any(|reason| said.contains(reason));
            ensure!(passes && Instant::now() < end, "{said}");
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn secret(&self, name: &str) -> Result<Secret> {
        let secret = self.secrets().get_opt(name).await?;
        secret.with_context(|| format!("a Secret {name}"))
    }
}

fn text(secret: &Secret, key: &str) -> Result<String> {
    let data = secret.data.as_ref().context("a Secret with data")?;
    Ok(String::from_utf8(
        data.get(key).context("a key")?.0.clone(),
    )?)
}

async fn one_of_two_leads_and_the_other_follows_a_leader_that_is_killed_or_told_to_stop(
    place: Place,
) -> Result<()> {
    let first = place.operator("first", &[]).await?;
    let epoch = first.event("LeaseTaken").await?["epoch"].clone();
    ensure!(epoch == 1, "{epoch}");
    let second = place.operator("second", &[]).await?;
    first.ready().await?;
    second.ready().await?;
    place.held_by("first").await?;
    ensure!(
        second.events("LeaseTaken").is_empty(),
        "the first leads still"
    );
    ensure!(first.metric("plenum_operator_leader").await? == 1.0);
    ensure!(second.metric("plenum_operator_leader").await? == 0.0);

    first.kill().await?;
    let epoch = second.event("LeaseTaken").await?["epoch"].clone();
    ensure!(epoch == 2, "{epoch}");
    place.held_by("second").await?;

    // Told to stop, it gives the lease back; the next one does not wait for it to run out.
    let third = place.operator("third", &[]).await?;
    third.ready().await?;
    second.terminate().await?;
    let epoch = third.event("LeaseTaken").await?["epoch"].clone();
    ensure!(epoch == 3, "{epoch}");
    third.terminate().await?;
    ensure!(place.holder().await?.is_none(), "nobody is left");
    Ok(())
}

async fn a_leader_that_slept_past_its_lease_follows_when_it_wakes(place: Place) -> Result<()> {
    let first = place.operator("first", &[]).await?;
    first.event("LeaseTaken").await?;
    let second = place.operator("second", &[]).await?;
    second.ready().await?;
    first.signal(Signal::STOP)?;
    second.event("LeaseTaken").await?;
    first.signal(Signal::CONT)?;
    first.event("LeaseHeldElsewhere").await?;
    place.held_by("second").await?;
    ensure!(first.metric("plenum_operator_leader").await? == 0.0);
    first.ready().await?;
    Ok(())
}

async fn what_is_declared_reaches_every_control_plane_that_comes_and_goes(
    place: Place,
) -> Result<()> {
    let Some(plane) = ControlPlane::new(&place.namespace)? else {
        return Ok(());
    };
    let operator = place
        .operator("only", &["--control-plane", &plane.grpc()])
        .await?;
    operator.event("CertificateIssued").await?;
    let certificate = place.secret("plenum-control-plane-tls").await?;
    for file in ["ca.crt", "tls.crt", "tls.key"] {
        plane.write(file, &text(&certificate, file)?)?;
    }
    place.apply(QUICKSTART).await?;
    let first = plane.start().await?;
    operator.event("ControlPlaneReachable").await?;
    operator
        .counts(
            "plenum_operator_publications_total{kind=\"Tenant\",result=\"taken\"}",
            1,
        )
        .await?;
    operator
        .counts(
            "plenum_operator_publications_total{kind=\"Conference\",result=\"taken\"}",
            1,
        )
        .await?;
    ensure!(
        operator.events("RecordRefused").is_empty(),
        "{}",
        operator.log()
    );

    // It had everything in memory. Its successor is given all of it again, without anything being declared anew.
    first.kill().await?;
    operator.event("ControlPlaneUnreachable").await?;
    let second = plane.start().await?;
    operator.nth_event("ControlPlaneReachable", 2).await?;
    operator
        .counts(
            "plenum_operator_publications_total{kind=\"Conference\",result=\"taken\"}",
            2,
        )
        .await?;

    // Another operator finds all of it in order: what it has not read yet is not told as missing.
    let conferences: Api<Conference> = Api::namespaced(place.client.clone(), "tenant-declared");
    let end = Instant::now() + operator::PATIENCE;
    let settled = loop {
        let conference = conferences.get("council").await?;
        let status = conference.status.as_ref().map(|status| &status.conditions);
        let published = status.and_then(|all| find(all, ConditionType::Published));
        if published.is_some_and(|published| published.status == ConditionStatus::True) {
            break conference.metadata.resource_version;
        }
        ensure!(Instant::now() < end, "not published: {status:?}");
        sleep(Duration::from_millis(100)).await;
    };
    operator.terminate().await?;
    let operator = place
        .operator("next", &["--control-plane", &plane.grpc()])
        .await?;
    operator.event("ControlPlaneReachable").await?;
    operator
        .counts(
            "plenum_operator_publications_total{kind=\"Conference\",result=\"taken\"}",
            1,
        )
        .await?;
    operator
        .counts(
            "plenum_operator_reconcile_total{kind=\"Conference\",result=\"ok\"}",
            2,
        )
        .await?;
    let now = conferences.get("council").await?;
    ensure!(
        now.metadata.resource_version == settled,
        "a start wrote {:#?}",
        now.status
    );

    // Without an API server the streams stay, and what they say is heard.
    place.server.lock().await.kill();
    operator.event("LeaseLapsed").await?;
    ensure!(
        operator
            .metric("plenum_operator_control_plane_replicas")
            .await?
            == 1.0
    );
    ensure!(
        operator.events("ControlPlaneUnreachable").is_empty(),
        "{}",
        operator.log()
    );
    place.server.lock().await.run().await?;
    operator.nth_event("LeaseTaken", 2).await?;
    operator.terminate().await?;
    second.kill().await
}

/// A tenant with a key, a class, a pool, and one conference whose opener has a key.
const QUICKSTART: &str = include_str!("declared.yaml");

async fn without_an_api_server_the_process_lives_unready_and_goes_on_where_it_was(
    place: Place,
) -> Result<()> {
    let only = place.operator("only", &[]).await?;
    only.event("LeaseTaken").await?;
    only.ready().await?;
    place.server.lock().await.kill();
    only.event("LeaseLapsed").await?;
    only.probed("/readyz", 503).await?;
    ensure!(only.probe("/livez").await?.0 == 200, "it lives");
    ensure!(only.metric("plenum_operator_leader").await? == 0.0);
    place.server.lock().await.run().await?;
    let again = only.nth_event("LeaseTaken", 2).await?;
    ensure!(again["epoch"] == 1, "nobody else led meanwhile: {again}");
    only.ready().await?;
    only.terminate().await
}

async fn the_leader_makes_a_ca_and_certificates_and_leaves_alone_what_is_not_its_own(
    place: Place,
) -> Result<()> {
    let secrets = place.secrets();
    let foreign: Secret = serde_json::from_value(json!({
        "metadata": { "name": "plenum-gateway-tls" },
        "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": "theirs", "tls.key": "theirs" },
    }))?;
    let foreign = secrets.create(&PostParams::default(), &foreign).await?;
    let args = [
        "--issue-gateway-certificate",
        "--gateway-dns",
        "conferences.example",
    ];
    let first = place.operator("first", &args).await?;
    first.event("CertificateIssued").await?;
    let ca = place.secret("plenum-ca").await?;
    let issued = place.secret("plenum-control-plane-tls").await?;
    ensure!(text(&issued, "ca.crt")? == text(&ca, "tls.crt")?);
    let subject = issuer::Subject {
        dns: vec!["control-plane.plenum.internal".into()],
        spiffe: Some("spiffe://plenum.internal/control-plane".into()),
        ..issuer::Subject::default()
    };
    ensure!(
        issuer::covers(&text(&issued, "tls.crt")?, &subject),
        "it is the control plane's"
    );
    first.terminate().await?;

    // Another leader with another idea of the gateway finds all of it in order.
    secrets
        .delete("plenum-gateway-tls", &Default::default())
        .await?;
    let second = place.operator("second", &args).await?;
    let made = second.event("CertificateIssued").await?;
    ensure!(made["secret"] == "plenum-gateway-tls", "{made}");
    let gateway = place.secret("plenum-gateway-tls").await?;
    ensure!(gateway.metadata.uid != foreign.metadata.uid);
    let subject = issuer::Subject {
        dns: vec![
            "conferences.example".into(),
            format!("plenum-gateway.{}.svc", place.namespace),
        ],
        ..issuer::Subject::default()
    };
    ensure!(
        issuer::covers(&text(&gateway, "tls.crt")?, &subject),
        "it is the gateway's"
    );
    let now = place.secret("plenum-control-plane-tls").await?;
    ensure!(
        now.metadata.resource_version == issued.metadata.resource_version,
        "it was not due"
    );
    second.terminate().await
}

/// Asked for by an annotation, and seen by whoever leads next.
async fn an_authority_gives_way_to_another_and_is_trusted_until_nobody_shows_its_certificates(
    place: Place,
) -> Result<()> {
    let first = place.operator("first", &[]).await?;
    first.event("CertificateIssued").await?;
    first.terminate().await?;
    let former = text(&place.secret("plenum-ca").await?, "tls.crt")?;
    let ask = json!({ "metadata": { "annotations": { "plenum.dev/rotate-authority": "now" } } });
    let ask = kube::api::Patch::Merge(ask);
    let secrets = place.secrets();
    secrets
        .patch("plenum-ca", &Default::default(), &ask)
        .await?;
    let issued = place.secret("plenum-control-plane-tls").await?;
    let only = place
        .operator("second", &["--authority-spread", "2"])
        .await?;
    // What the control plane was given, in the order in which it was.
    let mut given = vec![(text(&issued, "ca.crt")?, text(&issued, "tls.crt")?)];
    let end = Instant::now() + 3 * operator::PATIENCE;
    while only.events("AuthorityRetired").is_empty()
        || given
            .last()
            .is_none_or(|(ca, _)| ca.matches("BEGIN").count() != 1)
    {
        let secret = place.secret("plenum-control-plane-tls").await?;
        let now = (text(&secret, "ca.crt")?, text(&secret, "tls.crt")?);
        if given.last() != Some(&now) {
            given.push(now);
        }
        ensure!(
            Instant::now() < end,
            "{} steps: {}",
            given.len(),
            only.log()
        );
        sleep(Duration::from_millis(20)).await;
    }
    let ca = place.secret("plenum-ca").await?;
    let new = text(&ca, "tls.crt")?;
    ensure!(new != former, "it is another one");
    let steps: Vec<(bool, bool, bool)> = given
        .iter()
        .map(|(trusted, leaf)| {
            (
                trusted.contains(former.trim()),
                trusted.contains(new.trim()),
                issuer::is_signed_by(leaf, &new),
            )
        })
        .collect();
    ensure!(
        steps
            == [
                (true, false, false),
                (true, true, false),
                (true, true, true),
                (false, true, true),
            ],
        "trusts the former, trusts the new, is of the new: {steps:?}"
    );
    for key in ["next.crt", "next.key", "former.crt"] {
        ensure!(
            !ca.data.as_ref().is_some_and(|data| data.contains_key(key)),
            "{key} is left"
        );
    }
    for event in [
        "AuthorityIntroduced",
        "AuthorityReplaced",
        "AuthorityRetired",
    ] {
        ensure!(only.events(event).len() == 1, "{event}");
    }
    only.terminate().await
}
