// SPDX-License-Identifier: EUPL-1.2
//! What a join costs without HTTP: verify the token, admit, plan, and the steps of the store, in one thread whose CPU time is its own. The
//! thread holds the store's connection and the channels to the nodes, so their work is counted with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use control_core::ids::Secret;
use control_core::time::UnixMillis;
use control_plane::auth::{InstallationKey, Verifier};
use control_plane::clock::Clock;
use control_plane::gateway::admission::{self, Surroundings};
use control_plane::hosts::Hosts;
use control_plane::identity::Tls;
use control_plane::plane::Plane;
use control_plane::rpc;
use control_plane::store::Store;
use control_plane::store::memory::MemoryStore;
use control_plane::store::redis::address::Address;
use control_plane::store::redis::keys::Namespace;
use control_plane::store::redis::{Options, RedisStore};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::figures::{Spread, spread};
use crate::nodes::Nodes;
use crate::operator;
use crate::pki::Pki;
use crate::process::{Launch, Process, READY, until_said};
use crate::redis_server::{self, Counts};
use crate::target::{Arrivals, Person, backends};

/// Joins one after the other: round trips are counted exactly, and times are without a queue.
const ALONE: usize = 2_000;
/// Joins under way at a time in the measurement of CPU time.
const AT_A_TIME: usize = 64;
/// A call that takes longer has failed; longer than in production, so that a busy machine is measured and not refused.
const DEADLINE: Duration = Duration::from_secs(5);
/// What goes on without joins is watched for so long.
const IDLE: Duration = Duration::from_secs(2);
/// Calls of the bare script.
const BARE: usize = 20_000;

/// What the child is told.
#[derive(Clone, Debug, Args)]
pub(crate) struct PlanArgs {
    /// Nodes.
    #[arg(long)]
    pub(crate) nodes: usize,
    /// Joins.
    #[arg(long)]
    pub(crate) joins: usize,
    /// People of a room.
    #[arg(long)]
    pub(crate) per_room: usize,
    /// Redis; without it the store is in memory.
    #[arg(long)]
    pub(crate) redis_url: Option<String>,
    /// For certificates.
    #[arg(long)]
    pub(crate) folder: PathBuf,
}

/// What it found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PlanFigures {
    /// Joins.
    pub(crate) joins: usize,
    /// CPU time of one: token, admission, plan, store, `RoomHost.Open` for the first of each room.
    pub(crate) cpu_micros: f64,
    /// Joins per CPU-second.
    pub(crate) per_cpu_second: f64,
    /// CPU time of a join that opens a room.
    pub(crate) new_room_cpu_micros: f64,
    /// CPU time of a join to a room that runs.
    pub(crate) running_room_cpu_micros: f64,
    /// CPU time of token and admission alone.
    pub(crate) token_cpu_micros: f64,
    /// Times of joins that open a room, one after the other.
    pub(crate) new_room_alone: Spread,
    /// Times of joins to a room that runs, one after the other.
    pub(crate) running_room_alone: Spread,
    /// Round trips to Redis of a join that opens a room.
    pub(crate) new_room_round_trips: f64,
    /// Round trips to Redis of a join to a room that runs.
    pub(crate) running_room_round_trips: f64,
    /// Bytes to and from Redis of a join that opens a room.
    pub(crate) new_room_bytes: f64,
    /// Bytes to and from Redis of a join to a room that runs.
    pub(crate) running_room_bytes: f64,
    /// The floor: CPU time of one call of the smallest script, under way as many at a time.
    pub(crate) bare_script_cpu_micros: Option<f64>,
    /// The floor: time of one call of the smallest script, alone.
    pub(crate) bare_script_alone: Option<Spread>,
}

