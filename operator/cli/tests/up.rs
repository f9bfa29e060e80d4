// SPDX-License-Identifier: EUPL-1.2
//! `plenum up` with real processes: ready, followed by its files, healed, stopped without a trace.

mod common;

use std::{fs, net::TcpListener, process::Stdio};

use common::{Folder, Up, assert_gone, children_of, command_of, http_get, interrupt, kill, plenum};
use serde_json::Value;

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("a name")
}

fn condition<'a>(object: &'a Value, wanted: &str) -> &'a str {
    let conditions = object["status"]["conditions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == wanted);
    found
        .and_then(|condition| condition["status"].as_str())
        .unwrap_or("absent")
}

fn all_registered(nodes: &[Value]) -> bool {
    nodes.len() == 2
        && nodes.iter().all(|node| {
            condition(node, "Ready") == "True" && condition(node, "Accepting") == "True"
        })
}

#[test]
fn files_are_followed_children_are_healed_and_nothing_is_left_behind() {
    let mut up = Up::start(Folder::new("life").with_quickstart(24_000), &[]);
    let ready = up.event("ready");
    eprintln!("ready after {} s", ready["seconds"]);
    let conferences = ready["conferences"].as_array().expect("conferences");
    assert_eq!(conferences.len(), 2);
    let council = conferences
        .iter()
        .find(|conference| conference["name"] == "council")
        .expect("the council");
    let (url, room) = (
        ready["url"].as_str().expect("a url"),
        council["roomId"].as_str().expect("a room"),
    );
    assert!(
        council["guestLink"]
            .as_str()
            .expect("a link")
            .starts_with(&format!("{url}/c/{room}#p="))
    );
    assert!(
        council["openerLinks"][0]
            .as_str()
            .expect("a link")
            .starts_with(&format!("{url}/c/{room}#k="))
    );
    assert_eq!(council["state"], "Open");
    // The page's own question shows that the control plane has the records.
    let (status, body) = http_get(&format!("{url}/api/v1/c/{room}"));
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("Musterstadt"), "{body}");
    up.until("conferences", "published", |all| {
        all.iter().all(|one| condition(one, "Published") == "True")
    });

    up.folder.edit(
        "conferences.yaml",
        "displayName: Council meeting",
        "displayName: Council",
    );
    let applied = up.event("applied");
    assert_eq!(
        applied["changes"],
        serde_json::json!(["Conference tenant-musterstadt/council changed"])
    );
    let more = "---\napiVersion: plenum.dev/v1alpha1\nkind: Conference\nmetadata:\n  name: committee\n  \
        namespace: tenant-musterstadt\nspec:\n  className: meeting\n  openers:\n    - type: Key\n      key:\n        \
        name: committee-opener\n";
    fs::write(up.folder.manifests().join("more.yaml"), more).expect("a manifest");
    let applied = up.event("applied");
    assert_eq!(applied["conferences"][0]["name"], "committee");
    up.until("conferences", "three of them", |all| {
        all.len() == 3 && all.iter().all(|one| condition(one, "Published") == "True")
    });

    up.folder
        .edit("more.yaml", "className: meeting", "className: meting");
    let rejected = up.event("rejected");
    assert_eq!(rejected["findings"][0]["rule"], "ClassNotFound");
    assert_eq!(up.get("conferences").len(), 3);
    up.folder.edit(
        "more.yaml",
        "className: meting",
        "className: meeting\n  roomName: committee",
    );
    up.event("applied");
    up.folder
        .edit("more.yaml", "roomName: committee", "roomName: commission");
    let rejected = up.event("rejected");
    assert_eq!(
        rejected["findings"][0]["message"],
        "roomName is immutable once set"
    );
    fs::remove_file(up.folder.manifests().join("more.yaml")).expect("removed");
    up.event("applied");
    up.until("conferences", "two of them", |all| all.len() == 2);

    // A folder that is replaced is another one to the kernel; it is found by its path.
    let aside = up.folder.0.join("aside");
    fs::rename(up.folder.manifests(), &aside).expect("moved away");
    assert!(
        up.event("failed")["message"]
            .as_str()
            .is_some_and(|message| message.contains("manifests"))
    );
    assert_eq!(up.get("conferences").len(), 2);
    fs::rename(&aside, up.folder.manifests()).expect("moved back");
    up.event("applied");
    up.folder.edit(
        "conferences.yaml",
        "displayName: Council",
        "displayName: Rat",
    );
    up.event("applied");

    let nodes = up.until("nodes", "registered", all_registered);
    let pid = nodes[0]["status"]["process"]["pid"]
        .as_u64()
        .expect("a process");
    kill(u32::try_from(pid).expect("a process id"));
    up.event("died");
    let nodes = up.until("nodes", "registered again", |nodes| {
        all_registered(nodes)
            && nodes
                .iter()
                .any(|node| node["status"]["process"]["starts"] == 2)
    });
    let epochs: Vec<u64> = nodes
        .iter()
        .filter_map(|node| node["status"]["epoch"].as_u64())
        .collect();
    assert_ne!(epochs[0], epochs[1], "a new start is a new epoch");

    let control_plane = up
        .processes()
        .into_iter()
        .find(|pid| command_of(*pid).contains("/control-plane "));
    kill(control_plane.expect("a control plane"));
    up.event("died");
    up.until(
        "nodes",
        "registered with the new control plane",
        all_registered,
    );
    up.until("conferences", "published anew", |all| {
        all.len() == 2
            && all.iter().all(|one| {
                condition(one, "Published") == "True" && one["status"]["phase"] == "Open"
            })
    });

    let processes = up.processes();
    assert_eq!(processes.len(), 3);
    let down = up.run(&["down"]);
    assert!(
        down.status.success(),
        "{}",
        String::from_utf8_lossy(&down.stderr)
    );
    assert_eq!(up.ended().code(), Some(0));
    assert_gone(&processes);
    assert!(!up.folder.state().join("plenum.sock").exists());
    let after = up.run(&["get", "nodes"]);
    assert_eq!(after.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&after.stderr).contains("plenum up -f"));
}

