// SPDX-License-Identifier: EUPL-1.2
//! Types that several kinds use.
//!
//! Durations and periods keep the text that was written: `4h` stays `4h`, so that server-side apply never fights over
//! the spelling. Readers compare parsed values.

use std::{borrow::Cow, collections::BTreeMap, fmt, time::Duration};

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::names;

/// A moment or a series of moments, in local time of a zone.
///
/// A start inside the hour that is skipped in spring moves forward by that hour; an hour that comes twice means the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.duration) != has(self.until)").message("set exactly one of duration and until"))]
pub struct Schedule {
    /// Local date and time of the (first) start, without offset: `2026-09-01T07:30`.
    #[schemars(
        length(max = 19),
        pattern(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?$")
    )]
    pub start: String,
    /// Time zone of the start by its IANA name, as in `Europe/Berlin`.
    #[schemars(length(min = 1, max = 64), pattern(r"^[A-Za-z][A-Za-z0-9_+/-]*$"))]
    pub time_zone: String,
    /// Elapsed time from the start to the end. Exactly one of `duration` and `until`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<GoDuration>,
    /// Wall-clock time of the end: the next such time after the start, on the next day where needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5), pattern(r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub until: Option<String>,
    /// RRULE without the property name: FREQ (DAILY, WEEKLY, MONTHLY, YEARLY), INTERVAL, BYDAY, BYMONTHDAY, COUNT, UNTIL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        pattern(r"^FREQ=(DAILY|WEEKLY|MONTHLY|YEARLY)(;[A-Z]+=[A-Z0-9,+-]+)*$")
    )]
    pub recurrence: Option<String>,
    /// Local dates on which it does not take place: `2026-12-24`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(max = 10), pattern(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub except: Vec<String>,
}

impl Schedule {
    /// Turns the text into what can be evaluated.
    ///
    /// # Errors
    /// Names the member that is wrong and why.
    pub fn to_evaluator(
        &self,
    ) -> Result<plenum_schedule::Schedule, plenum_schedule::ScheduleError> {
        let end = match (&self.duration, &self.until) {
            (Some(duration), None) => {
                plenum_schedule::End::After(duration.to_std().map_err(|_| {
                    plenum_schedule::ScheduleError::Duration {
                        text: duration.as_str().to_owned(),
                    }
                })?)
            }
            (None, Some(until)) => plenum_schedule::End::parse_until(until)?,
            _ => return Err(plenum_schedule::ScheduleError::EndNotUnique),
        };
        plenum_schedule::Schedule::parse(&plenum_schedule::Text {
            start: &self.start,
            time_zone: &self.time_zone,
            end,
            recurrence: self.recurrence.as_deref(),
            except: &self.except,
        })
    }
}

choice! {
    /// A day of the week, as in RRULE.
    pub enum Weekday {
        /// Monday
        MO,
        /// Tuesday
        TU,
        /// Wednesday
        WE,
        /// Thursday
        TH,
        /// Friday
        FR,
        /// Saturday
        SA,
        /// Sunday
        SU,
    }
}

/// Hours of some days of the week; a range over midnight is written as two.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.from < self.to").message("from must be before to; write a range over midnight as two"))]
pub struct HourRange {
    /// Days of the week on which the hours hold.
    #[schemars(length(min = 1, max = 7))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub days: Vec<Weekday>,
    /// First minute of the range, as `HH:MM`.
    #[schemars(length(max = 5), pattern(r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub from: String,
    /// End, `HH:MM`; `24:00` is the end of the day.
    #[schemars(length(max = 5), pattern(r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$"))]
    pub to: String,
}

/// A group of the tenant's identity provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupRef {
    /// Name of the group as it stands in the groups claim.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Name of one of the tenant's issuers; default the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub issuer: Option<String>,
}

