// SPDX-License-Identifier: EUPL-1.2
//! One trace runs through the whole of a join: HTTP request, the store's script, the call of the media node, the shard's command.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use e2e::redis::Redis;
use e2e::system::{Setup, System, is_inside, namespaced, program};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Where the receiver listens in the test's namespace.
const RECEIVER: &str = "127.0.0.1:4317";
/// Spans that one join leaves, and whose they are.
const WANTED: [(&str, &str); 4] = [
    ("control-plane", "http.request"),
    ("control-plane", "store.call"),
    ("media-node", "session.begin"),
    ("media-node", "shard.command"),
];

/// Spans by trace: part and name.
type Traces = Arc<Mutex<BTreeMap<Vec<u8>, BTreeSet<(String, String)>>>>;

/// A receiver of traces that keeps what the test asks for.
struct Receiver(Traces);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut traces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for of_resource in request.into_inner().resource_spans {
            let part = of_resource
                .resource
                .into_iter()
                .flat_map(|resource| resource.attributes)
                .find(|attribute| attribute.key == "service.name")
                .and_then(|attribute| attribute.value?.value);
            let Some(Value::StringValue(part)) = part else {
                continue;
            };
            for span in of_resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
            {
                traces
                    .entry(span.trace_id)
                    .or_default()
                    .insert((part.clone(), span.name));
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[test]
fn one_trace_runs_from_the_request_to_the_shard() -> Result<()> {
    let name = "one_trace_runs_from_the_request_to_the_shard";
    if !is_inside(name) {
        let status = namespaced(name)?
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{RECEIVER}"))
            .env("OTEL_TRACES_SAMPLER_ARG", "1")
            .env("OTEL_BSP_SCHEDULE_DELAY", "200")
            .status()
            .context("unshare (util-linux) starts the test's namespaces")?;
        if !status.success() {
            bail!("{name} failed in its namespaces ({status})");
        }
        return Ok(());
    }
    let traces = Traces::default();
    let runtime = tokio::runtime::Runtime::new()?;
    let receiver = Receiver(Arc::clone(&traces));
    runtime.block_on(async {
        let listener = TcpListener::bind(RECEIVER).await?;
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(TraceServiceServer::new(receiver))
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        anyhow::Ok(())
    })?;
    let redis = Redis::start(
        &std::env::temp_dir().join(format!("plenum-telemetry-{}", std::process::id())),
    )?;
    let setup = Setup {
        redis: Some(redis.url()),
        ..Setup::default()
    };
    let system = System::start_with("telemetry", &setup)?;
    let joined = Command::new(program("plenum-load")?)
        .args(["--publishers", "1", "--subscribers", "1", "--seconds", "1"])
        .stdout(Stdio::null())
        .status()
        .context("plenum-load starts")?;
    if !joined.success() {
        bail!("plenum-load ended with {joined}\n{}", system.logs(40));
    }
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let whole = {
            let traces = traces.lock().unwrap_or_else(PoisonError::into_inner);
            traces.values().any(|spans| {
                WANTED
                    .iter()
                    .all(|(part, name)| spans.contains(&(part.to_string(), name.to_string())))
            })
        };
        if whole {
            break;
        }
        if Instant::now() > end {
            let traces = traces.lock().unwrap_or_else(PoisonError::into_inner);
            bail!("no trace has all of {WANTED:?}: {:#?}", traces.values());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    system.stop()
}
