// SPDX-License-Identifier: EUPL-1.2
//! The store of several replicas, in Redis 7.0 or later. Every operation is one Lua script, with the clock of the server; `keys.rs` says what
//! is kept under which key and how long.

use std::sync::Arc;
use std::time::Duration;

use control_core::ids::{Epoch, NodeId, RoomKey, TenantName, Uid};
use control_core::lease::{NodeLease, RoomLease};
use control_core::limits;
use control_core::quota::{
    QuotaRefusal, RESERVATIONS_MAX, ROOM_RESERVATIONS_MAX, ReservationId, SETTLED_KEPT_MAX, Usage,
};
use control_core::record::{Capacity, RecordKind, TenantLimits};
use control_core::throttle::Failures;
use prometheus_client::registry::Registry;
use redis::Value;
use tokio::task::JoinHandle;

use self::keys::{Family, Namespace};
use self::link::{Arg, Link};
use self::scripts::Script;
use super::{
    Answer, COUNT_LIFETIME, Choice, EventQueue, FailureScope, HOLD_MAX, HoldCommand, HoldOutcome,
    MARK, PlaceCommand, PlaceOutcome, Pushed, QueuedEvent, ROOMS_MAX, RecordOutcome, ReportOutcome,
    RequestId, RoomRecord, RoomReport, Store, StoreError, StoredRecord, check_choices, check_name,
    room_lifetime,
};

pub mod acl;
pub mod address;
mod codec;
mod keep;
pub mod keys;
pub mod link;
pub mod scripts;

/// Longest rules or facts of a room.
const ROOM_BYTES_MAX: usize = 8 * 1_024 * 1_024;
/// Rooms or nodes that one script takes: as long as it runs, Redis serves nobody else.
const STEP_MAX: usize = 64;
/// Nodes that are asked for at a time.
const USAGE_MAX: usize = 1_000;

/// What the store needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where Redis is.
    pub address: address::Address,
    /// PEM certificates of the authorities that sign its certificate; `None` = those of the system.
    pub ca: Option<Vec<u8>>,
    /// What the keys are named after.
    pub namespace: Namespace,
    /// A call that takes longer has failed.
    pub deadline: Duration,
}

