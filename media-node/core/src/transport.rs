// SPDX-License-Identifier: EUPL-1.2
//! One peer connection below RTP: ICE-lite, DTLS and SCTP, without sockets.

mod chunks;
pub mod client;
pub mod sctp;
pub mod stun;

use std::collections::VecDeque;
use std::time::Duration;

use crate::api::{Channel, Fingerprint, IceCredentials, TransportFailure};
use crate::crypto::{Crypto, DtlsOutput, DtlsServer, SrtpKeys};
use crate::ids::TransportId;
use crate::io::Path;
use crate::limits::{EARLY_DATAGRAMS_MAX, PATHS_PER_TRANSPORT_MAX};
use crate::time::Timestamp;
pub use sctp::SendDataError;
use sctp::{Sctp, SctpEvent};

/// A path lives while an authenticated check came within this time (RFC 7675 §5.1 halved, `decisions.md` §3.5).
pub const CONSENT: Duration = Duration::from_secs(15);

/// What a transport wants done.
#[derive(Debug, Default)]
pub struct TransportOut {
    /// Datagrams to send.
    pub datagrams: VecDeque<(Path, Vec<u8>)>,
    /// What happened.
    pub events: VecDeque<TransportEvent>,
}

/// What happened on a transport.
#[derive(Debug)]
pub enum TransportEvent {
    /// Media goes this way from here on.
    PathNominated(Path),
    /// Datagrams from this path are this transport's.
    PathProved(Path),
    /// The path is no longer this transport's.
    PathLost(Path),
    /// DTLS is complete.
    Keys(SrtpKeys),
    /// A data channel is open.
    ChannelOpen(Channel),
    /// A message arrived.
    Data(Channel, Vec<u8>),
    /// The transport ended; nothing follows.
    Failed(TransportFailure),
}

/// What [`Transport::export`] gives away.
#[derive(Debug)]
pub struct Moved {
    /// The other side's ICE half and certificate.
    pub remote: (IceCredentials, Fingerprint),
    /// State of the DTLS association.
    pub dtls: Vec<u8>,
    /// Data channels were open; their association stays behind.
    pub channels_open: bool,
}

struct Proved {
    path: Path,
    last_check: Timestamp,
}

/// One peer connection of a participant, the node's end.
pub struct Transport<C: Crypto> {
    id: TransportId,
    local: IceCredentials,
    /// Credentials of a restart until the first nominated check under them.
    next_local: Option<IceCredentials>,
    remote: Option<(IceCredentials, Fingerprint)>,
    paths: Vec<Proved>,
    nominated: Option<Path>,
    dtls: Option<C::Dtls>,
    dtls_path: Option<Path>,
    early: Vec<(Path, Vec<u8>)>,
    sctp: Sctp,
    open_channels: bool,
    connected: bool,
    ended: bool,
}

impl<C: Crypto> Transport<C> {
    /// A transport that waits for connectivity checks under `local`.
    #[must_use]
    pub fn new(id: TransportId, local: IceCredentials) -> Self {
        Self {
            id,
            local,
            next_local: None,
            remote: None,
            paths: Vec::new(),
            nominated: None,
            dtls: None,
            dtls_path: None,
            early: Vec::new(),
            sctp: Sctp::new(sctp::Role::Server),
            open_channels: false,
            connected: false,
            ended: false,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> TransportId {
        self.id
    }

    /// Nominated path.
    #[must_use]
    pub fn path(&self) -> Option<Path> {
        self.nominated
    }

    /// Has `path` been proved by a check with integrity?
    #[must_use]
    pub fn accepts(&self, path: Path) -> bool {
        self.paths.iter().any(|proved| proved.path == path)
    }

    /// When the last check came on `path`.
    #[must_use]
    pub fn last_check(&self, path: Path) -> Option<Timestamp> {
        self.paths
            .iter()
            .find(|proved| proved.path == path)
            .map(|proved| proved.last_check)
    }

    /// All proved paths.
    pub fn paths(&self) -> impl Iterator<Item = Path> + '_ {
        self.paths.iter().map(|proved| proved.path)
    }

    /// Own user fragments under which checks are taken.
    pub fn local_ufrags(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.local.ufrag.as_str())
            .chain(self.next_local.as_ref().map(|local| local.ufrag.as_str()))
    }

