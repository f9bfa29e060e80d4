// SPDX-License-Identifier: EUPL-1.2
//! Socket addresses as the kernel lays them out (`sockaddr_in`, `sockaddr_in6`), read and written as bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of the larger of the two forms.
pub(crate) const ADDRESS_BYTES: usize = size_of::<libc::sockaddr_in6>();
const V4_BYTES: usize = size_of::<libc::sockaddr_in>();

/// Reads an address; `None` when it is neither form or cut short. An IPv4-mapped IPv6 address becomes IPv4, so that a path has one
/// name only.
pub(crate) fn read(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match family {
        libc::AF_INET if bytes.len() >= V4_BYTES => {
            let octets: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::new(Ipv4Addr::from(octets).into(), port))
        }
        libc::AF_INET6 if bytes.len() >= ADDRESS_BYTES => {
            let octets: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            let ip = Ipv6Addr::from(octets);
            if let Some(ip) = ip.to_ipv4_mapped() {
                return Some(SocketAddr::new(ip.into(), port));
            }
            // The flow label is no part of the address; the scope is, for link-local ones.
            let scope = u32::from_ne_bytes(bytes.get(24..28)?.try_into().ok()?);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)))
        }
        _ => None,
    }
}

/// Writes an address and gives its length.
pub(crate) fn write(address: SocketAddr, bytes: &mut [u8; ADDRESS_BYTES]) -> usize {
    let family = match address.ip() {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    bytes.fill(0);
    bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address {
        SocketAddr::V4(address) => {
            bytes[4..8].copy_from_slice(&address.ip().octets());
            V4_BYTES
        }
        SocketAddr::V6(address) => {
            bytes[8..24].copy_from_slice(&address.ip().octets());
            bytes[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
            ADDRESS_BYTES
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = read(&bytes);
        }

        #[test]
        fn an_address_survives_its_kernel_form(ip in any::<IpAddr>(), port in any::<u16>()) {
            let address = SocketAddr::new(ip, port);
            let mut bytes = [0xff; ADDRESS_BYTES];
            let length = write(address, &mut bytes);
            let canonical = SocketAddr::new(ip.to_canonical(), port);
            prop_assert_eq!(read(&bytes[..length]), Some(canonical));
            for cut in 0..length {
                prop_assert_eq!(read(&bytes[..cut]), None);
            }
        }
    }
}
