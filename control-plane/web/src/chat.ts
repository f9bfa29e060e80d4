// SPDX-License-Identifier: EUPL-1.2
import { Emitter } from './events';

/** One message. */
export interface ChatMessage {
  readonly id: string;
  readonly identity: string;
  readonly name: string;
  readonly text: string;
  readonly at: number;
  readonly own: boolean;
}

/** Longest message, in characters. */
export const MESSAGE_LIMIT = 2000;
const LOG_LIMIT = 500;

/** A piece of a message: plain text, or an address that becomes a link. */
export type Segment = { readonly kind: 'text'; readonly text: string } | { readonly kind: 'link'; readonly text: string; readonly href: string };

/** Finds web addresses in a message. Only http and https become links. */
export function segments(text: string): Segment[] {
  const found: Segment[] = [];
  let from = 0;
  for (const match of text.matchAll(/https?:\/\/[^\s<>"]+/g)) {
    const address = match[0].replace(/[.,;:!?)\]}'"]+$/, '');
    if (!URL.canParse(address)) {
      continue;
    }
    if (match.index > from) {
      found.push({ kind: 'text', text: text.slice(from, match.index) });
    }
    found.push({ kind: 'link', text: address, href: address });
    from = match.index + address.length;
  }
  if (from < text.length) {
    found.push({ kind: 'text', text: text.slice(from) });
  }
  return found;
}

/** What was written, as long as the page is open; nothing is stored. */
export class ChatLog extends Emitter<{ change: []; arrived: [ChatMessage] }> {
  #messages: readonly ChatMessage[] = [];
  #unread = 0;
  #open = false;

  get messages(): readonly ChatMessage[] {
    return this.#messages;
  }

  get unread(): number {
    return this.#unread;
  }

  /** A message from anybody; one id counts once (clients may send both the new and the old form). */
  handleMessage(message: ChatMessage): void {
    const text = message.text.slice(0, MESSAGE_LIMIT);
    if (text.trim() === '' || this.#messages.some((known) => known.id === message.id)) {
      return;
    }
    const kept = { ...message, text };
    this.#messages = [...this.#messages, kept].slice(-LOG_LIMIT);
    if (!message.own) {
      if (!this.#open) {
        this.#unread += 1;
      }
      this.emit('arrived', kept);
    }
    this.emit('change');
  }

  /** Whether the messages are on the screen. */
  setOpen(open: boolean): void {
    this.#open = open;
    if (open) {
      this.#unread = 0;
    }
    this.emit('change');
  }
}
