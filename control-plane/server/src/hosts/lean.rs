// SPDX-License-Identifier: EUPL-1.2
//! The call `RoomHost.Session` with what one of tens of thousands may cost: buffers that begin small, and a queue of what a session says
//! after its start, which is large and said once.

use futures::StreamExt;
use plenum_proto::v1::session_up::Item;
use plenum_proto::v1::{Frame, SessionDown, SessionEnd, SessionStart, SessionUp};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{BufferSettings, Codec};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{GrpcMethod, Response, Status, Streaming};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

/// What buffers begin with: most messages of a session are shorter, longer ones let them grow. The library's 8 KiB in each direction were
/// a third of what a session cost (`make bench-control`).
const BUFFER_BYTES: usize = 512;
/// Messages that are ready are written together up to this length, as the library has it.
const WRITE_BYTES: usize = 32 * 1024;

/// What a session says after its start.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionSays {
    /// A frame of its client.
    Frame(Frame),
    /// The client left.
    End {
        /// With a close frame of its own.
        clean: bool,
    },
}

/// The codec of sessions.
#[derive(Clone, Copy, Debug)]
struct Lean;

impl Codec for Lean {
    type Encode = SessionUp;
    type Decode = SessionDown;
    type Encoder = ProstEncoder<SessionUp>;
    type Decoder = ProstDecoder<SessionDown>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<SessionUp, SessionDown>::raw_encoder(settings())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<SessionUp, SessionDown>::raw_decoder(settings())
    }
}

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, WRITE_BYTES)
}

/// Calls it.
pub(super) async fn session(
    channel: &mut Grpc<Channel>,
    start: SessionStart,
    says: mpsc::Receiver<SessionSays>,
) -> Result<Response<Streaming<SessionDown>>, Status> {
    channel.ready().await.map_err(|error| {
        Status::unavailable(format!("the channel to the node is not ready: {error}"))
    })?;
    // Boxed: the start is ten times as long as all that follows it, and would keep its place in the stream.
    let start = Box::new(start);
    let begin = futures::stream::once(async move { Item::Start(*start) });
    let follow = ReceiverStream::new(says).map(|said| match said {
        SessionSays::Frame(frame) => Item::Frame(frame),
        SessionSays::End { clean } => Item::End(SessionEnd { clean }),
    });
    let up = begin
        .chain(follow)
        .map(|item| SessionUp { item: Some(item) });
    let mut request = super::traced(up);
    request
        .extensions_mut()
        .insert(GrpcMethod::new("plenum.v1.RoomHost", "Session"));
    let path = PathAndQuery::from_static("/plenum.v1.RoomHost/Session");
    channel.streaming(request, path, Lean).await
}
