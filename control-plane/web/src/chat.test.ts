// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { ChatLog, type ChatMessage, segments } from './chat';

const message = (id: string, more: Partial<ChatMessage> = {}): ChatMessage => ({ id, identity: 'a', name: 'A', text: 'hello', at: 1, own: false, ...more });

describe('chat', () => {
  it('counts a message once, though clients send it in two forms', () => {
    const chat = new ChatLog();
    chat.handleMessage(message('1'));
    chat.handleMessage(message('1'));
    expect(chat.messages).toHaveLength(1);
    expect(chat.unread).toBe(1);
  });

  it('counts as unread what others wrote while it was closed', () => {
    const chat = new ChatLog();
    chat.handleMessage(message('1', { own: true }));
    chat.handleMessage(message('2'));
    expect(chat.unread).toBe(1);
    chat.setOpen(true);
    chat.handleMessage(message('3'));
    expect(chat.unread).toBe(0);
    chat.setOpen(false);
    chat.handleMessage(message('4'));
    expect(chat.unread).toBe(1);
  });

  it('is bounded in messages and in their length, and drops empty ones', () => {
    const chat = new ChatLog();
    chat.handleMessage(message('empty', { text: ' \n ' }));
    for (let at = 0; at < 700; at += 1) {
      chat.handleMessage(message(String(at), { text: 'x'.repeat(5000) }));
    }
    expect(chat.messages).toHaveLength(500);
    expect(chat.messages.at(-1)?.id).toBe('699');
    expect(chat.messages[0]?.text).toHaveLength(2000);
  });

  it('makes links of web addresses only, without the dot behind them', () => {
    expect(segments('see https://example.org/a?b=c. or javascript:alert(1)')).toEqual([
      { kind: 'text', text: 'see ' },
      { kind: 'link', text: 'https://example.org/a?b=c', href: 'https://example.org/a?b=c' },
      { kind: 'text', text: '. or javascript:alert(1)' },
    ]);
    expect(segments('plain')).toEqual([{ kind: 'text', text: 'plain' }]);
    expect(segments('http://')).toEqual([{ kind: 'text', text: 'http://' }]);
  });

  it('loses no character between text and links', () => {
    for (const text of ['', 'a https://x.y b http://z.w/!', 'https://a.b', 'x(https://a.b)y', 'https:// https://a.b,c']) {
      expect(segments(text).map((segment) => segment.text).join('')).toBe(text);
    }
  });
});
