// SPDX-License-Identifier: EUPL-1.2
use proptest::prelude::*;

use super::*;
use crate::ids::{Pool, RoomName, Secret};
use crate::record::ApiKey;
use crate::testing::{conference, node, room_id, tenant};

fn loaded(records: Vec<Record>) -> (Directory, StreamId) {
    let mut directory = Directory::default();
    let stream = directory.begin(Epoch(1), Moment::ZERO).expect("first");
    for record in records {
        directory.put(record).expect("taken");
    }
    assert!(!directory.is_loaded());
    directory.end_snapshot();
    assert!(directory.is_loaded());
    (directory, stream)
}

fn boxed(conference: Conference) -> Record {
    Record::Conference(Box::new(conference))
}

fn with_key(name: &str, key: &str) -> Tenant {
    let mut tenant = tenant(name);
    tenant.api_keys = vec![ApiKey {
        key: key.into(),
        secret: Secret::new(&[0; 32]),
    }];
    tenant
}

#[test]
fn a_snapshot_is_seen_whole_or_not_at_all() {
    let mut directory = Directory::default();
    directory.begin(Epoch(1), Moment::ZERO).expect("first");
    directory
        .put(Record::Tenant(Box::new(with_key("t", "key"))))
        .expect("taken");
    directory.put(boxed(conference("t", "c"))).expect("taken");
    assert!(directory.view().tenant_of_key("key").is_none());
    directory.end_snapshot();
    let view = directory.view();
    assert_eq!(
        view.tenant_of_key("key").expect("by key").name.as_str(),
        "t"
    );
    assert_eq!(view.conference(&room_id("c")).expect("by id").name, "c");
    let key = RoomKey::parse("t", "c").expect("key");
    assert_eq!(view.conference_of_room(&key).expect("by room").name, "c");
}

#[test]
fn a_snapshot_retracts_what_it_omits_and_keeps_what_it_refuses() {
    let (mut directory, _) = loaded(vec![
        Record::Tenant(Box::new(with_key("a", "ka"))),
        Record::Tenant(Box::new(with_key("b", "kb"))),
        Record::Tenant(Box::new(with_key("c", "kc"))),
    ]);
    directory.begin(Epoch(1), Moment::ZERO).expect("again");
    directory
        .put(Record::Tenant(Box::new(with_key("a", "ka"))))
        .expect("taken");
    // `b` cannot be read, `c` is not there any more.
    directory.refuse(RecordKind::Tenant, &tenant("b").uid);
    directory.end_snapshot();
    let view = directory.view();
    assert!(view.tenant_of_key("ka").is_some());
    assert!(
        view.tenant_of_key("kb").is_some(),
        "the last good record of what was refused stays"
    );
    assert!(view.tenant_of_key("kc").is_none());
}

#[test]
fn what_the_store_kept_holds_until_a_publisher_has_said_everything() {
    let mut directory = Directory::default();
    let kept = |name, key| Record::Tenant(Box::new(with_key(name, key)));
    let mut closed = node("n1");
    closed.epoch = Epoch(9);
    assert!(directory.load_stored(vec![
        kept("a", "ka"),
        // Two that exclude each other: the first stays.
        kept("b", "ka"),
        Record::Node(closed),
    ]));
    assert_eq!(directory.origin(), Origin::Store);
    assert!(directory.is_loaded());
    assert_eq!(directory.view().tenants().len(), 1);
    let stream = directory.begin(Epoch(1), Moment::ZERO).expect("first");
    // Half a snapshot changes nothing, and the epoch that the store knows does not outrank a publisher's.
    directory.put(kept("c", "kc")).expect("taken");
    directory
        .put(Record::Node(node("n1")))
        .expect("an older life of the node, by the publisher's word");
    assert!(directory.view().tenant_of_key("ka").is_some());
    assert_eq!(directory.published(), None);
    directory.end_snapshot();
    assert_eq!(directory.origin(), Origin::Publication);
    assert_eq!(directory.published(), Some(Epoch(1)));
    assert!(directory.view().tenant_of_key("ka").is_none());
    assert!(!directory.load_stored(vec![kept("a", "ka")]));
    assert!(directory.view().tenant_of_key("kc").is_some());
    directory.end(stream);
    assert_eq!(directory.published(), None);
    // Its word still fences an older one, and still holds until others are followed.
    assert!(directory.view().tenant_of_key("kc").is_some());
    assert!(directory.load_stored(vec![kept("d", "kd")]));
    assert_eq!(directory.origin(), Origin::Store);
    assert!(directory.view().tenant_of_key("kd").is_some());
}

