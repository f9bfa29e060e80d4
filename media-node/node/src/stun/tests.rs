// SPDX-License-Identifier: EUPL-1.2
//! Against servers on loopback that answer as they please.

use proptest::prelude::*;

use super::*;

const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

/// An answer to a request, with one attribute.
fn answer(request: &[u8], kind: [u8; 2], attribute: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(value.len()).expect("short");
    let mut packet = kind.to_vec();
    packet.extend_from_slice(&(length + 4).to_be_bytes());
    packet.extend_from_slice(&request[4..20]);
    packet.extend_from_slice(&attribute.to_be_bytes());
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(value);
    packet
}

fn xor_mapped(ip: Ipv4Addr) -> Vec<u8> {
    let mut value = vec![0, 1, 0, 0];
    value.extend(
        ip.octets()
            .iter()
            .zip(COOKIE)
            .map(|(byte, mask)| byte ^ mask),
    );
    value
}

/// A server that gives these packets for each request, by its number.
async fn server(answers: impl Fn(usize, &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut request = [0; 1500];
        for number in 0.. {
            let Ok((length, from)) = socket.recv_from(&mut request).await else {
                return;
            };
            for packet in answers(number, &request[..length]) {
                let _ = socket.send_to(&packet, from).await;
            }
        }
    });
    address
}

const GRANTED: [u8; 2] = [0x01, 0x01];

#[tokio::test]
async fn a_lost_request_is_repeated_and_strangers_answers_are_not_heard() {
    let address = server(|number, request| {
        if number == 0 {
            return Vec::new();
        }
        let good = answer(request, GRANTED, XOR_MAPPED, &xor_mapped(PUBLIC));
        let mut strange = answer(
            request,
            GRANTED,
            XOR_MAPPED,
            &xor_mapped(Ipv4Addr::LOCALHOST),
        );
        strange[10] ^= 1;
        vec![b"no STUN".to_vec(), strange, good]
    })
    .await;
    assert_eq!(ask(address).await.expect("an address"), IpAddr::V4(PUBLIC));
}

#[tokio::test]
async fn an_older_servers_plain_address_is_understood_and_an_empty_answer_told() {
    let mut plain = vec![0, 1, 0, 0];
    plain.extend(PUBLIC.octets());
    let old = server(move |_, request| vec![answer(request, GRANTED, MAPPED, &plain)]).await;
    assert_eq!(ask(old).await.expect("an address"), IpAddr::V4(PUBLIC));
    let empty = server(|_, request| vec![answer(request, GRANTED, 0x8022, b"soft")]).await;
    assert!(matches!(ask(empty).await, Err(StunError::NoAddress(_))));
    let refuses =
        server(|_, request| vec![answer(request, [0x01, 0x11], 0x0009, &[0, 0, 4, 1])]).await;
    assert!(matches!(ask(refuses).await, Err(StunError::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = silent.local_addr().expect("an address");
    let begun = Instant::now();
    assert!(matches!(ask(address).await, Err(StunError::Silent(_))));
    assert!(begun.elapsed() < WAIT * 2_u32.pow(REQUESTS));
}

#[tokio::test]
async fn servers_are_asked_in_their_order_until_one_says_it() {
    let second =
        server(|_, request| vec![answer(request, GRANTED, XOR_MAPPED, &xor_mapped(PUBLIC))]).await;
    let refuses =
        server(|_, request| vec![answer(request, [0x01, 0x11], 0x0009, &[0, 0, 4, 1])]).await;
    let (seen, mut told) = watch::channel(SeenAt::default());
    let servers = vec![refuses.to_string(), second.to_string()];
    let task = tokio::spawn(follow(servers, seen));
    told.changed().await.expect("it is told");
    assert_eq!(told.borrow().v4, Some(PUBLIC));
    assert_eq!(told.borrow().texts(), ["203.0.113.7"]);
    task.abort();
}

proptest! {
    #[test]
    fn no_packet_makes_it_stumble(packet in prop::collection::vec(any::<u8>(), 0..120), transaction in any::<[u8; 12]>()) {
        let mut packet = packet;
        if packet.len() >= 20 {
            packet[..2].copy_from_slice(&GRANTED);
            packet[4..8].copy_from_slice(&COOKIE);
            packet[8..20].copy_from_slice(&transaction);
        }
        read(&packet, transaction);
    }
}
