// SPDX-License-Identifier: EUPL-1.2
import type { DoorDeps } from './door';
import type { Person } from './roster';

/** A network of prepared answers, for tests: each call takes the next. */
export class FakeNetwork implements DoorDeps {
  readonly calls: { path: string; init: RequestInit | undefined }[] = [];
  readonly #answers: (Response | Error | ((init?: RequestInit) => Promise<Response>))[] = [];

  next(...answers: (Response | Error | ((init?: RequestInit) => Promise<Response>))[]): void {
    this.#answers.push(...answers);
  }

  readonly fetch = async (path: string, init?: RequestInit): Promise<Response> => {
    this.calls.push({ path, init });
    const answer = this.#answers.shift();
    if (answer === undefined) {
      throw new Error(`nothing prepared for ${path}`);
    }
    if (answer instanceof Error) {
      throw answer;
    }
    return typeof answer === 'function' ? await answer(init) : answer;
  };

  /** Timers run at once where they are short: nobody waits in a test. */
  readonly setTimeout = (run: () => void, ms: number): unknown => (ms < 50_000 ? setTimeout(run, 0) : null);

  readonly clearTimeout = (timer: unknown): void => {
    if (timer !== null) {
      clearTimeout(timer as ReturnType<typeof setTimeout>);
    }
  };

  bodyOf(call: number): unknown {
    const body = this.calls[call]?.init?.body;
    return typeof body === 'string' ? JSON.parse(body) : undefined;
  }
}

/** An answer as JSON. */
export function json(body: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(JSON.stringify(body), { status, headers: { 'content-type': 'application/json', ...headers } });
}

/** A stream of events that ends, or stays open until the caller hangs up. */
export function events(list: readonly (readonly [string, unknown])[], open = false): (init?: RequestInit) => Promise<Response> {
  return (init) => {
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (const [name, data] of list) {
          controller.enqueue(new TextEncoder().encode(`event: ${name}\ndata: ${JSON.stringify(data)}\n\n`));
        }
        if (!open) {
          controller.close();
        }
        init?.signal?.addEventListener('abort', () => controller.error(new DOMException('aborted', 'AbortError')));
      },
    });
    return Promise.resolve(new Response(body, { headers: { 'content-type': 'text/event-stream' } }));
  };
}

/** Storage that forgets with the test. */
export class FakeStorage {
  readonly values = new Map<string, string>();
  getItem(key: string): string | null {
    return this.values.get(key) ?? null;
  }
  setItem(key: string, value: string): void {
    this.values.set(key, value);
  }
}

/** Somebody in the room. */
export function person(identity: string, more: Partial<Person> = {}): Person {
  return { identity, name: identity, local: false, role: 'Participant', guest: false, hand: null, speaking: false, quality: 'good', joinedAt: 0, tracks: {}, ...more };
}
