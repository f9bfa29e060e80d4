// SPDX-License-Identifier: EUPL-1.2

/** Counters of one moment, summed over all tracks. */
export interface Sample {
  readonly atMs: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly packetsReceived: number;
  readonly packetsLost: number;
  readonly roundTripMs: number | null;
  readonly protocol: string | null;
  readonly cipher: string | null;
}

/** Figures for people. */
export interface Figures {
  readonly upKbps: number;
  readonly downKbps: number;
  readonly lossPercent: number;
  readonly roundTripMs: number | null;
  readonly protocol: string | null;
  readonly cipher: string | null;
}

type Row = Readonly<Record<string, unknown>>;

const numberOf = (row: Row, name: string): number => (typeof row[name] === 'number' ? row[name] : 0);

/** Sums the statistics of the browser; reports of several tracks share transports, so each id counts once. */
export function sampleOf(reports: readonly Iterable<Row>[], atMs: number): Sample {
  const seen = new Set<string>();
  let bytesSent = 0;
  let bytesReceived = 0;
  let packetsReceived = 0;
  let packetsLost = 0;
  let roundTripMs: number | null = null;
  let protocol: string | null = null;
  let cipher: string | null = null;
  reports.forEach((report, index) => {
    const rows = [...report];
    const byId = new Map(rows.map((row) => [row['id'], row]));
    for (const row of rows) {
      const type = String(row['type']);
      // Ids repeat between the two peer connections; the report they come from keeps them apart.
      const key = type === 'outbound-rtp' || type === 'inbound-rtp' ? `${type}/${String(row['ssrc'])}` : `${index}/${String(row['id'])}`;
      if (seen.has(key)) {
        continue;
      }
      seen.add(key);
      if (type === 'outbound-rtp') {
        bytesSent += numberOf(row, 'bytesSent');
      } else if (type === 'inbound-rtp') {
        bytesReceived += numberOf(row, 'bytesReceived');
        packetsReceived += numberOf(row, 'packetsReceived');
        packetsLost += Math.max(0, numberOf(row, 'packetsLost'));
      } else if (type === 'transport') {
        cipher = typeof row['srtpCipher'] === 'string' ? row['srtpCipher'] : cipher;
      } else if (type === 'candidate-pair' && (row['nominated'] === true || row['selected'] === true) && row['state'] === 'succeeded') {
        if (typeof row['currentRoundTripTime'] === 'number') {
          roundTripMs = Math.round(row['currentRoundTripTime'] * 1000);
        }
        const local = byId.get(row['localCandidateId']);
        protocol = typeof local?.['protocol'] === 'string' ? local['protocol'] : protocol;
      }
    }
  });
  return { atMs, bytesSent, bytesReceived, packetsReceived, packetsLost, roundTripMs, protocol, cipher };
}

/** Rates between two moments. Counters that fall (a track ended) count as zero. */
export function figuresOf(before: Sample, now: Sample): Figures {
  const seconds = Math.max(0.001, (now.atMs - before.atMs) / 1000);
  const rate = (from: number, to: number): number => Math.round((Math.max(0, to - from) * 8) / 1000 / seconds);
  const lost = Math.max(0, now.packetsLost - before.packetsLost);
  const received = Math.max(0, now.packetsReceived - before.packetsReceived);
  return {
    upKbps: rate(before.bytesSent, now.bytesSent),
    downKbps: rate(before.bytesReceived, now.bytesReceived),
    lossPercent: lost + received === 0 ? 0 : Math.round((1000 * lost) / (lost + received)) / 10,
    roundTripMs: now.roundTripMs,
    protocol: now.protocol,
    cipher: now.cipher,
  };
}