/// See the module.
pub struct RedisStore {
    link: Arc<Link>,
    names: Namespace,
    watch: JoinHandle<()>,
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl RedisStore {
    /// Begins to connect, in the background: a Redis that is away does not keep a replica from starting. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`link::SetupError`] when what is asked for cannot be had from any server.
    pub fn start(options: Options) -> Result<Self, link::SetupError> {
        let Options {
            address,
            ca,
            namespace,
            deadline,
        } = options;
        let link = Arc::new(Link::new(&address, ca, &namespace, deadline)?);
        let watch = tokio::spawn(Arc::clone(&link).watch());
        Ok(Self {
            link,
            names: namespace,
            watch,
        })
    }

    /// Waits for the first answer, but not longer than this: a replica that starts beside a Redis that is well does not begin as if it
    /// were away.
    pub async fn wait(&self, longest: Duration) {
        let answers = async {
            while self.ping().await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // One that is away is found later.
        let _ = tokio::time::timeout(longest, answers).await;
    }

    /// Shows the store's counters.
    pub fn register(&self, registry: &mut Registry) {
        let counters = &self.link.counters;
        registry.register(
            "store_calls",
            "Calls to the store by script and outcome",
            counters.calls.clone(),
        );
        registry.register(
            "store_call_seconds",
            "How long calls to the store took",
            counters.seconds.clone(),
        );
        registry.register(
            "store_values_broken",
            "Values of the store that cannot be read, by family of keys",
            counters.broken.clone(),
        );
        registry.register(
            "store_connections",
            "Connections made to the store",
            counters.connections.clone(),
        );
    }

    async fn call(
        &self,
        script: &'static Script,
        keys: &[String],
        args: &[Arg<'_>],
    ) -> Result<Value, StoreError> {
        self.link.call(script, keys, args).await
    }

    /// An answer that has not the form it should have counts as broken.
    fn read<T>(&self, family: Family, value: Option<T>) -> Result<T, StoreError> {
        value.ok_or_else(|| self.link.counters.unread(family))
    }

    fn ledger_and(&self, more: impl IntoIterator<Item = String>) -> Vec<String> {
        self.names.ledger().into_iter().chain(more).collect()
    }
}

fn amount(of: &Usage) -> [Arg<'static>; 4] {
    [
        Arg::Number(of.rooms.into()),
        Arg::Number(of.participants.into()),
        Arg::Number(of.publishers.into()),
        Arg::Number(of.egress_kbps),
    ]
}

fn ceilings(of: &TenantLimits) -> [Arg<'static>; 4] {
    let arg = |value: Option<u64>| value.map_or(Arg::Text(""), Arg::Number);
    [
        arg(of.rooms.map(u64::from)),
        arg(of.participants.map(u64::from)),
        arg(of.publishers.map(u64::from)),
        arg(of.egress_mbps.map(|mbps| u64::from(mbps) * 1_000)),
    ]
}

fn capacity_args(of: &Capacity) -> [Arg<'static>; 3] {
    [
        Arg::Number(of.rooms.into()),
        Arg::Number(of.participants.into()),
        Arg::Number(u64::from(of.egress_mbps) * 1_000),
    ]
}

fn choice_args(choices: &[Choice]) -> impl Iterator<Item = Arg<'_>> {
    choices.iter().flat_map(|choice| {
        let names = [
            Arg::Text(choice.site.as_str()),
            Arg::Text(choice.node.as_str()),
        ];
        names.into_iter().chain(capacity_args(&choice.capacity))
    })
}

fn count(number: usize) -> Arg<'static> {
    Arg::Number(u64::try_from(number).unwrap_or(u64::MAX))
}

fn bounded(value: Vec<u8>, what: &'static str) -> Result<Vec<u8>, StoreError> {
    if value.len() > ROOM_BYTES_MAX {
        return Err(StoreError::Full { what });
    }
    Ok(value)
}

/// What a script refuses for want of space.
fn full(what: Option<&str>) -> Option<StoreError> {
    let known = ["rooms", "records", "bytes of records"];
    let what = known.into_iter().find(|known| Some(*known) == what)?;
    Some(StoreError::Full { what })
}

impl RedisStore {
    async fn placing(&self, mut command: PlaceCommand) -> Result<PlaceOutcome, StoreError> {
        check_choices(&command.choices)?;
        let name = command.key.to_string();
        let life = room_lifetime(&command.policy);
        let policy = bounded(codec::policy_out(&command.policy), "bytes of rules")?;
        let facts = bounded(codec::facts_out(&command.facts), "bytes of facts")?;
        let marks = command.choices.iter().map(|c| self.names.closed(&c.node));
        let keys = self.ledger_and([self.names.room(&command.key)].into_iter().chain(marks));
        let highest = command
            .reported
            .max(command.replaces)
            .map_or(command.floor, |epoch| epoch.max(command.floor));
        let replaces = command.replaces;
        let mut args = vec![
            Arg::Text(&name),
            Arg::Request(command.request.0),
            Arg::Text(command.strategy.as_str()),
        ];
        args.extend(amount(&command.amount));
        args.extend(ceilings(&command.limits));
        args.extend([
            replaces.map_or(Arg::Text(""), |epoch| Arg::Epoch(epoch.0)),
            Arg::Epoch(highest.0),
            Arg::Number(millis(life)),
            Arg::Text(command.pool.as_ref().map_or("-", |pool| pool.as_str())),
            Arg::Bytes(&policy),
            Arg::Bytes(&facts),
            Arg::Number(millis(limits::RESERVATION)),
            count(ROOM_RESERVATIONS_MAX),
            count(RESERVATIONS_MAX),
            count(ROOMS_MAX),
            count(command.choices.len()),
        ]);
        args.extend(choice_args(&command.choices));
        let answer = self.call(&scripts::PLACE, &keys, &args).await?;
        drop(args);
        let answer = self.read(Family::Room, codec::list(answer))?;
        let id = command.request.reservation();
        let outcome = match answer.as_slice() {
            [tag, record] if codec::text(tag) == Some("Again") => {
                codec::record(record).map(|record| PlaceOutcome::Placed(record, id))
            }
            [tag, record] if codec::text(tag) == Some("Held") => {
                codec::record(record).map(PlaceOutcome::Held)
            }
            [tag, refusal] if codec::text(tag) == Some("Refused") => {
                codec::refusal(refusal).map(PlaceOutcome::Refused)
            }
            [tag, what] if codec::text(tag) == Some("Full") => {
                return Err(self.read(Family::Room, full(codec::text(what)))?);
            }
            [tag] if codec::text(tag) == Some("NotAccepting") => Some(PlaceOutcome::NotAccepting),
            [tag] if codec::text(tag) == Some("EpochsExhausted") => {
                Some(PlaceOutcome::EpochsExhausted)
            }
            [_, epoch, chosen, known] => {
                let chosen: Option<usize> = codec::number(chosen);
                let index = chosen.and_then(|index| index.checked_sub(1));
                let index = index.filter(|index| *index < command.choices.len());
                let facts = match codec::bytes(known) {
                    Some(bytes) => codec::facts(bytes),
                    None => Some(command.facts),
                };
                match (index, codec::number(epoch), facts) {
                    (Some(index), Some(epoch), Some(facts)) => {
                        let choice = command.choices.swap_remove(index);
                        let record = RoomRecord {
                            lease: RoomLease {
                                site: choice.site,
                                node: choice.node,
                                epoch: Epoch(epoch),
                            },
                            policy: command.policy,
                            pool: command.pool,
                            facts,
                            age: Duration::ZERO,
                        };
                        Some(PlaceOutcome::Placed(record, id))
                    }
                    _ => None,
                }
            }
            _ => None,
        };
        self.read(Family::Room, outcome)
    }

