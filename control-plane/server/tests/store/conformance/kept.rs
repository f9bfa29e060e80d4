// SPDX-License-Identifier: EUPL-1.2
//! Records, roles, events.

use super::*;

/// Whatever bytes they are.
pub(crate) async fn records_are_kept_until_they_are_dropped(harness: Harness) {
    let store = &*harness.store;
    let every: Vec<u8> = (0..=255).collect();
    let kept = [
        record(RecordKind::Tenant, "a", 1, &every),
        record(RecordKind::Conference, "a", 1, b""),
        record(RecordKind::Conference, "b", 1, b"2"),
        record(RecordKind::Node, "a", 1, b"3"),
    ];
    for record in kept.iter().rev() {
        assert_eq!(
            store.put_record(record.clone()).await,
            Ok(RecordOutcome::Taken)
        );
    }
    assert_eq!(store.records().await.expect("answer"), kept);
    let again = record(RecordKind::Conference, "b", 2, b"22");
    store.put_record(again.clone()).await.expect("answer");
    assert_eq!(
        store.record(again.kind, again.uid.clone()).await,
        Ok(Some(again))
    );
    for record in &kept {
        let gone = store.drop_record(record.kind, record.uid.clone(), 2).await;
        assert_eq!(gone, Ok(RecordOutcome::Taken));
        assert_eq!(
            store.record(record.kind, record.uid.clone()).await,
            Ok(None)
        );
    }
    assert_eq!(store.records().await, Ok(Vec::new()));
}

/// Whichever record it was that the later one wrote.
pub(crate) async fn an_older_publication_changes_no_record(harness: Harness) {
    let store = &*harness.store;
    let first = record(RecordKind::Tenant, "a", 1, b"1");
    store.put_record(first.clone()).await.expect("answer");
    let later = record(RecordKind::Tenant, "b", 3, b"2");
    store.put_record(later).await.expect("answer");
    let late = record(RecordKind::Tenant, "a", 2, b"3");
    assert_eq!(store.put_record(late).await, Ok(RecordOutcome::Fenced(3)));
    let dropped = store.drop_record(first.kind, first.uid.clone(), 2).await;
    assert_eq!(dropped, Ok(RecordOutcome::Fenced(3)));
    assert_eq!(
        store.record(first.kind, first.uid.clone()).await,
        Ok(Some(first))
    );
}

/// Each of its own, and a page at a time.
pub(crate) async fn records_have_bounds(harness: Harness) {
    let store = &*harness.store;
    let large = record(RecordKind::Tenant, "a", 1, &vec![7; RECORD_BYTES_MAX + 1]);
    assert!(matches!(
        store.put_record(large).await,
        Err(StoreError::Full { .. })
    ));
    let mut kept = Vec::new();
    for number in 0..9 {
        let largest = vec![number; RECORD_BYTES_MAX];
        kept.push(record(RecordKind::Node, &format!("n{number}"), 1, &largest));
    }
    for number in 10..300 {
        let uid = format!("n{number}");
        kept.push(record(RecordKind::Node, &uid, 1, b"small"));
    }
    for record in &kept {
        store.put_record(record.clone()).await.expect("answer");
    }
    kept.sort_by(|a, b| a.uid.cmp(&b.uid));
    assert!(store.records().await.expect("answer") == kept);
}

/// Until it gives it up.
pub(crate) async fn one_replica_has_a_role(harness: Harness) {
    let store = &*harness.store;
    assert!(claims(store, "a", 10).await);
    assert!(claims(store, "a", 10).await);
    assert!(!claims(store, "b", 10).await);
    assert!(!claims(store, "b", 0).await, "only the holder gives it up");
    assert!(!claims(store, "b", 10).await);
    assert!(!claims(store, "a", 0).await);
    assert!(claims(store, "b", 10).await);
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let refused = store.claim(long, "a".into(), Duration::from_secs(1)).await;
    assert!(matches!(refused, Err(StoreError::Full { .. })));
}

