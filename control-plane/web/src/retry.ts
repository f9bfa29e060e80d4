// SPDX-License-Identifier: EUPL-1.2

/**
 * Delays between attempts to reach a room again. The server keeps a participant without signalling for 120 s while the media path lives, so giving up
 * earlier would throw away a call that still runs.
 */
export class PatientReconnect {
  static readonly PATIENCE_MS = 180_000;

  constructor(readonly random: () => number) {}

  /** As the engine asks; null gives up. */
  nextRetryDelayInMs(context: { readonly retryCount: number; readonly elapsedMs: number }): number | null {
    if (context.elapsedMs >= PatientReconnect.PATIENCE_MS) {
      return null;
    }
    return backoff(context.retryCount, 300, 5000, this.random);
  }
}

/** Doubling delays with jitter of ±50 %, so that a whole school does not come back in one moment. */
export function backoff(attempt: number, firstMs: number, mostMs: number, random: () => number): number {
  const base = Math.min(mostMs, firstMs * 2 ** Math.min(attempt, 16));
  return Math.round(base * (0.5 + random()));
}