    async fn reserving(
        &self,
        request: RequestId,
        key: RoomKey,
        node: NodeId,
        more: Usage,
        of: TenantLimits,
        capacity: Capacity,
    ) -> Result<Result<ReservationId, QuotaRefusal>, StoreError> {
        let name = key.to_string();
        let mut args = vec![
            Arg::Text(&name),
            Arg::Request(request.0),
            Arg::Text(node.as_str()),
        ];
        args.extend(amount(&more));
        args.extend(ceilings(&of));
        args.extend(capacity_args(&capacity));
        args.extend([
            Arg::Number(millis(limits::RESERVATION)),
            count(ROOM_RESERVATIONS_MAX),
            count(RESERVATIONS_MAX),
        ]);
        let keys = self.names.ledger();
        let answer = self.call(&scripts::RESERVE, &keys, &args).await?;
        let answer = self.read(Family::Seats, codec::list(answer))?;
        let outcome = match answer.as_slice() {
            [tag] if codec::text(tag) == Some("Reserved") => Some(Ok(request.reservation())),
            [_, refusal] => codec::refusal(refusal).map(Err),
            _ => None,
        };
        self.read(Family::Seats, outcome)
    }

    async fn holding(&self, mut command: HoldCommand) -> Result<HoldOutcome, StoreError> {
        check_choices(&command.choices)?;
        let name = command.key.to_string();
        let marks = command.choices.iter().map(|c| self.names.closed(&c.node));
        let keys = self.ledger_and([self.names.room(&command.key)].into_iter().chain(marks));
        let mut args = vec![Arg::Text(&name), Arg::Text(command.strategy.as_str())];
        args.extend(amount(&command.amount));
        args.extend(ceilings(&command.limits));
        args.push(Arg::Number(millis(command.lifetime.min(HOLD_MAX))));
        args.push(count(command.choices.len()));
        args.extend(choice_args(&command.choices));
        let answer = self.call(&scripts::HOLD, &keys, &args).await?;
        drop(args);
        let answer = self.read(Family::Seats, codec::list(answer))?;
        let outcome = match answer.as_slice() {
            [tag, chosen] if codec::text(tag) == Some("Held") => {
                let chosen: Option<usize> = codec::number(chosen);
                let index = chosen.and_then(|index| index.checked_sub(1));
                index
                    .filter(|index| *index < command.choices.len())
                    .map(|index| HoldOutcome::Held(command.choices.swap_remove(index).node))
            }
            [tag, refusal] if codec::text(tag) == Some("Refused") => {
                codec::refusal(refusal).map(HoldOutcome::Refused)
            }
            [_] => Some(HoldOutcome::NotAccepting),
            _ => None,
        };
        self.read(Family::Seats, outcome)
    }

