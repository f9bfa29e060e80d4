// SPDX-License-Identifier: EUPL-1.2
//! The conductor: starts everything, measures stage by stage, prints.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use tokio::time::sleep;

use crate::crowd::Crowd;
use crate::figures::{
    Figures, FloorFigures, HalfLoad, JoinFigures, KeySpace, Machine, ReportFigures, SessionFigures,
    spread,
};
use crate::floor;
use crate::joins::{Joins, Outcome};
use crate::nodes::Nodes;
use crate::operator;
use crate::people::Gateway;
use crate::pki::Pki;
use crate::plan::{self, PlanArgs};
use crate::redis_server::{Counts, RedisServer};
use crate::replica::{Options, Replica};
use crate::target::{Target, backends};

/// After a start no unknown room is placed until all nodes have reported, and what a replica does not know is not refused for good.
const SETTLE: Duration = Duration::from_secs(9);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    Memory,
    Redis,
}

/// How large a run is.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// A run of seconds with small numbers: shows that everything works, its figures say little.
    #[arg(long)]
    quick: bool,
    /// Form of the figures.
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
    /// Where the replicas keep leases.
    #[arg(long, value_enum, default_value = "redis")]
    store: StoreKind,
    /// Replicas.
    #[arg(long, value_name = "N")]
    replicas: Option<usize>,
    /// Nodes at the end; reports are measured at a quarter, half and all of them.
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,
    /// People who join.
    #[arg(long, value_name = "N")]
    participants: Option<usize>,
    /// Rooms they join.
    #[arg(long, value_name = "N")]
    rooms: Option<usize>,
    /// Sessions held open beside the joins.
    #[arg(long, value_name = "N")]
    sessions: Option<usize>,
    /// Joins at a time.
    #[arg(long, value_name = "N", default_value_t = 48)]
    at_a_time: usize,
    /// Seconds at half load.
    #[arg(long, value_name = "S")]
    half_load_seconds: Option<u32>,
    /// The gateways speak TLS.
    #[arg(long)]
    tls: bool,
    /// The replica's binary; by default the one beside this program.
    #[arg(long, value_name = "FILE")]
    control_plane: Option<PathBuf>,
    /// The server.
    #[arg(long, value_name = "FILE", default_value = "redis-server")]
    redis_server: PathBuf,
}

/// A size that was checked.
#[derive(Clone, Debug)]
struct Size {
    replicas: usize,
    nodes: usize,
    participants: usize,
    rooms: usize,
    sessions: usize,
    at_a_time: usize,
    half_load: Duration,
    watch: Duration,
    plans: usize,
}

impl RunArgs {
    fn validate(&self) -> Result<Size> {
        let pick = |given: Option<usize>, quick: usize, full: usize| {
            given.unwrap_or(if self.quick { quick } else { full })
        };
        let size = Size {
            replicas: pick(self.replicas, 2, 2),
            nodes: pick(self.nodes, 8, 2_000),
            participants: pick(self.participants, 60, 300_000),
            rooms: pick(self.rooms, 20, 100_000),
            sessions: pick(self.sessions, 20, 20_000),
            at_a_time: self.at_a_time,
            half_load: Duration::from_secs(
                self.half_load_seconds
                    .unwrap_or(if self.quick { 1 } else { 30 })
                    .into(),
            ),
            watch: Duration::from_secs(if self.quick { 1 } else { 12 }),
            plans: if self.quick { 60 } else { 30_000 },
        };
        for (name, value, max) in [
            ("replicas", size.replicas, 8),
            ("nodes", size.nodes, 2_000),
            ("participants", size.participants, 1_000_000),
            ("rooms", size.rooms, size.participants),
            ("sessions", size.sessions, 15_000 * size.replicas),
            ("at-a-time", size.at_a_time, 1_000),
        ] {
            if value == 0 || value > max {
                bail!("--{name} {value}: between 1 and {max} are possible");
            }
        }
        if self.store == StoreKind::Memory && size.replicas > 1 {
            bail!("--store memory is for --replicas 1: replicas share nothing but a store");
        }
        Ok(size)
    }

    fn program(&self) -> Result<PathBuf> {
        let program = match &self.control_plane {
            Some(program) => program.clone(),
            None => std::env::current_exe()?.with_file_name("control-plane"),
        };
        if !program.is_file() {
            bail!(
                "{} is not there: build it (cargo build --release --package control-plane) or name it with --control-plane",
                program.display()
            );
        }
        Ok(program)
    }
}

/// A folder that goes with the run.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("plenum-control-load-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind, it is only litter.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Everything that runs.
struct System {
    redis: Option<RedisServer>,
    replicas: Vec<Replica>,
    nodes: Nodes,
    target: Target,
    _published: Vec<operator::Published>,
}

