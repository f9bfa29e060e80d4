// SPDX-License-Identifier: EUPL-1.2
//! Durations, periods, selectors and permissions mean what they say.

use std::{collections::BTreeMap, time::Duration};

use plenum_api::{
    GoDuration, Period, Selector,
    conference_class::{Chat, Preset, Role},
};

#[test]
fn durations_are_read_as_go_reads_them() {
    let read = |text: &str| GoDuration::new(text).to_std().ok();
    assert_eq!(read("90s"), Some(Duration::from_secs(90)));
    assert_eq!(read("1h30m"), Some(Duration::from_secs(5_400)));
    assert_eq!(read("15ms"), Some(Duration::from_millis(15)));
    assert_eq!(read("999999h"), Some(Duration::from_secs(999_999 * 3_600)));
    for wrong in [
        "", "1", "h", "-1s", "1d", "1.5h", "1h1h1h1h", "1234567s", "1s ", "ß", "1ß",
    ] {
        assert_eq!(read(wrong), None, "{wrong:?}");
    }
}

#[test]
fn periods_compare_conservatively() {
    let length = |text: &str| Period::new(text).parse();
    let within = |value: &str, bound: &str| {
        length(value)
            .expect("a period")
            .is_within(length(bound).expect("a period"))
    };
    assert!(within("P1Y", "P12M") && within("P12M", "P1Y"));
    assert!(within("P28D", "P1M") && !within("P29D", "P1M"));
    assert!(within("P1M", "P31D") && !within("P1M", "P30D"));
    assert!(within("P0D", "P0D") && !within("P1D", "P0D"));
    for wrong in ["", "P", "PD", "P01D", "P0M", "P1W", "P12345D", "1D", "P1ß"] {
        assert_eq!(length(wrong), None, "{wrong:?}");
    }
}

#[test]
fn empty_selector_selects_everything() {
    let labels = BTreeMap::from([("tier".to_owned(), "shared".to_owned())]);
    assert!(Selector::default().matches(&labels) && Selector::default().matches(&BTreeMap::new()));
    let parse = |text: &str| serde_json::from_str::<Selector>(text).expect("a selector");
    let in_list =
        parse(r#"{"matchExpressions":[{"key":"tier","operator":"In","values":["shared"]}]}"#);
    assert!(in_list.matches(&labels) && !in_list.matches(&BTreeMap::new()));
    let not_in =
        parse(r#"{"matchExpressions":[{"key":"tier","operator":"NotIn","values":["shared"]}]}"#);
    assert!(!not_in.matches(&labels) && not_in.matches(&BTreeMap::new()));
}

#[test]
fn guest_of_a_class_never_moderates_even_in_an_object_from_before_the_rule() {
    let spec: plenum_api::ConferenceClassSpec = serde_json::from_str(
        r#"{"preset":"Webinar","permissions":[{"role":"Guest","moderate":true,"record":true,"microphone":true}]}"#,
    )
    .expect("a class");
    let cells = spec.permissions(Role::Guest);
    assert!(!cells.moderate && !cells.record && cells.microphone && !cells.camera);
    assert_eq!(
        Preset::Classroom.permissions(Role::Guest).chat,
        Chat::Moderators
    );
}
