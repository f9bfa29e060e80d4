// SPDX-License-Identifier: EUPL-1.2
//! What a schedule means, told by examples and by an independent implementation of RFC 5545.

use proptest::prelude::*;

use super::*;

#[test]
fn single_window_opens_and_closes_once() {
    let schedule = schedule("2026-09-01T07:30", "Europe/Berlin", hours(1), None, &[]);
    assert_eq!(
        schedule.next_window(at("2026-08-01T00:00:00Z")),
        Some(window("2026-09-01T05:30:00Z", "2026-09-01T06:30:00Z"))
    );
    assert!(schedule.window_at(at("2026-09-01T06:29:59Z")).is_some());
    assert_eq!(
        schedule.window_at(at("2026-09-01T06:30:00Z")),
        None,
        "the end is excluded"
    );
    assert_eq!(schedule.next_window(at("2026-09-01T05:30:00Z")), None);
    assert_eq!(schedule.ends_at(), Some(at("2026-09-01T06:30:00Z")));
}

#[test]
fn start_inside_the_spring_gap_moves_forward_by_the_gap() {
    let schedule = schedule("2026-03-29T02:30", "Europe/Berlin", hours(1), None, &[]);
    assert_eq!(
        schedule.next_window(Timestamp::MIN),
        Some(window("2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"))
    );
}

#[test]
fn ambiguous_start_means_the_first() {
    let schedule = schedule("2026-10-25T02:30", "Europe/Berlin", hours(1), None, &[]);
    assert_eq!(
        schedule.next_window(Timestamp::MIN),
        Some(window("2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"))
    );
}

#[test]
fn nightly_window_until_six_lasts_five_or_seven_hours_when_clocks_change() {
    let nightly = schedule(
        "2026-01-01T00:00",
        "Europe/Berlin",
        until("06:00"),
        Some("FREQ=DAILY"),
        &[],
    );
    let length = |moment: &str| {
        let found = nightly.window_at(at(moment)).expect("a window every night");
        found.closes.duration_since(found.opens).as_hours()
    };
    assert_eq!(
        (
            length("2026-03-28T03:00:00Z"),
            length("2026-03-29T03:00:00Z"),
            length("2026-10-25T03:00:00Z")
        ),
        (6, 5, 7)
    );
}

#[test]
fn until_before_the_start_is_on_the_next_day() {
    let evening = schedule(
        "2026-09-01T19:00",
        "Europe/Berlin",
        until("06:00"),
        None,
        &[],
    );
    assert_eq!(evening.ends_at(), Some(at("2026-09-02T04:00:00Z")));
    let whole_day = schedule(
        "2026-09-01T19:00",
        "Europe/Berlin",
        until("19:00"),
        None,
        &[],
    );
    assert_eq!(whole_day.ends_at(), Some(at("2026-09-02T17:00:00Z")));
}

#[test]
fn start_moved_out_of_the_gap_past_its_end_closes_on_the_next_day() {
    let schedule = schedule(
        "2026-03-29T02:30",
        "Europe/Berlin",
        until("03:00"),
        None,
        &[],
    );
    assert_eq!(
        schedule.next_window(Timestamp::MIN),
        Some(window("2026-03-29T01:30:00Z", "2026-03-30T01:00:00Z"))
    );
}

#[test]
fn first_tuesday_of_the_month() {
    let board = schedule(
        "2026-09-01T18:00",
        "Europe/Berlin",
        hours(2),
        Some("FREQ=MONTHLY;BYDAY=1TU;COUNT=3"),
        &[],
    );
    let opens: Vec<_> = board
        .windows_between(Timestamp::MIN, Timestamp::MAX, 10)
        .iter()
        .map(|w| w.opens.to_string())
        .collect();
    assert_eq!(
        opens,
        [
            "2026-09-01T16:00:00Z",
            "2026-10-06T16:00:00Z",
            "2026-11-03T17:00:00Z"
        ]
    );
}

#[test]
fn exceptions_are_left_out_and_still_counted() {
    let lesson = schedule(
        "2026-09-01T08:00",
        "UTC",
        hours(1),
        Some("FREQ=DAILY;COUNT=3"),
        &["2026-09-02"],
    );
    let opens: Vec<_> = lesson
        .windows_between(Timestamp::MIN, Timestamp::MAX, 10)
        .iter()
        .map(|w| w.opens.to_string())
        .collect();
    assert_eq!(opens, ["2026-09-01T08:00:00Z", "2026-09-03T08:00:00Z"]);
}

#[test]
fn until_as_a_date_includes_its_day_and_z_means_utc() {
    let count = |until: &str| {
        let rule = format!("FREQ=DAILY;UNTIL={until}");
        schedule(
            "2026-09-01T08:00",
            "Europe/Berlin",
            hours(1),
            Some(&rule),
            &[],
        )
        .windows_between(Timestamp::MIN, Timestamp::MAX, 10)
        .len()
    };
    assert_eq!(count("20260903"), 3);
    assert_eq!(count("20260903T080000"), 3);
    assert_eq!(count("20260903T060000Z"), 3, "06:00 UTC is 08:00 in Berlin");
    assert_eq!(count("20260903T055959Z"), 2);
}

