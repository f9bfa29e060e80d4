// SPDX-License-Identifier: EUPL-1.2
import { type Conference, Door, type DoorDeps, type EntryEvent, type EntryRequest } from './door';
import { PlenumError, type Reason, REASONS } from './errors';
import { Emitter } from './events';
import { roomOf, secretsOf } from './links';
import { backoff } from './retry';

/** Why somebody waits before the door. */
export type WaitReason = 'NotOpened' | 'NotYetTime' | 'NoCapacity';

/** What went wrong with a form. */
export interface Problem {
  readonly reason: Reason;
  readonly retryAfterSeconds: number | null;
}

/** The page, as one value. */
export type Screen<CallType> =
  | { readonly kind: 'home' }
  | { readonly kind: 'loading'; readonly retrying: boolean }
  | { readonly kind: 'prejoin'; readonly conference: Conference; readonly problem: Problem | null }
  | { readonly kind: 'connecting'; readonly conference: Conference; readonly retrying: boolean }
  | { readonly kind: 'waiting'; readonly conference: Conference; readonly reason: WaitReason; readonly opensAt: Date | null }
  | { readonly kind: 'lobby'; readonly conference: Conference; readonly position: number | null }
  | { readonly kind: 'call'; readonly conference: Conference; readonly call: CallType }
  | { readonly kind: 'end'; readonly conference: Conference | null; readonly reason: Reason; readonly wire: string };

/** What the session needs of a call. */
export interface CallPort {
  /** Microphones of people who enter muted stay off until they turn them on themselves. */
  connect(token: string, entersMuted: boolean): Promise<void>;
  leave(): Promise<void>;
  onEnded(listener: (reason: Reason) => void): void;
}

/** Everything from outside: network, address bar, memory of the tab, time, chance. */
export interface SessionDeps<CallType extends CallPort> extends DoorDeps {
  readonly location: { readonly pathname: string; readonly hash: string };
  readonly clearFragment: () => void;
  readonly memory: Pick<Storage, 'getItem' | 'setItem'>;
  readonly random: () => number;
  readonly randomId: () => string;
  readonly createCall: (door: Door) => Promise<CallType>;
  /** Whether this browser has what a conference needs. */
  readonly canTakePart: () => boolean;
}

/** What the form gives. */
export interface Form {
  readonly name: string;
  readonly password: string;
  readonly acknowledged: readonly string[];
}

/** Media failures in a row after which trying again is left to the person. */
const MEDIA_ATTEMPTS = 3;

/** The way of a person from the link to the room and out again. */
export class Session<CallType extends CallPort> extends Emitter<{ change: [] }> {
  readonly #deps: SessionDeps<CallType>;
  #screen: Screen<CallType> = { kind: 'loading', retrying: false };
  #door: Door | null = null;
  #conference: Conference | null = null;
  #secrets: { password: string | null; openerKey: string | null } = { password: null, openerKey: null };
  #abort: AbortController | null = null;
  #acknowledged: readonly string[] = [];

  constructor(deps: SessionDeps<CallType>) {
    super();
    this.#deps = deps;
  }

  get screen(): Screen<CallType> {
    return this.#screen;
  }

  /** Notices that the person agreed to already on this page; a wrong password must not ask for them again. */
  get acknowledged(): readonly string[] {
    return this.#acknowledged;
  }

  /** Name used last in this tab. */
  get name(): string {
    return this.#deps.memory.getItem('plenum.name') ?? '';
  }

  /** Whether the form has to ask for the password. */
  get asksPassword(): boolean {
    if (this.#conference?.passwordRequired !== true || this.#secrets.openerKey !== null) {
      return false;
    }
    const wrong = this.#screen.kind === 'prejoin' && this.#screen.problem !== null && this.#screen.problem.reason !== 'AcknowledgementRequired';
    return this.#secrets.password === null || wrong;
  }

  /** Whether the link carries an opener's key. */
  get isOpener(): boolean {
    return this.#secrets.openerKey !== null;
  }