    /// Tells the other side's half. With another fingerprint than before the transport fails: a certificate does not change
    /// under a running association.
    pub fn set_remote(
        &mut self,
        now: Timestamp,
        crypto: &mut C,
        remote: IceCredentials,
        fingerprint: Fingerprint,
        out: &mut TransportOut,
    ) {
        if self.ended {
            return;
        }
        if self
            .remote
            .as_ref()
            .is_some_and(|(_, known)| *known != fingerprint)
        {
            self.fail(
                now,
                TransportFailure::Dtls(crate::crypto::DtlsFailure::Fingerprint),
                out,
            );
            return;
        }
        self.remote = Some((remote, fingerprint));
        if self.dtls.is_none() {
            self.dtls = Some(crypto.dtls_server(fingerprint, now));
        }
        self.take_early(now, crypto, out);
    }

    /// Is the other side's half known?
    #[must_use]
    pub fn has_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// Gives the association away and ends without a word to the other side. `None`, with everything as before, while it is not
    /// connected or the backend cannot.
    pub fn export(&mut self) -> Option<Moved> {
        let remote = self.remote.clone()?;
        if self.ended || !self.connected {
            return None;
        }
        let dtls = self.dtls.as_mut()?.export()?;
        self.ended = true;
        Some(Moved {
            remote,
            dtls,
            channels_open: self.sctp.is_connected(),
        })
    }

    /// Goes on with an association that was exported elsewhere. `None` when this transport knows another side already, or the
    /// state is not that client's.
    pub fn import(
        &mut self,
        now: Timestamp,
        crypto: &mut C,
        remote: (IceCredentials, Fingerprint),
        dtls: &[u8],
        out: &mut TransportOut,
    ) -> Option<SrtpKeys> {
        if self.ended || self.remote.is_some() || self.dtls.is_some() {
            return None;
        }
        let (dtls, keys) = crypto.dtls_import(remote.1, dtls, now)?;
        self.dtls = Some(dtls);
        self.remote = Some(remote);
        self.connected = true;
        self.take_early(now, crypto, out);
        Some(keys)
    }

    /// Own half of an ICE restart.
    pub fn restart_ice(&mut self, local: IceCredentials) {
        self.next_local = Some(local);
    }

    /// A STUN message. Answers checks that are authentic under a local password; everything else is dropped.
    pub fn handle_stun(
        &mut self,
        now: Timestamp,
        crypto: &mut C,
        path: Path,
        packet: &[u8],
        out: &mut TransportOut,
    ) {
        if self.ended {
            return;
        }
        let Some(check) = stun::Check::parse(packet) else {
            return;
        };
        let restarted = self
            .next_local
            .as_ref()
            .is_some_and(|next| next.ufrag == check.local_ufrag);
        let local = match &self.next_local {
            Some(next) if restarted => next,
            _ if self.local.ufrag == check.local_ufrag => &self.local,
            _ => return,
        };
        if !check.authentic::<C>(&local.password) {
            out.datagrams
                .push_back((path, stun::error_response(&check, 401)));
            return;
        }
        if !check.controlling {
            // We are lite and so always controlled (RFC 8445 §6.1.1).
            out.datagrams
                .push_back((path, stun::error_response(&check, 487)));
            return;
        }
        let password = local.password.clone();
        match self.paths.iter_mut().find(|proved| proved.path == path) {
            Some(proved) => proved.last_check = now,
            None => {
                if self.paths.len() >= PATHS_PER_TRANSPORT_MAX {
                    let nominated = self.nominated;
                    let oldest = self
                        .paths
                        .iter()
                        .enumerate()
                        .filter(|(_, proved)| Some(proved.path) != nominated)
                        .min_by_key(|(_, proved)| proved.last_check)
                        .map(|(index, _)| index);
                    if let Some(index) = oldest {
                        out.events.push_back(TransportEvent::PathLost(
                            self.paths.swap_remove(index).path,
                        ));
                    }
                }
                self.paths.push(Proved {
                    path,
                    last_check: now,
                });
                out.events.push_back(TransportEvent::PathProved(path));
            }
        }
        out.datagrams.push_back((
            path,
            stun::success_response::<C>(&check, path.remote, &password),
        ));
        if check.use_candidate {
            if restarted && let Some(next) = self.next_local.take() {
                self.local = next;
            }
            if self.nominated != Some(path) {
                self.nominated = Some(path);
                out.events.push_back(TransportEvent::PathNominated(path));
            }
        }
        self.take_early(now, crypto, out);
    }

