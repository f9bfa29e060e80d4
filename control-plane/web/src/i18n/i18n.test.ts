// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { FakeStorage } from '../testing';
import { de } from './de';
import { en, type Key } from './en';
import { fill, LANGUAGES, Locale, pickText, preferred } from './index';

const KEYS = Object.keys(en) as Key[];

describe('texts', () => {
  it('have the same keys in both languages', () => {
    expect(Object.keys(de).sort()).toEqual([...KEYS].sort());
  });

  it('fill in the same values in both languages', () => {
    const values = (text: string): string[] => (text.match(/\{\w+\}/g) ?? []).sort();
    for (const key of KEYS) {
      expect(values(de[key]), key).toEqual(values(en[key]));
    }
  });

  it('are there and, where they say something, differ', () => {
    const same = KEYS.filter((key) => de[key] === en[key]);
    for (const key of KEYS) {
      expect(de[key].trim(), key).not.toBe('');
      expect(en[key].trim(), key).not.toBe('');
    }
    expect(same.length, same.join(' ')).toBeLessThan(15);
  });

  it('leave unknown values standing, so that a mistake is seen', () => {
    expect(fill('{a} and {b}', { a: 1 })).toBe('1 and {b}');
    expect(fill('{toString}', {})).toBe('{toString}');
  });
});

describe('the language', () => {
  it('is the first of the browser that has texts, else English', () => {
    expect(preferred(['fr-FR', 'de-AT', 'en'])).toBe('de');
    expect(preferred(['fr'])).toBe('en');
    expect(preferred([])).toBe('en');
  });

  it('is the chosen one from then on', () => {
    const memory = new FakeStorage();
    const locale = new Locale(['de'], memory);
    expect(locale.t('app.close')).toBe('Schließen');
    locale.choose('en');
    expect(locale.t('app.close')).toBe('Close');
    expect(new Locale(['de'], memory).language).toBe('en');
    memory.setItem('plenum.language', 'xx');
    expect(new Locale(['de'], memory).language).toBe('de');
  });

  it('picks texts of tenants in the language, else English, else any', () => {
    const texts = [
      { lang: 'fr', text: 'f' },
      { lang: 'en-GB', text: 'e' },
      { lang: 'de', text: 'd' },
    ];
    expect(pickText(texts, 'de')?.text).toBe('d');
    expect(pickText(texts.slice(0, 2), 'de')?.text).toBe('e');
    expect(pickText(texts.slice(0, 1), 'de')?.text).toBe('f');
    expect(pickText([], 'de')).toBeNull();
  });

  it('names moments: the time alone today, the day with it otherwise', () => {
    const now = new Date(2030, 2, 4, 9, 0);
    for (const language of LANGUAGES) {
      const locale = new Locale([language], new FakeStorage());
      const today = locale.moment(new Date(2030, 2, 4, 10, 30), now);
      const later = locale.moment(new Date(2030, 2, 6, 10, 30), now);
      expect(today).toContain('30');
      expect(later.length).toBeGreaterThan(today.length);
      expect(later).toMatch(language === 'de' ? /Mittwoch.*6\. März/ : /Wednesday/);
    }
  });
});