  /** Reads the address, takes secrets out of it, asks the door. */
  async start(): Promise<void> {
    const { pathname, hash } = this.#deps.location;
    const roomId = roomOf(pathname);
    if (roomId === null) {
      this.#show(pathname === '/' || pathname === '/index.html' ? { kind: 'home' } : { kind: 'end', conference: null, reason: 'NoSuchPage', wire: '' });
      return;
    }
    this.#takeSecrets(roomId, hash);
    if (!this.#deps.canTakePart()) {
      this.#show({ kind: 'end', conference: null, reason: 'UnsupportedBrowser', wire: '' });
      return;
    }
    this.#door = new Door(roomId, this.#deps);
    await this.load();
  }

  /** Asks the door what this is; tries again by itself while that may help. */
  async load(): Promise<void> {
    const door = this.#door;
    if (!door) {
      return;
    }
    const signal = this.#begin();
    this.#show({ kind: 'loading', retrying: false });
    for (let attempt = 0; going(signal); attempt += 1) {
      try {
        const conference = await door.describe();
        if (going(signal)) {
          this.#conference = conference;
          this.#show({ kind: 'prejoin', conference, problem: null });
        }
        return;
      } catch (error) {
        const failure = asFailure(error);
        if (!mayPass(failure.reason)) {
          this.#finish(failure, signal);
          return;
        }
        if (going(signal)) {
          this.#show({ kind: 'loading', retrying: true });
        }
        await this.#pause(failure, attempt, signal);
      }
    }
  }

  /** Goes through the door with what the form says, waits as long as it takes, and joins. */
  async enter(form: Form): Promise<void> {
    const door = this.#door;
    const conference = this.#conference;
    if (!door || !conference) {
      return;
    }
    this.#deps.memory.setItem('plenum.name', form.name);
    this.#acknowledged = form.acknowledged;
    if (form.password !== '') {
      this.#secrets = { ...this.#secrets, password: form.password };
      this.#remember(door.roomId);
    }
    const request: EntryRequest = {
      name: form.name,
      ...(this.#secrets.openerKey !== null ? { openerKey: this.#secrets.openerKey } : {}),
      ...(this.#secrets.password !== null ? { password: this.#secrets.password } : {}),
      acknowledged: form.acknowledged,
      clientId: this.#clientId(),
    };
    const signal = this.#begin();
    this.#show({ kind: 'connecting', conference, retrying: false });
    let mediaFailures = 0;
    for (let attempt = 0; going(signal); attempt += 1) {
      try {
        const admitted = await door.enter(
          request,
          (event) => {
            attempt = 0;
            this.#heard(event, conference, signal);
          },
          signal,
        );
        await this.#join(door, admitted, conference, signal);
        return;
      } catch (error) {
        if (!going(signal)) {
          return;
        }
        const failure = asFailure(error);
        mediaFailures += failure.reason === 'MediaFailure' ? 1 : 0;
        if (REASONS[failure.reason] === 'form') {
          this.#show({ kind: 'prejoin', conference, problem: { reason: failure.reason, retryAfterSeconds: failure.retryAfterSeconds } });
          return;
        }
        if (!mayPass(failure.reason) && (failure.reason !== 'MediaFailure' || mediaFailures >= MEDIA_ATTEMPTS)) {
          this.#finish(failure, signal);
          return;
        }
        if (failure.reason === 'NoCapacity' || failure.reason === 'QuotaReached') {
          this.#show({ kind: 'waiting', conference, reason: 'NoCapacity', opensAt: null });
        } else {
          this.#show({ kind: 'connecting', conference, retrying: true });
        }
        await this.#pause(failure, attempt, signal);
      }
    }
  }

  /** Back to the form, from any waiting. */
  cancel(): void {
    this.#abort?.abort();
    if (this.#conference) {
      this.#show({ kind: 'prejoin', conference: this.#conference, problem: null });
    }
  }

  /** Leaves the room. */
  async leave(): Promise<void> {
    if (this.#screen.kind === 'call') {
      await this.#screen.call.leave();
    }
  }

  /** A new fragment under the same path: somebody opened another link of this conference. */
  handleFragment(hash: string): void {
    const door = this.#door;
    if (door && this.#screen.kind !== 'call' && this.#takeSecrets(door.roomId, hash)) {
      void this.load();
    }
  }

  async #join(door: Door, admitted: EntryEvent & { kind: 'admitted' }, conference: Conference, signal: AbortSignal): Promise<void> {
    this.#show({ kind: 'connecting', conference, retrying: false });
    const call = await this.#deps.createCall(door);
    if (!going(signal)) {
      return;
    }
    let joined = false;
    call.onEnded((reason) => {
      if (joined && this.#screen.kind === 'call' && this.#screen.call === call) {
        this.#show({ kind: 'end', conference, reason, wire: reason });
      }
    });
    await call.connect(admitted.token, admitted.entersMuted);
    if (!going(signal)) {
      await call.leave();
      return;
    }
    joined = true;
    this.#show({ kind: 'call', conference, call });
  }

  #heard(event: EntryEvent, conference: Conference, signal: AbortSignal): void {
    if (!going(signal)) {
      return;
    }
    if (event.kind === 'waiting') {
      const reason = event.reason === 'NotYetTime' || event.reason === 'NoCapacity' ? event.reason : 'NotOpened';
      this.#show({ kind: 'waiting', conference, reason, opensAt: event.opensAt });
    } else if (event.kind === 'lobby') {
      this.#show({ kind: 'lobby', conference, position: event.position });
    }
  }

