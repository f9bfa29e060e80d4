// SPDX-License-Identifier: EUPL-1.2
//! Query parameters of `/rtc`: how clients describe themselves and their connection.

use std::collections::BTreeMap;

use data_encoding::{BASE64URL, BASE64URL_NOPAD};
use livekit_protocol::ClientInfo;
use livekit_protocol::client_info::{Capability, Sdk};
use plenum_proto::v1::ClientParameters;
use prost::Message;

/// Longest value of a descriptive parameter; longer ones are cut, they describe and decide nothing.
const TEXT_CHARS_MAX: usize = 128;
/// Attributes that a client may bring along, encoded.
const ATTRIBUTES_BYTES_MAX: usize = 16 * 1024;
/// Capabilities read.
const CAPABILITIES_MAX: usize = 32;
/// Longest SID and identity suffix taken.
const ID_CHARS_MAX: usize = 128;

/// What the query says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectQuery {
    /// Token, if not in the header.
    pub access_token: Option<String>,
    /// Resume.
    pub reconnect: bool,
    /// Participant to resume.
    pub sid: String,
    /// Number of the reason.
    pub reconnect_reason: i32,
    /// Attributes of the client, for those who may set them.
    pub attributes: BTreeMap<String, String>,
    /// Everything the room wants to know.
    pub parameters: ClientParameters,
}

/// A parameter cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not a number.
    #[error("query parameter `{0}` is not a number")]
    NotANumber(&'static str),
    /// Longer than allowed.
    #[error("query parameter `{0}` is too long")]
    TooLong(&'static str),
    /// Attributes are not base64url of a JSON object of strings.
    #[error("query parameter `attributes` is not base64url of a JSON object of strings")]
    Attributes,
}

impl ConnectQuery {
    /// Reads the pairs of a query; of several equal names the first counts.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn parse(pairs: &[(String, String)], address: &str) -> Result<Self, QueryError> {
        let find = |name: &str| {
            pairs
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        let text = |name: &str| cut(find(name).unwrap_or_default());
        let flag = |name: &str, default: bool| {
            find(name)
                .filter(|value| !value.is_empty())
                .map_or(default, is_true)
        };
        let id = |name: &'static str| match find(name).unwrap_or_default() {
            long if long.len() > ID_CHARS_MAX => Err(QueryError::TooLong(name)),
            value => Ok(value.to_owned()),
        };
        let number = |name: &'static str| match find(name).unwrap_or_default() {
            "" => Ok(0),
            value => value
                .parse::<i32>()
                .map_err(|_| QueryError::NotANumber(name)),
        };
        let protocol = number("protocol")?;
        let client_info = ClientInfo {
            sdk: sdk(find("sdk").unwrap_or_default()).into(),
            version: text("version"),
            protocol,
            os: text("os"),
            os_version: text("os_version"),
            device_model: text("device_model"),
            browser: text("browser"),
            browser_version: text("browser_version"),
            address: address.to_owned(),
            network: text("network"),
            other_sdks: text("other_sdks"),
            client_protocol: number("client_protocol")?,
            capabilities: capabilities(find("capabilities").unwrap_or_default()),
        };
        let auto_subscribe = flag("auto_subscribe", true);
        Ok(Self {
            access_token: find("access_token")
                .filter(|token| !token.is_empty())
                .map(str::to_owned),
            reconnect: flag("reconnect", false),
            sid: id("sid")?,
            reconnect_reason: number("reconnect_reason")?,
            attributes: attributes(find("attributes").unwrap_or_default())?,
            parameters: ClientParameters {
                client_info: client_info.encode_to_vec(),
                protocol: u32::try_from(protocol).unwrap_or_default(),
                auto_subscribe,
                adaptive_stream: flag("adaptive_stream", false),
                auto_subscribe_data_track: flag("auto_subscribe_data_track", auto_subscribe),
                subscriber_allow_pause: flag("subscriber_allow_pause", false),
                publish_only_suffix: id("publish")?,
            },
        })
    }
}

fn is_true(value: &str) -> bool {
    matches!(value, "1" | "true")
}

fn cut(value: &str) -> String {
    value
        .chars()
        .filter(|letter| !letter.is_control())
        .take(TEXT_CHARS_MAX)
        .collect()
}

fn sdk(name: &str) -> Sdk {
    match name {
        "ios" => Sdk::Swift,
        "reactnative" => Sdk::ReactNative,
        "unityweb" => Sdk::UnityWeb,
        other => Sdk::from_str_name(&other.to_ascii_uppercase()).unwrap_or(Sdk::Unknown),
    }
}

fn capabilities(list: &str) -> Vec<i32> {
    list.split(',')
        .take(CAPABILITIES_MAX)
        .filter_map(|name| Capability::from_str_name(name.trim()))
        .map(Into::into)
        .collect()
}

