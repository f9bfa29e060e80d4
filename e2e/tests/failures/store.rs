// SPDX-License-Identifier: EUPL-1.2
//! The store is taken away, in each way in which that happens.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::http;
use e2e::redis::{Redis, Sentinel};
use e2e::system::Setup;
use plenum_load::crowd::Shape;
use rustix::process::Signal;

use crate::lab::{
    Health, LIVENESS, Lab, folder, outage, replica, replicas, run, run_with, shape, until,
};

/// Three rooms, so that two nodes cannot share them evenly.
fn people() -> Shape {
    Shape {
        rooms: 3,
        people: 3,
        ..shape()
    }
}

/// One absence: `take` is called again each five seconds, so that a flush is more than a moment.
struct Absence {
    take: fn(&mut Redis, u32) -> Result<()>,
    give: fn(&mut Redis) -> Result<()>,
}

fn case(name: &'static str, absence: &Absence) -> Result<()> {
    run(name, Setup::default(), people(), async |lab| {
        goes_on(lab, absence).await?;
        lab.store_agrees(&lab.redis).await
    })
}

/// SIGKILL; it comes back empty.
pub(crate) fn stopped(name: &'static str) -> Result<()> {
    case(
        name,
        &Absence {
            take: |redis, times| if times == 0 { redis.kill() } else { Ok(()) },
            give: Redis::run,
        },
    )
}

/// SIGSTOP: connections stand and nothing is answered.
pub(crate) fn paused(name: &'static str) -> Result<()> {
    case(
        name,
        &Absence {
            take: |redis, _| redis.freeze(),
            give: |redis| redis.thaw(),
        },
    )
}

/// Everything in it is gone, again and again.
pub(crate) fn flushed(name: &'static str) -> Result<()> {
    case(
        name,
        &Absence {
            take: |redis, _| redis.command(&["FLUSHALL"]).map(drop),
            give: |redis| redis.command(&["FLUSHALL"]).map(drop),
        },
    )
}

/// It answers, and writes nothing: as a replica whose primary is away.
pub(crate) fn read_only(name: &'static str) -> Result<()> {
    case(
        name,
        &Absence {
            take: |redis, _| redis.command(&["REPLICAOF", "127.0.0.1", "1"]).map(drop),
            give: |redis| redis.command(&["REPLICAOF", "NO", "ONE"]).map(drop),
        },
    )
}

/// No memory for anything more.
pub(crate) fn full(name: &'static str) -> Result<()> {
    case(
        name,
        &Absence {
            take: |redis, _| {
                redis
                    .command(&["CONFIG", "SET", "maxmemory", "1"])
                    .map(drop)
            },
            give: |redis| {
                redis
                    .command(&["CONFIG", "SET", "maxmemory", "0"])
                    .map(drop)
            },
        },
    )
}

/// The primary dies, and a Sentinel makes its replica the primary.
pub(crate) fn failed_over(name: &'static str) -> Result<()> {
    let primary = Redis::start(&folder(name).join("primary"))?;
    let replica = Redis::replica_of(&folder(name).join("replica"), &primary)?;
    let sentinel = Sentinel::start(&folder(name).join("sentinel"), &primary)?;
    let setup = Setup {
        redis: Some(format!(
            "redis+sentinel://127.0.0.1:{}/plenum",
            sentinel.port()
        )),
        ..Setup::default()
    };
    run_with(name, primary, setup, people(), async |lab| {
        goes_on(
            lab,
            &Absence {
                take: |redis, times| if times == 0 { redis.kill() } else { Ok(()) },
                give: |_| Ok(()),
            },
        )
        .await?;
        lab.store_agrees(&replica).await
    })
}

/// Without the store: media without a gap, joins to running rooms, new rooms, and a replica that starts meanwhile serves. With it again:
/// one state.
async fn goes_on(lab: &mut Lab, absence: &Absence) -> Result<()> {
    let sids = room_sids(lab).await?;
    let steady = Health::watch(vec![replica("local-0")?]);
    let first = Health::watch(vec![replica("local-1")?]);
    let from = lab.crowd.now();
    let began = Instant::now();
    (absence.take)(&mut lab.redis, 0)?;
    let mut times = 0;
    let mut pass = async |lab: &mut Lab, until: Duration| -> Result<()> {
        while began.elapsed() < until {
            let left = until.saturating_sub(began.elapsed());
            tokio::time::sleep(left.min(Duration::from_secs(5))).await;
            times += 1;
            (absence.take)(&mut lab.redis, times)?;
        }
        Ok(())
    };
    pass(lab, Duration::from_secs(5)).await?;
    let (one, two) = (replica("local-0")?.gateway(), replica("local-1")?.gateway());
    lab.enters("room-0", "late", &one).await?;
    lab.meet("new", &[one.clone(), two]).await?;
    pass(lab, Duration::from_secs(10)).await?;
    // A replica that starts now learns all it needs from the operator and the nodes.
    let asked = first.was_good()?;
    let old = replica("local-1")?;
    old.process.signal(Signal::KILL)?;
    let started = Instant::now();
    let new = until("the new replica serves", LIVENESS, async || {
        let new = replica("local-1")?;
        ensure!(new.process.pid != old.process.pid, "it is the old one");
        let ready = http::get(new.http, "/readyz").await?;
        ensure!(ready.status == 200, "{ready:?}");
        Ok(new)
    })
    .await?;
    let second = Health::watch(vec![new.clone()]);
    lab.enters("room-1", "later", &new.gateway()).await?;
    lab.figure(
        "replica_started_meanwhile_serves_after",
        started.elapsed().as_millis(),
        "ms",
    );
    lab.meet("newer", &[one, new.gateway()]).await?;
    pass(lab, outage()).await?;
    let figures = lab.settled(from).await;
    lab.without_a_gap("away", &figures)?;

    let back = lab.crowd.now();
    (absence.give)(&mut lab.redis)?;
    lab.one_state().await?;
    lab.figure(
        "one_state_after",
        lab.crowd.now().since(back).as_millis(),
        "ms",
    );
    // Whatever has to be settled would have to be settled by now, and nobody is moved for it: there were no doubles.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let all: Vec<Vec<String>> = replicas()?
        .iter()
        .map(|replica| replica.gateway())
        .collect();
    lab.meet("newest", &all).await?;
    lab.one_state().await?;
    let figures = lab.settled(back).await;
    lab.without_a_gap("back", &figures)?;
    ensure!(
        figures.joined == 0,
        "somebody had to join anew when the store came back"
    );
    let asked = asked + steady.was_good()? + second.was_good()?;
    lab.figure("probes_answered", asked, "times");
    let now = room_sids(lab).await?;
    ensure!(
        sids.iter().all(|sid| now.contains(sid)),
        "rooms changed their SIDs: {sids:?}, {now:?}"
    );
    Ok(())
}

/// SIDs of all rooms.
async fn room_sids(lab: &Lab) -> Result<Vec<String>> {
    lab.one_state().await?;
    let admin = crate::lab::token(
        crate::lab::LAB,
        "admin",
        "",
        &serde_json::json!({ "roomList": true }),
    );
    let any = replicas()?;
    let answer = http::post(
        any.first().context("a replica runs")?.http,
        "/twirp/livekit.RoomService/ListRooms",
        &admin,
        &serde_json::json!({}),
    )
    .await?
    .json()?;
    let rooms = answer["rooms"].as_array().cloned().unwrap_or_default();
    Ok(rooms
        .iter()
        .filter_map(|room| room["sid"].as_str().map(str::to_owned))
        .collect())
}
