// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { PlenumError, reasonFor, REASONS } from './errors';
import { en } from './i18n/en';

describe('reasons', () => {
  it('all have a title and a text', () => {
    for (const reason of Object.keys(REASONS)) {
      expect(Object.keys(en), reason).toContain(`reason.${reason}.title`);
      expect(Object.keys(en), reason).toContain(`reason.${reason}.text`);
    }
  });

  it('have no texts without being known', () => {
    const named = Object.keys(en).flatMap((key) => /^reason\.(\w+)\.title$/.exec(key)?.[1] ?? []);
    expect(named.sort()).toEqual(Object.keys(REASONS).sort());
  });

  it('of the gateway, the room and its lobby are all known', () => {
    // The names that `Refusal`, `JoinRefusal` and `KnockRefusal` give to people's pages.
    const names =
      'UnknownConference RoomUnknown Unavailable Suspended Throttled WrongPassword PasswordRequired WrongOpenerKey InvalidName AcknowledgementRequired BadRequest GuestsForbidden GuestsNotAllowed TokenExpired TokenSignature TokenSourceRemoved NotGranted OtherRoom RoomFull Revoked Locked Closing NotAdmitted WrongEpoch Denied LobbyFull NoCapacity NodeSilent Settling TenantRooms TenantParticipants TenantPublishers TenantEgress NodeParticipants TooManyReservations Internal NotOpened NotYetTime';
    for (const name of names.split(' ')) {
      expect(reasonFor(name), name).not.toBe('Unknown');
    }
    expect(reasonFor('TenantPublishers')).toBe('QuotaReached');
    expect(reasonFor('SomethingNew')).toBe('Unknown');
    expect(reasonFor('toString')).toBe('Unknown');
  });

  it('keep the name of the wire, for whoever is asked', () => {
    expect(PlenumError.refused('SomethingNew')).toMatchObject({ reason: 'Unknown', wire: 'SomethingNew' });
  });
});
