// SPDX-License-Identifier: EUPL-1.2
import { PlenumError } from './errors';
import { EventParser } from './sse';

/** A text in one language. */
export interface LocalText {
  readonly lang: string;
  readonly text: string;
}

/** A text of a tenant's branding. */
export interface BrandText extends LocalText {
  readonly key: string;
}

/** A notice before entry. */
export interface Notice {
  readonly id: string;
  readonly acknowledge: boolean;
  readonly texts: readonly LocalText[];
}

/** What the door tells of a conference before anybody enters. */
export interface Conference {
  readonly roomId: string;
  readonly displayName: string;
  readonly tenant: { readonly name: string; readonly colour: string | null; readonly texts: readonly BrandText[] };
  readonly notices: readonly Notice[];
  readonly state: 'scheduled' | 'closed' | 'waiting' | 'open';
  readonly opensAt: Date | null;
  readonly passwordRequired: boolean;
  readonly lobby: boolean;
  readonly guests: boolean;
}

/** What somebody says at the door. */
export interface EntryRequest {
  readonly name: string;
  readonly password?: string;
  readonly openerKey?: string;
  readonly acknowledged: readonly string[];
  readonly clientId: string;
}

/** What the door answers, one after another. */
export type EntryEvent =
  | { readonly kind: 'waiting'; readonly reason: string; readonly opensAt: Date | null }
  | { readonly kind: 'lobby'; readonly position: number | null }
  | { readonly kind: 'admitted'; readonly token: string; readonly url: string; readonly identity: string; readonly role: string; readonly entersMuted: boolean };

/** Reaches the door. `fetch` and the timer come in, so that tests need no network. */
export interface DoorDeps {
  readonly fetch: (input: string, init?: RequestInit) => Promise<Response>;
  readonly setTimeout: (run: () => void, ms: number) => unknown;
  readonly clearTimeout: (timer: unknown) => void;
}

/** The door sends a comment every 15 s; three of them missed means that nobody is there. */
const SILENCE_MS = 50_000;
const TEXT_LIMIT = 4000;

type Json = Readonly<Record<string, unknown>>;

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);
const text = (value: unknown, fallback = ''): string => (typeof value === 'string' ? value.slice(0, TEXT_LIMIT) : fallback);
const list = (value: unknown, limit: number): Json[] => (Array.isArray(value) ? value.filter(isObject).slice(0, limit) : []);

/** A date of the wire: RFC 3339, or null. */
export function parseDate(value: unknown): Date | null {
  if (typeof value !== 'string' && typeof value !== 'number') {
    return null;
  }
  const date = new Date(value);
  return Number.isNaN(date.getTime()) ? null : date;
}

/** Reads the door's description of a conference; what is missing gets a harmless default. */
export function parseConference(body: unknown, roomId: string): Conference {
  if (!isObject(body)) {
    throw PlenumError.unavailable('the door answered something that is no conference', null);
  }
  const conference = isObject(body['conference']) ? body['conference'] : {};
  const tenant = isObject(body['tenant']) ? body['tenant'] : {};
  const localTexts = (value: unknown): LocalText[] => list(value, 16).map((item) => ({ lang: text(item['lang']), text: text(item['text']) }));
  const state = text(body['state']);
  const lobby = body['lobby'];
  const guests = body['guests'];
  return {
    roomId,
    displayName: text(conference['displayName'], roomId),
    tenant: {
      name: text(tenant['name']),
      colour: text(tenant['colour']) || null,
      texts: list(tenant['texts'], 32).map((item) => ({ key: text(item['key']), lang: text(item['lang']), text: text(item['text']) })),
    },
    notices: list(body['notices'], 16).map((item, index) => ({
      id: text(item['id'], `notice-${index}`),
      acknowledge: item['acknowledge'] === true,
      texts: localTexts(item['texts']),
    })),
    state: state === 'scheduled' || state === 'closed' || state === 'waiting' ? state : 'open',
    opensAt: parseDate(body['opensAt']),
    passwordRequired: body['passwordRequired'] === true,
    // A boolean, or the name of the rule of the object.
    lobby: lobby === true || lobby === 'Guests' || lobby === 'Everyone',
    guests: guests !== false && guests !== 'Forbidden',
  };
}

/** At the door, `Ended` says that the last date is over; inside, that somebody ended the conference just now. */
function refusal(name: string, retryAfter: number | null, message?: string): PlenumError {
  return PlenumError.refused(name === 'Ended' ? 'Closed' : name, retryAfter, message);
}

