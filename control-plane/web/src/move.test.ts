// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { MoveNotice } from './move';

const packet = (body: unknown): Uint8Array => new TextEncoder().encode(typeof body === 'string' ? body : JSON.stringify(body));

describe('the notice of a move', () => {
  it('tells once of a time, and once that it is off', () => {
    const notice = new MoveNotice();
    const told: string[] = [];
    notice.on('told', () => told.push(`at ${String(notice.movesAt)}`));
    notice.on('calledOff', () => told.push('off'));
    for (const movesAt of [1000, 1000, 2000, null, null]) {
      notice.handlePacket(packet({ movesAt }));
    }
    expect(told).toEqual(['at 1000', 'at 2000', 'off']);
    expect(notice.movesAt).toBeNull();
  });

  it('tells of maintenance, then of the move that it brings, and once that both are off', () => {
    const notice = new MoveNotice();
    const told: string[] = [];
    notice.on('told', () => told.push(`${String(notice.movesAt)} ${String(notice.maintenanceAt)}`));
    notice.on('calledOff', () => told.push('off'));
    const maintenance = { movesAt: null, maintenanceAt: 7 };
    for (const body of [maintenance, maintenance, { movesAt: 9, maintenanceAt: 7 }, maintenance, { movesAt: null }]) {
      notice.handlePacket(packet(body));
    }
    expect(told).toEqual(['null 7', '9 7', 'null 7', 'off']);
    expect(notice.maintenanceAt).toBeNull();
  });

  it('changes nothing for packets it cannot read', () => {
    const notice = new MoveNotice();
    notice.handlePacket(packet({ movesAt: 5 }));
    for (const wrong of ['{"movesAt":null,"maintenanceAt":"soon"}', '', '{', '[]', 'null', '7', '{"movesAt":"soon"}', '{"movesAt":1e999}', '{"other":1}']) {
      notice.handlePacket(packet(wrong));
    }
    expect(notice.movesAt).toBe(5);
  });

  it('is void while the connection is rebuilt, without saying that it is off', () => {
    const notice = new MoveNotice();
    notice.handlePacket(packet({ movesAt: 5 }));
    let off = 0;
    notice.on('calledOff', () => {
      off += 1;
    });
    notice.handleReconnecting();
    expect([notice.movesAt, off]).toEqual([null, 0]);
  });
});