#[test]
fn the_end_of_a_stream_that_was_superseded_ends_no_other() {
    let (mut directory, first) = loaded(vec![]);
    directory.begin(Epoch(2), Moment::ZERO).expect("newer");
    directory.end_snapshot();
    directory.end(first);
    assert_eq!(directory.published(), Some(Epoch(2)));
}

#[test]
fn names_keys_and_ids_have_one_holder() {
    let (mut directory, _) = loaded(vec![
        Record::Tenant(Box::new(with_key("a", "ka"))),
        boxed(conference("a", "c")),
        Record::Node(node("n1")),
    ]);
    let mut refuse = |record, reason| {
        let refusal = directory.put(record).expect_err("refused");
        assert_eq!(refusal.reason(), reason, "{refusal}");
    };
    let mut twin = tenant("a");
    twin.uid = Uid::parse("other").expect("uid");
    refuse(Record::Tenant(Box::new(twin)), "TenantNameTaken");
    refuse(Record::Tenant(Box::new(with_key("b", "ka"))), "ApiKeyTaken");
    let mut twin = conference("a", "c");
    twin.uid = Uid::parse("other").expect("uid");
    refuse(boxed(twin.clone()), "RoomNameTaken");
    twin.room_name = RoomName::parse("d").expect("name");
    refuse(boxed(twin), "RoomIdTaken");
    let mut twin = node("n1");
    twin.uid = Uid::parse("other").expect("uid");
    refuse(Record::Node(twin), "NodeIdTaken");
}

#[test]
fn a_renamed_record_frees_its_old_names() {
    let (mut directory, _) = loaded(vec![
        Record::Tenant(Box::new(with_key("a", "ka"))),
        boxed(conference("a", "c")),
    ]);
    let mut renamed = with_key("a", "new");
    renamed.revision = "2".into();
    assert!(
        directory
            .put(Record::Tenant(Box::new(renamed)))
            .expect("taken")
    );
    let mut moved = conference("a", "c");
    moved.revision = "2".into();
    moved.room_id = room_id("elsewhere");
    assert!(directory.put(boxed(moved)).expect("taken"));
    let view = directory.view();
    assert!(view.tenant_of_key("ka").is_none());
    assert!(view.conference(&room_id("c")).is_none());
    assert!(view.conference(&room_id("elsewhere")).is_some());
}

#[test]
fn an_unchanged_revision_changes_nothing() {
    let (mut directory, _) = loaded(vec![Record::Tenant(Box::new(with_key("a", "ka")))]);
    let before = directory.view();
    assert!(
        !directory
            .put(Record::Tenant(Box::new(with_key("a", "ka"))))
            .expect("taken")
    );
    assert!(Arc::ptr_eq(&before, &directory.view()));
}

#[test]
fn a_view_that_was_handed_out_does_not_change() {
    let (mut directory, _) = loaded(vec![Record::Tenant(Box::new(with_key("a", "ka")))]);
    let before = directory.view();
    assert!(directory.retract(RecordKind::Tenant, &tenant("a").uid));
    assert!(before.tenant_of_key("ka").is_some());
    assert!(directory.view().tenant_of_key("ka").is_none());
}

