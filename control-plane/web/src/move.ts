// SPDX-License-Identifier: EUPL-1.2
import { Emitter } from './events';

/** Topic of the server's packets about a move of the conference to another server. */
export const MOVE_TOPIC = 'plenum.move';

/** What the server said about a move: everybody is away for a moment then. */
export class MoveNotice extends Emitter<{ change: []; told: []; calledOff: [] }> {
  #movesAt: number | null = null;

  /** When it moves, in milliseconds since 1970; null when it stays. */
  get movesAt(): number | null {
    return this.#movesAt;
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
    if (movesAt !== null && (typeof movesAt !== 'number' || !Number.isFinite(movesAt))) {
      return;
    }
    const before = this.#movesAt;
    this.#movesAt = movesAt;
    if (before === movesAt) {
      return;
    }
    this.emit(movesAt === null ? 'calledOff' : 'told');
    this.emit('change');
  }

  /** The connection is rebuilt: if it still moves, the server says so again. */
  handleReconnecting(): void {
    if (this.#movesAt !== null) {
      this.#movesAt = null;
      this.emit('change');
    }
  }
}