#[test]
fn query_far_from_the_start_of_an_endless_series_is_answered() {
    let daily = schedule("1970-01-01T12:00", "UTC", hours(1), Some("FREQ=DAILY"), &[]);
    assert_eq!(
        daily.next_window(at("2900-01-01T13:00:00Z")),
        Some(window("2900-01-02T12:00:00Z", "2900-01-02T13:00:00Z"))
    );
    assert!(!daily.is_finite() && daily.ends_at().is_none());
}

#[test]
fn rule_that_never_matches_ends_its_search() {
    let never = schedule(
        "2026-02-01T12:00",
        "UTC",
        hours(1),
        Some("FREQ=MONTHLY;INTERVAL=12;BYMONTHDAY=31"),
        &[],
    );
    assert_eq!(never.next_window(Timestamp::MIN), None);
    assert_eq!(never.window_at(at("2030-02-01T12:30:00Z")), None);
}

#[test]
fn leap_day_comes_every_four_years() {
    let yearly = schedule(
        "2024-02-29T12:00",
        "UTC",
        hours(1),
        Some("FREQ=YEARLY"),
        &[],
    );
    assert_eq!(
        yearly.next_window(at("2025-01-01T00:00:00Z")),
        Some(window("2028-02-29T12:00:00Z", "2028-02-29T13:00:00Z"))
    );
}