#[test]
fn a_lower_epoch_is_fenced_for_five_minutes() {
    let mut directory = Directory::default();
    let old = directory.begin(Epoch(1), Moment::ZERO).expect("first");
    let new = directory
        .begin(Epoch(2), Moment::from_millis(1))
        .expect("higher");
    let late = directory.hear(old, Epoch(1), Moment::from_millis(2));
    assert_eq!(
        late,
        Err(Fenced::LowerEpoch {
            heard: Epoch(2),
            own: Epoch(1)
        })
    );
    assert!(directory.begin(Epoch(1), Moment::from_millis(3)).is_err());
    directory
        .hear(new, Epoch(2), Moment::from_millis(4))
        .expect("the holder");
    let later = Moment::from_millis(4).after(limits::PUBLICATION_FENCE);
    directory
        .begin(Epoch(1), later)
        .expect("nobody was heard for five minutes");
    assert_eq!(
        directory.hear(new, Epoch(2), later),
        Err(Fenced::Superseded)
    );
    assert_eq!(directory.begin(Epoch(0), later), Err(Fenced::NoEpoch));
}

#[test]
fn a_later_stream_of_the_same_epoch_takes_over() {
    let mut directory = Directory::default();
    let first = directory.begin(Epoch(1), Moment::ZERO).expect("first");
    directory.begin(Epoch(1), Moment::ZERO).expect("again");
    assert_eq!(
        directory.hear(first, Epoch(1), Moment::ZERO),
        Err(Fenced::Superseded)
    );
}

#[test]
fn an_order_survives_the_repetition_of_its_record() {
    let (mut directory, _) = loaded(vec![Record::Node(node("n1"))]);
    let uid = node("n1").uid;
    assert!(
        directory
            .order_accepting(&uid, Epoch(1), false)
            .expect("known")
    );
    assert!(
        !directory
            .order_accepting(&uid, Epoch(1), false)
            .expect("known")
    );
    assert!(!directory.put(Record::Node(node("n1"))).expect("repeated"));
    directory.begin(Epoch(1), Moment::ZERO).expect("again");
    directory.put(Record::Node(node("n1"))).expect("taken");
    directory.end_snapshot();
    assert!(!directory.view().node(&uid).expect("known").accepting);
    let mut next = node("n1");
    next.epoch = Epoch(2);
    next.revision = "2".into();
    assert!(directory.put(Record::Node(next)).expect("taken"));
    assert!(
        directory.view().node(&uid).expect("known").accepting,
        "facts that differ say anew"
    );
    let stale = directory
        .order_accepting(&uid, Epoch(1), false)
        .expect_err("of an earlier life");
    assert_eq!(stale.reason(), "StaleNode");
    assert!(matches!(
        directory.put(Record::Node(node("n1"))),
        Err(RecordRefusal::StaleNode { .. })
    ));
    let stranger = Uid::parse("x").expect("uid");
    assert_eq!(
        directory.order_accepting(&stranger, Epoch(1), true),
        Err(OrderRefusal::UnknownNode(stranger))
    );
}

#[test]
fn the_directory_is_bounded() {
    let (mut directory, _) = loaded(Vec::new());
    for number in 0..limits::NODES_MAX {
        directory
            .put(Record::Node(node(&format!("n{number}"))))
            .expect("taken");
    }
    let refusal = directory.put(Record::Node(node("one"))).expect_err("full");
    assert_eq!(
        refusal,
        RecordRefusal::TooMany {
            kind: RecordKind::Node,
            max: limits::NODES_MAX
        }
    );
    let mut known = node("n0");
    known.revision = "2".into();
    assert!(directory.put(Record::Node(known)).expect("no further one"));
}

#[test]
fn a_room_is_placed_in_its_pool_or_in_the_default_never_elsewhere() {
    let pool = |name: &str| Pool::parse(name).expect("pool");
    let view = DirectoryView::default();
    let mut tenant = tenant("t");
    assert_eq!(view.pools_for(&tenant, None), []);
    tenant.pools = vec![pool("m/a"), pool("m/b")];
    assert_eq!(view.pools_for(&tenant, None), [pool("m/a")]);
    assert_eq!(view.pools_for(&tenant, Some(&pool("m/b"))), [pool("m/b")]);
    assert_eq!(
        view.pools_for(&tenant, Some(&pool("m/of-others"))),
        [pool("m/a")]
    );
}

