// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { figuresOf, sampleOf } from './stats';

const transport = { id: 'T1', type: 'transport', srtpCipher: 'AEAD_AES_128_GCM' };
const pair = { id: 'P1', type: 'candidate-pair', nominated: true, state: 'succeeded', currentRoundTripTime: 0.0234, localCandidateId: 'L1' };
const local = { id: 'L1', type: 'local-candidate', protocol: 'udp' };
const inbound = (ssrc: number, bytesReceived: number, packetsReceived: number, packetsLost: number) => ({ id: `I${ssrc}`, type: 'inbound-rtp', ssrc, bytesReceived, packetsReceived, packetsLost });

describe('figures', () => {
  it('sum tracks and count what several reports share once', () => {
    const sample = sampleOf(
      [
        [transport, pair, local, inbound(1, 1000, 10, 0)],
        [transport, pair, local, inbound(2, 2000, 20, 5), inbound(1, 1000, 10, 0)],
        [{ id: 'O', type: 'outbound-rtp', ssrc: 9, bytesSent: 500 }],
      ],
      0,
    );
    expect(sample).toMatchObject({ bytesReceived: 3000, bytesSent: 500, packetsReceived: 30, packetsLost: 5, roundTripMs: 23, protocol: 'udp', cipher: 'AEAD_AES_128_GCM' });
  });

  it('are rates over the time between', () => {
    const before = sampleOf([[inbound(1, 0, 0, 0)]], 1000);
    const now = sampleOf([[inbound(1, 250_000, 99, 1)]], 3000);
    expect(figuresOf(before, now)).toMatchObject({ downKbps: 1000, upKbps: 0, lossPercent: 1 });
  });

  it('are never negative when a track ended, and never not a number', () => {
    const before = sampleOf([[inbound(1, 9000, 90, 3)]], 0);
    const now = sampleOf([], 0);
    expect(figuresOf(before, now)).toEqual({ upKbps: 0, downKbps: 0, lossPercent: 0, roundTripMs: null, protocol: null, cipher: null });
  });
});
