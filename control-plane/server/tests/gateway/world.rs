// SPDX-License-Identifier: EUPL-1.2
//! One control plane with everything around it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::PasswordHash;
use control_core::ids::Secret;
use control_plane::clock::Clock;
use control_plane::gateway::{self, Settings};
use control_plane::hosts::Hosts;
use control_plane::identity::Tls;
use control_plane::plane::Plane;
use control_plane::rpc;
use control_plane::seal::SealKeys;
use control_plane::store::Store;
use control_plane::store::memory::MemoryStore;
use data_encoding::BASE64URL_NOPAD;
use plenum_proto::v1::directory_client::DirectoryClient;
use plenum_proto::v1::publication::Item;
use plenum_proto::v1::tenant_record::AdHoc;
use plenum_proto::v1::{
    ApiKey, BrandingText, ChatRule, ConferenceRecord, LobbyRule, LocalText, NodeCapacity,
    NodeFacts, Notice, ObserveRequest, Opener, Permission, Publication, Role, RoleRule, RoomPolicy,
    Schedule, TenantRecord, observation, opener,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::http::{LIVE, Request, Stream};
use crate::node::{NODE_ID, NODE_UID, Node, SITE};

pub(crate) const TOWN: &str = "musterstadt";
pub(crate) const TOWN_SECRET: &str = "an-example-secret-of-more-than-32-bytes";
pub(crate) const LAB_SECRET: &str = "another-example-secret-of-32-bytes-and-more";
pub(crate) const PASSWORD: &str = "gelbe-birnen-fallen-weit";
pub(crate) const OPENER_KEY: &str = "0123456789abcdef0123456789abcdef";
/// Room ids of the conferences.
pub(crate) const COUNCIL: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const LOBBY: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbb";
pub(crate) const LATER: &str = "cccccccccccccccccccccccccc";
pub(crate) const CLOSED: &str = "dddddddddddddddddddddddddd";
pub(crate) const STAFF: &str = "eeeeeeeeeeeeeeeeeeeeeeeeee";
pub(crate) const UNKNOWN: &str = "zzzzzzzzzzzzzzzzzzzzzzzzzz";

/// A CA and what it signs.
pub(crate) struct Pki {
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test CA");
        let ca =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("CA");
        Self { ca }
    }

    pub(crate) fn pem(&self, dns: &[&str], uri: &str) -> (String, String) {
        let mut params =
            CertificateParams::new(dns.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())
                .expect("names");
        if !uri.is_empty() {
            params
                .subject_alt_names
                .push(SanType::URI(uri.try_into().expect("uri")));
        }
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &self.ca).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    pub(crate) fn ca_pem(&self) -> String {
        self.ca.pem()
    }

    fn tls(&self, dns: &[&str], role: &str) -> Tls {
        let (certificate, key) = self.pem(dns, &format!("spiffe://plenum.internal/{role}"));
        Tls::from_pem(&self.ca_pem(), &certificate, &key).expect("certificates")
    }
}

/// What several replicas have in common.
#[derive(Clone)]
pub(crate) struct Around {
    pki: Arc<Pki>,
    pub(crate) store: Arc<dyn Store>,
    /// Seals their records; without one the store keeps none.
    seal: Option<Arc<SealKeys>>,
}

impl Around {
    pub(crate) fn new() -> Self {
        let clock = Clock::start();
        Self::over(Arc::new(MemoryStore::new(Arc::new(move || clock.now()))))
    }

    /// With this store.
    pub(crate) fn over(store: Arc<dyn Store>) -> Self {
        Self {
            pki: Arc::new(Pki::new()),
            store,
            seal: None,
        }
    }

    /// With another connection to what they have in common.
    #[allow(dead_code, reason = "not every test keeps records")]
    pub(crate) fn with(&self, store: Arc<dyn Store>) -> Self {
        Self {
            store,
            ..self.clone()
        }
    }

    #[allow(dead_code, reason = "not every test keeps records")]
    /// With records kept in the store, sealed with this key.
    pub(crate) fn sealed(mut self, key: &[u8]) -> Self {
        self.seal = Some(Arc::new(SealKeys::new(key).expect("a key")));
        self
    }
}

