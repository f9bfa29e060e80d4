// SPDX-License-Identifier: EUPL-1.2
//! `plenum up` with several replicas of the control plane and a real Redis: shared address, restarts one after the other, a
//! store that is not there.

#[allow(dead_code, reason = "what the other tests need is more than these do")]
mod common;

use std::{
    fs,
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{Folder, PATIENCE, Up, assert_gone, command_of, http_get, kill, try_http_get};
use serde_json::Value;

/// A `redis-server` of the test's own, gone with it.
struct Redis {
    child: Child,
    port: u16,
    _folder: Folder,
}

impl Redis {
    fn start(name: &str) -> Self {
        let port = free_port();
        let folder = Folder::new(name);
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(&folder.0)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server runs");
        let redis = Self {
            child,
            port,
            _folder: folder,
        };
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "Redis does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        redis
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn is(object: &Value, wanted: &str) -> bool {
    object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == wanted && condition["status"] == "True")
}

fn all_ready(replicas: &[Value]) -> bool {
    replicas
        .iter()
        .all(|replica| is(replica, "Ready") && replica["status"]["nodes"] == 2)
}

fn starts(object: &Value) -> u64 {
    object["status"]["process"]["starts"]
        .as_u64()
        .expect("a number")
}

#[test]
fn two_replicas_share_an_address_and_one_that_dies_comes_back_unnoticed() {
    let redis = Redis::start("shared-redis");
    let folder = Folder::new("shared").with_quickstart(26_400);
    let url = redis.url();
    let mut up = Up::start(folder, &["--redis", &url, "--replicas", "2"]);
    let ready = up.event("ready");
    let shared = ready["url"].as_str().expect("a url").to_owned();
    let told = ready["replicas"].as_array().expect("replicas");
    assert_eq!(told.len(), 2);
    let room = ready["conferences"][0]["roomId"]
        .as_str()
        .expect("a room")
        .to_owned();
    for replica in told {
        // Each alone, and both together, know every conference.
        let alone = format!("http://{}", replica["http"].as_str().expect("an address"));
        assert_ne!(alone, shared);
        assert_eq!(http_get(&format!("{alone}/api/v1/c/{room}")).0, 200);
    }
    let replicas = up.until("replicas", "ready", all_ready);
    assert_eq!(replicas[0]["status"]["replicaId"], "local-0");
    assert_eq!(replicas[1]["metadata"]["name"], "control-plane-1");
    let seal = up.folder.state().join("seal.key");
    let mode = fs::metadata(&seal).expect("the seal key").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);

    let control_planes: Vec<u32> = up
        .processes()
        .into_iter()
        .filter(|pid| command_of(*pid).contains("/control-plane "))
        .collect();
    assert_eq!(control_planes.len(), 2);
    for pid in &control_planes {
        let line = command_of(*pid);
        assert!(!line.contains(&url), "arguments are public: {line}");
    }
    kill(control_planes[0]);
    up.event("died");
    // The kernel hands connections to whoever is left.
    for _ in 0..50 {
        assert_eq!(http_get(&format!("{shared}/api/v1/c/{room}")).0, 200);
    }
    up.until("replicas", "ready again", |replicas| {
        all_ready(replicas) && replicas.iter().map(starts).sum::<u64>() == 3
    });
    up.until("conferences", "published to both", |all| {
        all.iter().all(|one| is(one, "Published"))
    });

    let processes = up.processes();
    assert!(up.run(&["down"]).status.success());
    assert_eq!(up.ended().code(), Some(0));
    assert_gone(&processes);
}

#[test]
fn a_rolling_restart_takes_one_process_after_the_other() {
    let redis = Redis::start("rolling-redis");
    let folder = Folder::new("rolling").with_quickstart(26_700);
    let up = Up::start(folder, &["--redis", &redis.url(), "--replicas", "2"]);
    let ready = up.event("ready");
    let url = ready["url"].as_str().expect("a url").to_owned();
    let restart = |what: &str| {
        let output = up.run(&["restart", what, "--output", "json"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text, error)
    };
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asking = std::thread::spawn({
        let stop = std::sync::Arc::clone(&stop);
        move || {
            let mut asked = 0_u32;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // Who connects in the moment in which a socket ends is reset; SDKs try once more, and so do we.
                let ask = || try_http_get(&format!("{url}/readyz"));
                let (status, _) = ask().or_else(|_| ask()).expect("an answer");
                assert_eq!(status, 200);
                asked += 1;
            }
            asked
        }
    });
    let (code, text, error) = restart("replicas");
    assert_eq!(code, Some(0), "{text}{error}");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(asking.join().expect("everybody was answered") > 0);
    let done: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|event: &Value| event["event"] == "restarted")
        .collect();
    assert_eq!(done.len(), 2, "{text}");
    let replicas = up.until("replicas", "ready", all_ready);
    assert!(replicas.iter().all(|replica| starts(replica) == 2));

    let (code, text, error) = restart("nodes");
    assert_eq!(code, Some(0), "{text}{error}");
    let nodes = up.get("nodes");
    assert!(nodes.iter().all(|node| starts(node) == 2), "{nodes:#?}");
    assert!(nodes.iter().all(|node| is(node, "Accepting")), "{nodes:#?}");

    let (code, text, error) = restart("local-1");
    assert_eq!(code, Some(0), "{text}{error}");
    let mut counts: Vec<u64> = up.get("nodes").iter().map(starts).collect();
    counts.sort_unstable();
    assert_eq!(counts, [2, 3]);

    let (code, _, error) = restart("local-7");
    assert_eq!(code, Some(1));
    assert!(
        error.contains("use replicas, nodes, or one of control-plane-0, control-plane-1, local-0"),
        "{error}"
    );
}

#[test]
fn a_store_that_is_away_does_not_hold_up_the_start() {
    let folder = Folder::new("nowhere").with_quickstart(27_000);
    let url = format!("redis://127.0.0.1:{}", free_port());
    let up = Up::start(folder, &["--redis", &url, "--replicas", "2"]);
    let away = up.event("storeAway");
    assert!(
        away["message"]
            .as_str()
            .is_some_and(|message| message.contains("--redis") && !message.contains(&url)),
        "{away}"
    );
    up.event("ready");
    up.until("replicas", "ready", all_ready);
}

#[test]
fn options_of_replicas_are_refused_by_name() {
    let folder = Folder::new("replica-options").with_quickstart(27_300);
    for (args, said) in [
        (vec!["--replicas", "2"], "--redis URL"),
        (vec!["--replicas", "0"], "--replicas 0"),
        (
            vec!["--replicas", "9", "--redis", "redis://127.0.0.1"],
            "at most 8",
        ),
        (vec!["--redis", "http://127.0.0.1"], "redis://HOST"),
        (
            vec!["--redis", "redis://h", "--redis-namespace", "A b"],
            "--redis-namespace",
        ),
        (
            vec!["--redis", "rediss://h", "--redis-ca", "nowhere.pem"],
            "--redis-ca nowhere.pem",
        ),
    ] {
        let output = common::plenum()
            .args(["up", "--http-port", "0", "-f"])
            .arg(folder.manifests())
            .arg("--state-dir")
            .arg(folder.state())
            .args(&args)
            .stdin(Stdio::null())
            .output()
            .expect("plenum runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(said), "{args:?}: {error}");
    }
}