/// An opaque subject of the tenant's identity provider. Never a personal name or an e-mail address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SubjectRef {
    /// The person's `sub` claim: an opaque id, neither name nor e-mail address.
    #[schemars(length(max = 255), pattern(names::SUBJECT_ID))]
    pub id: String,
    /// Name of one of the tenant's issuers; default the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub issuer: Option<String>,
}

/// A Secret in the object's namespace; for a Tenant, in the tenant's namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret, in the tenant's namespace.
    #[schemars(length(min = 1, max = 253), pattern(names::DNS_SUBDOMAIN))]
    pub name: String,
    /// Key inside the Secret, where the default does not fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), pattern(r"^[-._a-zA-Z0-9]+$"))]
    pub key: Option<String>,
}

/// An object in the same namespace, or of cluster scope, by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameRef {
    /// Name of the object that is meant.
    #[schemars(length(min = 1, max = 253), pattern(names::DNS_SUBDOMAIN))]
    pub name: String,
}

/// A media pool.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct PoolRef {
    /// Namespace that the media pool is in.
    #[schemars(length(min = 1, max = 63), pattern(names::DNS_LABEL))]
    pub namespace: String,
    /// Name of the media pool.
    #[schemars(length(min = 1, max = 253), pattern(names::DNS_SUBDOMAIN))]
    pub name: String,
}

/// Plain text in one language, at most `MAX` characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct LocalText<const MAX: u32> {
    /// Language of the text as a BCP 47 tag, such as `de`.
    pub lang: String,
    /// The text as it is shown, without markup.
    pub text: String,
}

impl<const MAX: u32> JsonSchema for LocalText<MAX> {
    fn schema_name() -> Cow<'static, str> {
        format!("LocalText{MAX}").into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Plain text in one language.",
            "type": "object",
            "properties": {
                "lang": {
                    "description": "BCP 47 tag: `de`, `en`, `de-AT`.",
                    "type": "string",
                    "maxLength": 16,
                    "pattern": LANG,
                },
                "text": {
                    "description": "The text; no markup.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MAX,
                },
            },
            "required": ["lang", "text"],
        })
    }
}

/// Pattern of a language tag (RFC 5646 §2.1, language and subtags).
pub const LANG: &str = "^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$";

/// An elapsed time as Go writes it: `90s`, `2h`, `1h30m`. Never negative; the spelling is kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct GoDuration(String);

/// Why a duration cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text does not have the form of a duration.
    #[error("{text:?} is not a duration; write it as 90s, 15m, 2h or 1h30m")]
    Malformed {
        /// What was written, cut to the allowed length.
        text: String,
    },
}

impl GoDuration {
    /// Longest text.
    pub const TEXT_MAX: usize = 32;
    /// Pattern of the text.
    pub const PATTERN: &str = "^([0-9]{1,6}(ms|s|m|h)){1,3}$";

    /// Keeps a text as it is; [`GoDuration::to_std`] judges it.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The length of time.
    ///
    /// # Errors
    /// [`DurationError::Malformed`] when the text is none; objects stored before a rule existed may hold such.
    pub fn to_std(&self) -> Result<Duration, DurationError> {
        let malformed = || DurationError::Malformed {
            text: self.0.chars().take(Self::TEXT_MAX).collect(),
        };
        if self.0.len() > Self::TEXT_MAX {
            return Err(malformed());
        }
        let (mut rest, mut total, mut terms) = (self.0.as_str(), Duration::ZERO, 0);
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            terms += 1;
            if !(1..=6).contains(&digits) || terms > 3 {
                return Err(malformed());
            }
            let (number, unit) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| malformed())?;
            let (length, unit_bytes) = match unit.as_bytes() {
                [b'm', b's', ..] => (Duration::from_millis(number), 2),
                [b's', ..] => (Duration::from_secs(number), 1),
                [b'm', ..] => (Duration::from_secs(number * 60), 1),
                [b'h', ..] => (Duration::from_secs(number * 3600), 1),
                _ => return Err(malformed()),
            };
            total += length;
            rest = &unit[unit_bytes..];
        }
        if terms == 0 {
            Err(malformed())
        } else {
            Ok(total)
        }
    }
}

