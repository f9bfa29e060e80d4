// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { EventParser } from './sse';

const STREAM = ': hello\r\n\r\nevent: waiting\r\ndata: {"reason":"NotOpened"}\r\nid: 7\r\n\r\n: still here\n\nevent:lobby\ndata:{}\n\ndata: a\ndata: b\n\nevent: unfinished\ndata: x';
const EVENTS = [
  { name: 'waiting', data: '{"reason":"NotOpened"}' },
  { name: 'lobby', data: '{}' },
  { name: 'message', data: 'a\nb' },
];

describe('server-sent events', () => {
  it('are the same however the stream is cut', () => {
    for (let size = 1; size <= STREAM.length; size += 1) {
      const parser = new EventParser();
      const events = [];
      for (let at = 0; at < STREAM.length; at += size) {
        events.push(...parser.push(STREAM.slice(at, at + size)));
      }
      expect(events, `pieces of ${size}`).toEqual(EVENTS);
    }
  });

  it('end the stream when a line has no end', () => {
    const parser = new EventParser();
    expect(() => parser.push(`data: ${'x'.repeat(70_000)}`)).toThrow('too long');
  });

  it('end the stream when an event has no end', () => {
    const parser = new EventParser();
    expect(() => parser.push('data: x\n'.repeat(100))).toThrow('too long');
  });
});