    async fn reporting(
        &self,
        reports: &[RoomReport],
    ) -> Result<Vec<Result<ReportOutcome, StoreError>>, StoreError> {
        struct Encoded {
            name: String,
            facts: Vec<u8>,
            policy: Vec<u8>,
            life: u64,
            egress: u64,
        }
        let encoded: Result<Vec<Encoded>, StoreError> = reports
            .iter()
            .map(|report| {
                let policy = report.policy.as_ref();
                Ok(Encoded {
                    name: report.key.to_string(),
                    facts: bounded(codec::facts_out(&report.facts), "bytes of facts")?,
                    policy: bounded(
                        policy.map_or_else(Vec::new, codec::policy_out),
                        "bytes of rules",
                    )?,
                    life: policy.map_or(0, |policy| millis(room_lifetime(policy))),
                    egress: Usage::of_join(true, report.participants).egress_kbps,
                })
            })
            .collect();
        let encoded = encoded?;
        let keys = self.ledger_and(reports.iter().map(|report| self.names.room(&report.key)));
        let mut args = vec![
            count(SETTLED_KEPT_MAX),
            Arg::Number(millis(COUNT_LIFETIME)),
            count(ROOMS_MAX),
        ];
        for (report, bytes) in reports.iter().zip(&encoded) {
            args.extend([
                Arg::Text(&bytes.name),
                Arg::Epoch(report.lease.epoch.0),
                Arg::Text(report.lease.site.as_str()),
                Arg::Text(report.lease.node.as_str()),
                Arg::Number(report.participants.into()),
                Arg::Number(report.publishers.into()),
                Arg::Number(bytes.egress),
                Arg::Bytes(&bytes.facts),
                Arg::Bytes(&bytes.policy),
                Arg::Number(bytes.life),
            ]);
        }
        let answer = self.call(&scripts::REPORT_ROOMS, &keys, &args).await?;
        let answers = self.read(Family::Room, codec::list(answer))?;
        if answers.len() != reports.len() {
            return Err(self.link.counters.unread(Family::Room));
        }
        answers
            .iter()
            .map(|answer| self.read_report(answer))
            .map(Ok)
            .collect()
    }

    fn read_report(&self, answer: &Value) -> Result<ReportOutcome, StoreError> {
        let answer = self.read(Family::Room, codec::text(answer))?;
        let (tag, rest) = answer.split_at_checked(1).unwrap_or_default();
        match tag {
            "T" => Ok(ReportOutcome::Taken),
            "F" => {
                let epoch = rest
                    .parse()
                    .ok()
                    .map(|epoch| ReportOutcome::Fenced(Epoch(epoch)));
                self.read(Family::Room, epoch)
            }
            "L" => Err(self.read(Family::Room, full(Some(rest)))?),
            _ => {
                let family = Family::parse(rest).unwrap_or(Family::Room);
                Err(self.link.counters.unread(family))
            }
        }
    }
}

impl Store for RedisStore {
    fn place(&self, command: PlaceCommand) -> Answer<'_, PlaceOutcome> {
        Box::pin(self.placing(command))
    }