    /// A DTLS datagram. Kept, within bounds, while the path is not proved or the fingerprint not known.
    pub fn handle_dtls(
        &mut self,
        now: Timestamp,
        crypto: &mut C,
        path: Path,
        packet: &[u8],
        out: &mut TransportOut,
    ) {
        if self.ended {
            return;
        }
        if self.dtls.is_none() || !self.accepts(path) {
            if self.early.len() < EARLY_DATAGRAMS_MAX && !self.connected {
                self.early.push((path, packet.to_vec()));
            }
            return;
        }
        self.feed(now, crypto, path, packet, out);
    }

    fn take_early(&mut self, now: Timestamp, crypto: &mut C, out: &mut TransportOut) {
        if self.early.is_empty() || self.dtls.is_none() {
            return;
        }
        for (path, packet) in std::mem::take(&mut self.early) {
            if self.accepts(path) {
                self.feed(now, crypto, path, &packet, out);
            } else {
                self.early.push((path, packet));
            }
        }
    }

    fn feed(
        &mut self,
        now: Timestamp,
        crypto: &mut C,
        path: Path,
        packet: &[u8],
        out: &mut TransportOut,
    ) {
        self.dtls_path = Some(path);
        if let Some(dtls) = &mut self.dtls {
            dtls.handle_datagram(now, packet);
        }
        self.drain(now, crypto, out);
    }

    /// Where DTLS datagrams go: the nominated path, before there is one back where they came from.
    #[must_use]
    pub fn dtls_target(&self) -> Option<Path> {
        self.nominated.or(self.dtls_path)
    }

    fn drain(&mut self, now: Timestamp, crypto: &mut C, out: &mut TransportOut) {
        let target = self.dtls_target();
        let mut failed = None;
        if let Some(dtls) = &mut self.dtls {
            while let Some(output) = dtls.poll_output() {
                match output {
                    DtlsOutput::Datagram(datagram) => {
                        if let Some(path) = target {
                            out.datagrams.push_back((path, datagram));
                        }
                    }
                    DtlsOutput::Connected(keys) => {
                        self.connected = true;
                        out.events.push_back(TransportEvent::Keys(keys));
                    }
                    DtlsOutput::Data(data) => self.sctp.handle(crypto.instant(now), data),
                    DtlsOutput::Closed => failed = Some(TransportFailure::Closed),
                    DtlsOutput::Failed(failure) => failed = Some(TransportFailure::Dtls(failure)),
                }
            }
        }
        self.drain_sctp(now, crypto, out);
        if let Some(failure) = failed {
            self.end(failure, out);
        }
    }

    fn drain_sctp(&mut self, now: Timestamp, crypto: &mut C, out: &mut TransportOut) {
        let instant = crypto.instant(now);
        while let Some(event) = self.sctp.poll_event(instant) {
            match event {
                SctpEvent::Connected => {
                    if self.open_channels {
                        self.sctp.open_channels(instant);
                    }
                }
                SctpEvent::ChannelOpen(channel) => {
                    out.events.push_back(TransportEvent::ChannelOpen(channel))
                }
                SctpEvent::Data(channel, data) => {
                    out.events.push_back(TransportEvent::Data(channel, data))
                }
                SctpEvent::Broken => {
                    self.fail(now, TransportFailure::Data, out);
                    return;
                }
            }
        }
        let target = self.dtls_target();
        let Some(dtls) = &mut self.dtls else { return };
        while let Some(packet) = self.sctp.poll_transmit(instant) {
            dtls.send(now, &packet);
        }
        while let Some(output) = dtls.poll_output() {
            if let (DtlsOutput::Datagram(datagram), Some(path)) = (output, target) {
                out.datagrams.push_back((path, datagram));
            }
        }
    }

