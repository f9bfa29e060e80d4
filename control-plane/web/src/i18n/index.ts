// SPDX-License-Identifier: EUPL-1.2
import { Emitter } from '../events';
import { de } from './de';
import { en, type Key } from './en';

/** Languages with texts. */
export const LANGUAGES = ['de', 'en'] as const;

/** One of them. */
export type Language = (typeof LANGUAGES)[number];

const TEXTS: Readonly<Record<Language, Readonly<Record<Key, string>>>> = { de, en };

/** Names of the languages, in themselves. */
export const LANGUAGE_NAMES: Readonly<Record<Language, string>> = { de: 'Deutsch', en: 'English' };

/** The first language of the browser that has texts; English otherwise. */
export function preferred(wanted: readonly string[]): Language {
  for (const tag of wanted) {
    const language = LANGUAGES.find((known) => known === tag.toLowerCase().split('-')[0]);
    if (language) {
      return language;
    }
  }
  return 'en';
}

/** A text of many in the language, in another one otherwise; null when there is none. */
export function pickText<T extends { readonly lang: string; readonly text: string }>(texts: readonly T[], language: Language): T | null {
  const base = (text: T): string => text.lang.toLowerCase().split('-')[0] ?? '';
  return texts.find((text) => base(text) === language) ?? texts.find((text) => base(text) === 'en') ?? texts[0] ?? null;
}

/** Fills `{name}` in. Unknown names stay, so that a mistake is seen. */
export function fill(text: string, values: Readonly<Record<string, string | number>>): string {
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => (Object.hasOwn(values, name) ? String(values[name]) : whole));
}

/** The language of the page. */
export class Locale extends Emitter<{ change: [] }> {
  #language: Language;

  constructor(
    wanted: readonly string[],
    readonly memory: Pick<Storage, 'getItem' | 'setItem'>,
  ) {
    super();
    const chosen = memory.getItem('plenum.language');
    this.#language = LANGUAGES.find((language) => language === chosen) ?? preferred(wanted);
  }

  get language(): Language {
    return this.#language;
  }

  choose(language: Language): void {
    this.#language = language;
    this.memory.setItem('plenum.language', language);
    this.emit('change');
  }

  /** A text in the present language. */
  readonly t = (key: Key, values: Readonly<Record<string, string | number>> = {}): string => fill(TEXTS[this.#language][key], values);

  /** A moment in local time: the time alone today, with weekday and date otherwise. */
  moment(date: Date, now: Date): string {
    const sameDay = date.toDateString() === now.toDateString();
    const text = new Intl.DateTimeFormat(this.#language, sameDay ? { timeStyle: 'short' } : { weekday: 'long', day: 'numeric', month: 'long', hour: '2-digit', minute: '2-digit' }).format(date);
    if (!sameDay) {
      return this.#language === 'de' ? `am ${text}` : `on ${text}`;
    }
    return this.#language === 'de' ? `um ${text} Uhr` : `at ${text}`;
  }

  clock(date: Date): string {
    return new Intl.DateTimeFormat(this.#language, { timeStyle: 'short' }).format(date);
  }

  /** “a, b and c”. */
  names(names: readonly string[]): string {
    return new Intl.ListFormat(this.#language, { type: 'conjunction' }).format(names);
  }
}
