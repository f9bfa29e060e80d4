// SPDX-License-Identifier: EUPL-1.2
//! Where Redis is, from a URL: one server, the primary that Sentinels name, or a cluster.

use std::fmt;

use redis::{ConnectionInfo, IntoConnectionInfo};

/// Servers that one URL names at most.
pub const HOSTS_MAX: usize = 32;

/// Which servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// This one.
    Single,
    /// The primary that these Sentinels name.
    Sentinel,
    /// The nodes of this cluster.
    Cluster,
}

/// A URL that was checked. It never prints what it holds beside names of hosts.
#[derive(Clone)]
pub struct Address {
    pub(super) kind: Kind,
    pub(super) tls: bool,
    /// With user and password.
    pub(super) hosts: Vec<ConnectionInfo>,
    /// Of Sentinels.
    pub(super) service: String,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Single => "redis",
            Kind::Sentinel => "redis+sentinel",
            Kind::Cluster => "redis+cluster",
        };
        write!(f, "{kind}://")?;
        for (index, host) in self.hosts.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", host.addr())?;
        }
        if !self.service.is_empty() {
            write!(f, "/{}", self.service)?;
        }
        Ok(())
    }
}

/// What is wrong with a URL; it never repeats what may be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not one of the schemes.
    #[error(
        "begins with none of redis://, rediss://, redis+sentinel://, rediss+sentinel://, redis+cluster://, rediss+cluster:// (rediss is TLS)"
    )]
    Scheme,
    /// No host, or one that is none.
    #[error("names no server, or one that is not HOST[:PORT]; several are separated by commas")]
    Host,
    /// Too many hosts.
    #[error("names more than {HOSTS_MAX} servers")]
    Hosts,
    /// Several hosts for one server.
    #[error("names several servers: redis+sentinel:// or redis+cluster:// takes them")]
    Several,
    /// User or password do not parse.
    #[error(
        "has a user or password that must be percent-encoded: '%', '@', '/', ':', '?' and '#' are"
    )]
    Credentials,
    /// No service.
    #[error(
        "names no service; Sentinels are asked for one, as in redis+sentinel://HOST:26379/SERVICE"
    )]
    Service,
    /// A path where there is none.
    #[error("has a path: a server takes a number of a database there, a cluster nothing")]
    Path,
    /// Parameters.
    #[error("has parameters behind '?' or '#'; there are none")]
    Parameters,
}

impl Address {
    /// Checks a URL.
    ///
    /// # Errors
    /// [`AddressError`].
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = url.split_once("://").ok_or(AddressError::Scheme)?;
        let (kind, tls) = match scheme {
            "redis" => (Kind::Single, false),
            "rediss" => (Kind::Single, true),
            "redis+sentinel" => (Kind::Sentinel, false),
            "rediss+sentinel" => (Kind::Sentinel, true),
            "redis+cluster" => (Kind::Cluster, false),
            "rediss+cluster" => (Kind::Cluster, true),
            _ => return Err(AddressError::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(AddressError::Parameters);
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((credentials, hosts)) => (Some(credentials), hosts),
            None => (None, authority),
        };
        if credentials.is_some_and(|text| !is_credentials(text)) {
            return Err(AddressError::Credentials);
        }
        let service = match kind {
            Kind::Sentinel if path.is_empty() || path.contains('/') => {
                return Err(AddressError::Service);
            }
            Kind::Sentinel => path.to_owned(),
            Kind::Cluster if !path.is_empty() => return Err(AddressError::Path),
            Kind::Single if !path.is_empty() && path.parse::<u8>().is_err() => {
                return Err(AddressError::Path);
            }
            Kind::Single | Kind::Cluster => String::new(),
        };
        let names: Vec<&str> = hosts.split(',').collect();
        match names.len() {
            0 | 1 => {}
            _ if kind == Kind::Single => return Err(AddressError::Several),
            more if more > HOSTS_MAX => return Err(AddressError::Hosts),
            _ => {}
        }
        let hosts: Result<Vec<ConnectionInfo>, AddressError> = names
            .into_iter()
            .map(|host| {
                if !is_host(host) {
                    return Err(AddressError::Host);
                }
                let scheme = if tls { "rediss" } else { "redis" };
                let credentials = credentials.map_or(String::new(), |text| format!("{text}@"));
                let port = match (kind, host.rsplit_once(':')) {
                    (Kind::Sentinel, None) => ":26379",
                    (Kind::Sentinel, Some((_, port))) if port.ends_with(']') => ":26379",
                    _ => "",
                };
                let database = if kind == Kind::Single { path } else { "" };
                format!("{scheme}://{credentials}{host}{port}/{database}")
                    .into_connection_info()
                    .map_err(|_| AddressError::Host)
            })
            .collect();
        Ok(Self {
            kind,
            tls,
            hosts: hosts?,
            service,
        })
    }

