// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { safeStorage } from './storage';
import { FakeStorage } from './testing';

describe('storage', () => {
  it('keeps values where the browser lets it', () => {
    const browser = new FakeStorage();
    const storage = safeStorage(() => browser);
    storage.setItem('a', '1');
    expect(browser.values.get('a')).toBe('1');
    expect(storage.getItem('a')).toBe('1');
  });

  it('keeps them in memory where opening, reading or writing is refused', () => {
    const refuse = (): never => {
      throw new DOMException('no', 'SecurityError');
    };
    for (const storage of [safeStorage(refuse), safeStorage(() => ({ getItem: refuse, setItem: refuse }))]) {
      storage.setItem('a', '1');
      expect(storage.getItem('a')).toBe('1');
      expect(storage.getItem('b')).toBeNull();
    }
  });
});
