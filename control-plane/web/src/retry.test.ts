// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { backoff, PatientReconnect } from './retry';

describe('reconnecting', () => {
  it('goes on for at least 120 s, whatever chance says', () => {
    for (const random of [0, 0.5, 0.999]) {
      const policy = new PatientReconnect(() => random);
      let elapsedMs = 0;
      for (let retryCount = 0; ; retryCount += 1) {
        const delay = policy.nextRetryDelayInMs({ retryCount, elapsedMs });
        if (delay === null) {
          break;
        }
        // A refused attempt costs next to nothing: delays alone must fill the time.
        elapsedMs += Math.max(1, delay);
        expect(retryCount).toBeLessThan(1000);
      }
      expect(elapsedMs).toBeGreaterThanOrEqual(120_000);
    }
  });

  it('begins at once and never waits longer than the bound', () => {
    const policy = new PatientReconnect(() => 0.999);
    expect(policy.nextRetryDelayInMs({ retryCount: 0, elapsedMs: 0 })).toBeLessThan(500);
    expect(policy.nextRetryDelayInMs({ retryCount: 500, elapsedMs: 100 })).toBeLessThanOrEqual(7500);
  });

  it('spreads attempts, so that a school does not return in one moment', () => {
    expect(backoff(3, 1000, 15_000, () => 0)).toBe(4000);
    expect(backoff(3, 1000, 15_000, () => 1)).toBe(12_000);
    expect(backoff(1_000_000, 1000, 15_000, () => 0.5)).toBe(15_000);
  });
});
