// SPDX-License-Identifier: EUPL-1.2

/** One server-sent event. */
export interface ServerEvent {
  readonly name: string;
  readonly data: string;
}

const LINE_LIMIT = 64 * 1024;

/** Splits a stream of text into server-sent events. Comments and fields that the contract does not use are dropped; overlong lines end the stream. */
export class EventParser {
  #rest = '';
  #name = '';
  #data: string[] = [];

  /** Takes the next piece of text; gives the events that it completes. */
  push(text: string): ServerEvent[] {
    this.#rest += text;
    const events: ServerEvent[] = [];
    for (;;) {
      const match = /\r\n|\n|\r(?!$)/.exec(this.#rest);
      if (!match) {
        break;
      }
      const line = this.#rest.slice(0, match.index);
      this.#rest = this.#rest.slice(match.index + match[0].length);
      const event = this.#line(line);
      if (event) {
        events.push(event);
      }
    }
    if (this.#rest.length > LINE_LIMIT || this.#data.length > 64) {
      throw new Error('an event of the door is too long');
    }
    return events;
  }

  #line(line: string): ServerEvent | null {
    if (line === '') {
      const event = this.#data.length === 0 ? null : { name: this.#name === '' ? 'message' : this.#name, data: this.#data.join('\n') };
      this.#name = '';
      this.#data = [];
      return event;
    }
    const colon = line.indexOf(':');
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') {
      this.#name = value;
    } else if (field === 'data') {
      this.#data.push(value);
    }
    return null;
  }
}