impl From<&str> for GoDuration {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for GoDuration {
    fn schema_name() -> Cow<'static, str> {
        "GoDuration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": Self::TEXT_MAX, "pattern": Self::PATTERN })
    }
}

/// Calendar days, months or years for which data is kept: `P10D`, `P3M`, `P2Y`; `P0D` is "not at all".
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Period(String);

impl Period {
    /// Pattern of the text.
    pub const PATTERN: &str = "^P(0D|[1-9][0-9]{0,3}[DMY])$";

    /// Keeps a text as it is; [`Period::parse`] judges it.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The period as months and days; `None` when the text is none.
    #[must_use]
    pub fn parse(&self) -> Option<PeriodLength> {
        let body = self.0.strip_prefix('P')?;
        let unit = body.chars().last()?;
        let number = &body[..body.len().checked_sub(unit.len_utf8())?];
        if number.is_empty() || number.len() > 4 || !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        if number.starts_with('0') && body != "0D" {
            return None;
        }
        let number: u32 = number.parse().ok()?;
        match unit {
            'D' => Some(PeriodLength {
                months: 0,
                days: number,
            }),
            'M' => Some(PeriodLength {
                months: number,
                days: 0,
            }),
            'Y' => Some(PeriodLength {
                months: number * 12,
                days: 0,
            }),
            _ => None,
        }
    }
}

/// A period, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeriodLength {
    /// Whole months.
    pub months: u32,
    /// Days beside them.
    pub days: u32,
}

impl PeriodLength {
    /// Whether this value stays within a bound, whatever months it begins in: days against months count a month as 31
    /// days in the value and as 28 in the bound.
    #[must_use]
    pub fn is_within(self, bound: PeriodLength) -> bool {
        match (self.days, bound.days) {
            (0, 0) => self.months <= bound.months,
            _ => self.months * 31 + self.days <= bound.months * 28 + bound.days,
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Period".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 6, "pattern": Self::PATTERN })
    }
}

/// Objects by their labels. Empty selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that must be there with this value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "label_map")]
    pub match_labels: BTreeMap<String, String>,
    /// Further requirements on labels, all of which must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub match_expressions: Vec<Requirement>,
}

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)")
    .message("set values exactly when operator is In or NotIn"))]
pub struct Requirement {
    /// Key of the label that is looked at.
    #[schemars(length(min = 1, max = 317))]
    pub key: String,
    /// How the label relates to the values.
    pub operator: SelectorOperator,
    /// Values that are compared with, for `In` and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 63)))]
    pub values: Vec<String>,
}

choice! {
    /// How a label relates to the values of a requirement.
    pub enum SelectorOperator {
        /// The label has one of the values.
        In,
        /// The label is absent or has none of the values.
        NotIn,
        /// The label is there.
        Exists,
        /// The label is absent.
        DoesNotExist,
    }
}

impl Selector {
    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|wanted| {
                let found = labels.get(&wanted.key);
                let listed = || found.is_some_and(|value| wanted.values.contains(value));
                match wanted.operator {
                    SelectorOperator::In => listed(),
                    SelectorOperator::NotIn => !listed(),
                    SelectorOperator::Exists => found.is_some(),
                    SelectorOperator::DoesNotExist => found.is_none(),
                }
            })
    }
}

/// Schema of a bounded map of labels.
pub(crate) fn label_map(_: &mut SchemaGenerator) -> Schema {
    string_map(63)
}

/// Schema of a bounded map of annotations.
pub(crate) fn annotation_map(_: &mut SchemaGenerator) -> Schema {
    string_map(512)
}

fn string_map(value_max: u32) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": { "type": "string", "maxLength": value_max },
    })
}