/// CPU times at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Cpu {
    replicas: Duration,
    redis: Duration,
}

/// What a second costs with nobody joining.
#[derive(Clone, Copy, Debug, Default)]
struct Idle {
    cpu: Cpu,
    scripts: f64,
    bytes: f64,
}

impl Cpu {
    fn since(self, earlier: Self) -> Self {
        Self {
            replicas: self.replicas.saturating_sub(earlier.replicas),
            redis: self.redis.saturating_sub(earlier.redis),
        }
    }
}

/// Measures and prints.
pub(crate) async fn run(args: RunArgs) -> Result<()> {
    let size = args.validate()?;
    let program = args.program()?;
    raise_descriptors();
    let folder = Folder::new()?;
    let system = System::start(&args, &size, &program, &folder.0).await?;
    let figures = system.measure(&args, &size, &folder.0).await;
    let ended = system.end().await;
    let figures = figures?;
    ended?;
    match args.output {
        Output::Text => print!("{}", figures.text()),
        Output::Json => println!("{}", serde_json::to_string_pretty(&figures)?),
    }
    Ok(())
}

impl System {
    async fn start(args: &RunArgs, size: &Size, program: &Path, folder: &Path) -> Result<Self> {
        let pki = Pki::new()?;
        pki.write(folder)?;
        std::fs::write(folder.join("installation.key"), [9; 32])?;
        std::fs::write(folder.join("seal.key"), [8; 32])?;
        let redis = match args.store {
            StoreKind::Memory => None,
            StoreKind::Redis => Some(RedisServer::start(&args.redis_server, folder).await?),
        };
        let options = Options {
            program,
            folder,
            redis_url: redis.as_ref().map(RedisServer::url),
            tls: args.tls,
        };
        let mut replicas = Vec::new();
        for number in 0..size.replicas {
            replicas.push(Replica::start(&options, number).await?);
        }
        let grpc: Vec<String> = replicas
            .iter()
            .map(|replica| replica.grpc.clone())
            .collect();
        let mut published = Vec::new();
        for endpoint in &grpc {
            published.push(operator::publish(&pki, endpoint, size.nodes).await?);
        }
        std::fs::write(folder.join("people-ca.crt"), pki.ca_pem())?;
        let target = Target {
            gateways: replicas.iter().map(|replica| replica.http).collect(),
            ca: args.tls.then(|| folder.join("people-ca.crt")),
        };
        let nodes = Nodes::serve(pki, size.nodes, grpc).await?;
        tracing::info!(
            replicas = size.replicas,
            "replicas run, records are published"
        );
        Ok(Self {
            redis,
            replicas,
            nodes,
            target,
            _published: published,
        })
    }

    async fn end(self) -> Result<()> {
        for replica in self.replicas {
            replica.process.kill().await?;
        }
        if let Some(redis) = self.redis {
            redis.kill().await?;
        }
        Ok(())
    }

    fn cpu(&self) -> Result<Cpu> {
        let mut cpu = Cpu::default();
        for replica in &self.replicas {
            cpu.replicas += replica.process.cpu()?;
        }
        if let Some(redis) = &self.redis {
            cpu.redis = redis.cpu()?;
        }
        Ok(cpu)
    }

    fn pss_bytes(&self) -> Result<u64> {
        let mut sum = 0;
        for replica in &self.replicas {
            sum += replica.process.pss_bytes()?;
        }
        Ok(sum)
    }

    async fn counts(&self) -> Result<Counts> {
        match &self.redis {
            Some(redis) => redis.counts().await,
            None => Ok(Counts::default()),
        }
    }

