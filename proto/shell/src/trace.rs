// SPDX-License-Identifier: EUPL-1.2
//! The trace that a gRPC call carries from one part to the next, as W3C Trace Context (`traceparent`).

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

struct Outgoing<'a>(&'a mut MetadataMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (
            MetadataKey::from_bytes(key.as_bytes()),
            MetadataValue::try_from(value),
        ) {
            self.0.insert(key, value);
        }
    }
}

struct Incoming<'a>(&'a MetadataMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// Writes the current span's trace into the metadata of a call; nothing where no trace is sampled or none is exported.
pub fn send(metadata: &mut MetadataMap) {
    TraceContextPropagator::new()
        .inject_context(&Span::current().context(), &mut Outgoing(metadata));
}

/// Makes `span` a part of the trace that a call came with. Only for calls of peers that mTLS has proved: whoever else could fill
/// the exporter.
pub fn receive(span: &Span, metadata: &MetadataMap) {
    let parent = TraceContextPropagator::new().extract(&Incoming(metadata));
    // A span that is filtered out has no parent to be set.
    let _ = span.set_parent(parent);
}
