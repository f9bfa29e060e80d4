// SPDX-License-Identifier: EUPL-1.2
import type { JSX } from 'preact';
import { useState } from 'preact/hooks';

import { parsePasted, pathOf } from '../links';
import { useApp, useT } from './context';
import { Icon, type IconName } from './Icon';
import { Shell, useArrival } from './Shell';

/** The page at `/`: what this is, and a field for a link. */
export function Home({ open }: { readonly open: (path: string) => void }): JSX.Element {
  const { origin } = useApp();
  const t = useT();
  const heading = useArrival(t('home.title'));
  const [text, setText] = useState('');
  const [invalid, setInvalid] = useState(false);
  const points: readonly { icon: IconName; title: string; text: string }[] = [
    { icon: 'home', title: t('home.private.title'), text: t('home.private.text') },
    { icon: 'shield', title: t('home.secure.title'), text: t('home.secure.text') },
    { icon: 'people', title: t('home.access.title'), text: t('home.access.text') },
  ];
  const submit = (event: Event): void => {
    event.preventDefault();
    const link = parsePasted(text, origin);
    if (link) {
      open(pathOf(link));
    } else {
      setInvalid(true);
      document.getElementById('link')?.focus();
    }
  };
  return (
    <Shell conference={null} screen="home">
      <div class="home">
        <h1 ref={heading} tabIndex={-1}>
          {t('home.title')}
        </h1>
        <p class="lead">{t('home.lead')}</p>
        <form class="card home-form" onSubmit={submit} noValidate>
          <div class="field">
            <label for="link">{t('home.label')}</label>
            <div class="field-row">
              <input
                id="link"
                data-testid="link"
                type="text"
                inputMode="url"
                autocomplete="off"
                spellcheck={false}
                value={text}
                aria-describedby="link-hint"
                aria-invalid={invalid}
                onInput={(event) => {
                  setText(event.currentTarget.value);
                  setInvalid(false);
                }}
              />
              <button type="submit" class="button button-primary" data-testid="open">
                {t('home.open')}
              </button>
            </div>
            <p id="link-hint" class={invalid ? 'hint hint-error' : 'hint'} role={invalid ? 'alert' : undefined}>
              {invalid ? t('home.invalid') : t('home.hint', { example: `${origin}/c/…` })}
            </p>
          </div>
        </form>
        <ul class="points">
          {points.map((point) => (
            <li key={point.title}>
              <Icon name={point.icon} size={26} />
              <h2>{point.title}</h2>
              <p>{point.text}</p>
            </li>
          ))}
        </ul>
      </div>
    </Shell>
  );
}