pub(crate) struct World {
    pub(crate) http: SocketAddr,
    #[allow(dead_code, reason = "not every test looks inside")]
    pub(crate) plane: Plane,
    node: Option<Arc<Node>>,
    pki: Arc<Pki>,
    grpc: String,
    directory: DirectoryClient<Channel>,
    publisher: Mutex<Option<mpsc::Sender<Publication>>>,
    stop: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) fn now() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs() as i64
}

impl World {
    /// Everything published, one node attached.
    pub(crate) async fn start() -> Self {
        let mut world = Self::published().await;
        world.attach().await;
        world
    }

    /// Everything published, no node.
    pub(crate) async fn published() -> Self {
        let world = Self::bare().await;
        world.publish_all(Vec::new()).await;
        world
    }

    /// Publishes everything, and these besides.
    pub(crate) async fn publish_all(&self, more: Vec<Item>) {
        self.publish_all_as(1, more).await;
    }

    /// The same, as the leader of an epoch.
    pub(crate) async fn publish_all_as(&self, epoch: u64, more: Vec<Item>) {
        let world = self;
        for item in records().into_iter().chain(more) {
            world.publish_as(epoch, item).await;
        }
        world.publish_as(epoch, Item::EndOfSnapshot(true)).await;
        let address = world.http;
        eventually("the directory is loaded", async || {
            Request::new(address, "GET", &format!("/api/v1/c/{COUNCIL}"))
                .send()
                .await
                .status
                == 200
        })
        .await;
    }

    /// Attaches the node and waits until it takes rooms.
    pub(crate) async fn attach(&mut self) {
        let world = self;
        let tls = world.pki.tls(
            &[&format!("{NODE_UID}.node.plenum.internal")],
            &format!("node/{NODE_UID}"),
        );
        world.node = Some(Node::start(tls, world.grpc.clone()).await);
        let mut seen = world
            .directory
            .clone()
            .observe(ObserveRequest {})
            .await
            .expect("observed")
            .into_inner();
        let ready = async {
            while let Some(seen) = seen.message().await.expect("observed") {
                if matches!(seen.item, Some(observation::Item::Node(node)) if node.registered && node.accepting)
                {
                    return;
                }
            }
        };
        tokio::time::timeout(LIVE, ready)
            .await
            .expect("the node is ready");
    }

    pub(crate) fn node(&self) -> &Node {
        self.node.as_ref().expect("a world with a node")
    }

    /// Nothing published yet, and no node.
    pub(crate) async fn bare() -> Self {
        Self::replica(&Around::new(), "r1").await
    }

