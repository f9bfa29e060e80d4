// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { Door } from './door';
import { PlenumError } from './errors';
import { Moderation } from './moderation';
import { FakeNetwork, json, person } from './testing';

function make(): { network: FakeNetwork; moderation: Moderation; token: { value: string } } {
  const network = new FakeNetwork();
  const token = { value: 'first' };
  return { network, token, moderation: new Moderation({ fetch: network.fetch, door: new Door('room-id', network), token: () => token.value, roomName: () => 'rat' }) };
}

describe('moderation', () => {
  it('asks the room service with the token of the moment', async () => {
    const { network, moderation, token } = make();
    network.next(json({}), json({}), json({}), json({}));
    await moderation.mute('a', 'TR_1');
    token.value = 'refreshed';
    await moderation.remove('a');
    await moderation.setRole('a', 'Presenter');
    await moderation.lowerHand('a');
    expect(network.calls.map((call) => call.path.split('/').at(-1))).toEqual(['MutePublishedTrack', 'RemoveParticipant', 'UpdateParticipant', 'UpdateParticipant']);
    expect(network.bodyOf(0)).toEqual({ room: 'rat', identity: 'a', trackSid: 'TR_1', muted: true });
    expect(network.bodyOf(2)).toEqual({ room: 'rat', identity: 'a', attributes: { 'plenum.role': 'Presenter' } });
    expect(new Headers(network.calls[0]?.init?.headers).get('authorization')).toBe('Bearer first');
    expect(new Headers(network.calls[1]?.init?.headers).get('authorization')).toBe('Bearer refreshed');
  });

  it('mutes everybody else at once, and nobody who is silent already', async () => {
    const { network, moderation } = make();
    network.next(json({}), json({}));
    const track = (muted: boolean) => ({ tracks: { microphone: { sid: 'TR', muted, media: 1 } } });
    await moderation.muteAll([person('me', { local: true, ...track(false) }), person('a', track(false)), person('b', track(true)), person('c'), person('d', track(false))]);
    expect(network.calls.map((_, call) => (network.bodyOf(call) as { identity: string }).identity)).toEqual(['a', 'd']);
  });

  it('asks the door for lobby, lock and end', async () => {
    const { network, moderation } = make();
    network.next(json({}), json({}), json({}), json({}), json({}));
    await moderation.admit(['x']);
    await moderation.deny(['y']);
    await moderation.admitAll();
    await moderation.setLocked(true);
    await moderation.end();
    expect(network.calls.map((call) => call.path)).toEqual([...Array<string>(3).fill('/api/v1/c/room-id/lobby'), '/api/v1/c/room-id/lock', '/api/v1/c/room-id/end']);
    expect([0, 1, 2, 3].map((call) => network.bodyOf(call))).toEqual([{ admit: ['x'] }, { deny: ['y'] }, { admitAll: true }, { locked: true }]);
  });

  it('tells when the server refuses or is away', async () => {
    const { network, moderation } = make();
    network.next(json({ code: 'permission_denied' }, 403), new TypeError('down'), json({ error: { reason: 'Unavailable' } }, 503));
    await expect(moderation.remove('a')).rejects.toBeInstanceOf(PlenumError);
    await expect(moderation.remove('a')).rejects.toMatchObject({ reason: 'Unreachable' });
    await expect(moderation.end()).rejects.toMatchObject({ reason: 'Unavailable' });
  });
});