    fn undo_place(&self, key: RoomKey, epoch: Epoch, former: Option<RoomLease>) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut args = vec![Arg::Epoch(epoch.0)];
            match &former {
                Some(former) => args.extend([
                    Arg::Epoch(former.epoch.0),
                    Arg::Text(former.site.as_str()),
                    Arg::Text(former.node.as_str()),
                ]),
                None => args.push(Arg::Text("")),
            }
            let keys = [self.names.room(&key)];
            self.call(&scripts::UNDO_PLACE, &keys, &args).await?;
            Ok(())
        })
    }

    fn reserve(
        &self,
        request: RequestId,
        key: RoomKey,
        node: NodeId,
        amount: Usage,
        limits: TenantLimits,
        capacity: Capacity,
    ) -> Answer<'_, Result<ReservationId, QuotaRefusal>> {
        Box::pin(self.reserving(request, key, node, amount, limits, capacity))
    }

    fn release(&self, key: RoomKey, id: ReservationId) -> Answer<'_, ()> {
        Box::pin(async move {
            let name = key.to_string();
            let args = [Arg::Text(&name), Arg::Request(id.0)];
            self.call(&scripts::RELEASE, &self.names.ledger(), &args)
                .await?;
            Ok(())
        })
    }

    fn hold(&self, command: HoldCommand) -> Answer<'_, HoldOutcome> {
        Box::pin(self.holding(command))
    }

    fn drop_hold(&self, key: RoomKey) -> Answer<'_, ()> {
        Box::pin(async move {
            let name = key.to_string();
            let args = [Arg::Text(&name)];
            self.call(&scripts::DROP_HOLD, &self.names.ledger(), &args)
                .await?;
            Ok(())
        })
    }

    fn room(&self, key: RoomKey) -> Answer<'_, Option<RoomRecord>> {
        Box::pin(async move {
            let keys = [self.names.room(&key)];
            match self.call(&scripts::ROOM, &keys, &[]).await? {
                Value::Nil => Ok(None),
                answer => self.read(Family::Room, codec::record(&answer).map(Some)),
            }
        })
    }

    fn report_rooms(
        &self,
        reports: Vec<RoomReport>,
    ) -> Answer<'_, Vec<Result<ReportOutcome, StoreError>>> {
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(reports.len());
            for batch in reports.chunks(STEP_MAX) {
                outcomes.extend(self.reporting(batch).await?);
            }
            Ok(outcomes)
        })
    }

    fn close_room(&self, key: RoomKey, lease: RoomLease, keep_facts: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            let name = key.to_string();
            let args = [
                Arg::Text(&name),
                Arg::Epoch(lease.epoch.0),
                Arg::Text(lease.site.as_str()),
                Arg::Text(lease.node.as_str()),
                Arg::Number(keep_facts.into()),
            ];
            let keys = self.ledger_and([self.names.room(&key)]);
            self.call(&scripts::CLOSE_ROOM, &keys, &args).await?;
            Ok(())
        })
    }

    fn usage(&self, nodes: Vec<NodeId>) -> Answer<'_, Vec<Usage>> {
        Box::pin(async move {
            let mut sums = Vec::with_capacity(nodes.len());
            // Asked for none, the store still has to answer.
            let batches = nodes
                .chunks(USAGE_MAX)
                .chain(nodes.is_empty().then_some(&[][..]));
            for batch in batches {
                let fields: Vec<String> = batch.iter().map(|node| format!("n:{node}")).collect();
                sums.extend(self.sums(&fields).await?);
            }
            Ok(sums)
        })
    }

    fn tenant_usage(&self, tenant: TenantName) -> Answer<'_, Usage> {
        Box::pin(async move {
            let sums = self.sums(&[format!("t:{tenant}")]).await?;
            self.read(Family::Use, sums.first().copied())
        })
    }

    fn refresh_nodes(&self, leases: Vec<NodeLease>) -> Answer<'_, ()> {
        Box::pin(async move {
            for batch in leases.chunks(STEP_MAX) {
                let keys: Vec<String> = batch
                    .iter()
                    .flat_map(|lease| {
                        [self.names.node(&lease.node), self.names.closed(&lease.node)]
                    })
                    .collect();
                let mut args = vec![
                    Arg::Number(millis(limits::LEASE)),
                    Arg::Number(millis(MARK)),
                ];
                for lease in batch {
                    args.extend([
                        Arg::Epoch(lease.epoch.0),
                        Arg::Text(lease.site.as_str()),
                        Arg::Number(lease.accepting.into()),
                    ]);
                }
                self.call(&scripts::REFRESH_NODES, &keys, &args).await?;
            }
            Ok(())
        })
    }

    fn mark_accepting(&self, node: NodeId, accepting: bool) -> Answer<'_, bool> {
        Box::pin(async move {
            let keys = [self.names.closed(&node)];
            let args = [Arg::Number(accepting.into()), Arg::Number(millis(MARK))];
            let answer = self.call(&scripts::MARK_ACCEPTING, &keys, &args).await?;
            let accepts: Option<u8> = codec::number(&answer);
            self.read(Family::Closed, accepts.map(|accepts| accepts == 1))
        })
    }

    fn node(&self, node: NodeId) -> Answer<'_, Option<NodeLease>> {
        Box::pin(async move {
            let keys = [self.names.node(&node)];
            let answer = self.call(&scripts::NODE, &keys, &[]).await?;
            if answer == Value::Nil {
                return Ok(None);
            }
            let answer = self.read(Family::Node, codec::list(answer))?;
            let lease = match answer.as_slice() {
                [epoch, site, accepting] => {
                    let id = Value::BulkString(node.as_str().into());
                    codec::lease(epoch, site, &id).map(|lease| NodeLease {
                        site: lease.site,
                        node: lease.node,
                        epoch: lease.epoch,
                        accepting: codec::text(accepting) == Some("1"),
                    })
                }
                _ => None,
            };
            self.read(Family::Node, lease.map(Some))
        })
    }

    fn count_failure(&self, scope: FailureScope) -> Answer<'_, ()> {
        Box::pin(async move { self.counted(&scope, true).await.map(|_| ()) })
    }

    fn failures(&self, scope: FailureScope) -> Answer<'_, Failures> {
        Box::pin(async move { self.counted(&scope, false).await })
    }

    fn put_record(&self, record: StoredRecord) -> Answer<'_, RecordOutcome> {
        Box::pin(self.put(record))
    }

    fn drop_record(&self, kind: RecordKind, uid: Uid, epoch: u64) -> Answer<'_, RecordOutcome> {
        Box::pin(self.forget(kind, uid, epoch))
    }

    fn record(&self, kind: RecordKind, uid: Uid) -> Answer<'_, Option<StoredRecord>> {
        Box::pin(self.one_record(kind, uid))
    }

    fn records(&self) -> Answer<'_, Vec<StoredRecord>> {
        Box::pin(self.all_records())
    }

    fn claim(&self, role: String, holder: String, lifetime: Duration) -> Answer<'_, bool> {
        Box::pin(async move {
            check_name(&role)?;
            check_name(&holder)?;
            let args = [Arg::Text(&holder), Arg::Number(millis(lifetime))];
            let keys = [self.names.claim(&role)];
            let answer = self.call(&scripts::CLAIM, &keys, &args).await?;
            let held: Option<u8> = codec::number(&answer);
            self.read(Family::Claim, held.map(|held| held == 1))
        })
    }

    fn push_event(&self, queue: EventQueue, event: QueuedEvent) -> Answer<'_, Pushed> {
        Box::pin(self.push(queue, event))
    }

    fn events(&self, queue: EventQueue, max: usize) -> Answer<'_, Vec<QueuedEvent>> {
        Box::pin(self.first_events(queue, max))
    }

    fn event_done(&self, queue: EventQueue, id: String) -> Answer<'_, ()> {
        Box::pin(self.done(queue, id))
    }

    fn ping(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let [seats, ..] = self.names.ledger();
            self.call(&scripts::PING, &[seats], &[]).await.map(|_| ())
        })
    }
}

impl RedisStore {
    async fn sums(&self, fields: &[String]) -> Result<Vec<Usage>, StoreError> {
        let args: Vec<Arg<'_>> = fields.iter().map(|field| Arg::Text(field)).collect();
        let answer = self
            .call(&scripts::USAGE, &self.names.ledger(), &args)
            .await?;
        let sums = codec::list(answer).filter(|sums| sums.len() == fields.len());
        let sums = self.read(Family::Use, sums)?;
        let read: Option<Vec<Usage>> = sums.iter().map(codec::usage).collect();
        self.read(Family::Use, read)
    }

    async fn counted(&self, scope: &FailureScope, more: bool) -> Result<Failures, StoreError> {
        let keys = [self.names.failures(scope)];
        let args = [
            Arg::Number(more.into()),
            Arg::Number(millis(limits::FAILURES_EXPIRY)),
        ];
        let answer = self.call(&scripts::FAILURES, &keys, &args).await?;
        let answer = self.read(Family::Failures, codec::list(answer))?;
        let failures = match answer.as_slice() {
            [count, since] => codec::number(count)
                .zip(codec::millis(since))
                .map(|(count, since_last)| Failures { count, since_last }),
            _ => None,
        };
        self.read(Family::Failures, failures)
    }
}