    /// One of several replicas, to which nothing was published yet.
    pub(crate) async fn replica(around: &Around, name: &str) -> Self {
        let pki = Arc::clone(&around.pki);
        let stop = CancellationToken::new();
        let tls = pki.tls(&["control-plane.plenum.internal"], "control-plane");
        let plane = Plane::new(
            Arc::clone(&around.store),
            Hosts::new(tls.clone()),
            Clock::start(),
        );
        if let Some(seal) = around.seal.clone() {
            let keep = plane.clone();
            tokio::spawn(keep.keep_records(seal, name.to_owned(), stop.clone()));
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let grpc = listener.local_addr().expect("address").to_string();
        let (served, token) = (plane.clone(), stop.clone());
        let advertised = vec![grpc.clone()];
        tokio::spawn(async move { rpc::serve(served, listener, &tls, advertised, token).await });
        tokio::spawn(plane.clone().watch_nodes(stop.clone()));
        tokio::spawn(plane.clone().restore_rooms(stop.clone()));
        tokio::spawn(plane.clone().enforce_directory(stop.clone()));
        let settings = Settings {
            http_listen: vec!["127.0.0.1:0".parse().expect("address")],
            http_shared: Vec::new(),
            http_tls_dir: None,
            public_url: None,
            installation_key: Secret::new(&[9; 32]),
            insecure_dev_keys: false,
        };
        let serving = gateway::start(plane.clone(), settings, stop.clone())
            .await
            .expect("gateway");
        let http = serving.addresses[0];
        tokio::spawn(serving.stopped());

        let operator = pki.tls(&["operator.plenum.internal"], "operator");
        let channel = operator
            .connector("control-plane.plenum.internal")
            .expect("name")
            .connect(&plenum_shell::tls::endpoint(&grpc).expect("endpoint"))
            .await
            .expect("connect");
        let (publisher, queue) = mpsc::channel(64);
        let directory = DirectoryClient::new(channel);
        let mut publication = directory.clone();
        tokio::spawn(async move {
            let mut acks = publication
                .publish(ReceiverStream::new(queue))
                .await
                .expect("publish")
                .into_inner();
            while let Ok(Some(ack)) = acks.message().await {
                assert_eq!(ack.refused_reason, "", "{}", ack.message);
            }
        });
        Self {
            http,
            plane,
            node: None,
            pki,
            grpc,
            directory,
            publisher: Mutex::new(Some(publisher)),
            stop,
        }
    }

    pub(crate) async fn publish(&self, item: Item) {
        self.publish_as(1, item).await;
    }

    /// Publishes as the leader of an epoch.
    pub(crate) async fn publish_as(&self, epoch: u64, item: Item) {
        let publisher = self.publisher.lock().expect("lock").clone();
        publisher
            .expect("an operator")
            .send(Publication {
                epoch,
                item: Some(item),
            })
            .await
            .expect("published");
    }

    /// The operator's stream to this replica ends.
    #[allow(dead_code, reason = "not every test takes the operator away")]
    pub(crate) fn lose_operator(&self) {
        drop(self.publisher.lock().expect("lock").take());
    }

    /// Enters by the door.
    pub(crate) async fn enter(&self, room_id: &str, body: &Value) -> Stream {
        self.enter_from(1, room_id, body).await
    }

    pub(crate) async fn enter_from(&self, last: u8, room_id: &str, body: &Value) -> Stream {
        Request::new(self.http, "POST", &format!("/api/v1/c/{room_id}/entry"))
            .from(last)
            .json(body)
            .open()
            .await
    }

    /// Opens a conference: its opener enters and joins. The opener's token.
    pub(crate) async fn opened(&self, room_id: &str) -> (String, crate::rtc::Client) {
        let mut stream = self
            .enter(
                room_id,
                &json!({"name": "Vorsitz", "openerKey": OPENER_KEY}),
            )
            .await;
        let admitted = stream.expect("admitted").await;
        let token = admitted["token"].as_str().expect("token").to_owned();
        let client = crate::rtc::connect(self.http, &format!("access_token={token}"))
            .await
            .expect("joined");
        (token, client)
    }
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = tokio::time::Instant::now() + LIVE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A token as a tenant's backend signs it.
pub(crate) fn token(key: &str, secret: &str, claims: Value) -> String {
    let mut all = json!({"iss": key, "exp": now() + 600, "nbf": now() - 1});
    for (name, value) in claims.as_object().expect("object") {
        all[name] = value.clone();
    }
    let signed = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#),
        BASE64URL_NOPAD.encode(all.to_string().as_bytes())
    );
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(tag.as_ref()))
}

/// A join token of the town's backend.
pub(crate) fn town_join(room: &str, identity: &str) -> String {
    token(
        "town-key",
        TOWN_SECRET,
        json!({"sub": identity, "video": {"roomJoin": true, "room": room}}),
    )
}

/// A join token of the lab's backend.
pub(crate) fn lab_join(room: &str, identity: &str) -> String {
    token(
        "lab-key",
        LAB_SECRET,
        json!({"sub": identity, "video": {"roomJoin": true, "room": room}}),
    )
}

fn policy(declared: bool, lobby: LobbyRule, guests_allowed: bool) -> RoomPolicy {
    let permission = |role: Role, moderate: bool| Permission {
        role: role.into(),
        microphone: true,
        camera: true,
        screen_share: true,
        chat: ChatRule::ChatEveryone.into(),
        moderate,
        enter_muted: role == Role::Guest,
        ..Permission::default()
    };
    RoomPolicy {
        declared,
        lobby: lobby.into(),
        guests_allowed,
        permissions: vec![
            permission(Role::Moderator, true),
            permission(Role::Presenter, false),
            permission(Role::Participant, false),
            permission(Role::Guest, false),
        ],
        max_participants: 50,
        max_publishers: 20,
        empty_timeout_ms: 300_000,
        departure_timeout_ms: 20_000,
        screen_share: true,
        revision: "1".into(),
        ..RoomPolicy::default()
    }
}