    async fn measure(&self, args: &RunArgs, size: &Size, folder: &Path) -> Result<Figures> {
        let machine = Machine {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            load: std::fs::read_to_string("/proc/loadavg")
                .unwrap_or_default()
                .split(' ')
                .take(3)
                .collect::<Vec<_>>()
                .join(" "),
        };
        let reports = self.reports(size).await?;
        sleep(SETTLE).await;
        let keys_before = self.counts().await?;
        let joins = |prefix| -> Result<Joins> {
            Ok(Joins {
                gateways: Arc::new(self.target.gateways()?),
                backends: Arc::new(backends()),
                prefix,
            })
        };
        // A first handful, so that channels to nodes exist and nothing is measured that happens once. Each makes handshakes.
        let warm = joins("warm")?
            .all(size.nodes * 2, size.nodes * 2, size.at_a_time.min(16))
            .await?;
        warm.check("first joins")?;
        let frame_bytes = warm.first_bytes / warm.took.len().max(1);
        let (mut sessions, mut crowd) = self.sessions(args, size).await?;
        let floor = self.floor(size, frame_bytes).await?;

        let idle = self.idle(size.watch).await?;
        tracing::info!(
            people = size.participants,
            rooms = size.rooms,
            "joins begin"
        );
        let (before, counted) = (self.cpu()?, self.counts().await?);
        let outcome = joins("load")?
            .all(size.participants, size.rooms, size.at_a_time)
            .await?;
        let (cpu, counts) = (
            self.cpu()?.since(before),
            self.counts().await?.since(counted),
        );
        outcome.check("joins")?;
        let joined = join_figures(size, &outcome, cpu, counts, idle);
        let keys = self.key_space(size, keys_before).await?;

        let rate = (joined.per_second / 2.0).max(1.0);
        let people = (rate * size.half_load.as_secs_f64()).ceil() as usize;
        tracing::info!(rate, "half load begins");
        let half = joins("half")?
            .paced(people, people.div_ceil(3), rate)
            .await?;
        half.check("joins at half load")?;
        let half_load = HalfLoad {
            per_second: rate,
            seconds: half.wall.as_secs_f64(),
            failed: half.failed,
            tried_again: half.tried_again,
            took: spread(&half.took),
        };
        let counters = self.nodes.counters();
        tracing::info!(
            opened = counters.opened.load(Ordering::Relaxed),
            sessions = counters.sessions.load(Ordering::Relaxed),
            streams_broken = counters.broken.load(Ordering::Relaxed),
            fenced = counters.dropped.load(Ordering::Relaxed),
            reports_lost = counters.reports_lost.load(Ordering::Relaxed),
            "simulated nodes"
        );
        let replica_pss_bytes = self.pss_bytes()? / self.replicas.len() as u64;
        sessions.broken = crowd.broken().await?;
        crowd.end().await?;
        let plan = self.plan(size, folder).await?;
        Ok(Figures {
            machine,
            store: match args.store {
                StoreKind::Memory => "memory".to_owned(),
                StoreKind::Redis => "redis".to_owned(),
            },
            replicas: size.replicas,
            nodes: size.nodes,
            reports,
            plan: Some(plan),
            floor,
            sessions,
            joins: joined,
            half_load,
            key_space: keys,
            replica_pss_bytes,
        })
    }

    /// Reports of a quarter, half and all of the nodes, and nothing else.
    async fn reports(&self, size: &Size) -> Result<Vec<ReportFigures>> {
        let mut figures = Vec::new();
        let mut attached = 0;
        for share in [4, 2, 1] {
            let nodes = (size.nodes / share).max(1);
            if nodes == attached {
                continue;
            }
            self.nodes.attach(attached..nodes).await?;
            attached = nodes;
            // Handshakes are over, the first reports too.
            sleep(size.watch / 4).await;
            let cpu = self.idle(size.watch).await?.cpu;
            let per_replica = cpu.replicas.as_secs_f64() * 1e3 / self.replicas.len() as f64;
            let figure = ReportFigures {
                nodes,
                replica_cpu_ms_per_s: per_replica,
                replica_cpu_ms_per_s_per_1000: per_replica * 1_000.0 / nodes as f64,
                redis_cpu_ms_per_s: cpu.redis.as_secs_f64() * 1e3,
                replica_pss_bytes: self.pss_bytes()? / self.replicas.len() as u64,
            };
            tracing::info!(
                nodes,
                ms_per_s = figure.replica_cpu_ms_per_s,
                "reports of nodes"
            );
            figures.push(figure);
        }
        Ok(figures)
    }

    /// Costs of a second with nobody joining.
    async fn idle(&self, watch: Duration) -> Result<Idle> {
        let (before, counted) = (self.cpu()?, self.counts().await?);
        sleep(watch).await;
        let (used, counts) = (
            self.cpu()?.since(before),
            self.counts().await?.since(counted),
        );
        let seconds = watch.as_secs_f64();
        Ok(Idle {
            cpu: Cpu {
                replicas: used.replicas.div_f64(seconds),
                redis: used.redis.div_f64(seconds),
            },
            scripts: counts.scripts as f64 / seconds,
            bytes: (counts.bytes_in + counts.bytes_out) as f64 / seconds,
        })
    }

