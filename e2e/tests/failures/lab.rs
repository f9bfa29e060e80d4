// SPDX-License-Identifier: EUPL-1.2
//! What every case has: a system with its store, a crowd in rooms, and ways to ask and to judge.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use e2e::http;
use e2e::processes::Process;
use e2e::redis::Redis;
use e2e::system::{GATEWAY, Setup, System};
use plenum_load::crowd::{Crowd, Figures, Shape, Spread, Undisturbed};
use plenum_load::person::record::{Kind, Millis};
use plenum_load::person::retry::Policy;
use serde_json::{Value, json};

/// Key of a tenant whose rooms open on join.
pub(crate) const LAB: (&str, &str) = ("devkey", "secretsecretsecretsecretsecretsecret");
/// Key of a tenant with declared conferences.
pub(crate) const MUSTERSTADT: (&str, &str) =
    ("musterstadt", "an-example-secret-change-it-before-use");
/// The declared conference of that tenant that cases use.
pub(crate) const COUNCIL: &str = "council";
/// Everything happens within this time, or it does not happen.
pub(crate) const LIVENESS: Duration = Duration::from_secs(30);

/// How long the store is away.
pub(crate) fn outage() -> Duration {
    if std::env::var_os("PLENUM_LONG").is_some_and(|long| long == "1") {
        Duration::from_secs(600)
    } else {
        Duration::from_secs(60)
    }
}

/// A join token.
pub(crate) fn token(key: (&str, &str), identity: &str, room: &str, grants: &Value) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut video = json!({ "roomJoin": true, "room": room });
    if let (Some(video), Some(grants)) = (video.as_object_mut(), grants.as_object()) {
        video.extend(grants.clone());
    }
    let claims = json!({
        "iss": key.0, "sub": identity, "name": identity, "nbf": now - 5, "iat": now, "exp": now + 6 * 3600, "video": video,
    });
    let secret = jsonwebtoken::EncodingKey::from_secret(key.1.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &secret)
        .expect("claims can be signed")
}

