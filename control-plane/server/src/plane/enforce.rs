// SPDX-License-Identifier: EUPL-1.2
//! What the directory says of rooms that run: conferences that are gone, suspended or past their time end in good order; rules that
//! changed are handed to the room, which applies those that hold for a running one.

use std::collections::BTreeMap;
use std::time::Duration;

use control_core::directory::{DirectoryView, Origin};
use control_core::ids::{Epoch, RoomKey};
use control_core::opening::opening;
use control_core::record::RoomPolicy;
use plenum_proto::v1::AdminRequest;
use plenum_proto::v1::admin_request::Call;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Plane;
use crate::convert;
use crate::live::Entry;

/// Windows of schedules are looked at this often.
const LOOK: Duration = Duration::from_secs(5);
/// Changes that come together are looked at together.
const SETTLE: Duration = Duration::from_millis(50);

/// Rules that rooms were told, by lease and revision: a running room may keep some of its old ones, and is not told again and again.
type Told = BTreeMap<RoomKey, (Epoch, String)>;

/// What has to happen to a room that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Due {
    /// It ends for everybody.
    End,
    /// It is told its rules.
    Tell(Box<RoomPolicy>),
    /// Whether it was declared has to be asked: its conference is gone, or it never had one.
    EndIfDeclared,
}

impl Plane {
    /// Holds rooms to the directory until the token falls.
    pub async fn enforce_directory(self, stop: CancellationToken) {
        let mut told = Told::new();
        // Whether a room was declared is asked after changes only, and again while the store does not say.
        let mut ask = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.directory_changed.notified() => {
                    ask = true;
                    sleep(SETTLE).await;
                }
                () = sleep(LOOK) => {}
            }
            if self.is_loaded() {
                ask = self.enforce(&mut told, ask).await;
            }
        }
    }

    /// Looks at every room once. Whether it has to be asked again which ones are declared.
    async fn enforce(&self, told: &mut Told, ask: bool) -> bool {
        let mut ask_again = false;
        let (view, origin, _) = self.published();
        // What the store kept may lack a record; no room ends for that.
        let whole = origin == Origin::Publication;
        let now = self.0.clock.unix();
        let due: Vec<(RoomKey, Epoch, Due)> = {
            let live = self.live();
            live.rooms()
                .filter_map(|(key, _, entry)| {
                    Some((
                        key.clone(),
                        entry.epoch,
                        due(&view, whole, key, entry, now)?,
                    ))
                })
                .collect()
        };
        told.retain(|key, _| due.iter().any(|(other, ..)| other == key));
        for (key, epoch, due) in due {
            let call = match due {
                Due::End => Call::End(true),
                Due::Tell(policy) => {
                    let now = (epoch, policy.revision.clone());
                    if told.get(&key) == Some(&now) {
                        continue;
                    }
                    told.insert(key.clone(), now);
                    Call::Policy(convert::policy_out(&policy))
                }
                Due::EndIfDeclared if !ask => continue,
                Due::EndIfDeclared => match self.0.store.room(key.clone()).await {
                    Ok(Some(record)) if record.policy.declared => Call::End(true),
                    Ok(_) => continue,
                    Err(error) => {
                        self.store_failed(error);
                        ask_again = true;
                        continue;
                    }
                },
            };
            let ends = matches!(call, Call::End(_));
            let Some(placed) = self.host_of(&key).await else {
                continue;
            };
            let request = AdminRequest {
                key: Some(convert::room_key_out(&key)),
                epoch: epoch.0,
                actor_identity: String::new(),
                call: Some(call),
            };
            match placed.host.admin(request).await {
                Ok(answer) if answer.refused.is_empty() => {
                    if ends {
                        tracing::info!(event = "RoomForbidden", tenant = %key.tenant, "a room ends: its conference is gone, suspended or over");
                    }
                }
                Ok(answer) => {
                    tracing::debug!(tenant = %key.tenant, reason = answer.refused, "a room refused what the directory says")
                }
                Err(error) => {
                    tracing::debug!(tenant = %key.tenant, %error, "a room could not be told what the directory says");
                    told.remove(&key);
                    ask_again = true;
                }
            }
        }
        ask_again
    }
}

fn due(
    view: &DirectoryView,
    whole: bool,
    key: &RoomKey,
    entry: &Entry,
    now: control_core::time::UnixMillis,
) -> Option<Due> {
    let Some(tenant) = view.tenant(&key.tenant) else {
        return whole.then_some(Due::End);
    };
    if tenant.suspended && tenant.suspend_terminate {
        return Some(Due::End);
    }
    let Some(conference) = view.conference_of_room(key) else {
        return whole.then_some(Due::EndIfDeclared);
    };
    if conference.suspended || (!tenant.suspended && !opening(tenant, conference, now).is_allowed())
    {
        return Some(Due::End);
    }
    (conference.policy.revision != entry.policy_revision)
        .then(|| Due::Tell(Box::new(conference.policy.clone())))
}