#[test]
fn children_die_with_a_parent_that_was_killed() {
    let mut up = Up::start(Folder::new("kill").with_quickstart(24_300), &[]);
    up.event("ready");
    let processes = up.processes();
    assert_eq!(
        processes.len(),
        3,
        "{:?}",
        processes
            .iter()
            .map(|pid| command_of(*pid))
            .collect::<Vec<_>>()
    );
    kill(up.child.id());
    up.ended();
    assert_gone(&processes);
}

#[test]
fn links_and_passwords_are_the_same_after_a_restart() {
    let mut up = Up::start(Folder::new("again").with_quickstart(24_600), &[]);
    let first = up.event("ready");
    let processes = up.processes();
    interrupt(up.child.id());
    assert_eq!(up.ended().code(), Some(0), "Ctrl-C stops in good order");
    assert_gone(&processes);
    let folder = std::mem::replace(&mut up.folder, Folder::new("again-none"));
    let port = first["url"]
        .as_str()
        .and_then(|url| url.rsplit_once(':'))
        .map(|(_, port)| port.to_owned());
    let again = Up::start_on(folder, &port.expect("a port"), &[]);
    assert_eq!(again.event("ready")["conferences"], first["conferences"]);
}

#[test]
fn a_drained_node_takes_no_rooms_and_can_be_taken_back() {
    let up = Up::start(Folder::new("drain").with_quickstart(24_900), &[]);
    let ready = up.event("ready");
    let nodes = up.until("nodes", "registered", all_registered);
    let address = &nodes[0]["status"]["addresses"][0];
    let media = format!(
        "{}:{}",
        address["address"].as_str().expect("an address"),
        address["port"]
    );
    let url = ready["url"].as_str().expect("a URL");
    let probed = plenum()
        .args(["probe", "--gateway", url, "--media", &media])
        .output()
        .expect("plenum runs");
    let said = String::from_utf8_lossy(&probed.stdout).into_owned();
    assert!(probed.status.success(), "{said}");
    assert!(
        said.contains(": ready\n") && said.contains(": answers STUN\n"),
        "{said}"
    );
    let drained = up.run(&["drain", "local-0"]);
    assert!(
        drained.status.success(),
        "{}",
        String::from_utf8_lossy(&drained.stderr)
    );
    up.until("nodes", "drained", |nodes| {
        nodes
            .iter()
            .all(|node| (name_of(node) == "local-0") == (condition(node, "Accepting") == "False"))
    });
    assert!(up.run(&["drain", "local-0", "--undo"]).status.success());
    up.until("nodes", "accepting again", all_registered);
    let again = up.run(&["drain", "local-0", "--deadline", "0s", "--timeout", "60s"]);
    assert!(
        again.status.success(),
        "{}",
        String::from_utf8_lossy(&again.stderr)
    );
    assert!(up.run(&["uncordon", "local-0"]).status.success());
    up.until("nodes", "accepting once more", all_registered);
    let status = String::from_utf8_lossy(&up.run(&["status"]).stdout).into_owned();
    assert!(
        status.contains("NODES: 2") && status.contains("TENANTS: 2"),
        "{status}"
    );
    let unknown = up.run(&["drain", "local-7"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("use one of local-0, local-1"));

    up.folder.edit("pool.yaml", "replicas: 2", "replicas: 1");
    up.event("applied");
    let nodes = up.until("nodes", "one node", |nodes| nodes.len() == 1);
    assert_eq!(name_of(&nodes[0]), "local-0");
    up.folder.edit("pool.yaml", "replicas: 1", "replicas: 2");
    up.event("applied");
    up.until("nodes", "two nodes", all_registered);
}

#[test]
fn get_and_describe_speak_to_people_and_programs() {
    let up = Up::start(Folder::new("get").with_quickstart(25_200), &[]);
    up.event("ready");
    let text = |args: &[&str]| {
        let output = up.run(args);
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let heading = |args: &[&str]| {
        text(args)
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        heading(&["get", "tenants"]),
        "NAME NAMESPACE CONFERENCES ADHOC ROOMS PARTICIPANTS PUBLISHED"
    );
    assert_eq!(
        heading(&["get", "conf"]),
        "NAMESPACE NAME PHASE OPENED PARTICIPANTS NODE PUBLISHED"
    );
    assert_eq!(
        heading(&["get", "pools", "-o", "wide"]),
        "NAMESPACE NAME DESIRED READY ACCEPTING DRAINING ROOMS PARTICIPANTS NETWORK MUX"
    );
    assert_eq!(
        heading(&["get", "nodes"]),
        "NAME POOL READY ACCEPTING DRAINED ROOMS PARTICIPANTS STARTS"
    );
    let yaml = text(&["get", "conference", "council", "-o", "yaml"]);
    assert!(
        yaml.contains("kind: Conference") && yaml.contains("roomId:"),
        "{yaml}"
    );
    assert!(!yaml.contains("#p="), "links with secrets are for describe");
    let described = text(&["describe", "conference", "tenant-musterstadt/council"]);
    for part in [
        "Guest link:",
        "#p=",
        "Opener link:",
        "#k=",
        "Password:",
        "Status:",
    ] {
        assert!(described.contains(part), "{part}: {described}");
    }
    let absent = up.run(&["get", "conferences", "counsil"]);
    assert_eq!(absent.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&absent.stderr).contains("use one of"),
        "names what there is"
    );
}

#[test]
fn others_may_join_only_by_tls_and_without_public_keys() {
    let refused = {
        let folder = Folder::new("bind-no").with_quickstart(25_500);
        let output = plenum()
            .args(["up", "--bind", "0.0.0.0", "--http-port", "0", "-f"])
            .arg(folder.manifests())
            .arg("--state-dir")
            .arg(folder.state())
            .output()
            .expect("plenum runs");
        assert!(!folder.state().exists(), "nothing was begun");
        output
    };
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--insecure-dev-keys"));
    let up = Up::start(
        Folder::new("bind").with_quickstart(25_500),
        &[
            "--bind",
            "0.0.0.0",
            "--insecure-dev-keys",
            "--media-address",
            "127.0.0.1",
        ],
    );
    let ready = up.event("ready");
    // Being ready took an answer over TLS from a certificate of this CA.
    assert!(
        ready["url"]
            .as_str()
            .is_some_and(|url| url.starts_with("https://")),
        "{ready}"
    );
    assert_eq!(ready["ca"]["sha256"].as_str().map(str::len), Some(95));

    let url = ready["url"].as_str().unwrap_or_default();
    let port = url.rsplit_once(':').map_or("", |(_, port)| port);
    let probe = |ca: &std::path::Path| {
        let output = plenum()
            .args(["probe", "--timeout", "1s", "--gateway"])
            .arg(format!("https://127.0.0.1:{port}"))
            .arg("--gateway-ca")
            .arg(ca)
            .output()
            .expect("plenum runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (code, said) = probe(&up.folder.state().join("ca.crt"));
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = probe(&up.folder.state().join("ca.key"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("it holds no certificate"), "{said}");
}

#[test]
fn what_cannot_run_says_which_option_helps() {
    let up = Up::start(Folder::new("twice").with_quickstart(25_800), &[]);
    up.event("ready");
    let other = Folder::new("other").with_quickstart(26_100);
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let missing = other.0.join("nowhere");
    let missing = missing.to_str().expect("text");
    let (manifests, state, used) = (other.manifests(), other.state(), up.folder.state());
    let (manifests, state, used) = (
        manifests.to_str().expect("text"),
        state.to_str().expect("text"),
        used.to_str().expect("text"),
    );
    for (args, code, said) in [
        (
            vec!["-f", manifests, "--state-dir", used, "--http-port", "0"],
            1,
            "--state-dir",
        ),
        (
            vec!["-f", manifests, "--state-dir", state, "--http-port", &port],
            2,
            "--http-port",
        ),
        (
            vec![
                "-f",
                manifests,
                "--state-dir",
                state,
                "--control-plane-replicas",
                "2",
            ],
            2,
            "--redis",
        ),
        (
            vec![
                "-f",
                manifests,
                "--state-dir",
                state,
                "--bind",
                "192.0.2.7",
                "--http-port",
                "0",
            ],
            2,
            "--bind",
        ),
        (
            vec![
                "-f",
                manifests,
                "--state-dir",
                state,
                "--media-address",
                "192.0.2.7",
                "--http-port",
                "0",
            ],
            2,
            "--media-address",
        ),
        (
            vec!["-f", missing, "--state-dir", state, "--http-port", "0"],
            2,
            "nowhere",
        ),
    ] {
        let output = plenum()
            .arg("up")
            .args(&args)
            .stdin(Stdio::null())
            .output()
            .expect("plenum runs");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(error.contains(said), "{args:?}: {error}");
    }
    assert_eq!(children_of(up.child.id()).len(), 3, "the first one goes on");
}