/// A small crowd: two rooms of four, a camera and two microphones in each.
pub(crate) fn shape() -> Shape {
    Shape {
        rooms: 2,
        people: 4,
        cameras: 1,
        microphones: 1,
        picture_bytes: 700,
        policy: Policy::Page,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

/// The pool of the quickstart with other numbers.
pub(crate) fn pool(nodes: u32, rooms: u32) -> String {
    format!(
        "apiVersion: plenum.dev/v1alpha1\nkind: MediaPool\nmetadata:\n  name: local\n  namespace: media\nspec:\n  replicas: {nodes}\n  \
         network:\n    type: HostPort\n    hostPort:\n      range:\n        min: 20000\n        max: 20255\n    addressSources:\n      \
         - type: NodeInternalIP\n  capacity:\n    rooms: {rooms}\n    participants: 500\n    egressMbps: 1000\n"
    )
}

/// A replica of the control plane.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    /// Its id.
    pub(crate) id: String,
    /// Its process.
    pub(crate) process: Process,
    /// Where it alone is reached.
    pub(crate) http: SocketAddr,
}

impl Replica {
    /// URL of its WebSockets.
    pub(crate) fn gateway(&self) -> Vec<String> {
        vec![format!("ws://{}", self.http)]
    }
}

/// All replicas that run, by id.
pub(crate) fn replicas() -> Result<Vec<Replica>> {
    let mut replicas = Process::all("control-plane")
        .into_iter()
        .map(|process| {
            let one = |name: &str| {
                process
                    .options(name)
                    .next()
                    .map(str::to_owned)
                    .with_context(|| format!("a replica is given --{name}"))
            };
            Ok(Replica {
                id: one("replica-id")?,
                http: one("http-listen")?.parse()?,
                process,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    replicas.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(replicas)
}

/// The replica of that id.
pub(crate) fn replica(id: &str) -> Result<Replica> {
    replicas()?
        .into_iter()
        .find(|replica| replica.id == id)
        .with_context(|| format!("{id} runs"))
}

/// Waits until `what` holds.
pub(crate) async fn until<T>(
    claim: &str,
    bound: Duration,
    mut what: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let end = Instant::now() + bound;
    loop {
        match what().await {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() >= end => {
                return Err(error.context(format!("within {bound:?}: {claim}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// A running system with people in it.
pub(crate) struct Lab {
    /// Case, for figures.
    pub(crate) name: &'static str,
    /// The system.
    pub(crate) system: System,
    /// Its store.
    pub(crate) redis: Redis,
    /// The people.
    pub(crate) crowd: Crowd,
    /// What the crowd looks like.
    pub(crate) shape: Shape,
    /// What the undisturbed begin cost.
    quiet: Undisturbed,
}

/// Runs a case: system, store, crowd, then `body`, and everything ends in good order.
pub(crate) fn run(
    name: &'static str,
    setup: Setup,
    shape: Shape,
    body: impl AsyncFnOnce(&mut Lab) -> Result<()>,
) -> Result<()> {
    let redis = Redis::start(&folder(name).join("redis"))?;
    run_with(name, redis, setup, shape, body)
}

/// As [`run`], with a store that stands already. Without a URL in `setup` it is the one that is used.
pub(crate) fn run_with(
    name: &'static str,
    redis: Redis,
    mut setup: Setup,
    shape: Shape,
    body: impl AsyncFnOnce(&mut Lab) -> Result<()>,
) -> Result<()> {
    setup.redis.get_or_insert_with(|| redis.url());
    if setup.replicas == 0 {
        setup.replicas = 2;
    }
    let system = System::start_with(name, &setup)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut lab = Lab {
        name,
        system,
        redis,
        crowd: Crowd::default(),
        shape,
        quiet: Undisturbed::default(),
    };
    let done = runtime.block_on(async {
        lab.fill().await?;
        body(&mut lab).await
    });
    let story = lab.crowd.story(Millis(0));
    let done = done.map_err(|error| {
        anyhow::anyhow!(
            "{error:#}\n{story}\n{}\n{}",
            lab.system.log(),
            lab.system.logs(60)
        )
    });
    runtime.block_on(std::mem::take(&mut lab.crowd).leave());
    runtime.shutdown_timeout(Duration::from_secs(1));
    done?;
    lab.system.stop()
}

/// A folder of a case beside its system's own.
pub(crate) fn folder(name: &str) -> PathBuf {
    e2e::system::folder(name).with_extension("lab")
}

impl Lab {
    /// The crowd enters; then ten seconds pass in which nothing is done.
    async fn fill(&mut self) -> Result<()> {
        let gateways = shared();
        self.crowd
            .fill("room", &self.shape, &gateways, |identity, room| {
                token(LAB, identity, room, &json!({}))
            });
        self.flowing("everybody gets every track").await?;
        let from = self.crowd.now();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let figures = self.settled(from).await;
        self.quiet = figures.undisturbed();
        self.figure("undisturbed_missing", figures.missing, "frames");
        Ok(())
    }

    /// Prints a figure.
    pub(crate) fn figure(&self, what: &str, value: impl Display, unit: &str) {
        println!("figure: {}/{what} {value} {unit}", self.name);
    }

    /// Median, 99th percentile and the worst of something.
    pub(crate) fn spread(&self, what: &str, spread: &Spread) {
        if spread.count == 0 {
            return;
        }
        self.figure(&format!("{what}_p50"), spread.p50.as_millis(), "ms");
        self.figure(&format!("{what}_p99"), spread.p99.as_millis(), "ms");
        self.figure(&format!("{what}_worst"), spread.worst.as_millis(), "ms");
    }

    /// Waits until everybody gets every track of their room.
    pub(crate) async fn flowing(&self, claim: &str) -> Result<()> {
        self.flowing_within(claim, LIVENESS).await
    }

    /// As [`Self::flowing`], with another bound.
    pub(crate) async fn flowing_within(&self, claim: &str, bound: Duration) -> Result<()> {
        let waiting = self.crowd.until_flowing(bound).await;
        ensure!(waiting.is_empty(), "{claim}: {}", some(&waiting));
        Ok(())
    }

    /// Figures from `from` until now, once what is on its way has arrived.
    pub(crate) async fn settled(&self, from: Millis) -> Figures {
        let to = self.crowd.now();
        tokio::time::sleep(Duration::from_millis(700)).await;
        self.crowd.figures(from, to)
    }

    /// Prints what the first crowd got from `from` on.
    pub(crate) fn show(&self, what: &str, figures: &Figures) {
        self.figure(&format!("{what}_missing"), figures.missing, "frames");
        self.figure(&format!("{what}_due"), figures.due, "frames");
        self.spread(&format!("{what}_gap"), &figures.gaps);
        self.spread(&format!("{what}_signalling"), &figures.signalling);
        for (name, count) in [
            ("resumed", figures.resumed),
            ("joined", figures.joined),
            ("refused", figures.refused),
            ("gave_up", figures.gave_up),
        ] {
            if count > 0 {
                self.figure(&format!("{what}_{name}"), count, "times");
            }
        }
    }

    /// Media went on without a gap: no frame is missing beyond what the same people lost undisturbed, which is normally none.
    pub(crate) fn without_a_gap(&self, what: &str, figures: &Figures) -> Result<()> {
        self.show(what, figures);
        figures
            .no_worse_than(self.quiet)
            .with_context(|| what.to_owned())
    }

    /// Somebody new enters a room through `gateways`, and gets every track.
    pub(crate) async fn enters(
        &mut self,
        room: &str,
        identity: &str,
        gateways: &[String],
    ) -> Result<()> {
        let began = Instant::now();
        let publishes = vec![Kind::Audio];
        let token = token(LAB, identity, room, &json!({}));
        let shape = self.shape.clone();
        self.crowd
            .enter(room, identity, token, publishes, &shape, gateways);
        self.flowing(&format!("{identity} enters {room}")).await?;
        self.figure(
            &format!("{identity}_receives_after"),
            began.elapsed().as_millis(),
            "ms",
        );
        Ok(())
    }

    /// People of a new room, all of them through other gateways, meet in one room.
    pub(crate) async fn meet(&mut self, room: &str, gateways: &[Vec<String>]) -> Result<()> {
        let began = Instant::now();
        let shape = self.shape.clone();
        for (index, gateways) in gateways.iter().enumerate() {
            let identity = format!("{room}-{index}");
            let token = token(LAB, &identity, room, &json!({}));
            self.crowd
                .enter(room, &identity, token, vec![Kind::Audio], &shape, gateways);
        }
        self.flowing(&format!("the people of {room} meet")).await?;
        self.figure(
            &format!("{room}_meets_after"),
            began.elapsed().as_millis(),
            "ms",
        );
        Ok(())
    }

    /// Every room of the crowd exists once, with all of its people, and every replica says so.
    pub(crate) async fn one_state(&self) -> Result<()> {
        until("there is one state of everything", LIVENESS, async || {
            self.is_one_state().await
        })
        .await
    }

    /// The store holds a lease of every room of the crowd, and of no other of that tenant.
    pub(crate) async fn store_agrees(&self, redis: &Redis) -> Result<()> {
        let mut wanted: Vec<&str> = self.crowd.rooms().filter(|room| *room != COUNCIL).collect();
        wanted.sort_unstable();
        until("the store knows every room once", LIVENESS, async || {
            let keys = redis.keys()?;
            let held: Vec<&str> = keys
                .iter()
                .filter_map(|key| key.split_once("}:room:lab/").map(|(_, room)| room))
                .collect();
            ensure!(held == wanted, "it holds {held:?}, wanted {wanted:?}");
            Ok(())
        })
        .await
    }

    async fn is_one_state(&self) -> Result<()> {
        let mut wanted: Vec<(String, u64)> = Vec::new();
        let declared = self
            .crowd
            .people()
            .filter(|(room, _)| *room == COUNCIL)
            .count() as u64;
        for (room, _) in self.crowd.people().filter(|(room, _)| *room != COUNCIL) {
            match wanted.last_mut() {
                Some((last, count)) if last == room => *count += 1,
                _ => wanted.push((room.to_owned(), 1)),
            }
        }
        wanted.sort();
        let admin = token(LAB, "admin", "", &json!({ "roomList": true }));
        let mut sids = None;
        for replica in replicas()? {
            let answer = http::post(
                replica.http,
                "/twirp/livekit.RoomService/ListRooms",
                &admin,
                &json!({}),
            )
            .await?;
            ensure!(answer.status == 200, "ListRooms: {answer:?}");
            let rooms = answer.json()?;
            let mut listed = Vec::new();
            let mut own_sids = Vec::new();
            for room in rooms["rooms"].as_array().into_iter().flatten() {
                let name = room["name"].as_str().unwrap_or_default().to_owned();
                // Twirp's JSON has been written both ways.
                let people = [&room["numParticipants"], &room["num_participants"]]
                    .into_iter()
                    .find(|count| !count.is_null())
                    .unwrap_or(&Value::Null);
                listed.push((name, people.as_u64().unwrap_or_default()));
                own_sids.push(room["sid"].clone());
            }
            listed.sort();
            ensure!(
                listed == wanted,
                "{} lists {listed:?}, wanted {wanted:?}",
                replica.id
            );
            own_sids.sort_by_key(Value::to_string);
            let sids = sids.get_or_insert_with(|| own_sids.clone());
            ensure!(
                *sids == own_sids,
                "replicas name other rooms: {sids:?}, {own_sids:?}"
            );
        }
        let (mut rooms, mut people) = (0, 0);
        for node in self.system.get("nodes")? {
            rooms += node["status"]["load"]["rooms"].as_u64().unwrap_or_default();
            people += node["status"]["load"]["participants"]
                .as_u64()
                .unwrap_or_default();
        }
        let all: u64 = declared + wanted.iter().map(|(_, people)| people).sum::<u64>();
        let total = wanted.len() as u64 + u64::from(declared > 0);
        ensure!(
            (rooms, people) == (total, all),
            "the nodes hold {rooms} rooms with {people} people, wanted {total} with {all}"
        );
        Ok(())
    }
}

/// The first few of those who wait.
pub(crate) fn some(waiting: &[(String, String)]) -> String {
    let few: Vec<&str> = waiting
        .iter()
        .take(6)
        .map(|(_, what)| what.as_str())
        .collect();
    format!("{} in all; {}", waiting.len(), few.join("; "))
}

/// The address that all replicas share.
pub(crate) fn shared() -> Vec<String> {
    vec![format!("ws://{GATEWAY}")]
}

/// Asks replicas all the time whether they live and are ready.
pub(crate) struct Health {
    failures: Arc<Mutex<Vec<String>>>,
    asked: Arc<Mutex<u64>>,
    task: tokio::task::JoinHandle<()>,
}

impl Health {
    /// Begins to ask.
    pub(crate) fn watch(replicas: Vec<Replica>) -> Self {
        let failures = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::new(Mutex::new(0));
        let (told, count) = (Arc::clone(&failures), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            loop {
                for replica in &replicas {
                    for path in ["/livez", "/readyz"] {
                        let answer = http::get(replica.http, path).await;
                        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                        *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                        match answer {
                            Ok(answer) if answer.status == 200 => {}
                            other => told.push(format!("{} {path}: {other:?}", replica.id)),
                        }
                    }
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        });
        Self {
            failures,
            asked,
            task,
        }
    }

    /// Every answer was yes.
    pub(crate) fn was_good(self) -> Result<u64> {
        self.task.abort();
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if !failures.is_empty() {
            bail!("probes failed: {failures:#?}");
        }
        Ok(*self.asked.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
