// SPDX-License-Identifier: EUPL-1.2
// What the tests see of a page: a script that runs before the page's own and watches its peer connections, its
// sockets, every frame of every <video>, and every tone. It changes nothing that the page does.

import { decodeStrip } from './frame-code.mjs';

function install(decodeSource, tones) {
  if (globalThis.__probe) return;
  const decode = (0, eval)(`(${decodeSource})`);
  const probe = { connections: [], sockets: [], audio: new Map(), videos: new Map(), streamOf: new Map(), errors: [] };
  Object.defineProperty(globalThis, '__probe', { value: probe });

  const NativeConnection = globalThis.RTCPeerConnection;
  globalThis.RTCPeerConnection = class RTCPeerConnection extends NativeConnection {
    constructor(...args) {
      super(...args);
      probe.connections.push(this);
      this.addEventListener('track', (event) => {
        const stream = event.streams[0]?.id ?? '';
        probe.streamOf.set(event.track.id, stream);
        if (event.track.kind === 'audio') listen(event.track, stream);
      });
    }
  };

  const NativeSocket = globalThis.WebSocket;
  globalThis.WebSocket = class WebSocket extends NativeSocket {
    constructor(...args) {
      super(...args);
      const entry = { url: this.url, socket: this, opened: performance.now(), closed: null, code: null };
      probe.sockets.push(entry);
      this.addEventListener('close', (event) => Object.assign(entry, { closed: performance.now(), code: event.code }));
    }
  };

  // ---- frames -----------------------------------------------------------------------------------------------
  const canvas = document.createElement('canvas');
  canvas.width = 320;
  canvas.height = 40;
  const drawing = canvas.getContext('2d', { willReadFrequently: true });

  function look(video, log) {
    if (video.videoWidth === 0) return;
    const height = video.videoHeight;
    drawing.drawImage(video, 0, 0, video.videoWidth, (height * 2) / 9, 0, 0, canvas.width, canvas.height);
    const found = decode(drawing.getImageData(0, 0, canvas.width, canvas.height).data, canvas.width, canvas.height);
    log.seen += 1;
    log.width = video.videoWidth;
    log.height = height;
    if (found === null) {
      log.undecodable += 1;
      return;
    }
    const now = performance.now();
    const frames = log.frames;
    const last = frames[frames.length - 1];
    if (last && last.person === found.person && last.counter === found.counter) return;
    frames.push({ at: now, person: found.person, counter: found.counter, height });
    if (frames.length > 4000) frames.splice(0, 2000);
  }

  function watch(video) {
    const track = video.srcObject?.getVideoTracks?.()[0];
    const log = { video, track: track?.id ?? null, seen: 0, undecodable: 0, frames: [], width: 0, height: 0 };
    probe.videos.set(video, log);
    const next = () => {
      video.requestVideoFrameCallback(() => {
        const current = video.srcObject?.getVideoTracks?.()[0]?.id ?? null;
        if (current !== log.track) Object.assign(log, { track: current, frames: [], seen: 0, undecodable: 0 });
        try {
          look(video, log);
        } catch (error) {
          probe.errors.push(String(error));
        }
        next();
      });
    };
    next();
  }
  setInterval(() => {
    for (const video of document.querySelectorAll('video')) if (!probe.videos.has(video)) watch(video);
    for (const video of probe.videos.keys()) if (!video.isConnected) probe.videos.delete(video);
  }, 100);

  /** Frames of all connected videos that show somebody else. */
  probe.frames = () =>
    [...probe.videos.values()]
      .filter((log) => probe.streamOf.has(log.track))
      .map((log) => ({
        track: log.track,
        stream: probe.streamOf.get(log.track),
        // As whose the page shows the film.
        identity: log.video.dataset.identity ?? null,
        source: log.video.dataset.source ?? null,
        seen: log.seen,
        undecodable: log.undecodable,
        width: log.width,
        height: log.height,
        frames: log.frames,
      }));

  // ---- tones ------------------------------------------------------------------------------------------------
  let context = null;
  function listen(track, stream) {
    context ??= new AudioContext({ sampleRate: 48000 });
    const analyser = context.createAnalyser();
    analyser.fftSize = 4096;
    analyser.smoothingTimeConstant = 0;
    context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
    const entry = { track, stream, analyser, heard: {}, spectra: 0, loud: [] };
    probe.audio.set(track.id, entry);
  }
  const spectrum = new Float32Array(2048);
  setInterval(() => {
    if (context?.state === 'suspended') context.resume();
    for (const [id, entry] of probe.audio) {
      if (entry.track.readyState === 'ended') {
        probe.audio.delete(id);
        continue;
      }
      entry.analyser.getFloatFrequencyData(spectrum);
      const bin = 48000 / 4096;
      const level = (frequency) => {
        const middle = Math.round(frequency / bin);
        return Math.max(spectrum[middle - 1], spectrum[middle], spectrum[middle + 1]);
      };
      // The loudest of the tones counts when it stands out from all others; beeps leave many looks silent.
      const levels = tones.map((tone) => ({ tone, level: level(tone) })).sort((a, b) => b.level - a.level);
      entry.spectra += 1;
      if (levels[0].level > -70 && levels[0].level - levels[1].level > 12) {
        entry.heard[levels[0].tone] = (entry.heard[levels[0].tone] ?? 0) + 1;
        entry.loud.push({ at: performance.now(), tone: levels[0].tone });
        if (entry.loud.length > 2000) entry.loud.splice(0, 1000);
      }
    }
  }, 50);

  /** Tones heard since a moment of this page's clock, for each received audio track. */
  probe.tones = (since = 0) => {
    const identityOf = new Map();
    for (const element of document.querySelectorAll('audio[data-identity], [data-testid="audio"][data-identity]')) {
      for (const track of element.srcObject?.getAudioTracks?.() ?? []) identityOf.set(track.id, element.dataset.identity);
    }
    return [...probe.audio.values()].map((entry) => {
      const heard = {};
      for (const { at, tone } of entry.loud) if (at >= since) heard[tone] = (heard[tone] ?? 0) + 1;
      return { track: entry.track.id, stream: entry.stream, identity: identityOf.get(entry.track.id) ?? null, heard };
    });
  };

  // ---- what was negotiated ----------------------------------------------------------------------------------
  probe.transports = async () => {
    const found = [];
    for (const connection of probe.connections) {
      if (connection.connectionState === 'closed') continue;
      const reports = await connection.getStats();
      for (const report of reports.values()) {
        if (report.type === 'transport') {
          const pair = reports.get(report.selectedCandidatePairId);
          const far = pair && reports.get(pair.remoteCandidateId);
          const { srtpCipher, dtlsCipher, dtlsState, tlsVersion, iceState, bytesSent, bytesReceived } = report;
          found.push({ srtpCipher, dtlsCipher, dtlsState, tlsVersion, iceState, bytesSent, bytesReceived, state: connection.connectionState, remote: far ? { address: far.address, port: far.port, protocol: far.protocol } : null });
        }
      }
    }
    return found;
  };
  probe.inbound = async () => {
    const found = [];
    for (const connection of probe.connections) {
      if (connection.connectionState === 'closed') continue;
      for (const report of (await connection.getStats()).values()) {
        if (report.type === 'inbound-rtp' && report.kind === 'video') {
          const { trackIdentifier, framesDecoded, framesDropped, framesReceived, freezeCount, totalFreezesDuration, pliCount, nackCount, packetsLost, frameHeight } = report;
          found.push({ trackIdentifier, framesDecoded, framesDropped, framesReceived, freezeCount, totalFreezesDuration, pliCount, nackCount, packetsLost, frameHeight });
        }
      }
    }
    return found;
  };
  probe.outbound = async () => {
    const found = [];
    for (const connection of probe.connections) {
      if (connection.connectionState === 'closed') continue;
      for (const report of (await connection.getStats()).values()) {
        if (report.type === 'outbound-rtp') {
          const { kind, rid, active, framesEncoded, frameHeight, bytesSent, packetsSent, qualityLimitationReason, encoderImplementation } = report;
          found.push({ kind, rid, active, framesEncoded, frameHeight, bytesSent, packetsSent, qualityLimitationReason, encoderImplementation });
        }
      }
    }
    return found;
  };
}

/** Puts the probe into every document that the page will load. */
export async function probe(page, tones) {
  await page.evaluateOnNewDocument(install, decodeStrip.toString(), tones);
}