/// One step of a publisher.
#[derive(Clone, Debug)]
enum Step {
    Tenant(u8, u8),
    Conference(u8, u8),
    Node(u8, u8),
    Retract(u8, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0_u8..4, 0_u8..6, 0_u8..3).prop_map(|(kind, which, revision)| match kind {
        0 => Step::Tenant(which, revision),
        1 => Step::Conference(which, revision),
        2 => Step::Node(which, revision),
        _ => Step::Retract(which, revision % 3),
    });
    proptest::collection::vec(step, 0..60)
}

fn record(step: &Step) -> Option<Record> {
    Some(match *step {
        Step::Tenant(which, revision) => {
            let mut tenant = with_key(&format!("t{which}"), &format!("k{which}-{revision}"));
            tenant.revision = revision.to_string();
            Record::Tenant(Box::new(tenant))
        }
        Step::Conference(which, revision) => {
            let mut conference = conference("t0", &format!("c{which}"));
            conference.revision = revision.to_string();
            conference.display_name = revision.to_string();
            boxed(conference)
        }
        Step::Node(which, revision) => {
            let mut node = node(&format!("n{which}"));
            node.revision = revision.to_string();
            Record::Node(node)
        }
        Step::Retract(..) => return None,
    })
}

fn retraction(which: u8, kind: u8) -> (RecordKind, Uid) {
    match kind {
        0 => (RecordKind::Tenant, tenant(&format!("t{which}")).uid),
        1 => (
            RecordKind::Conference,
            conference("t0", &format!("c{which}")).uid,
        ),
        _ => (RecordKind::Node, node(&format!("n{which}")).uid),
    }
}

/// Everything that lookups can tell, as text.
fn seen(view: &DirectoryView) -> Vec<String> {
    let tenants = view.tenants().flat_map(|tenant| {
        assert_eq!(
            view.tenant(&tenant.name).map(|found| &found.uid),
            Some(&tenant.uid)
        );
        tenant.api_keys.iter().map(|key| {
            assert_eq!(
                view.tenant_of_key(&key.key).map(|found| &found.uid),
                Some(&tenant.uid)
            );
            format!("{} {} {}", tenant.uid, tenant.revision, key.key)
        })
    });
    let conferences = view.conferences().map(|conference| {
        assert_eq!(
            view.conference(&conference.room_id).map(|found| &found.uid),
            Some(&conference.uid)
        );
        assert_eq!(
            view.conference_of_room(&conference.key())
                .map(|found| &found.uid),
            Some(&conference.uid)
        );
        format!("{} {}", conference.uid, conference.revision)
    });
    let nodes = view.nodes().map(|node| {
        assert_eq!(
            view.node_by_id(&node.node_id).map(|found| &found.uid),
            Some(&node.uid)
        );
        format!("{} {}", node.uid, node.revision)
    });
    let all: Vec<String> = tenants.chain(conferences).chain(nodes).collect();
    assert_eq!(
        view.tenant_by_key.len(),
        view.tenants()
            .map(|tenant| tenant.api_keys.len())
            .sum::<usize>()
    );
    assert_eq!(view.tenant_by_name.len(), view.tenants().len());
    assert_eq!(view.conference_by_room.len(), view.conferences().len());
    assert_eq!(view.conference_by_id.len(), view.conferences().len());
    assert_eq!(view.node_by_id.len(), view.nodes().len());
    all
}

proptest! {
    #[test]
    fn a_snapshot_equals_the_sequence_of_changes_that_leads_to_it(steps in steps()) {
        let (mut by_changes, _) = loaded(Vec::new());
        let mut model: std::collections::BTreeMap<(RecordKind, Uid), Record> = Default::default();
        for step in &steps {
            match step {
                Step::Retract(which, kind) => {
                    let (kind, uid) = retraction(*which, *kind);
                    let known = model.remove(&(kind, uid.clone())).is_some();
                    prop_assert_eq!(by_changes.retract(kind, &uid), known);
                }
                step => if let Some(record) = record(step) {
                    by_changes.put(record.clone()).expect("no two share a name");
                    model.insert((record.kind(), record.uid().clone()), record);
                },
            }
        }
        let (by_snapshot, _) = loaded(model.into_values().collect());
        prop_assert_eq!(seen(&by_changes.view()), seen(&by_snapshot.view()));
    }
}