/// Runs the child and reads what it found.
pub(crate) async fn measure(args: &PlanArgs) -> Result<PlanFigures> {
    let program = std::env::current_exe()?;
    let mut list = vec!["plan".to_owned()];
    for (name, value) in [
        ("nodes", args.nodes),
        ("joins", args.joins),
        ("per-room", args.per_room),
    ] {
        list.extend([format!("--{name}"), value.to_string()]);
    }
    list.extend(["--folder".to_owned(), args.folder.display().to_string()]);
    if let Some(url) = &args.redis_url {
        list.extend(["--redis-url".to_owned(), url.clone()]);
    }
    let mut process = Process::start(&Launch {
        program: &program,
        args: list,
        env: Vec::new(),
    })?;
    let mut log = process.stderr()?;
    tokio::spawn(async move {
        while let Ok(Some(line)) = log.next_line().await {
            eprintln!("plan: {line}");
        }
    });
    let mut lines = process.stdout()?;
    // It says something at each stage, so that each has the time of a child that starts.
    loop {
        let line = until_said(&mut lines, "the measurement of plans", |line| {
            Some(line.to_owned())
        })
        .await?;
        if let Some(figures) = line.strip_prefix("figures ") {
            return serde_json::from_str(figures).context("figures of plans");
        }
    }
}

/// The child.
pub(crate) async fn run(args: PlanArgs) -> Result<()> {
    let pki = Pki::new()?;
    pki.write(&args.folder)?;
    let tls = Tls::read(&args.folder)?;
    let (ready, plane) = oneshot::channel();
    let (work, job) = oneshot::channel();
    let redis_url = args.redis_url.clone();
    let dial = tls.clone();
    // The thread that is measured: whatever it spawns stays on it.
    let measured = std::thread::Builder::new()
        .name("measured".to_owned())
        .spawn(move || -> Result<PlanFigures> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async move {
                let clock = Clock::start();
                let store = store(redis_url.as_deref(), clock).await?;
                let plane = Plane::new(store, Hosts::new(dial), clock);
                if ready.send(plane.clone()).is_err() {
                    bail!("nobody wants the plane");
                }
                let args: PlanArgs = job.await?;
                Measured { plane, args }.run().await
            })
        })?;
    let plane = plane.await.context("the store cannot be opened")?;
    let stop = CancellationToken::new();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let grpc = listener.local_addr()?.to_string();
    let (served, token, advertised) = (plane.clone(), stop.clone(), vec![grpc.clone()]);
    tokio::spawn(async move { rpc::serve(served, listener, &tls, advertised, token).await });
    tokio::spawn(plane.clone().watch_nodes(stop.clone()));
    let nodes = Nodes::serve(pki, args.nodes, vec![grpc.clone()]).await?;
    let _published = operator::publish(nodes.pki(), &grpc, args.nodes).await?;
    println!("published");
    nodes.attach(0..args.nodes).await?;
    println!("attached");
    work.send(args)
        .map_err(|_| anyhow::anyhow!("the measured thread ended"))?;
    let figures = tokio::task::spawn_blocking(move || measured.join())
        .await?
        .map_err(|_| anyhow::anyhow!("the measured thread panicked"))??;
    println!("figures {}", serde_json::to_string(&figures)?);
    Ok(())
}

