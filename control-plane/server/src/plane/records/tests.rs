// SPDX-License-Identifier: EUPL-1.2
use control_core::directory::Directory;
use control_core::time::Moment;
use plenum_proto::v1::{NodeCapacity, NodeFacts, TenantRecord, tenant_record};
use proptest::prelude::*;

use super::*;

fn tenant(name: &str, revision: &str) -> Record {
    let record = convert::record(Item::Tenant(TenantRecord {
        uid: format!("t-{name}"),
        name: name.into(),
        revision: revision.into(),
        api_keys: vec![plenum_proto::v1::ApiKey {
            key: format!("key-{name}"),
            secret: b"a secret that must not be seen..".to_vec(),
        }],
        ad_hoc: tenant_record::AdHoc::Forbidden.into(),
        ..TenantRecord::default()
    }));
    record.expect("valid").expect("a record")
}

fn node(id: &str, accepting: bool) -> Record {
    let record = convert::record(Item::Node(NodeFacts {
        uid: format!("n-{id}"),
        node_id: id.into(),
        site: "local".into(),
        pool: "media/default".into(),
        epoch: 1,
        capacity: Some(NodeCapacity::default()),
        accepting,
        revision: "1".into(),
        ..NodeFacts::default()
    }));
    record.expect("valid").expect("a record")
}

fn view(records: Vec<Record>) -> std::sync::Arc<DirectoryView> {
    let mut directory = Directory::default();
    directory.begin(Epoch(1), Moment::ZERO).expect("first");
    for record in records {
        directory.put(record).expect("taken");
    }
    directory.end_snapshot();
    directory.view()
}

fn kept(puts: &[Wanted]) -> BTreeMap<Key, String> {
    let entries = puts
        .iter()
        .map(|wanted| ((wanted.kind, wanted.uid.clone()), wanted.revision.clone()));
    entries.collect()
}

fn keys() -> SealKeys {
    SealKeys::new(&[7; 32]).expect("a key")
}

fn stored(wanted: &Wanted) -> StoredRecord {
    let place = Place {
        kind: wanted.kind,
        uid: wanted.uid.as_str(),
        revision: &wanted.revision,
    };
    StoredRecord {
        kind: wanted.kind,
        uid: wanted.uid.clone(),
        revision: wanted.revision.clone(),
        epoch: 1,
        value: keys()
            .seal(place, &wanted.tenant, &wanted.plain)
            .expect("sealed"),
    }
}

#[test]
fn only_what_changed_is_written_and_what_is_gone_goes() {
    let first = view(vec![tenant("a", "1"), tenant("b", "1"), node("n1", true)]);
    let (puts, drops) = changes(&first, &BTreeMap::new());
    assert_eq!((puts.len(), drops.len()), (3, 0));
    let written = kept(&puts);
    let (puts, drops) = changes(&first, &written);
    assert_eq!((puts.len(), drops.len()), (0, 0));
    let next = view(vec![tenant("a", "2"), node("n1", false)]);
    let (puts, drops) = changes(&next, &written);
    let uids: Vec<&str> = puts.iter().map(|wanted| wanted.uid.as_str()).collect();
    // A node that an order closed keeps its revision, and is written all the same.
    assert_eq!(uids, ["t-a", "n-n1"]);
    assert_eq!(
        drops,
        [(RecordKind::Tenant, Uid::parse("t-b").expect("uid"))]
    );
}

#[test]
fn a_record_without_a_revision_is_compared_by_what_it_says() {
    let plain = view(vec![tenant("a", "")]);
    let (puts, _) = changes(&plain, &BTreeMap::new());
    assert_eq!(puts.len(), 1);
    assert!(changes(&plain, &kept(&puts)).0.is_empty());
}

#[test]
fn what_is_kept_is_read_again_and_shows_no_secret() {
    let (puts, _) = changes(
        &view(vec![tenant("a", "1"), node("n1", false)]),
        &BTreeMap::new(),
    );
    for wanted in &puts {
        let stored = stored(wanted);
        assert!(!stored.value.windows(8).any(|part| part == b"a secret"));
        let record = read(&keys(), &stored).expect("read");
        assert_eq!((record.kind(), record.uid()), (wanted.kind, &wanted.uid));
        match record {
            Record::Tenant(tenant) => assert_eq!(
                tenant.secret("key-a").expect("a key").expose(),
                b"a secret that must not be seen.."
            ),
            Record::Node(node) => assert!(!node.accepting),
            Record::Conference(_) => unreachable!("none was published"),
        }
    }
}

#[test]
fn a_record_under_another_name_is_refused() {
    let (puts, _) = changes(
        &view(vec![tenant("a", "1"), tenant("b", "1")]),
        &BTreeMap::new(),
    );
    let mut moved = stored(&puts[0]);
    moved.uid = puts[1].uid.clone();
    let refused = read(&keys(), &moved).expect_err("refused");
    assert_eq!(refused.reason(), "Forged");
    // Sealed by whoever has the key, and still not what its name says.
    let mut forged = Wanted {
        uid: puts[1].uid.clone(),
        ..stolen(&puts[0])
    };
    forged.tenant = "a".into();
    let refused = read(&keys(), &stored(&forged)).expect_err("refused");
    assert_eq!(refused.reason(), "AnotherRecord");
    let other = SealKeys::new(&[8; 32]).expect("a key");
    let refused = read(&other, &stored(&puts[0])).expect_err("refused");
    assert_eq!(refused.reason(), "UnknownSealKey");
}

fn stolen(wanted: &Wanted) -> Wanted {
    Wanted {
        kind: wanted.kind,
        uid: wanted.uid.clone(),
        tenant: wanted.tenant.clone(),
        revision: wanted.revision.clone(),
        plain: wanted.plain.clone(),
    }
}

#[test]
fn a_digest_tells_two_sets_apart() {
    let of = |records| {
        let (puts, _) = changes(&view(records), &BTreeMap::new());
        let written = Written {
            records: kept(&puts),
            mark: None,
        };
        written.digest()
    };
    let one = of(vec![tenant("a", "1")]);
    assert_eq!(one, of(vec![tenant("a", "1")]));
    for other in [
        vec![],
        vec![tenant("a", "2")],
        vec![tenant("a", "1"), tenant("b", "1")],
    ] {
        assert_ne!(one, of(other));
    }
}

proptest! {
    /// Whoever can write into the store can make a replica refuse records, and nothing else.
    #[test]
    fn no_bytes_from_the_store_make_a_replica_panic(
        value in proptest::collection::vec(any::<u8>(), 0..200),
        plain in proptest::collection::vec(any::<u8>(), 0..200),
        kind in 0_usize..3,
    ) {
        let kind = [RecordKind::Tenant, RecordKind::Conference, RecordKind::Node][kind];
        let uid = Uid::parse("u").expect("uid");
        let raw = StoredRecord { kind, uid: uid.clone(), revision: "1".into(), epoch: 1, value };
        prop_assert!(read(&keys(), &raw).is_err());
        // Even where they are sealed with the right key.
        let wanted = Wanted { kind, uid, tenant: "t".into(), revision: "1".into(), plain };
        let _ = read(&keys(), &stored(&wanted));
    }
}
