// SPDX-License-Identifier: EUPL-1.2
import { Emitter } from './events';

/** Where a track comes from, by LiveKit's names. */
export type Source = 'camera' | 'microphone' | 'screen_share' | 'screen_share_audio';

/** Roles of a declared conference; null in rooms without roles. */
export type Role = 'Moderator' | 'Presenter' | 'Participant' | 'Guest';

/** Who reads what somebody writes. */
export type ChatRule = 'Everyone' | 'Moderators' | 'Off';

/** All roles, the strongest first. */
export const ROLES: readonly Role[] = ['Moderator', 'Presenter', 'Participant', 'Guest'];

/** Connection quality of one person. */
export type Quality = 'excellent' | 'good' | 'poor' | 'lost' | 'unknown';

/** One published track as others see it. */
export interface TrackState {
  readonly sid: string;
  readonly muted: boolean;
  /** 0 until the media can be attached; another number for every new media object, so that views attach again. */
  readonly media: number;
}

/** One person in the room: a plain value, made by `room.ts` from the engine's state. */
export interface Person {
  readonly identity: string;
  readonly name: string;
  readonly local: boolean;
  readonly role: Role | null;
  readonly guest: boolean;
  /** When the hand went up, in ms; null while it is down. */
  readonly hand: number | null;
  readonly speaking: boolean;
  readonly quality: Quality;
  readonly joinedAt: number;
  readonly tracks: Readonly<Partial<Record<Source, TrackState>>>;
}

/** What everybody should hear of: for the live region and the short messages. */
export type Announcement =
  | { readonly kind: 'joined'; readonly people: readonly Person[] }
  | { readonly kind: 'left'; readonly people: readonly Person[] }
  | { readonly kind: 'hand'; readonly person: Person; readonly raised: boolean }
  | { readonly kind: 'share'; readonly person: Person; readonly started: boolean };

/** The role of an attribute; null when it is none. */
export function parseRole(value: string | undefined): Role | null {
  return ROLES.find((role) => role === value) ?? null;
}

/** The rule of the attribute `plenum.chat`, which the server writes where not everybody reads. */
export function parseChatRule(value: string | undefined): ChatRule {
  return value === 'Moderators' || value === 'Off' ? value : 'Everyone';
}

/** The time of the attribute `plenum.hand`; null when the hand is down. */
export function parseHand(value: string | undefined): number | null {
  if (value === undefined || value === '' || value === '0' || value === 'false') {
    return null;
  }
  const time = Number(value);
  return Number.isFinite(time) && time > 1 ? time : 1;
}

/** After a rebuilt connection the others are still on their way back: who is missing for less than this did not leave. */
const GRACE_MS = 10_000;

/** Everybody in the room, in the order of the list, with what changed between two states. */
export class Roster extends Emitter<{ change: []; announce: [Announcement] }> {
  #people: readonly Person[] = [];
  #silent = true;
  #met = false;
  #expected = new Map<string, Person>();
  #graceUntilMs = 0;

  /** Myself first, then raised hands in the order they went up, then by role and name. */
  get people(): readonly Person[] {
    return this.#people;
  }

  /** Myself, once joined. */
  get me(): Person | null {
    return this.#people.find((person) => person.local) ?? null;
  }

  /** Raised hands, the earliest first. */
  get hands(): readonly Person[] {
    return this.#people.filter((person) => person.hand !== null).sort((a, b) => (a.hand ?? 0) - (b.hand ?? 0));
  }

  /** One person. */
  find(identity: string): Person | null {
    return this.#people.find((person) => person.identity === identity) ?? null;
  }

  /** While the connection is rebuilt, everybody seems to go and come: nothing is announced until it stands again. */
  handleReconnecting(): void {
    if (!this.#silent) {
      this.#silent = true;
      this.#expected = new Map(this.#people.filter((person) => !person.local).map((person) => [person.identity, person]));
    }
  }

  /** The state of the room after any change. */
  handlePeople(people: readonly Person[], connected: boolean, nowMs: number): void {
    const before = new Map(this.#people.map((person) => [person.identity, person]));
    this.#people = [...people].sort(byRank);
    this.emit('change');
    const first = !this.#met;
    if (this.#silent && connected) {
      this.#silent = false;
      this.#met = true;
      this.#graceUntilMs = nowMs + GRACE_MS;
    }
    // Who was here before me did not join.
    if (!this.#silent && !first) {
      this.#announce(before, nowMs);
    }
  }

  #announce(before: ReadonlyMap<string, Person>, nowMs: number): void {
    const now = new Set(this.#people.map((person) => person.identity));
    const joined = this.#people.filter((person) => !before.has(person.identity) && !this.#expected.has(person.identity) && !person.local);
    const left = [...before.values()].filter((person) => !now.has(person.identity) && !this.#expected.has(person.identity) && !person.local);
    for (const identity of now) {
      this.#expected.delete(identity);
    }
    if (nowMs >= this.#graceUntilMs) {
      left.push(...this.#expected.values());
      this.#expected.clear();
    }
    if (joined.length > 0) {
      this.emit('announce', { kind: 'joined', people: joined });
    }
    if (left.length > 0) {
      this.emit('announce', { kind: 'left', people: left });
    }
    for (const person of this.#people) {
      const earlier = before.get(person.identity);
      if ((earlier?.hand ?? null) !== null !== (person.hand !== null)) {
        this.emit('announce', { kind: 'hand', person, raised: person.hand !== null });
      }
      const shared = person.tracks.screen_share !== undefined;
      if ((earlier?.tracks.screen_share !== undefined) !== shared) {
        this.emit('announce', { kind: 'share', person, started: shared });
      }
    }
  }
}

function byRank(a: Person, b: Person): number {
  if (a.local !== b.local) {
    return a.local ? -1 : 1;
  }
  if (a.hand !== b.hand) {
    return (a.hand ?? Number.POSITIVE_INFINITY) - (b.hand ?? Number.POSITIVE_INFINITY);
  }
  const rank = (person: Person): number => (person.role === null ? ROLES.length : ROLES.indexOf(person.role));
  return rank(a) - rank(b) || a.name.localeCompare(b.name) || (a.identity < b.identity ? -1 : 1);
}
