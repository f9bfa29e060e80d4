// SPDX-License-Identifier: EUPL-1.2
import { createContext } from 'preact';
import { useContext, useLayoutEffect, useReducer } from 'preact/hooks';

import type { Devices } from '../devices';
import type { Locale } from '../i18n';
import type { Key } from '../i18n/en';
import type { Call } from '../room';
import type { CallPort, Session } from '../session';

/** A call as the session holds it: the port, and the call itself for the views. */
export interface JoinedCall extends CallPort {
  readonly call: Call;
}

/** What every view may use. */
export interface App {
  readonly locale: Locale;
  readonly session: Session<JoinedCall>;
  readonly devices: Devices;
  readonly now: () => Date;
  readonly origin: string;
}

/** Carries the app through the tree. */
export const AppContext = createContext<App | null>(null);

/** The app. */
export function useApp(): App {
  const app = useContext(AppContext);
  if (!app) {
    throw new Error('a view stands outside of the app');
  }
  return app;
}

/** Renders again whenever this part changes. */
export function useChange(part: { on(name: 'change', listener: () => void): () => void }): void {
  const [, again] = useReducer((count: number) => count + 1, 0);
  // At once after drawing, so that no change falls between the two.
  useLayoutEffect(
    () =>
      part.on('change', () => {
        again(undefined);
      }),
    [part],
  );
}

/** Texts in the present language. */
export function useT(): (key: Key, values?: Readonly<Record<string, string | number>>) => string {
  const { locale } = useApp();
  return locale.t;
}