#[test]
fn what_is_wrong_is_named() {
    let read = |start, zone, rule: Option<&str>| {
        parse(start, zone, hours(1), rule, &[])
            .expect_err("must be refused")
            .to_string()
    };
    let good = "2026-09-01T07:30";
    for start in [
        "",
        "2026-09-01",
        "2026-09-01T07:30Z",
        "2026-09-01T25:00",
        "2026-09-01T07:30+02:00",
        "1969-01-01T00:00",
        "2026-09-01 07:30",
    ] {
        assert!(read(start, "UTC", None).starts_with("start "), "{start}");
    }
    for zone in ["", "Mars/Olympus", "+02:00", "../etc/passwd"] {
        assert!(read(good, zone, None).starts_with("time zone "), "{zone}");
    }
    for rule in [
        "",
        "FREQ=HOURLY",
        "INTERVAL=2",
        "FREQ=DAILY;COUNT=0",
        "FREQ=DAILY;COUNT=99999",
        "FREQ=DAILY;COUNT=2;UNTIL=20270101",
        "FREQ=DAILY;BYSETPOS=1",
        "FREQ=WEEKLY;BYDAY=1TU",
        "FREQ=WEEKLY;BYMONTHDAY=1",
        "FREQ=MONTHLY;BYDAY=0TU",
        "FREQ=MONTHLY;BYDAY=54TU",
        "FREQ=MONTHLY;BYMONTHDAY=32",
        "FREQ=DAILY;FREQ=DAILY",
        "FREQ=DAILY;UNTIL=20269999",
        "FREQ=DAILY;INTERVAL=0",
        "FREQ=DAILY;BYDAY=ßU",
        "FREQ=DAILY;",
        "FREQ=DAILY;UNTIL=2026090ß",
        "FREQ=DAILY;INTERVAL=+1",
    ] {
        assert!(
            read(good, "UTC", Some(rule)).starts_with("recurrence: "),
            "{rule}"
        );
    }
    assert!(parse(good, "UTC", End::After(Duration::ZERO), None, &[]).is_err());
    assert!(parse(good, "UTC", hours(366 * 24 + 1), None, &[]).is_err());
    assert!(parse(good, "UTC", hours(1), None, &["2026-02-30"]).is_err());
    for wrong in ["", "24:00", "7:30", "07:60", "0730", "ß:00"] {
        assert!(End::parse_until(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn recurrences_agree_with_an_independent_implementation(rule in rules(), day in 0i64..1_500) {
        let start = Date::constant(2024, 1, 1).checked_add(day.days()).expect("a date").at(9, 30, 0, 0);
        let ours = parse(&start.strftime("%Y-%m-%dT%H:%M").to_string(), "UTC", hours(1), Some(&rule), &[]).expect("a valid rule");
        let horizon = start.checked_add(5.years()).expect("a date");
        let to = TimeZone::UTC.to_timestamp(horizon).expect("a moment");
        let ours: Vec<i64> = ours.windows_between(Timestamp::MIN, to, 40).iter().map(|w| w.opens.as_second()).collect();
        let theirs: rrule::RRuleSet =
            format!("DTSTART:{}\nRRULE:{rule}", start.strftime("%Y%m%dT%H%M%SZ")).parse().expect("the oracle reads the rule");
        let theirs: Vec<i64> =
            theirs.all(40).dates.iter().map(|date| date.timestamp()).take_while(|second| *second < to.as_second()).collect();
        prop_assert_eq!(ours, theirs, "{}", rule);
    }

    #[test]
    fn query_from_any_moment_sees_the_same_series(rule in rules(), from_hours in 0i64..40_000, long in 1u64..200) {
        let schedule = parse("2024-01-31T02:30", "Europe/Berlin", hours(long), Some(&rule), &["2024-05-31"]).expect("a valid rule");
        let from = at("2024-01-01T00:00:00Z").checked_add(SignedDuration::from_hours(from_hours)).expect("a moment");
        let to = from.checked_add(SignedDuration::from_hours(24 * 90)).expect("a moment");
        let all = schedule.windows_between(Timestamp::MIN, to, usize::MAX);
        let wanted: Vec<_> = all.iter().copied().filter(|w| w.closes > from).collect();
        prop_assert_eq!(schedule.windows_between(from, to, usize::MAX), wanted);
        prop_assert!(all.windows(2).all(|pair| pair[0].opens < pair[1].opens));
        prop_assert!(all.iter().all(|w| w.opens < w.closes));
        if let Some(now) = schedule.window_at(from) {
            prop_assert!(now.contains(from));
        }
        if let Some(next) = schedule.next_window(from) {
            prop_assert!(next.opens > from);
        }
    }

    #[test]
    fn no_text_panics(start in ".{0,24}", zone in ".{0,20}", rule in ".{0,60}", except in ".{0,12}", until in ".{0,8}") {
        let _ = End::parse_until(&until);
        let _ = parse(&start, &zone, hours(1), Some(&rule), &[&except]);
        let _ = parse("2026-09-01T07:30", "UTC", hours(1), Some(&rule), &[&except]);
        let _ = parse("2026-09-01T07:30", "UTC", hours(1), Some(&format!("FREQ=MONTHLY;{rule}")), &[]);
    }
}

fn rules() -> impl Strategy<Value = String> {
    let day = prop::sample::select(vec!["MO", "TU", "WE", "TH", "FR", "SA", "SU"]);
    let days = prop::collection::btree_set(day.clone(), 0..3)
        .prop_map(|days| days.into_iter().collect::<Vec<_>>().join(","));
    let month_days =
        prop::collection::btree_set(prop_oneof![1i8..=31, -5i8..=-1], 0..3).prop_map(|days| {
            days.into_iter()
                .map(|day| day.to_string())
                .collect::<Vec<_>>()
                .join(",")
        });
    let nth = (prop_oneof![1i8..=5, -2i8..=-1], day).prop_map(|(nth, day)| format!("{nth}{day}"));
    let end = prop_oneof![
        Just(String::new()),
        (1u32..30).prop_map(|n| format!(";COUNT={n}")),
        Just(";UNTIL=20280615T120000Z".to_owned())
    ];
    (
        0..4usize,
        1u32..5,
        days,
        month_days,
        prop::option::of(nth),
        end,
    )
        .prop_map(|(frequency, interval, days, month_days, nth, end)| {
            let name = ["DAILY", "WEEKLY", "MONTHLY", "YEARLY"][frequency];
            let mut rule = format!("FREQ={name};INTERVAL={interval}");
            match nth {
                Some(nth) if frequency >= 2 => rule.push_str(&format!(";BYDAY={nth}")),
                _ => {
                    if !days.is_empty() {
                        rule.push_str(&format!(";BYDAY={days}"));
                    }
                    if !month_days.is_empty() && frequency != 1 {
                        rule.push_str(&format!(";BYMONTHDAY={month_days}"));
                    }
                }
            }
            rule + &end
        })
}

#[test]
fn a_schedule_that_is_written_again_yields_the_same_windows() {
    for (end, rule) in [
        (hours(2), None),
        (until("09:05"), Some("FREQ=WEEKLY;BYDAY=MO,TU")),
        (
            End::After(Duration::from_mins(90)),
            Some("FREQ=MONTHLY;BYDAY=-1FR;COUNT=7"),
        ),
    ] {
        let first = schedule(
            "2026-09-01T08:00",
            "Europe/Berlin",
            end,
            rule,
            &["2026-12-22", "2026-09-08"],
        );
        let written = first.written();
        let again = Schedule::parse(&written.text()).expect("a valid schedule");
        let (from, to) = (at("2026-01-01T00:00:00Z"), at("2027-06-01T00:00:00Z"));
        let windows = first.windows_between(from, to, 200);
        assert!(!windows.is_empty());
        assert_eq!(again.windows_between(from, to, 200), windows);
        assert_eq!(again.written(), written);
    }
}

fn schedule(start: &str, zone: &str, end: End, rule: Option<&str>, except: &[&str]) -> Schedule {
    parse(start, zone, end, rule, except).expect("a valid schedule")
}

fn parse(
    start: &str,
    time_zone: &str,
    end: End,
    recurrence: Option<&str>,
    except: &[&str],
) -> Result<Schedule, ScheduleError> {
    let except: Vec<String> = except.iter().map(|date| (*date).to_owned()).collect();
    Schedule::parse(&Text {
        start,
        time_zone,
        end,
        recurrence,
        except: &except,
    })
}

fn hours(hours: u64) -> End {
    End::After(Duration::from_hours(hours))
}

fn until(text: &str) -> End {
    End::parse_until(text).expect("a time of day")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a moment")
}

fn window(opens: &str, closes: &str) -> Window {
    Window {
        opens: at(opens),
        closes: at(closes),
    }
}
