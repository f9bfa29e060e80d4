// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { parsePasted, pathOf, roomOf, secretsOf } from './links';

const ORIGIN = 'https://plenum.example';
const ROOM = 'abcdefghijklmnopqrstuvwx27';

describe('links', () => {
  it('finds the room of a path and of nothing else', () => {
    expect(roomOf(`/c/${ROOM}`)).toBe(ROOM);
    expect(roomOf(`/c/${ROOM}/`)).toBe(ROOM);
    for (const path of ['/', '/c/', '/c/a/b', '/d/abc', `/c/${'a'.repeat(65)}`, '/c/a%2fb']) {
      expect(roomOf(path), path).toBeNull();
    }
  });

  it('reads secrets from the fragment, with whatever characters they have', () => {
    expect(secretsOf('#p=a%26b%20c')).toEqual({ password: 'a&b c', openerKey: null });
    expect(secretsOf('#k=key&p=pass')).toEqual({ password: 'pass', openerKey: 'key' });
    expect(secretsOf('')).toEqual({ password: null, openerKey: null });
    expect(secretsOf('#p=')).toEqual({ password: null, openerKey: null });
    expect(secretsOf(`#p=${'x'.repeat(513)}`)).toEqual({ password: null, openerKey: null });
  });

  it('accepts a pasted link of this host, a path, and a bare room id', () => {
    const link = { roomId: ROOM, password: 'geheim', openerKey: null };
    expect(parsePasted(` ${ORIGIN}/c/${ROOM}#p=geheim \n`, ORIGIN)).toEqual(link);
    expect(parsePasted(`/c/${ROOM}#p=geheim`, ORIGIN)).toEqual(link);
    expect(parsePasted(ROOM.toUpperCase(), ORIGIN)).toEqual({ ...link, password: null });
  });

  it('refuses what is no link to this host', () => {
    for (const text of ['', 'hello', `https://elsewhere.example/c/${ROOM}`, `${ORIGIN}/about`, 'javascript:alert(1)', 'x'.repeat(3000)]) {
      expect(parsePasted(text, ORIGIN), text).toBeNull();
    }
  });

  it('writes a link that reads back the same', () => {
    const link = { roomId: ROOM, password: 'a&b=c #d', openerKey: 'k+/=' };
    expect(parsePasted(ORIGIN + pathOf(link), ORIGIN)).toEqual(link);
  });
});
