// SPDX-License-Identifier: EUPL-1.2
//! What is published of the quickstart.
use std::{collections::BTreeMap, path::PathBuf};

use argon2::{Argon2, PasswordVerifier as _, password_hash::phc::PasswordHash};
use operator_core::{AbsentOpenerKeys, Plan, Record, plan, validate, wants};
use plenum_proto::v1::publication::Item;

use crate::generated::generated;
use crate::validate::{check, manifests};
use plenum_publish::convert::{Hashes, item};

fn quickstart(password: &str) -> Plan {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../docs/examples/quickstart"]
        .iter()
        .collect();
    let checked = check(&manifests(&folder).expect("files"), None).expect("readable");
    let valid = validate(&checked.objects, AbsentOpenerKeys::AreGenerated).expect("valid");
    let generated = generated(wants(&valid), password);
    plan(&valid, &generated, &BTreeMap::new()).expect("a plan")
}

fn hash_of(plan: &Plan, hashes: &Hashes, name: &str) -> String {
    let record = plan
        .conferences
        .values()
        .find(|record| record.name == name)
        .expect("a conference");
    match item(Record::Conference(record), hashes) {
        Item::Conference(message) => message.password_hash,
        _ => unreachable!("a conference stays one"),
    }
}

#[test]
fn only_a_slow_hash_of_the_password_is_published_and_it_is_made_once() {
    let plan = quickstart("badu-kelo-mona");
    let hashes = Hashes::default().of(&plan).expect("hashes");
    let (council, classroom) = (
        hash_of(&plan, &hashes, "council"),
        hash_of(&plan, &hashes, "classroom-7b"),
    );
    assert!(council.starts_with("$argon2id$"), "{council}");
    assert_ne!(council, classroom, "one password, two salts");
    let parsed = PasswordHash::new(&council).expect("a hash");
    assert!(
        Argon2::default()
            .verify_password(b"badu-kelo-mona", &parsed)
            .is_ok()
    );
    assert!(
        Argon2::default()
            .verify_password(b"badu-kelo-mono", &parsed)
            .is_err()
    );
    for record in plan.conferences.values() {
        let sent = format!("{:?}", item(Record::Conference(record), &hashes));
        assert!(!sent.contains("badu-kelo-mona"), "{sent}");
    }
    assert_eq!(
        hash_of(&plan, &hashes.of(&plan).expect("hashes"), "council"),
        council
    );
    assert_eq!(
        hash_of(
            &plan,
            &Hashes::default().of(&plan).expect("hashes"),
            "council"
        ),
        council
    );
    let changed = quickstart("badu-kelo-moni");
    assert_ne!(
        hash_of(&changed, &hashes.of(&changed).expect("hashes"), "council"),
        council
    );
}
