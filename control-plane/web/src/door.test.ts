// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { Door, type EntryEvent, parseConference, parseEntryEvent } from './door';
import { PlenumError } from './errors';
import { events, FakeNetwork, json } from './testing';

const REQUEST = { name: 'Robin', password: 'geheim', acknowledged: ['n'], clientId: 'c' };

async function failure(run: Promise<unknown>): Promise<PlenumError> {
  const error: unknown = await run.then(
    () => null,
    (reason: unknown) => reason,
  );
  if (!(error instanceof PlenumError)) {
    throw new Error(`no PlenumError: ${String(error)}`);
  }
  return error;
}

describe('the door', () => {
  it('describes a conference as the contract says', async () => {
    const network = new FakeNetwork();
    network.next(
      json({
        conference: { displayName: 'Rat', roomId: 'r' },
        tenant: { name: 'Stadt', colour: '#123456', texts: [{ key: 'Welcome', lang: 'de', text: 'Hallo' }] },
        notices: [{ id: 'n', acknowledge: true, texts: [{ lang: 'de', text: 'Achtung' }] }],
        state: 'scheduled',
        opensAt: '2030-01-01T08:00:00Z',
        passwordRequired: true,
        lobby: 'Guests',
        guests: true,
      }),
    );
    const conference = await new Door('r', network).describe();
    expect(network.calls[0]?.path).toBe('/api/v1/c/r');
    expect(conference).toMatchObject({ displayName: 'Rat', state: 'scheduled', passwordRequired: true, lobby: true, guests: true });
    expect(conference.opensAt?.toISOString()).toBe('2030-01-01T08:00:00.000Z');
    expect(conference.notices[0]).toMatchObject({ id: 'n', acknowledge: true });
  });

  it('reads whatever a description lacks as something harmless', () => {
    const conference = parseConference({ conference: 7, tenant: null, notices: 'x', opensAt: 'never', state: 'strange', lobby: 'Off' }, 'room');
    expect(conference).toEqual({
      roomId: 'room',
      displayName: 'room',
      tenant: { name: '', colour: null, texts: [] },
      notices: [],
      state: 'open',
      opensAt: null,
      passwordRequired: false,
      lobby: false,
      guests: true,
    });
    expect(() => parseConference('nonsense', 'room')).toThrow(PlenumError);
  });

  it('passes on waiting and lobby, and ends with the admission', async () => {
    const network = new FakeNetwork();
    network.next(
      events(
        [
          ['waiting', { reason: 'NotOpened' }],
          ['something-new', {}],
          ['lobby', { position: 2 }],
          ['admitted', { token: 't', url: 'wss://elsewhere', identity: 'g_1', role: 'Guest' }],
        ],
        true,
      ),
    );
    const seen: EntryEvent['kind'][] = [];
    const admitted = await new Door('r', network).enter(REQUEST, (event) => seen.push(event.kind), new AbortController().signal);
    expect(seen).toEqual(['waiting', 'lobby', 'admitted']);
    expect(admitted.token).toBe('t');
    expect(network.bodyOf(0)).toEqual(REQUEST);
  });

  it('throws a refusal with its reason and its wait, in the stream and as an answer', async () => {
    const network = new FakeNetwork();
    const door = new Door('r', network);
    network.next(events([['refused', { reason: 'Throttled', retryAfterSeconds: 30 }]]));
    expect(await failure(door.enter(REQUEST, () => undefined, new AbortController().signal))).toMatchObject({ reason: 'Throttled', retryAfterSeconds: 30 });
    network.next(json({ error: { reason: 'Throttled', message: 'slow down' } }, 503, { 'retry-after': '12' }));
    expect(await failure(door.enter(REQUEST, () => undefined, new AbortController().signal))).toMatchObject({ reason: 'Throttled', retryAfterSeconds: 12 });
  });

  it('calls a conference whose last date is over closed, not ended just now', async () => {
    const network = new FakeNetwork();
    network.next(events([['refused', { reason: 'Ended' }]]));
    expect((await failure(new Door('r', network).enter(REQUEST, () => undefined, new AbortController().signal))).reason).toBe('Closed');
  });

  it('gives every answer outside the contract a reason by its status', async () => {
    const network = new FakeNetwork();
    const door = new Door('r', network);
    for (const [status, reason] of [[404, 'UnknownConference'], [429, 'Throttled'], [400, 'BadRequest'], [401, 'InvalidToken'], [403, 'InvalidToken'], [500, 'Unavailable'], [502, 'Unavailable'], [503, 'Unavailable']] as const) {
      network.next(new Response('<html>a proxy</html>', { status }));
      expect((await failure(door.describe())).reason, String(status)).toBe(reason);
    }
    network.next(new TypeError('network is down'));
    expect((await failure(door.describe())).reason).toBe('Unreachable');
  });

  it('calls a stream that ends without a decision unreachable, so that it is tried again', async () => {
    const network = new FakeNetwork();
    network.next(events([['waiting', { reason: 'NotOpened' }]]));
    expect((await failure(new Door('r', network).enter(REQUEST, () => undefined, new AbortController().signal))).reason).toBe('Unreachable');
  });

  it('gives up a stream on which nothing comes any more', async () => {
    const network = new FakeNetwork();
    let expire: () => void = () => undefined;
    const door = new Door('r', {
      fetch: network.fetch,
      setTimeout: (run) => {
        expire = run;
        return 1;
      },
      clearTimeout: () => undefined,
    });
    network.next(events([['waiting', { reason: 'NotOpened' }]], true));
    const entering = failure(door.enter(REQUEST, () => expire(), new AbortController().signal));
    expect((await entering).reason).toBe('Unreachable');
  });

  it('ignores events that it cannot read', () => {
    expect(parseEntryEvent('waiting', '{')).toBeNull();
    expect(parseEntryEvent('waiting', '[]')).toBeNull();
    expect(parseEntryEvent('surprise', '{}')).toBeNull();
    expect(() => parseEntryEvent('admitted', '{"token":""}')).toThrow(PlenumError);
  });
});
