// SPDX-License-Identifier: EUPL-1.2
//! Names and ids as types of their own, checked where they enter. Cheap to clone.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A text is not the id that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?}: {rule}")]
pub struct IdError {
    /// Which id.
    pub what: &'static str,
    /// What was given, cut.
    pub text: String,
    /// What it has to be.
    pub rule: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks a text.
            ///
            /// # Errors
            /// [`IdError`] with the rule that it breaks.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(IdError { what: $what, text: text.chars().take(64).collect(), rule: $rule })
                }
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

/// Lower-case letters, digits and inner dashes, as names of Kubernetes objects are.
fn is_label(text: &str, bytes_max: usize) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= bytes_max
        && text.bytes().all(|byte| word(byte) || byte == b'-')
        && text.bytes().next().is_some_and(word)
        && text.bytes().next_back().is_some_and(word)
}

fn is_object_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|part| is_label(part, 253))
}

fn is_uid(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

text_id!(
    /// Name of a tenant.
    TenantName, "tenant", is_object_name, "lower-case letters, digits, '-' and '.', at most 253"
);
text_id!(
    /// Name of a room as clients see it, unique per tenant.
    RoomName, "room",
    |text| !text.is_empty() && text.len() <= 256 && !text.chars().any(char::is_control),
    "between 1 and 256 bytes without control characters"
);
text_id!(
    /// Id of a declared room in links.
    RoomId, "room id",
    |text| text.len() == 26 && text.bytes().all(|byte| byte.is_ascii_lowercase() || (b'2'..=b'7').contains(&byte)),
    "26 characters of base32 in lower case"
);
text_id!(
    /// Uid of an object.
    Uid, "uid", is_uid, "between 1 and 63 letters, digits, '-', '_' or '.'"
);
text_id!(
    /// Short id of a node in SIDs and leases.
    NodeId, "node id",
    |text| !text.is_empty() && text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()),
    "between 1 and 16 lower-case letters and digits"
);
text_id!(
    /// Name of a data centre.
    Site, "site", |text| is_label(text, 63), "lower-case letters, digits and inner '-', at most 63"
);
text_id!(
    /// A pool as `namespace/name`.
    Pool, "pool",
    |text| text.split_once('/').is_some_and(|(namespace, name)| is_label(namespace, 63) && is_object_name(name)),
    "namespace/name"
);
text_id!(
    /// A country or a part of it, as ISO 3166 writes it.
    Jurisdiction, "jurisdiction",
    |text| {
        let (country, part) = text.split_once('-').map_or((text, None), |(country, part)| (country, Some(part)));
        country.len() == 2
            && country.bytes().all(|byte| byte.is_ascii_uppercase())
            && part.is_none_or(|part| {
                (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
            })
    },
    "an ISO 3166 code such as DE or DE-SH"
);

impl Jurisdiction {
    /// Whether a place in `other` lies in this one: a country admits all its subdivisions.
    #[must_use]
    pub fn admits(&self, other: &Self) -> bool {
        self == other
            || other
                .as_str()
                .strip_prefix(self.as_str())
                .is_some_and(|rest| rest.starts_with('-'))
    }
}

/// Identity of a room.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomKey {
    /// Whose.
    pub tenant: TenantName,
    /// Name.
    pub name: RoomName,
}

impl RoomKey {
    /// From its parts.
    #[must_use]
    pub fn new(tenant: TenantName, name: RoomName) -> Self {
        Self { tenant, name }
    }

    /// From texts.
    ///
    /// # Errors
    /// [`IdError`].
    pub fn parse(tenant: &str, name: &str) -> Result<Self, IdError> {
        Ok(Self {
            tenant: TenantName::parse(tenant)?,
            name: RoomName::parse(name)?,
        })
    }
}

impl fmt::Debug for RoomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.name)
    }
}

impl fmt::Display for RoomKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.name)
    }
}

/// Number of a lease: the higher one holds. 0 stands for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A key or secret; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// From bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes, for a cryptographic operation and nothing else.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_by_their_rule() {
        assert!(TenantName::parse("school-a").is_ok());
        for bad in ["", "-a", "a-", "A", "a/b", "a..b", "ä"] {
            assert!(TenantName::parse(bad).is_err(), "{bad}");
        }
        assert!(RoomName::parse("Raum 5 ä").is_ok());
        assert!(RoomName::parse("a\nb").is_err());
        assert!(RoomName::parse(&"a".repeat(257)).is_err());
        assert!(RoomId::parse(&"a2".repeat(13)).is_ok());
        assert!(RoomId::parse(&"a1".repeat(13)).is_err());
        assert!(Pool::parse("media/default").is_ok());
        for bad in ["default", "/a", "a/", "a/b/c"] {
            assert!(Pool::parse(bad).is_err(), "{bad}");
        }
        assert!(NodeId::parse("a-b").is_err());
        let error = Site::parse(&"X".repeat(1000)).expect_err("refused");
        assert!(error.to_string().len() < 200, "{error}");
    }

    #[test]
    fn a_country_admits_its_parts_and_no_other() {
        let code = |text| Jurisdiction::parse(text).expect("code");
        assert!(code("DE").admits(&code("DE")));
        assert!(code("DE").admits(&code("DE-SH")));
        assert!(!code("DE-SH").admits(&code("DE")));
        assert!(!code("DE-S").admits(&code("DE-SH")));
        for bad in ["de", "D", "DE-", "DE-ABCD", "DEU"] {
            assert!(Jurisdiction::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", Secret::new(b"abc")), "Secret(…)");
    }
}