    /// Timers of DTLS, SCTP and consent.
    pub fn handle_timeout(&mut self, now: Timestamp, crypto: &mut C, out: &mut TransportOut) {
        if self.ended {
            return;
        }
        let (mut index, mut nominee_lost) = (0, false);
        while index < self.paths.len() {
            if now.since(self.paths[index].last_check) >= CONSENT {
                let lost = self.paths.swap_remove(index).path;
                out.events.push_back(TransportEvent::PathLost(lost));
                nominee_lost |= self.nominated == Some(lost);
            } else {
                index += 1;
            }
        }
        if nominee_lost {
            // Clients nominate several pairs and keep one: Firefox does after an ICE restart, and its later checks nominate nothing.
            self.nominated = self
                .paths
                .iter()
                .max_by_key(|proved| proved.last_check)
                .map(|proved| proved.path);
            if let Some(path) = self.nominated {
                out.events.push_back(TransportEvent::PathNominated(path));
            }
        }
        if self.connected && self.paths.is_empty() {
            self.fail(now, TransportFailure::ConsentLost, out);
            return;
        }
        if let Some(dtls) = &mut self.dtls {
            dtls.handle_timeout(now);
        }
        self.sctp.handle_timeout(crypto.instant(now));
        self.drain(now, crypto, out);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_deadline(&self, crypto: &C) -> Option<Timestamp> {
        if self.ended {
            return None;
        }
        let consent = self
            .paths
            .iter()
            .map(|proved| proved.last_check + CONSENT)
            .min();
        let dtls = self.dtls.as_ref().and_then(DtlsServer::poll_deadline);
        let sctp = self
            .sctp
            .poll_deadline()
            .map(|instant| crypto.timestamp(instant));
        consent.into_iter().chain(dtls).chain(sctp).min()
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`SendDataError`]; the message is dropped then.
    pub fn send_data(
        &mut self,
        now: Timestamp,
        crypto: &mut C,
        channel: Channel,
        payload: &[u8],
        out: &mut TransportOut,
    ) -> Result<(), SendDataError> {
        self.sctp.send(crypto.instant(now), channel, payload)?;
        self.drain_sctp(now, crypto, out);
        Ok(())
    }

    /// Opens `_reliable` and `_lossy` from this side, as soon as the association stands.
    pub fn open_channels(&mut self, now: Timestamp, crypto: &mut C, out: &mut TransportOut) {
        self.open_channels = true;
        if self.sctp.is_connected() {
            self.sctp.open_channels(crypto.instant(now));
            self.drain_sctp(now, crypto, out);
        }
    }

    /// Says goodbye (close_notify) and ends.
    pub fn close(&mut self, now: Timestamp, out: &mut TransportOut) {
        if self.ended {
            return;
        }
        let target = self.dtls_target();
        if let Some(dtls) = &mut self.dtls {
            dtls.close(now);
            while let Some(output) = dtls.poll_output() {
                if let (DtlsOutput::Datagram(datagram), Some(path)) = (output, target) {
                    out.datagrams.push_back((path, datagram));
                }
            }
        }
        self.ended = true;
    }

    fn fail(&mut self, now: Timestamp, failure: TransportFailure, out: &mut TransportOut) {
        self.close(now, out);
        self.ended = false;
        self.end(failure, out);
    }

    fn end(&mut self, failure: TransportFailure, out: &mut TransportOut) {
        if !self.ended {
            self.ended = true;
            out.events.push_back(TransportEvent::Failed(failure));
        }
    }
}