async fn store(redis_url: Option<&str>, clock: Clock) -> Result<Arc<dyn Store>> {
    match redis_url {
        None => Ok(Arc::new(MemoryStore::new(Arc::new(move || clock.now())))),
        Some(url) => {
            let store = RedisStore::start(Options {
                address: Address::parse(url)?,
                ca: None,
                namespace: Namespace::parse("plan").context("a name of a namespace")?,
                deadline: DEADLINE,
            })?;
            // It connects in the background.
            let end = tokio::time::Instant::now() + READY;
            while store.ping().await.is_err() {
                if tokio::time::Instant::now() > end {
                    bail!("the store at {url} does not answer");
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(Arc::new(store))
        }
    }
}

/// Round trips to Redis.
struct Trips {
    count: f64,
    bytes: f64,
}

#[derive(Clone)]
struct Measured {
    plane: Plane,
    args: PlanArgs,
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        now.tv_sec.try_into().unwrap_or_default(),
        now.tv_nsec.try_into().unwrap_or_default(),
    )
}

fn per(total: Duration, count: usize) -> f64 {
    total.as_secs_f64() * 1e6 / count.max(1) as f64
}

impl Measured {
    async fn run(self) -> Result<PlanFigures> {
        let installation = Arc::new(InstallationKey::new(Secret::new(&[9; 32]).expose())?);
        let backends = backends();
        let joins = self.args.joins;
        let arrivals = Arrivals::new(joins, joins.div_ceil(self.args.per_room));
        let tokens = |prefix: &str, turns: std::ops::Range<usize>| -> Vec<String> {
            turns
                .map(|turn| {
                    let (room, person) = arrivals.at(turn);
                    Person::of(prefix, room, person).token(&backends)
                })
                .collect()
        };

        // Token and admission alone.
        let mixed = tokens("mixed", 0..joins);
        let begun = cpu();
        for token in &mixed {
            self.admit(&installation, token)?;
        }
        let token_cpu = cpu() - begun;
        println!("tokens");

        // As they come.
        let begun = cpu();
        self.all(&installation, mixed).await?;
        let mixed_cpu = cpu() - begun;
        println!("mixed");

        // Rooms of one person, then a second person of each.
        let alone = ALONE.min(joins);
        let each = |who: &'static str| -> Vec<String> {
            (0..joins)
                .map(|room| {
                    Person {
                        identity: who.to_owned(),
                        ..Person::of("pair", room, 0)
                    }
                    .token(&backends)
                })
                .collect()
        };
        let begun = cpu();
        self.all(&installation, each("first")).await?;
        let new_cpu = cpu() - begun;
        println!("new");
        let begun = cpu();
        self.all(&installation, each("second")).await?;
        let running_cpu = cpu() - begun;
        println!("running");

        let single = |who: &'static str| -> Vec<String> {
            (0..alone)
                .map(|room| {
                    Person {
                        identity: who.to_owned(),
                        ..Person::of("alone", room, 0)
                    }
                    .token(&backends)
                })
                .collect()
        };
        let (new_alone, new_trips) = self.alone(&installation, single("first")).await?;
        println!("new alone");
        let (running_alone, running_trips) = self.alone(&installation, single("second")).await?;
        println!("running alone");
        let bare = match &self.args.redis_url {
            Some(url) => Some(bare(url, BARE.min(joins * 4)).await?),
            None => None,
        };
        Ok(PlanFigures {
            joins,
            cpu_micros: per(mixed_cpu, joins),
            per_cpu_second: joins as f64 / mixed_cpu.as_secs_f64().max(1e-9),
            new_room_cpu_micros: per(new_cpu, joins),
            running_room_cpu_micros: per(running_cpu, joins),
            token_cpu_micros: per(token_cpu, joins),
            new_room_alone: spread(&new_alone),
            running_room_alone: spread(&running_alone),
            new_room_round_trips: new_trips.count / alone as f64,
            running_room_round_trips: running_trips.count / alone as f64,
            new_room_bytes: new_trips.bytes / alone as f64,
            running_room_bytes: running_trips.bytes / alone as f64,
            bare_script_cpu_micros: bare.as_ref().map(|(cpu, _)| *cpu),
            bare_script_alone: bare.map(|(_, alone)| alone),
        })
    }

    fn admit(&self, installation: &InstallationKey, token: &str) -> Result<admission::Admission> {
        let view = self.plane.view();
        let now = self.plane.now_unix_ms();
        let verifier = Verifier {
            installation,
            keys: &*view,
            development_keys: false,
        };
        let token = verifier.verify(token, now.div_euclid(1_000))?;
        let key = admission::room_of(&token).map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
        let room = self.plane.room(&key);
        let around = Surroundings {
            view: &view,
            loaded: self.plane.is_loaded(),
            settled: true,
            room: room.as_ref(),
            now: UnixMillis(now),
        };
        admission::admit(&around, &token, &key).map_err(|refusal| anyhow::anyhow!("{refusal}"))
    }

    async fn one(&self, installation: &InstallationKey, token: &str) -> Result<()> {
        let admission = self.admit(installation, token)?;
        self.plane.place(admission.place).await?;
        Ok(())
    }

    async fn all(&self, installation: &Arc<InstallationKey>, tokens: Vec<String>) -> Result<()> {
        let tokens = Arc::new(tokens);
        let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut workers = tokio::task::JoinSet::new();
        for _ in 0..AT_A_TIME {
            let (own, installation) = (self.clone(), Arc::clone(installation));
            let (tokens, next) = (Arc::clone(&tokens), Arc::clone(&next));
            workers.spawn(async move {
                loop {
                    let turn = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(token) = tokens.get(turn) else {
                        return Ok::<_, anyhow::Error>(());
                    };
                    own.one(&installation, token).await?;
                }
            });
        }
        while let Some(ended) = workers.join_next().await {
            ended??;
        }
        Ok(())
    }

    async fn alone(
        &self,
        installation: &InstallationKey,
        tokens: Vec<String>,
    ) -> Result<(Vec<Duration>, Trips)> {
        let mut side = match &self.args.redis_url {
            Some(url) => Some(
                redis::Client::open(url.as_str())?
                    .get_multiplexed_async_connection()
                    .await?,
            ),
            None => None,
        };
        // Nodes go on to report: what that costs by itself is taken out.
        let mut idle = Counts::default();
        if let Some(side) = &mut side {
            let before = redis_server::counts(side).await?;
            tokio::time::sleep(IDLE).await;
            idle = redis_server::counts(side).await?.since(before);
        }
        let before = match &mut side {
            Some(side) => redis_server::counts(side).await?,
            None => Counts::default(),
        };
        let started = std::time::Instant::now();
        let mut took = Vec::with_capacity(tokens.len());
        for token in &tokens {
            let begun = std::time::Instant::now();
            self.one(installation, token).await?;
            took.push(begun.elapsed());
        }
        let after = match &mut side {
            Some(side) => redis_server::counts(side).await?,
            None => Counts::default(),
        };
        let share = started.elapsed().as_secs_f64() / IDLE.as_secs_f64();
        let own = |all: u64, idle: u64| (all as f64 - idle as f64 * share).max(0.0);
        let all = after.since(before);
        Ok((
            took,
            Trips {
                count: own(all.reads, idle.reads),
                bytes: own(all.bytes_in + all.bytes_out, idle.bytes_in + idle.bytes_out),
            },
        ))
    }
}

/// The smallest script on the same Redis by the same library.
async fn bare(url: &str, calls: usize) -> Result<(f64, Spread)> {
    let connection = redis::Client::open(url)?
        .get_multiplexed_async_connection()
        .await?;
    let script = Arc::new(redis::Script::new("return redis.call('GET', KEYS[1])"));
    let mut alone = Vec::new();
    for _ in 0..ALONE.min(calls) {
        let begun = std::time::Instant::now();
        let _: Option<String> = script
            .key("bare")
            .invoke_async(&mut connection.clone())
            .await?;
        alone.push(begun.elapsed());
    }
    let begun = cpu();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..AT_A_TIME {
        let (script, mut connection) = (Arc::clone(&script), connection.clone());
        workers.spawn(async move {
            for _ in 0..calls / AT_A_TIME {
                let _: Option<String> = script.key("bare").invoke_async(&mut connection).await?;
            }
            Ok::<_, redis::RedisError>(())
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    let made = calls / AT_A_TIME * AT_A_TIME;
    Ok((per(cpu() - begun, made), spread(&alone)))
}