/** Turns an answer that is no success into an error with a reason. */
export async function errorOf(response: Response): Promise<PlenumError> {
  const header = Number(response.headers.get('retry-after'));
  const retryAfter = Number.isFinite(header) && header > 0 ? header : null;
  let reason = '';
  let message = `HTTP ${response.status}`;
  try {
    const body: unknown = await response.json();
    const error = isObject(body) && isObject(body['error']) ? body['error'] : {};
    reason = text(error['reason']);
    message = text(error['message'], message);
  } catch {
    // A proxy's page, or nothing: the status alone has to do.
  }
  if (reason !== '') {
    return refusal(reason, retryAfter, message);
  }
  if (response.status === 404) {
    return PlenumError.refused('UnknownConference', null, message);
  }
  if (response.status === 429) {
    return PlenumError.refused('Throttled', retryAfter, message);
  }
  if (response.status === 400 || response.status === 413 || response.status === 422) {
    return PlenumError.refused('BadRequest', null, message);
  }
  if (response.status === 401 || response.status === 403) {
    return PlenumError.refused('InvalidToken', null, message);
  }
  return PlenumError.unavailable(message, retryAfter);
}

/** The door of one conference. */
export class Door {
  readonly #deps: DoorDeps;
  readonly #base: string;

  constructor(
    readonly roomId: string,
    deps: DoorDeps,
  ) {
    this.#deps = deps;
    this.#base = `/api/v1/c/${encodeURIComponent(roomId)}`;
  }

  /** What stands at the door. */
  async describe(): Promise<Conference> {
    const response = await this.#fetch(this.#base, { headers: { accept: 'application/json' } });
    if (!response.ok) {
      throw await errorOf(response);
    }
    return parseConference(await response.json(), this.roomId);
  }

  /** Enters: calls back for every event until the door has decided. Ends with the admission; throws a refusal or a failure. */
  async enter(request: EntryRequest, onEvent: (event: EntryEvent) => void, signal: AbortSignal): Promise<EntryEvent & { kind: 'admitted' }> {
    const watchdog = new AbortController();
    const stop = (): void => watchdog.abort();
    signal.addEventListener('abort', stop);
    let timer: unknown = null;
    const alive = (): void => {
      this.#deps.clearTimeout(timer);
      timer = this.#deps.setTimeout(stop, SILENCE_MS);
    };
    try {
      alive();
      const response = await this.#fetch(`${this.#base}/entry`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
        body: JSON.stringify(request),
        cache: 'no-store',
        signal: watchdog.signal,
      });
      if (!response.ok || !response.body) {
        throw await errorOf(response);
      }
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      const parser = new EventParser();
      try {
        for (;;) {
          const { done, value } = await reader.read();
          if (done) {
            break;
          }
          alive();
          for (const event of parser.push(decoder.decode(value, { stream: true }))) {
            const parsed = parseEntryEvent(event.name, event.data);
            if (parsed) {
              onEvent(parsed);
              if (parsed.kind === 'admitted') {
                return parsed;
              }
            }
          }
        }
      } finally {
        await reader.cancel().catch(() => undefined);
      }
      throw PlenumError.unreachable('the door closed its stream without a decision');
    } catch (error) {
      if (error instanceof PlenumError || signal.aborted) {
        throw error;
      }
      throw PlenumError.unreachable(error instanceof Error ? error.message : 'the door does not answer');
    } finally {
      this.#deps.clearTimeout(timer);
      signal.removeEventListener('abort', stop);
    }
  }

  /** A call of a moderator with the own token. */
  async command(name: 'lobby' | 'end' | 'lock', body: Json, token: string): Promise<void> {
    const response = await this.#fetch(`${this.#base}/${name}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
      body: JSON.stringify(body),
    });
    if (!response.ok) {
      throw await errorOf(response);
    }
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    try {
      return await this.#deps.fetch(path, init);
    } catch (error) {
      if (init.signal?.aborted === true) {
        throw error;
      }
      throw PlenumError.unreachable(error instanceof Error ? error.message : 'no answer');
    }
  }
}

/** One event of the door; null for events this page does not know. A refusal is thrown. */
export function parseEntryEvent(name: string, data: string): EntryEvent | null {
  let body: unknown;
  try {
    body = JSON.parse(data === '' ? '{}' : data);
  } catch {
    return null;
  }
  if (!isObject(body)) {
    return null;
  }
  switch (name) {
    case 'waiting':
      return { kind: 'waiting', reason: text(body['reason'], 'NotOpened'), opensAt: parseDate(body['opensAt']) };
    case 'lobby':
      return { kind: 'lobby', position: typeof body['position'] === 'number' ? body['position'] : null };
    case 'admitted': {
      const token = typeof body['token'] === 'string' ? body['token'] : '';
      if (token === '') {
        throw PlenumError.unavailable('the door admitted without a token', null);
      }
      return { kind: 'admitted', token, url: text(body['url']), identity: text(body['identity']), role: text(body['role']), entersMuted: body['entersMuted'] === true };
    }
    case 'refused': {
      const seconds = body['retryAfterSeconds'];
      throw refusal(text(body['reason'], 'Unknown'), typeof seconds === 'number' && seconds > 0 ? seconds : null);
    }
    default:
      return null;
  }
}
