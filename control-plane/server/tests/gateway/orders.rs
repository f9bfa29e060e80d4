// SPDX-License-Identifier: EUPL-1.2
//! The door in a thousand orders of arrival, each at a conference of its own: whoever comes before an opener waits, a wrong password
//! and a wrong key open nothing at any time, and a guest does not get past the lobby by coming early or late. What passes through an
//! open door before an opener has joined, and it is nothing, is tried with real media in `media-node/sim/tests/gate.rs`.

use plenum_proto::v1::publication::Item;
use plenum_proto::v1::{LobbyRule, NodeCapacity};
use serde_json::{Value, json};

use crate::http::Stream;
use crate::world::{OPENER_KEY, PASSWORD, World, conference, node_facts, town_join};

const ORDERS: usize = 1_000;
/// Fixed, so that a failure comes again.
const SEED: u64 = 0x0def_1e7e;

/// Who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    Opener,
    Participant,
    Guest,
    WrongPassword,
    NoPassword,
    WrongKey,
}

const ARRIVALS: [Arrival; 6] = [
    Arrival::Opener,
    Arrival::Participant,
    Arrival::Guest,
    Arrival::WrongPassword,
    Arrival::NoPassword,
    Arrival::WrongKey,
];

impl Arrival {
    fn form(self, room: &str) -> Value {
        match self {
            Self::Opener => json!({"name": "Vorsitz", "openerKey": OPENER_KEY}),
            Self::Participant => json!({"name": "Anna", "token": town_join(room, "anna")}),
            Self::Guest => json!({"name": "Gast", "password": PASSWORD}),
            Self::WrongPassword => json!({"name": "Gast", "password": "gelbe-birnen-fallen-nah"}),
            Self::NoPassword => json!({"name": "Gast"}),
            Self::WrongKey => {
                json!({"name": "Vorsitz", "openerKey": "ffffffffffffffffffffffffffffffff"})
            }
        }
    }
}

/// One of the 720 orders of six.
fn order(random: &mut u64) -> [Arrival; 6] {
    let mut order = ARRIVALS;
    for last in (1..order.len()).rev() {
        *random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        order.swap(last, (*random >> 33) as usize % (last + 1));
    }
    order
}

/// One order at one conference.
struct Case<'a> {
    world: &'a World,
    room: String,
    room_id: String,
    lobby: bool,
    opened: bool,
    /// Those who wait, and what for.
    waiting: Vec<(Arrival, Stream)>,
    client: Option<crate::rtc::Client>,
    said: String,
}

impl Case<'_> {
    async fn arrive(&mut self, arrival: Arrival) {
        let form = arrival.form(&self.room);
        let mut stream = self.world.enter(&self.room_id, &form).await;
        let said = &self.said;
        assert_eq!(stream.status, 200, "{said}: {arrival:?}");
        let (event, data) = stream.event().await.expect("an answer");
        match arrival {
            Arrival::WrongPassword => {
                assert_eq!(
                    (event.as_str(), &data["reason"]),
                    ("refused", &json!("WrongPassword")),
                    "{said}"
                );
            }
            Arrival::NoPassword => {
                assert_eq!(event, "refused", "{said}: without a password: {data}");
            }
            Arrival::WrongKey => {
                assert_eq!(
                    (event.as_str(), &data["reason"]),
                    ("refused", &json!("WrongOpenerKey")),
                    "{said}"
                );
            }
            Arrival::Opener => {
                assert_eq!(event, "admitted", "{said}: the opener: {data}");
                let token = data["token"].as_str().expect("token");
                let query = format!("access_token={token}");
                let client = crate::rtc::connect(self.world.http, &query).await;
                self.client = Some(client.expect("joined"));
                self.opened = true;
            }
            Arrival::Participant | Arrival::Guest if !self.opened => {
                assert_eq!(
                    (event.as_str(), &data),
                    ("waiting", &json!({"reason": "NotOpened"})),
                    "{said}: {arrival:?} before an opener"
                );
                self.waiting.push((arrival, stream));
            }
            Arrival::Participant | Arrival::Guest => self.goes_on(arrival, stream, event).await,
        }
    }

    /// Whoever waited or came late, once the conference is open: a guest stays in the lobby, everybody else is let in.
    async fn goes_on(&self, arrival: Arrival, mut stream: Stream, mut event: String) {
        let said = &self.said;
        // The door may hear of the opener a moment later than the opener.
        while event == "waiting" {
            event = stream.event().await.expect("an answer").0;
        }
        let expected = if self.lobby && arrival == Arrival::Guest {
            "lobby"
        } else {
            "admitted"
        };
        assert_eq!(event, expected, "{said}: {arrival:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_thousand_orders_of_arrival_nobody_enters_before_an_opener_or_past_the_door() {
    println!("seed {SEED:#x}");
    let mut world = World::bare().await;
    let mut conferences = Vec::new();
    for number in 0..ORDERS {
        // 26 characters of base32, as room ids are.
        let digits = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        let id: String = format!("{number:026}")
            .chars()
            .map(|digit| digits[digit.to_digit(10).expect("a digit") as usize])
            .collect();
        let lobby = number % 2 == 1;
        let rule = if lobby {
            LobbyRule::LobbyGuests
        } else {
            LobbyRule::LobbyOff
        };
        conferences.push((
            format!("order{number}"),
            format!("q{}", &id[1..]),
            lobby,
            rule,
        ));
    }
    let mut items: Vec<Item> = conferences
        .iter()
        .map(|(name, id, _, rule)| Item::Conference(conference(name, id, *rule, true)))
        .collect();
    let mut node = node_facts();
    node.capacity = Some(NodeCapacity {
        rooms: 2 * ORDERS as u32,
        participants: 20 * ORDERS as u32,
        egress_mbps: 1_000_000,
    });
    items.push(Item::Node(node));
    world.publish_all(items).await;
    world.attach().await;

    let mut random = SEED;
    let mut orders = std::collections::HashSet::new();
    for (room, room_id, lobby, _) in conferences {
        let order = order(&mut random);
        orders.insert(format!("{order:?}"));
        let mut case = Case {
            world: &world,
            said: format!("{room}, {order:?}, lobby {lobby}"),
            room,
            room_id,
            lobby,
            opened: false,
            waiting: Vec::new(),
            client: None,
        };
        for arrival in order {
            case.arrive(arrival).await;
        }
        for (arrival, stream) in std::mem::take(&mut case.waiting) {
            case.goes_on(arrival, stream, "waiting".into()).await;
        }
    }
    println!("{} of 720 orders", orders.len());
    assert!(orders.len() > 400, "orders differ: {}", orders.len());
}
