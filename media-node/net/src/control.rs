// SPDX-License-Identifier: EUPL-1.2
//! Control messages (`cmsg(3)`) as bytes: written for a send, read after a receive. Safe code: lengths come from the kernel and are
//! judged like those of any peer.

/// Bytes of `struct cmsghdr` as the kernel lays it out: a `size_t` length, then level and type.
const HEADER_BYTES: usize = size_of::<usize>() + 8;
/// Alignment of headers and payloads.
const ALIGN: usize = size_of::<usize>();
/// Room for the messages a receive may bring: segment size and overflow counter, with space to spare.
pub(crate) const CONTROL_BYTES: usize = 128;

/// Aligned memory for control messages.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Control(pub(crate) [u8; CONTROL_BYTES]);

impl Control {
    /// Zeroes.
    pub(crate) const EMPTY: Self = Self([0; CONTROL_BYTES]);
}

/// One control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// `cmsg_level`.
    pub(crate) level: i32,
    /// `cmsg_type`.
    pub(crate) kind: i32,
    /// Payload.
    pub(crate) data: &'a [u8],
}

impl Message<'_> {
    /// The payload as a C `int` (or an unsigned 32-bit number); also a shorter `u16`, which some kernels write for segment sizes.
    pub(crate) fn number(&self) -> Option<u32> {
        match *self.data {
            [a, b, c, d, ..] => Some(u32::from_ne_bytes([a, b, c, d])),
            [a, b, ..] => Some(u32::from(u16::from_ne_bytes([a, b]))),
            _ => None,
        }
    }
}

/// Walks control messages; ends at the first one whose length does not fit.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk::<{ size_of::<usize>() }>()?;
        let length = usize::from_ne_bytes(*length);
        let (level, rest) = rest.split_first_chunk::<4>()?;
        let (kind, _) = rest.split_first_chunk::<4>()?;
        let data = bytes.get(HEADER_BYTES..length)?;
        let message = Message {
            level: i32::from_ne_bytes(*level),
            kind: i32::from_ne_bytes(*kind),
            data,
        };
        bytes = bytes
            .get(length.next_multiple_of(ALIGN)..)
            .unwrap_or_default();
        Some(message)
    })
}

/// Writes one message and gives the bytes used, padding included (`CMSG_SPACE`); `None` when it does not fit.
pub(crate) fn write(control: &mut Control, level: i32, kind: i32, data: &[u8]) -> Option<usize> {
    let length = HEADER_BYTES + data.len();
    let space = length.next_multiple_of(ALIGN);
    let bytes = control.0.get_mut(..space)?;
    bytes.fill(0);
    bytes[..ALIGN].copy_from_slice(&length.to_ne_bytes());
    bytes[ALIGN..ALIGN + 4].copy_from_slice(&level.to_ne_bytes());
    bytes[ALIGN + 4..HEADER_BYTES].copy_from_slice(&kind.to_ne_bytes());
    bytes[HEADER_BYTES..length].copy_from_slice(data);
    Some(space)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_walked_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(messages(&bytes).count() <= bytes.len() / HEADER_BYTES + 1);
        }

        /// Small lengths, as an attacker of this parser would choose them: zero must not loop, and a huge one must not overflow.
        #[test]
        fn any_length_field_ends_the_walk(length in prop_oneof![0_usize..64, any::<usize>()], tail in prop::collection::vec(any::<u8>(), 8..100)) {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(tail);
            prop_assert!(messages(&bytes).count() <= bytes.len() / HEADER_BYTES + 1);
        }

        #[test]
        fn what_is_written_is_read(level in any::<i32>(), kind in any::<i32>(), data in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut control = Control::EMPTY;
            let space = write(&mut control, level, kind, &data).expect("fits");
            let read: Vec<Message<'_>> = messages(&control.0[..space]).collect();
            prop_assert_eq!(read, vec![Message { level, kind, data: &data }]);
        }
    }

    #[test]
    fn two_messages_follow_each_other() {
        let mut first = Control::EMPTY;
        let mut second = Control::EMPTY;
        let length = write(&mut first, 17, 104, &1200_i32.to_ne_bytes()).expect("fits");
        let more = write(&mut second, 1, 40, &7_u32.to_ne_bytes()).expect("fits");
        let bytes = [&first.0[..length], &second.0[..more]].concat();
        let read: Vec<(i32, i32, Option<u32>)> = messages(&bytes)
            .map(|message| (message.level, message.kind, message.number()))
            .collect();
        assert_eq!(read, [(17, 104, Some(1200)), (1, 40, Some(7))]);
    }
}
