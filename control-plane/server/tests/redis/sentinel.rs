// SPDX-License-Identifier: EUPL-1.2
//! A primary and a replica, watched by three Sentinels.

use std::fs;

use super::{Dir, Server, Setup, bound_to_this_thread, free_port, run, until};

/// Name of the service.
pub const SERVICE: &str = "main";

/// See the module.
pub struct Watched {
    pub primary: Server,
    pub replica: Server,
    sentinels: Vec<(u16, std::process::Child)>,
    _dir: Dir,
}

impl Watched {
    pub fn start() -> Self {
        let primary = Server::start();
        let options = ["--replicaof", "127.0.0.1", &primary.port.to_string()];
        let replica = Server::with(Setup {
            options: options.map(str::to_owned).to_vec(),
            ..Setup::default()
        });
        let dir = Dir::new();
        let mut watched = Self {
            primary,
            replica,
            sentinels: Vec::new(),
            _dir: dir,
        };
        for _ in 0..3 {
            watched.watch();
        }
        until("the Sentinels know each other and the replica", || {
            watched.sentinels.iter().all(|(port, _)| {
                let said = run(
                    &format!("redis://127.0.0.1:{port}"),
                    None,
                    &["SENTINEL", "MASTER", SERVICE],
                );
                let fields: Vec<String> = said
                    .and_then(|said| Ok(redis::from_redis_value(said)?))
                    .unwrap_or_default();
                let field = |name: &str| {
                    let at = fields.iter().position(|field| field == name)?;
                    fields.get(at + 1).cloned()
                };
                field("num-other-sentinels").as_deref() == Some("2")
                    && field("num-slaves").as_deref() == Some("1")
            })
        });
        watched
    }

    fn watch(&mut self) {
        let port = free_port();
        let file = self._dir.path().join(format!("{port}.conf"));
        let text = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\nsentinel monitor {SERVICE} 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 5000\n",
            self._dir.path().display(),
            self.primary.port,
        );
        fs::write(&file, text).expect("written");
        let child = bound_to_this_thread("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .spawn()
            .expect("redis-server");
        self.sentinels.push((port, child));
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> = self
            .sentinels
            .iter()
            .map(|(port, _)| format!("127.0.0.1:{port}"))
            .collect();
        format!("redis+sentinel://{}/{SERVICE}", hosts.join(","))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        for (_, sentinel) in &mut self.sentinels {
            let _ = sentinel.kill();
            let _ = sentinel.wait();
        }
    }
}
