// SPDX-License-Identifier: EUPL-1.2
//! Opening a room on the node that has its lease.

use std::time::Duration;

use control_core::ids::{Epoch, RoomKey};
use plenum_proto::v1::OpenRequest;
use tokio::time::{Instant, timeout_at};

use crate::convert;
use crate::hosts::{Host, HostError};
use crate::plane::{PlaceError, Placed, Plane};
use crate::store::RoomRecord;

/// The first report of a room that was opened comes within this time, or the room is handed out without it.
const FIRST_REPORT: Duration = Duration::from_secs(2);

impl Plane {
    /// Opens a room under its lease and waits for its first report.
    pub(super) async fn open(
        &self,
        key: &RoomKey,
        record: &RoomRecord,
        host: Host,
    ) -> Result<Placed, PlaceError> {
        let request = OpenRequest {
            key: Some(convert::room_key_out(key)),
            epoch: record.lease.epoch.0,
            policy: Some(convert::policy_out(&record.policy)),
            facts: Some(convert::facts_out(&record.facts)),
        };
        let opened = host.open(request).await?;
        if opened.epoch != record.lease.epoch.0 {
            return Err(HostError::WrongRoom {
                node: record.lease.node.clone(),
                message: format!("it lives there under epoch {}", opened.epoch),
            }
            .into());
        }
        self.wait_for_report(key, record.lease.epoch).await;
        Ok(Placed {
            key: key.clone(),
            site: record.lease.site.clone(),
            node_id: record.lease.node.clone(),
            epoch: record.lease.epoch,
            host,
        })
    }

    async fn wait_for_report(&self, key: &RoomKey, epoch: Epoch) {
        let deadline = Instant::now() + FIRST_REPORT;
        let mut news = self.room_news(key);
        loop {
            if self
                .live()
                .room(key)
                .is_some_and(|(_, _, entry)| entry.epoch >= epoch)
            {
                return;
            }
            if !matches!(timeout_at(deadline, news.changed()).await, Ok(true)) {
                return;
            }
        }
    }
}