  #begin(): AbortSignal {
    this.#abort?.abort();
    this.#abort = new AbortController();
    return this.#abort.signal;
  }

  #finish(failure: PlenumError, signal: AbortSignal): void {
    if (going(signal)) {
      this.#show({ kind: 'end', conference: this.#conference, reason: failure.reason, wire: failure.wire });
    }
  }

  async #pause(failure: PlenumError, attempt: number, signal: AbortSignal): Promise<void> {
    const ms = failure.retryAfterSeconds !== null ? failure.retryAfterSeconds * 1000 * (1 + this.#deps.random() / 4) : backoff(attempt, 1000, 15_000, this.#deps.random);
    await new Promise<void>((resolve) => {
      const timer = this.#deps.setTimeout(resolve, ms);
      signal.addEventListener('abort', () => {
        this.#deps.clearTimeout(timer);
        resolve();
      });
    });
  }

  /** Secrets live in this tab's memory, so that a reload keeps them, and leave the address bar, so that nobody reads them there. */
  #takeSecrets(roomId: string, hash: string): boolean {
    const fresh = secretsOf(hash);
    if (fresh.password !== null || fresh.openerKey !== null) {
      this.#secrets = fresh;
      this.#remember(roomId);
      this.#deps.clearFragment();
      return true;
    }
    try {
      const kept = JSON.parse(this.#deps.memory.getItem(`plenum.secrets.${roomId}`) ?? '{}') as Record<string, unknown>;
      this.#secrets = {
        password: typeof kept['password'] === 'string' ? kept['password'] : null,
        openerKey: typeof kept['openerKey'] === 'string' ? kept['openerKey'] : null,
      };
    } catch {
      this.#secrets = fresh;
    }
    return false;
  }

  #remember(roomId: string): void {
    this.#deps.memory.setItem(`plenum.secrets.${roomId}`, JSON.stringify(this.#secrets));
  }

  /** One id per tab, so that the door knows somebody who reloads. */
  #clientId(): string {
    let id = this.#deps.memory.getItem('plenum.client');
    if (id === null) {
      id = this.#deps.randomId();
      this.#deps.memory.setItem('plenum.client', id);
    }
    return id;
  }

  #show(screen: Screen<CallType>): void {
    this.#screen = screen;
    this.emit('change');
  }
}

function asFailure(error: unknown): PlenumError {
  return error instanceof PlenumError ? error : PlenumError.refused('Unknown', null, error instanceof Error ? error.message : String(error));
}

/** Failures after which the page itself tries again. */
function mayPass(reason: Reason): boolean {
  return reason === 'Unavailable' || reason === 'Unreachable' || reason === 'NoCapacity' || reason === 'QuotaReached' || reason === 'ConnectionLost';
}

/** A function, because the state of a signal changes while a promise is awaited, which the compiler does not see in the property. */
function going(signal: AbortSignal): boolean {
  return !signal.aborted;
}
