// SPDX-License-Identifier: EUPL-1.2
//! Log and traces of a process. The log goes to standard error, for people or as one JSON object per line. Traces go nowhere unless an
//! OTLP receiver is named: nothing leaves the system by default.

use std::io::IsTerminal;

use clap::ValueEnum;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Options of every part; flatten them into its command line.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Form of the log.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// OTLP receiver (gRPC) that gets traces, such as http://collector:4317; none by default.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
    /// Share of the traces that are sampled, 0 to 1. What is not sampled costs next to nothing.
    #[arg(long, value_name = "RATIO", default_value_t = 0.01, value_parser = ratio, env = "OTEL_TRACES_SAMPLER_ARG")]
    pub trace_ratio: f64,
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("a ratio is a number from 0 to 1".to_owned()),
    }
}

/// Why telemetry does not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The address of the receiver is wrong.
    #[error(
        "--otlp-endpoint {endpoint} is no address of a receiver, such as http://collector:4317"
    )]
    Endpoint {
        /// As given.
        endpoint: String,
        /// Why.
        #[source]
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// A log was started in this process before.
    #[error("this process has a log already")]
    Started(#[from] tracing_subscriber::util::TryInitError),
}

/// Running telemetry; [`Telemetry::stop`] sends what is left.
#[must_use = "spans that are not sent yet are lost without `stop`"]
pub struct Telemetry(Option<SdkTracerProvider>);

/// Starts log and traces of the part `service` with the name `instance`. Needs the context of a tokio runtime when a receiver is
/// named; one that is away costs the spans, never the process.
///
/// # Errors
/// [`TelemetryError`].
pub fn start(
    options: &Options,
    service: &'static str,
    instance: &str,
) -> Result<Telemetry, TelemetryError> {
    let provider = options
        .otlp_endpoint
        .as_deref()
        .filter(|endpoint| !endpoint.is_empty())
        .map(|endpoint| provider(endpoint, options.trace_ratio, service, instance))
        .transpose()?;
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(service))
            // The exporter's own connection must not make spans of its own.
            .with_filter(own_targets())
    });
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let text = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // Whoever read the log may be gone; a complaint about it on the same closed pipe would be a panic.
        .log_internal_errors(false);
    let log: Box<dyn Layer<Registry> + Send + Sync> = match options.log_format {
        LogFormat::Text => text.with_filter(filter).boxed(),
        LogFormat::Json => text.json().flatten_event(true).with_filter(filter).boxed(),
    };
    tracing_subscriber::registry()
        .with(log)
        .with(traces)
        .try_init()?;
    Ok(Telemetry(provider))
}

/// Spans of Plenum's own crates.
fn own_targets() -> Targets {
    [
        "control_plane",
        "media_node",
        "media_room",
        "plenum",
        "operator",
    ]
    .into_iter()
    .fold(Targets::new(), |targets, name| {
        targets.with_target(name, tracing::Level::DEBUG)
    })
}

fn provider(
    endpoint: &str,
    ratio: f64,
    service: &'static str,
    instance: &str,
) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|source| TelemetryError::Endpoint {
            endpoint: endpoint.to_owned(),
            source,
        })?;
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attribute(KeyValue::new("service.instance.id", instance.to_owned()))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
            ratio,
        ))))
        .with_resource(resource)
        .build())
}

impl Telemetry {
    /// Sends what is left, for a bounded time.
    pub fn stop(self) {
        if let Some(provider) = self.0 {
            // A receiver that is away costs its spans.
            let _ = provider.shutdown();
        }
    }
}
