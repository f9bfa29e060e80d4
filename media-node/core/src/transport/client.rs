// SPDX-License-Identifier: EUPL-1.2
//! The other end of [`super::Transport`]: a controlling agent with one candidate pair, for the load client, the simulation and
//! tests. It is no product; browsers are the product's clients.

use std::time::Duration;

use super::sctp::{Role, Sctp, SctpEvent, SendDataError};
use super::{TransportEvent, TransportOut, stun};
use crate::api::{Channel, IceCredentials, TransportFailure};
use crate::crypto::{Crypto, DtlsOutput, DtlsServer};
use crate::io::Path;
use crate::time::Timestamp;

/// Pace of checks before one is answered.
const CHECK_START: Duration = Duration::from_millis(50);
/// Pace of checks after one was answered.
const CHECK_KEEP: Duration = Duration::from_millis(2500);

/// One peer connection, the client's end.
pub struct ClientTransport<C: Crypto> {
    local: IceCredentials,
    remote: IceCredentials,
    path: Path,
    dtls: C::Dtls,
    sctp: Sctp,
    answered: bool,
    next_check: Timestamp,
    open_channels: bool,
    ended: bool,
}

impl<C: Crypto> ClientTransport<C> {
    /// Begins to check `path`. `dtls` is an association in the client role; `open_channels` for a publisher's connection.
    #[must_use]
    pub fn new(
        local: IceCredentials,
        remote: IceCredentials,
        path: Path,
        dtls: C::Dtls,
        open_channels: bool,
        now: Timestamp,
    ) -> Self {
        Self {
            local,
            remote,
            path,
            dtls,
            sctp: Sctp::new(Role::Client),
            answered: false,
            next_check: now,
            open_channels,
            ended: false,
        }
    }

    /// The path it checks.
    #[must_use]
    pub fn path(&self) -> Path {
        self.path
    }

    /// Goes on from another path, as a client does whose address changed.
    pub fn move_to(&mut self, path: Path, now: Timestamp) {
        self.path = path;
        self.answered = false;
        self.next_check = now;
    }

    /// An ICE restart: goes on under fresh credentials of the other side, on another path, with the same DTLS association.
    pub fn restart(&mut self, remote: IceCredentials, path: Path, now: Timestamp) {
        self.remote = remote;
        self.move_to(path, now);
    }

    /// An ICE restart on the same path: both halves are fresh, the DTLS association goes on.
    pub fn renew(&mut self, local: IceCredentials, remote: IceCredentials, now: Timestamp) {
        self.local = local;
        self.restart(remote, self.path, now);
    }

    /// One datagram that is STUN or DTLS.
    pub fn handle_datagram(
        &mut self,
        now: Timestamp,
        crypto: &mut C,
        packet: &[u8],
        out: &mut TransportOut,
    ) {
        if stun::is_stun(packet) {
            if stun::is_success::<C>(packet, &self.remote.password) && !self.answered {
                self.answered = true;
                self.next_check = now + CHECK_KEEP;
                out.events
                    .push_back(TransportEvent::PathNominated(self.path));
                self.drain(now, crypto, out);
            }
        } else {
            self.dtls.handle_datagram(now, packet);
            self.drain(now, crypto, out);
        }
    }

    /// Timers; also sends the first check.
    pub fn handle_timeout(&mut self, now: Timestamp, crypto: &mut C, out: &mut TransportOut) {
        if self.ended {
            return;
        }
        if now >= self.next_check {
            let mut transaction = [0; 12];
            crypto.random(&mut transaction);
            let username = format!("{}:{}", self.remote.ufrag, self.local.ufrag);
            out.datagrams.push_back((
                self.path,
                stun::request::<C>(transaction, &username, &self.remote.password, true),
            ));
            self.next_check = now
                + if self.answered {
                    CHECK_KEEP
                } else {
                    CHECK_START
                };
        }
        self.dtls.handle_timeout(now);
        self.sctp.handle_timeout(crypto.instant(now));
        self.drain(now, crypto, out);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_deadline(&self, crypto: &C) -> Option<Timestamp> {
        if self.ended {
            return None;
        }
        let sctp = self
            .sctp
            .poll_deadline()
            .map(|instant| crypto.timestamp(instant));
        let dtls = self.answered.then(|| self.dtls.poll_deadline()).flatten();
        Some(self.next_check)
            .into_iter()
            .chain(dtls)
            .chain(sctp)
            .min()
    }

    fn drain(&mut self, now: Timestamp, crypto: &mut C, out: &mut TransportOut) {
        // Before the pair works its datagrams would be lost or, worse, judged as early ones.
        if !self.answered || self.ended {
            return;
        }
        let instant = crypto.instant(now);
        loop {
            let mut idle = true;
            while let Some(output) = self.dtls.poll_output() {
                idle = false;
                match output {
                    DtlsOutput::Datagram(datagram) => {
                        out.datagrams.push_back((self.path, datagram))
                    }
                    DtlsOutput::Connected(keys) => {
                        out.events.push_back(TransportEvent::Keys(keys));
                        self.sctp.connect(instant);
                    }
                    DtlsOutput::Data(data) => self.sctp.handle(instant, data),
                    DtlsOutput::Closed => self.end(TransportFailure::Closed, out),
                    DtlsOutput::Failed(failure) => self.end(TransportFailure::Dtls(failure), out),
                }
            }
            while let Some(event) = self.sctp.poll_event(instant) {
                match event {
                    SctpEvent::Connected if self.open_channels => self.sctp.open_channels(instant),
                    SctpEvent::Connected => {}
                    SctpEvent::ChannelOpen(channel) => {
                        out.events.push_back(TransportEvent::ChannelOpen(channel))
                    }
                    SctpEvent::Data(channel, data) => {
                        out.events.push_back(TransportEvent::Data(channel, data))
                    }
                    SctpEvent::Broken => self.end(TransportFailure::Data, out),
                }
            }
            while let Some(packet) = self.sctp.poll_transmit(instant) {
                self.dtls.send(now, &packet);
            }
            if idle {
                break;
            }
        }
        while let Some(DtlsOutput::Datagram(datagram)) = self.dtls.poll_output() {
            out.datagrams.push_back((self.path, datagram));
        }
    }

    fn end(&mut self, failure: TransportFailure, out: &mut TransportOut) {
        if !self.ended {
            self.ended = true;
            out.events.push_back(TransportEvent::Failed(failure));
        }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`SendDataError`].
    pub fn send_data(
        &mut self,
        now: Timestamp,
        crypto: &mut C,
        channel: Channel,
        payload: &[u8],
        out: &mut TransportOut,
    ) -> Result<(), SendDataError> {
        self.sctp.send(crypto.instant(now), channel, payload)?;
        self.drain(now, crypto, out);
        Ok(())
    }

    /// Says goodbye.
    pub fn close(&mut self, now: Timestamp, out: &mut TransportOut) {
        self.dtls.close(now);
        while let Some(DtlsOutput::Datagram(datagram)) = self.dtls.poll_output() {
            out.datagrams.push_back((self.path, datagram));
        }
        self.ended = true;
    }
}
