// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { LobbyList } from './lobby';

const packet = (body: unknown): Uint8Array => new TextEncoder().encode(typeof body === 'string' ? body : JSON.stringify(body));

describe('the lobby', () => {
  it('takes the list of the server and tells of new people only', () => {
    const lobby = new LobbyList();
    const arrived: string[][] = [];
    lobby.on('arrived', (entries) => arrived.push(entries.map((entry) => entry.id)));
    lobby.handlePacket(packet({ entries: [{ id: 'a', name: 'A', since: 1_700_000_000_000, guest: true }] }));
    lobby.handlePacket(packet({ entries: [{ id: 'a', name: 'A', since: 1 }, { id: 'b', name: 'B', since: '2030-01-01T00:00:00Z' }] }));
    lobby.handlePacket(packet({ entries: [] }));
    expect(arrived).toEqual([['a'], ['b']]);
    expect(lobby.entries).toEqual([]);
  });

  it('changes nothing for packets it cannot read', () => {
    const lobby = new LobbyList();
    lobby.handlePacket(packet({ entries: [{ id: 'a', name: 'A', since: 1 }] }));
    for (const wrong of ['', '{', '[]', 'null', '{"entries":7}', '{"other":[]}']) {
      lobby.handlePacket(packet(wrong));
    }
    expect(lobby.entries.map((entry) => entry.id)).toEqual(['a']);
  });

  it('skips entries without an id and bounds the rest', () => {
    const lobby = new LobbyList();
    lobby.handlePacket(packet({ entries: [7, null, { name: 'x' }, ...Array.from({ length: 1000 }, (_, at) => ({ id: String(at), name: 'y'.repeat(999) }))] }));
    expect(lobby.entries.length).toBeLessThanOrEqual(500);
    expect(lobby.entries[0]).toEqual({ id: '0', name: 'y'.repeat(128), since: 0, guest: false });
  });

  it('knows whether the room is locked only when the server tells', () => {
    const lobby = new LobbyList();
    lobby.handlePacket(packet({ entries: [] }));
    expect(lobby.locked).toBeNull();
    lobby.handlePacket(packet({ entries: [], locked: true }));
    lobby.handlePacket(packet({ entries: [] }));
    expect(lobby.locked).toBe(true);
  });
});
