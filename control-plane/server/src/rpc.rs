// SPDX-License-Identifier: EUPL-1.2
//! The gRPC services of this replica: `Directory` for the operator, `NodeControl` for media nodes, both over mTLS.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plenum_proto::v1::directory_server::DirectoryServer;
use plenum_proto::v1::node_control_server::NodeControlServer;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::identity::Tls;
use crate::peers::Replicas;
use crate::plane::Plane;

mod directory;
mod node;

/// Largest message of a publisher or node: a room with all its facts.
const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Streams end by themselves within this time when the server stops.
const STOP: Duration = Duration::from_secs(3);

/// What the services share.
#[derive(Clone)]
struct Shared {
    plane: Plane,
    /// How nodes reach the replicas, this one among them.
    replicas: Replicas,
    tasks: Arc<Mutex<JoinSet<()>>>,
    stop: CancellationToken,
}

impl Shared {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = tasks.try_join_next() {
            report_panic(ended);
        }
        tasks.spawn(task);
    }
}

fn report_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(event = "StreamFailed", %error, "a stream ended by a bug");
    }
}

/// Serves both services until the token falls, then ends all streams in good order.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    plane: Plane,
    listener: TcpListener,
    tls: &Tls,
    replicas: impl Into<Replicas>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let shared = Shared {
        plane,
        replicas: replicas.into(),
        tasks: Arc::default(),
        stop: stop.clone(),
    };
    let directory = DirectoryServer::new(directory::DirectoryService::new(shared.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let node = NodeControlServer::new(node::NodeControlService::new(shared.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let served = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_service(directory)
        .add_service(node)
        .serve_with_incoming_shutdown(
            tls.accept(TcpIncoming::from(listener).with_nodelay(Some(true))),
            stop.clone().cancelled_owned(),
        );
    let overdue = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP).await;
    };
    let result = tokio::select! {
        result = served => result,
        // A peer that does not close its connection does not hold the process.
        () = overdue => Ok(()),
    };
    let mut tasks =
        std::mem::take(&mut *shared.tasks.lock().unwrap_or_else(PoisonError::into_inner));
    // Tasks end with the token; what hangs longer is dropped.
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            report_panic(ended);
        }
    };
    if tokio::time::timeout(STOP, all).await.is_err() {
        tracing::warn!(event = "StreamsLate", "streams did not end in time");
    }
    result
}

/// Handshakes from here on use what lies in `--tls-dir`, until the token falls.
pub async fn follow_certificates(tls: &Tls, stop: CancellationToken) {
    let mut files = tls.watch();
    loop {
        let looked = tokio::select! {
            () = stop.cancelled() => return,
            looked = files.next() => looked,
        };
        match looked {
            Ok(()) => tracing::info!(
                event = "GrpcCertificateReplaced",
                "the certificate towards nodes and operator was replaced"
            ),
            Err(error) => tracing::warn!(
                event = "GrpcCertificateUnusable",
                error = &error as &dyn std::error::Error,
                "the certificate on disk cannot be used, the former one stays"
            ),
        }
    }
}