    async fn sessions(&self, args: &RunArgs, size: &Size) -> Result<(SessionFigures, Crowd)> {
        let without = self.idle(size.watch).await?.cpu;
        let before = self.pss_bytes()?;
        let crowd = Crowd::open(&self.target, size.sessions, 4, "crowd").await?;
        if crowd.failed * 100 > crowd.open {
            bail!(
                "{} of {} sessions could not be opened",
                crowd.failed,
                size.sessions
            );
        }
        // What a join needs for a moment is given back by then.
        sleep(size.watch / 4).await;
        let with = self.idle(size.watch).await?.cpu;
        let after = self.pss_bytes()?;
        let open = crowd.open.max(1) as f64;
        let figures = SessionFigures {
            open: crowd.open,
            failed: crowd.failed,
            broken: 0,
            tls: args.tls,
            bytes: after.saturating_sub(before) as f64 / open,
            cpu_micros_per_s: with.replicas.saturating_sub(without.replicas).as_secs_f64() * 1e6
                / open,
        };
        tracing::info!(
            open = figures.open,
            bytes = figures.bytes,
            "sessions are open"
        );
        Ok((figures, crowd))
    }

    /// The same clients against the barest server.
    async fn floor(&self, size: &Size, frame_bytes: usize) -> Result<FloorFigures> {
        let (process, address) = floor::start(frame_bytes).await?;
        let joins = Joins {
            gateways: Arc::new(vec![Gateway { address, tls: None }]),
            backends: Arc::new(backends()),
            prefix: "floor",
        };
        let people = (size.participants / 10).clamp(20, 20_000);
        joins
            .all(people / 10 + 1, people / 10 + 1, size.at_a_time)
            .await?;
        let before = process.cpu()?;
        let outcome = joins.all(people, people, size.at_a_time).await?;
        outcome.check("joins to the floor")?;
        let cpu = process.cpu()?.saturating_sub(before);
        process.kill().await?;
        Ok(FloorFigures {
            cpu_micros: cpu.as_secs_f64() * 1e6 / people as f64,
            took: spread(&outcome.took),
        })
    }

    async fn key_space(&self, size: &Size, before: Counts) -> Result<Option<KeySpace>> {
        if self.redis.is_none() {
            return Ok(None);
        }
        // Reservations live for 15 s; what is left afterwards are rooms.
        sleep(size.watch.max(Duration::from_secs(1)) + size.watch / 2).await;
        let now = self.counts().await?.since(before);
        let counters = self.nodes.counters();
        let rooms = usize::try_from(counters.opened.load(Ordering::Relaxed))?;
        let participants = usize::try_from(counters.sessions.load(Ordering::Relaxed))?;
        Ok(Some(KeySpace {
            rooms,
            participants,
            keys: now.keys,
            bytes: now.memory_bytes,
            bytes_per_room: now.memory_bytes as f64 / rooms.max(1) as f64,
            bytes_per_participant: now.memory_bytes as f64 / participants.max(1) as f64,
        }))
    }

    async fn plan(&self, size: &Size, folder: &Path) -> Result<plan::PlanFigures> {
        let folder = folder.join("plan");
        tracing::info!("plan and store");
        plan::measure(&PlanArgs {
            nodes: size.nodes,
            joins: size.plans,
            per_room: size.participants.div_ceil(size.rooms),
            redis_url: self.redis.as_ref().map(|redis| redis.url().to_owned()),
            folder,
        })
        .await
        .context("plan and store")
    }
}

fn join_figures(
    size: &Size,
    outcome: &Outcome,
    cpu: Cpu,
    counts: Counts,
    idle: Idle,
) -> JoinFigures {
    let joins = outcome.took.len().max(1) as f64;
    let wall = outcome.wall.as_secs_f64();
    let above = cpu
        .replicas
        .saturating_sub(idle.cpu.replicas.mul_f64(wall))
        .as_secs_f64();
    JoinFigures {
        joins: outcome.took.len(),
        rooms: size.rooms,
        failed: outcome.failed,
        tried_again: outcome.tried_again,
        at_a_time: size.at_a_time,
        per_second: joins / wall,
        replica_cpu_micros: cpu.replicas.as_secs_f64() * 1e6 / joins,
        replica_cpu_micros_above_idle: above * 1e6 / joins,
        per_cpu_second: joins / cpu.replicas.as_secs_f64().max(1e-9),
        took: spread(&outcome.took),
        redis_cpu_micros: cpu
            .redis
            .saturating_sub(idle.cpu.redis.mul_f64(wall))
            .as_secs_f64()
            * 1e6
            / joins,
        redis_scripts: (counts.scripts as f64 - idle.scripts * wall).max(0.0) / joins,
        redis_bytes: ((counts.bytes_in + counts.bytes_out) as f64 - idle.bytes * wall).max(0.0)
            / joins,
    }
}

/// Files that may be open: as many as the machine lets a process have.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Without leave the present limit holds; what does not fit says so itself.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}
