// SPDX-License-Identifier: EUPL-1.2
import { Emitter } from './events';

/** Topic of the server's packets about a move of the conference to another server. */
export const MOVE_TOPIC = 'plenum.move';

/** What the server said about a move, or about maintenance that will bring one: everybody is away for a moment then. */
export class MoveNotice extends Emitter<{ change: []; told: []; calledOff: [] }> {
  #movesAt: number | null = null;
  #maintenanceAt: number | null = null;

  /** When it moves, in milliseconds since 1970; null when it stays. */
  get movesAt(): number | null {
    return this.#movesAt;
  }

  /** When maintenance begins that moves it some time later, in milliseconds since 1970; null when none is planned. */
  get maintenanceAt(): number | null {
    return this.#maintenanceAt;
  }

  /** A packet of the server. One that cannot be read changes nothing. */
  handlePacket(payload: Uint8Array): void {
    let body: unknown;
    try {
      body = JSON.parse(new TextDecoder().decode(payload));
    } catch {
      return;
    }
    if (typeof body !== 'object' || body === null || !('movesAt' in body)) {
      return;
    }
    const { movesAt } = body;
    const maintenanceAt = 'maintenanceAt' in body ? body.maintenanceAt : null;
    if (!isMoment(movesAt) || !isMoment(maintenanceAt)) {
      return;
    }
    if (this.#movesAt === movesAt && this.#maintenanceAt === maintenanceAt) {
      return;
    }
    this.#movesAt = movesAt;
    this.#maintenanceAt = maintenanceAt;
    this.emit(movesAt === null && maintenanceAt === null ? 'calledOff' : 'told');
    this.emit('change');
  }

  /** The connection is rebuilt: if it still moves, the server says so again. */
  handleReconnecting(): void {
    if (this.#movesAt !== null || this.#maintenanceAt !== null) {
      this.#movesAt = null;
      this.#maintenanceAt = null;
      this.emit('change');
    }
  }
}

function isMoment(value: unknown): value is number | null {
  return value === null || (typeof value === 'number' && Number.isFinite(value));
}
