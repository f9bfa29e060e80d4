// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { type Announcement, parseChatRule, parseHand, parseRole, Roster } from './roster';
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
      0,
    );
    expect(roster.people.map((p) => p.identity)).toEqual(['me', 'amy', 'ben', 'max', 'eva', 'zoe']);
    expect(roster.hands.map((p) => p.identity)).toEqual(['amy', 'ben']);
  });

  it('tells who comes, goes, raises a hand and shares, but not who was there before', () => {
    const roster = new Roster();
    const told = listening(roster);
    const me = person('me', { local: true });
    roster.handlePeople([me], false, 0);
    roster.handlePeople([me, person('a')], true, 0);
    expect(told).toEqual([]);
    roster.handlePeople([me, person('a'), person('b'), person('c')], true, 0);
    roster.handlePeople([me, person('a', { hand: 5 }), person('b', { tracks: { screen_share: { sid: 's', muted: false, media: 1 } } })], true, 0);
    roster.handlePeople([me, person('a'), person('b')], true, 0);
    expect(told).toEqual(['joined b+c', 'left c', 'hand a true', 'share b true', 'hand a false', 'share b false']);
  });

  it('says nothing while the connection is rebuilt, nor of those who come back soon after', () => {
    const roster = new Roster();
    const me = person('me', { local: true });
    roster.handlePeople([me, person('a'), person('b')], true, 0);
    const told = listening(roster);
    roster.handleReconnecting();
    roster.handlePeople([me], false, 1000);
    roster.handlePeople([me], true, 2000);
    roster.handlePeople([me, person('a')], true, 3000);
    roster.handlePeople([me, person('a'), person('c')], true, 4000);
    expect(told).toEqual(['joined c']);
    roster.handlePeople([me, person('a'), person('c')], true, 13_000);
    expect(told).toEqual(['joined c', 'left b']);
    roster.handlePeople([me, person('c')], true, 14_000);
    roster.handlePeople([me, person('c'), person('b')], true, 15_000);
    expect(told).toEqual(['joined c', 'left b', 'left a', 'joined b']);
  });

  it('reads attributes as the server and older clients write them', () => {
    expect(parseRole('Moderator')).toBe('Moderator');
    expect(parseRole('moderator')).toBeNull();
    expect(parseRole(undefined)).toBeNull();
    expect([undefined, 'Moderators', 'Off', 'strange'].map(parseChatRule)).toEqual(['Everyone', 'Moderators', 'Off', 'Everyone']);
    expect(parseHand('1700000000000')).toBe(1_700_000_000_000);
    expect(parseHand('true')).toBe(1);
    for (const down of [undefined, '', '0', 'false']) {
      expect(parseHand(down)).toBeNull();
    }
  });
});