/// Each queue its own.
pub(crate) async fn events_wait_in_their_order_once_per_id(harness: Harness) {
    let store = &*harness.store;
    let every: Vec<u8> = (0..=255).collect();
    let waiting = [event("b", &every), event("a", b""), event("", b"c")];
    for event in waiting.iter().chain(&waiting) {
        let pushed = store.push_event(queue("x"), event.clone()).await;
        assert_eq!(pushed, Ok(Pushed { dropped: 0 }));
    }
    assert_eq!(store.events(queue("x"), 10).await.expect("answer"), waiting);
    assert_eq!(
        store.events(queue("x"), 1).await.expect("answer"),
        waiting[..1]
    );
    assert_eq!(store.events(queue("x"), 0).await, Ok(Vec::new()));
    assert_eq!(store.events(queue("y"), 10).await, Ok(Vec::new()));
    for _ in 0..2 {
        store
            .event_done(queue("x"), "a".into())
            .await
            .expect("answer");
    }
    let left = [waiting[0].clone(), waiting[2].clone()];
    assert_eq!(store.events(queue("x"), 10).await.expect("answer"), left);
    for event in left {
        store
            .event_done(queue("x"), event.id)
            .await
            .expect("answer");
    }
    assert_eq!(store.events(queue("x"), 10).await, Ok(Vec::new()));
}

/// By number and by bytes.
pub(crate) async fn queues_are_bounded_and_the_oldest_go_first(harness: Harness) {
    let store = &*harness.store;
    let push = |receiver: &'static str, number: usize, bytes: usize| {
        store.push_event(queue(receiver), event(&number.to_string(), &vec![1; bytes]))
    };
    for number in 0..EVENTS_MAX {
        assert_eq!(push("x", number, 1).await, Ok(Pushed { dropped: 0 }));
    }
    assert_eq!(push("x", EVENTS_MAX, 1).await, Ok(Pushed { dropped: 1 }));
    let first = store.events(queue("x"), 1).await.expect("answer");
    assert_eq!(first[0].id, "1");
    let fit = EVENTS_BYTES_MAX / EVENT_BYTES_MAX;
    for number in 0..fit {
        let pushed = push("y", number, EVENT_BYTES_MAX).await;
        assert_eq!(pushed, Ok(Pushed { dropped: 0 }));
    }
    assert_eq!(push("y", fit, 1).await, Ok(Pushed { dropped: 1 }));
    let all = store.events(queue("y"), EVENTS_MAX).await.expect("answer");
    assert_eq!((all.len(), all[0].id.as_str()), (fit, "1"));
    let large = push("y", 0, EVENT_BYTES_MAX + 1).await;
    assert!(matches!(large, Err(StoreError::Full { .. })));
}

/// Epochs of publications may begin anew.
pub(crate) async fn an_older_publication_may_write_when_the_later_one_is_silent(harness: Harness) {
    let store = &*harness.store;
    let at = |epoch| record(RecordKind::Tenant, "a", epoch, b"");
    store.put_record(at(9)).await.expect("answer");
    (harness.advance)(limits::PUBLICATION_FENCE - Duration::from_millis(1));
    assert_eq!(
        store.put_record(at(1)).await,
        Ok(RecordOutcome::Fenced(9)),
        "a refused one does not renew the fence"
    );
    (harness.advance)(Duration::from_millis(1));
    assert_eq!(store.put_record(at(1)).await, Ok(RecordOutcome::Taken));
}

/// When their holder is silent.
pub(crate) async fn roles_fall_free(harness: Harness) {
    let store = &*harness.store;
    assert!(claims(store, "a", 10).await);
    (harness.advance)(Duration::from_millis(9_999));
    assert!(!claims(store, "b", 10).await);
    assert!(claims(store, "a", 10).await);
    (harness.advance)(Duration::from_secs(10));
    assert!(claims(store, "b", 10).await);
}

/// And are counted as lost by who comes after them.
pub(crate) async fn events_grow_old(harness: Harness) {
    let store = &*harness.store;
    let push = |id: &'static str| store.push_event(queue("x"), event(id, b"1"));
    push("a").await.expect("answer");
    (harness.advance)(EVENT_AGE_MAX - Duration::from_secs(1));
    assert_eq!(push("b").await, Ok(Pushed { dropped: 0 }));
    (harness.advance)(Duration::from_secs(1));
    assert_eq!(push("c").await, Ok(Pushed { dropped: 1 }));
    let waiting = store.events(queue("x"), 9).await.expect("answer");
    let ids: Vec<&str> = waiting.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids, ["b", "c"]);
    (harness.advance)(EVENT_AGE_MAX);
    assert_eq!(store.events(queue("x"), 9).await, Ok(Vec::new()));
}
