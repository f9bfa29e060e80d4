// SPDX-License-Identifier: EUPL-1.2
import type { Door, DoorDeps } from './door';
import { PlenumError } from './errors';
import type { Person, Role } from './roster';

/** What moderation needs to know of the room. */
export interface ModerationDeps {
  readonly fetch: DoorDeps['fetch'];
  readonly door: Door;
  /** The participant's own token, as refreshed last. */
  readonly token: () => string;
  /** The room by its name in the token. */
  readonly roomName: () => string;
}

/** What a moderator does: through the room service and the door, always with the own token. The server decides. */
export class Moderation {
  readonly #deps: ModerationDeps;

  constructor(deps: ModerationDeps) {
    this.#deps = deps;
  }

  /** Mutes a track; nobody can unmute another. */
  async mute(identity: string, trackSid: string): Promise<void> {
    await this.#call('MutePublishedTrack', { identity, trackSid, muted: true });
  }

  /** Mutes everybody but me who speaks or could at once. */
  async muteAll(people: readonly Person[]): Promise<void> {
    const open = people.flatMap((person) => {
      const track = person.tracks.microphone;
      return !person.local && track && !track.muted ? [this.mute(person.identity, track.sid)] : [];
    });
    await Promise.all(open);
  }

  /** Puts somebody out; the same token does not let them in again. */
  async remove(identity: string): Promise<void> {
    await this.#call('RemoveParticipant', { identity });
  }

  /** Changes a role for as long as the conference runs. */
  async setRole(identity: string, role: Role): Promise<void> {
    await this.#call('UpdateParticipant', { identity, attributes: { 'plenum.role': role } });
  }

  /** Takes a raised hand down. */
  async lowerHand(identity: string): Promise<void> {
    await this.#call('UpdateParticipant', { identity, attributes: { 'plenum.hand': '' } });
  }

  async admit(ids: readonly string[]): Promise<void> {
    await this.#deps.door.command('lobby', { admit: ids }, this.#deps.token());
  }

  async deny(ids: readonly string[]): Promise<void> {
    await this.#deps.door.command('lobby', { deny: ids }, this.#deps.token());
  }

  async admitAll(): Promise<void> {
    await this.#deps.door.command('lobby', { admitAll: true }, this.#deps.token());
  }

  async setLocked(locked: boolean): Promise<void> {
    await this.#deps.door.command('lock', { locked }, this.#deps.token());
  }

  async end(): Promise<void> {
    await this.#deps.door.command('end', {}, this.#deps.token());
  }

  async #call(method: string, body: Readonly<Record<string, unknown>>): Promise<void> {
    let response: Response;
    try {
      response = await this.#deps.fetch(`/twirp/livekit.RoomService/${method}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${this.#deps.token()}` },
        body: JSON.stringify({ room: this.#deps.roomName(), ...body }),
      });
    } catch (error) {
      throw PlenumError.unreachable(error instanceof Error ? error.message : 'no answer');
    }
    if (!response.ok) {
      throw PlenumError.unavailable(`${method}: HTTP ${response.status}`, null);
    }
  }
}