fn attributes(encoded: &str) -> Result<BTreeMap<String, String>, QueryError> {
    if encoded.is_empty() {
        return Ok(BTreeMap::new());
    }
    if encoded.len() > ATTRIBUTES_BYTES_MAX {
        return Err(QueryError::TooLong("attributes"));
    }
    let json = BASE64URL_NOPAD
        .decode(encoded.as_bytes())
        .or_else(|_| BASE64URL.decode(encoded.as_bytes()))
        .map_err(|_| QueryError::Attributes)?;
    serde_json::from_slice(&json).map_err(|_| QueryError::Attributes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<ConnectQuery, QueryError> {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        ConnectQuery::parse(&pairs, "192.0.2.7")
    }

    fn info(query: &ConnectQuery) -> ClientInfo {
        ClientInfo::decode(query.parameters.client_info.as_slice()).expect("encoded here")
    }

    #[test]
    fn a_browsers_parameters_are_read() {
        let query = parse(&[
            ("access_token", "a.b.c"),
            ("auto_subscribe", "1"),
            ("sdk", "js"),
            ("version", "2.23.0"),
            ("protocol", "17"),
            ("client_protocol", "2"),
            ("browser", "Chrome"),
            ("adaptive_stream", "1"),
            ("disable_ice_lite", "1"),
            ("capabilities", "CAP_PACKET_TRAILER,CAP_FROM_THE_FUTURE"),
        ])
        .expect("readable");
        assert_eq!(query.access_token.as_deref(), Some("a.b.c"));
        assert_eq!(
            (query.parameters.protocol, query.parameters.adaptive_stream),
            (17, true)
        );
        let info = info(&query);
        assert_eq!(
            (info.sdk(), info.client_protocol, info.address.as_str()),
            (Sdk::Js, 2, "192.0.2.7")
        );
        assert_eq!(info.capabilities, [i32::from(Capability::CapPacketTrailer)]);
    }

    #[test]
    fn defaults_are_those_of_v0() {
        let query = parse(&[]).expect("empty");
        assert!(query.parameters.auto_subscribe && query.parameters.auto_subscribe_data_track);
        assert!(
            !query.parameters.adaptive_stream
                && !query.parameters.subscriber_allow_pause
                && !query.reconnect
        );
        let query = parse(&[
            ("auto_subscribe", "0"),
            ("reconnect", "true"),
            ("sid", "PA_x"),
            ("reconnect_reason", "3"),
        ])
        .expect("readable");
        assert!(!query.parameters.auto_subscribe && query.reconnect);
        assert_eq!((query.sid.as_str(), query.reconnect_reason), ("PA_x", 3));
    }

    #[test]
    fn every_sdk_is_known_by_its_own_name() {
        for (name, expected) in [
            ("ios", Sdk::Swift),
            ("swift", Sdk::Swift),
            ("go", Sdk::Go),
            ("rust", Sdk::Rust),
            ("reactnative", Sdk::ReactNative),
            ("???", Sdk::Unknown),
        ] {
            assert_eq!(sdk(name), expected, "{name}");
        }
    }

    #[test]
    fn attributes_come_with_and_without_padding() {
        for encoded in [
            BASE64URL.encode(br#"{"a":"b"}"#),
            BASE64URL_NOPAD.encode(br#"{"a":"b"}"#),
        ] {
            assert_eq!(
                parse(&[("attributes", &encoded)])
                    .expect("readable")
                    .attributes["a"],
                "b"
            );
        }
        for wrong in [
            "%%",
            &BASE64URL.encode(b"[]"),
            &BASE64URL.encode(br#"{"a":1}"#),
        ] {
            assert_eq!(parse(&[("attributes", wrong)]), Err(QueryError::Attributes));
        }
        assert_eq!(
            parse(&[("attributes", &"a".repeat(ATTRIBUTES_BYTES_MAX + 1))]),
            Err(QueryError::TooLong("attributes"))
        );
    }

    #[test]
    fn wrong_numbers_and_long_ids_are_named() {
        assert_eq!(
            parse(&[("protocol", "new")]),
            Err(QueryError::NotANumber("protocol"))
        );
        assert_eq!(
            parse(&[("sid", &"P".repeat(ID_CHARS_MAX + 1))]),
            Err(QueryError::TooLong("sid"))
        );
        assert_eq!(
            parse(&[("protocol", "-4")])
                .expect("a number")
                .parameters
                .protocol,
            0
        );
    }

    proptest! {
        #[test]
        fn no_query_panics_and_descriptions_stay_short(pairs in proptest::collection::vec(("[a-z_]{1,16}|version|attributes|capabilities|protocol", "\\PC{0,300}"), 0..12)) {
            if let Ok(query) = ConnectQuery::parse(&pairs, "") {
                prop_assert!(info(&query).version.chars().count() <= TEXT_CHARS_MAX);
            }
        }
    }
}
