// SPDX-License-Identifier: EUPL-1.2
//! ICE-TCP connections in a shard's loop.

use media_core::io::Path;
use media_core::time::Timestamp;
use rustix::event::epoll;

use super::{EXPIRY, STREAMS_MAX, Worker};
use crate::stream::{Connection, PROOF, Readiness};

impl Worker {
    pub(super) fn take_streams(&mut self, now: Timestamp) {
        while let Ok(mut connection) = self.streams.try_recv() {
            let path = connection.path();
            // The kernel reuses a 4-tuple only when the former connection is gone.
            self.end_stream(path);
            if self.connections.len() >= STREAMS_MAX && !self.evict_unproved() {
                self.counters.streams_refused += 1;
                continue;
            }
            let token = self.next_token;
            self.next_token += 1;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
            if epoll::add(
                &self.epoll,
                connection.stream(),
                epoll::EventData::new_u64(token),
                flags,
            )
            .is_err()
            {
                self.counters.streams_refused += 1;
                continue;
            }
            connection.since = now;
            self.batch.clear();
            let sound = connection.take_early(&mut self.batch);
            self.tokens.insert(token, path);
            self.connections.insert(path, (token, connection));
            if !sound {
                self.end_stream(path);
                continue;
            }
            self.deliver(now);
            self.read_stream(now, path);
        }
    }

    /// Makes room by ending the oldest connection that nobody vouched for. False when there is none.
    fn evict_unproved(&mut self) -> bool {
        let oldest = self
            .connections
            .values()
            .map(|(_, connection)| connection)
            .filter(|connection| !connection.proved)
            .min_by_key(|connection| connection.since)
            .map(Connection::path);
        oldest.inspect(|path| self.end_stream(*path)).is_some()
    }

    pub(super) fn read_stream(&mut self, now: Timestamp, path: Path) {
        loop {
            let Some((_, connection)) = self.connections.get_mut(&path) else {
                return;
            };
            self.batch.clear();
            let readiness = connection.read(&mut self.batch);
            self.deliver(now);
            match readiness {
                Readiness::Drained => return,
                Readiness::More => {}
                Readiness::Ended => {
                    self.end_stream(path);
                    return;
                }
            }
        }
    }

    pub(super) fn end_stream(&mut self, path: Path) {
        if let Some((token, connection)) = self.connections.remove(&path) {
            let _ = epoll::delete(&self.epoll, connection.stream());
            self.tokens.remove(&token);
        }
    }

    /// Ends connections that nobody vouches for: no answered check in time, or the shard knows the path no more.
    pub(super) fn expire_streams(&mut self, now: Timestamp) {
        if self.connections.is_empty() || now < self.next_expiry {
            return;
        }
        self.next_expiry = now + EXPIRY;
        let shard = &self.shard;
        let late: Vec<Path> = self
            .connections
            .values()
            .map(|(_, connection)| connection)
            .filter(|connection| {
                now.since(connection.since) > PROOF
                    && !(connection.proved && shard.knows_path(connection.path()))
            })
            .map(Connection::path)
            .collect();
        for path in late {
            self.end_stream(path);
        }
    }
}
