// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { type Announcement, parseHand, parseRole, Roster } from './roster';
import { person } from './testing';

function listening(roster: Roster): string[] {
  const told: string[] = [];
  roster.on('announce', (what: Announcement) => {
    told.push(`${what.kind} ${'people' in what ? what.people.map((p) => p.identity).join('+') : what.person.identity}${'raised' in what ? ` ${what.raised}` : ''}${'started' in what ? ` ${what.started}` : ''}`);
  });
  return told;
}

describe('the roster', () => {
  it('lists me, then raised hands in their order, then roles, then names', () => {
    const roster = new Roster();
    roster.handlePeople(
      [person('zoe', { role: 'Guest' }), person('ben', { hand: 20 }), person('amy', { hand: 10, role: 'Guest' }), person('max', { role: 'Moderator' }), person('eva'), person('me', { local: true, role: 'Guest' })],
      true,
    );
    expect(roster.people.map((p) => p.identity)).toEqual(['me', 'amy', 'ben', 'max', 'eva', 'zoe']);
    expect(roster.hands.map((p) => p.identity)).toEqual(['amy', 'ben']);
  });

  it('tells who comes, goes, raises a hand and shares, but not who was there before', () => {
    const roster = new Roster();
    const told = listening(roster);
    const me = person('me', { local: true });
    roster.handlePeople([me, person('a')], true);
    expect(told).toEqual([]);
    roster.handlePeople([me, person('a'), person('b'), person('c')], true);
    roster.handlePeople([me, person('a', { hand: 5 }), person('b', { tracks: { screen_share: { sid: 's', muted: false, media: 1 } } })], true);
    roster.handlePeople([me, person('a'), person('b')], true);
    expect(told).toEqual(['joined b+c', 'left c', 'hand a true', 'share b true', 'hand a false', 'share b false']);
  });

  it('says nothing while the connection is rebuilt, and tells the difference when it stands', () => {
    const roster = new Roster();
    const me = person('me', { local: true });
    roster.handlePeople([me, person('a'), person('b')], true);
    const told = listening(roster);
    roster.handleReconnecting();
    roster.handlePeople([me], false);
    roster.handlePeople([me, person('a')], false);
    expect(told).toEqual([]);
    roster.handlePeople([me, person('a'), person('b')], true);
    roster.handlePeople([me, person('a'), person('b'), person('c')], true);
    expect(told.at(-1)).toBe('joined c');
  });

  it('reads attributes as the server and older clients write them', () => {
    expect(parseRole('Moderator')).toBe('Moderator');
    expect(parseRole('moderator')).toBeNull();
    expect(parseRole(undefined)).toBeNull();
    expect(parseHand('1700000000000')).toBe(1_700_000_000_000);
    expect(parseHand('true')).toBe(1);
    for (const down of [undefined, '', '0', 'false']) {
      expect(parseHand(down)).toBeNull();
    }
  });
});