pub(crate) fn town() -> TenantRecord {
    TenantRecord {
        uid: "tenant-town".into(),
        name: TOWN.into(),
        revision: "1".into(),
        display_name: "Stadt Musterstadt".into(),
        api_keys: vec![ApiKey {
            key: "town-key".into(),
            secret: TOWN_SECRET.into(),
        }],
        ad_hoc: AdHoc::Forbidden.into(),
        branding_name: "Musterstadt".into(),
        branding_colour: "#1f4e79".into(),
        branding_texts: vec![BrandingText {
            key: "Welcome".into(),
            lang: "de".into(),
            text: "Willkommen".into(),
        }],
        link_key: vec![1; 32],
        pools: vec!["media/local".into()],
        ..TenantRecord::default()
    }
}

pub(crate) fn lab() -> TenantRecord {
    TenantRecord {
        uid: "tenant-lab".into(),
        name: "lab".into(),
        revision: "1".into(),
        display_name: "Lab".into(),
        api_keys: vec![ApiKey {
            key: "lab-key".into(),
            secret: LAB_SECRET.into(),
        }],
        ad_hoc: AdHoc::OnJoin.into(),
        ad_hoc_policy: Some(policy(false, LobbyRule::LobbyOff, true)),
        link_key: vec![2; 32],
        pools: vec!["media/local".into()],
        ..TenantRecord::default()
    }
}

pub(crate) fn conference(
    name: &str,
    room_id: &str,
    lobby: LobbyRule,
    guests: bool,
) -> ConferenceRecord {
    let params = argon2::Params::new(64, 1, 1, None).expect("params");
    let hash: PasswordHash =
        argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
            .hash_password_with_salt(PASSWORD.as_bytes(), b"sixteen bytes ..")
            .expect("hash");
    let opener_hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, OPENER_KEY.as_bytes());
    ConferenceRecord {
        uid: format!("conference-{name}"),
        revision: "1".into(),
        tenant: TOWN.into(),
        namespace: format!("tenant-{TOWN}"),
        name: name.into(),
        room_name: name.into(),
        room_id: room_id.into(),
        display_name: format!("Conference {name}"),
        openers: vec![
            Opener {
                who: Some(opener::Who::KeySha256(opener_hash.as_ref().to_vec())),
            },
            Opener {
                who: Some(opener::Who::Subject("mayor".into())),
            },
        ],
        password_hash: hash.to_string(),
        roles: vec![RoleRule {
            role: Role::Presenter.into(),
            subjects: vec!["speaker".into()],
            groups: Vec::new(),
        }],
        policy: Some(policy(true, lobby, guests)),
        ..ConferenceRecord::default()
    }
}

fn records() -> Vec<Item> {
    let mut later = conference("later", LATER, LobbyRule::LobbyOff, true);
    later.schedule = Some(Schedule {
        start: "2099-01-01T10:00".into(),
        time_zone: "Europe/Berlin".into(),
        duration_ms: 3_600_000,
        open_before_ms: 900_000,
        ..Schedule::default()
    });
    let mut closed = conference("closed", CLOSED, LobbyRule::LobbyOff, true);
    closed.suspended = true;
    let mut council = conference("council", COUNCIL, LobbyRule::LobbyOff, true);
    council.notices = vec![Notice {
        id: "privacy".into(),
        texts: vec![LocalText {
            lang: "de".into(),
            text: "Hinweis".into(),
        }],
        acknowledge: false,
    }];
    vec![
        Item::Tenant(town()),
        Item::Tenant(lab()),
        Item::Conference(council),
        Item::Conference(conference("lobby", LOBBY, LobbyRule::LobbyGuests, true)),
        Item::Conference(later),
        Item::Conference(closed),
        Item::Conference(conference("staff", STAFF, LobbyRule::LobbyOff, false)),
        Item::Node(node_facts()),
    ]
}

/// Facts of the node, as an operator publishes them.
pub(crate) fn node_facts() -> NodeFacts {
    NodeFacts {
        uid: NODE_UID.into(),
        node_id: NODE_ID.into(),
        site: SITE.into(),
        pool: "media/local".into(),
        epoch: 1,
        capacity: Some(NodeCapacity {
            rooms: 100,
            participants: 1_000,
            egress_mbps: 10_000,
        }),
        drain_timeout_ms: 60_000,
        accepting: true,
        revision: "1".into(),
        ..NodeFacts::default()
    }
}
