// SPDX-License-Identifier: EUPL-1.2
import { Emitter } from './events';

/** Topic of the server's packets to moderators. */
export const LOBBY_TOPIC = 'plenum.lobby';

/** One person who waits. */
export interface LobbyEntry {
  readonly id: string;
  readonly name: string;
  readonly since: number;
  readonly guest: boolean;
}

const ENTRY_LIMIT = 500;

/** Who waits to be let in, as the server tells moderators. */
export class LobbyList extends Emitter<{ change: []; arrived: [readonly LobbyEntry[]] }> {
  #entries: readonly LobbyEntry[] = [];
  #locked: boolean | null = null;

  get entries(): readonly LobbyEntry[] {
    return this.#entries;
  }

  /** Whether nobody but moderators may enter; null when the server does not tell. */
  get locked(): boolean | null {
    return this.#locked;
  }

  /** A packet of the server. One that cannot be read changes nothing. */
  handlePacket(payload: Uint8Array): void {
    let body: unknown;
    try {
      body = JSON.parse(new TextDecoder().decode(payload));
    } catch {
      return;
    }
    if (typeof body !== 'object' || body === null || !('entries' in body) || !Array.isArray(body.entries)) {
      return;
    }
    const known = new Set(this.#entries.map((entry) => entry.id));
    const entries: LobbyEntry[] = [];
    for (const item of body.entries.slice(0, ENTRY_LIMIT) as unknown[]) {
      if (typeof item === 'object' && item !== null && 'id' in item && typeof item.id === 'string') {
        const name = 'name' in item && typeof item.name === 'string' ? item.name.slice(0, 128) : '';
        entries.push({ id: item.id, name, since: 'since' in item ? sinceOf(item.since) : 0, guest: 'guest' in item && item.guest === true });
      }
    }
    this.#entries = entries;
    this.#locked = 'locked' in body && typeof body.locked === 'boolean' ? body.locked : this.#locked;
    const arrived = entries.filter((entry) => !known.has(entry.id));
    if (arrived.length > 0) {
      this.emit('arrived', arrived);
    }
    this.emit('change');
  }

  /** Who stops moderating no longer sees who waits. */
  clear(): void {
    if (this.#entries.length > 0) {
      this.#entries = [];
      this.emit('change');
    }
  }
}

function sinceOf(value: unknown): number {
  if (typeof value === 'number') {
    return value;
  }
  const parsed = typeof value === 'string' ? Date.parse(value) : Number.NaN;
  return Number.isNaN(parsed) ? 0 : parsed;
}