    /// Is it TLS?
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls
    }
}

/// `[user]:password`, percent-encoded.
fn is_credentials(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let fits = match byte {
            b'%' => {
                let hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
                hex(bytes.next()) && hex(bytes.next())
            }
            b'@' | b'/' | b'?' | b'#' => false,
            byte => byte.is_ascii_graphic(),
        };
        if !fits {
            return false;
        }
    }
    text.matches(':').count() <= 1
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let named = match inner {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.len() <= 253
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
        }
    };
    named && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_url_is_taken() {
        for (url, shown) in [
            ("redis://h", "redis://h:6379"),
            ("redis://u:p@h:7000/2", "redis://h:7000"),
            ("rediss://:p%40@h", "redis://h:6379"),
            ("redis://[::1]:7000", "redis://::1:7000"),
            (
                "redis+sentinel://u:p@a:1,b,[::1]/main",
                "redis+sentinel://a:1,b:26379,::1:26379/main",
            ),
            ("redis+cluster://a:1,b:2", "redis+cluster://a:1,b:2"),
        ] {
            let address = Address::parse(url).expect(url);
            assert_eq!(address.to_string(), shown);
        }
        let address = Address::parse("rediss+cluster://h").expect("valid");
        assert!(address.is_tls());
        let secret = Address::parse("redis://u:p%40ss@h").expect("valid");
        let info = secret.hosts.first().expect("one").redis_settings();
        assert_eq!(
            (info.username(), info.password()),
            (Some("u"), Some("p@ss"))
        );
    }

    #[test]
    fn what_is_wrong_is_said_without_the_password() {
        for (url, error) in [
            ("http://h", AddressError::Scheme),
            ("h:6379", AddressError::Scheme),
            ("redis://", AddressError::Host),
            ("redis://h:0", AddressError::Host),
            ("redis://h:x", AddressError::Host),
            ("redis://u:hunter2@h h", AddressError::Host),
            ("redis://a,b", AddressError::Several),
            ("redis://h/x", AddressError::Path),
            ("redis+cluster://h/1", AddressError::Path),
            ("redis+sentinel://h", AddressError::Service),
            ("redis://u:hunter2%zz@h", AddressError::Credentials),
            ("redis://u:hunter2:x@h", AddressError::Credentials),
            ("redis://h?protocol=resp3", AddressError::Parameters),
            ("rediss://h#insecure", AddressError::Parameters),
        ] {
            let refused = Address::parse(url).expect_err(url);
            assert_eq!(refused, error, "{url}");
            assert!(!refused.to_string().contains("hunter2"));
        }
        let many = format!("redis+cluster://{}", vec!["h"; HOSTS_MAX + 1].join(","));
        assert_eq!(
            Address::parse(&many).expect_err("refused"),
            AddressError::Hosts
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        let address = Address::parse("redis+sentinel://u:hunter2@h/main").expect("valid");
        assert!(!format!("{address:?} {address}").contains("hunter2"));
    }
}
