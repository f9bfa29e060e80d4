// SPDX-License-Identifier: EUPL-1.2
import type { ComponentChildren, JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';

import type { BrandText, Conference } from '../door';
import { LANGUAGE_NAMES, LANGUAGES, pickText } from '../i18n';
import { useApp, useT } from './context';
import { Mark } from './Icon';

/** Moves the focus to the beginning of a new page and names it in the title, so that a screen reader says where one is. */
export function useArrival(title: string): { readonly current: HTMLHeadingElement | null } {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${title} · Plenum`;
  }, [title]);
  useEffect(() => {
    heading.current?.focus({ preventScroll: true });
  }, []);
  return heading;
}

/** Buttons that change the language. */
export function LanguageSwitch(): JSX.Element {
  const { locale } = useApp();
  const t = useT();
  return (
    <div class="languages" role="group" aria-label={t('app.language')}>
      {LANGUAGES.map((language) => (
        <button
          key={language}
          type="button"
          lang={language}
          class="language"
          data-testid={`language-${language}`}
          aria-pressed={locale.language === language}
          aria-label={`${language.toUpperCase()}: ${LANGUAGE_NAMES[language]}`}
          title={LANGUAGE_NAMES[language]}
          onClick={() => locale.choose(language)}
        >
          {language.toUpperCase()}
        </button>
      ))}
    </div>
  );
}

/** A text of the tenant's branding in the present language; nothing when there is none. */
export function BrandingText({ conference, name }: { readonly conference: Conference | null; readonly name: string }): JSX.Element | null {
  const { locale } = useApp();
  const text = pickText((conference?.tenant.texts ?? []).filter((candidate) => candidate.key === name), locale.language);
  if (!text) {
    return null;
  }
  return (
    <p class="branding-text" lang={text.lang}>
      {text.text}
    </p>
  );
}

/** Imprint, privacy and help of the tenant: a link when the text is an address, the text itself otherwise. */
function Footer({ conference }: { readonly conference: Conference | null }): JSX.Element | null {
  const { locale } = useApp();
  const t = useT();
  const names = { Imprint: t('app.imprint'), Privacy: t('app.privacy'), Help: t('app.help') };
  const entries = Object.entries(names).flatMap(([key, label]) => {
    const text = pickText<BrandText>((conference?.tenant.texts ?? []).filter((candidate) => candidate.key === key), locale.language);
    return text ? [{ key, label, text }] : [];
  });
  if (entries.length === 0) {
    return null;
  }
  return (
    <footer class="footer">
      {entries.map(({ key, label, text }) =>
        /^https:\/\/\S+$/.test(text.text) ? (
          <a key={key} href={text.text} target="_blank" rel="noopener noreferrer">
            {label}
          </a>
        ) : (
          <details key={key}>
            <summary>{label}</summary>
            <p lang={text.lang}>{text.text}</p>
          </details>
        ),
      )}
    </footer>
  );
}

/** Frame of all pages but the call: banner, language, content, imprint. */
export function Shell({ conference, children, screen, reason }: { readonly conference: Conference | null; readonly children: ComponentChildren; readonly screen: string; readonly reason?: string | undefined }): JSX.Element {
  const t = useT();
  return (
    <div class="shell" data-testid="screen" data-screen={screen} data-reason={reason}>
      <a class="skip" href="#main">
        {t('app.skip')}
      </a>
      <header class="banner">
        <div class="banner-name">
          <Mark />
          {conference && conference.tenant.name !== '' ? (
            <span class="banner-tenant">
              {conference.tenant.name}
              <span class="banner-by">Plenum</span>
            </span>
          ) : (
            <span class="banner-tenant">Plenum</span>
          )}
        </div>
        <LanguageSwitch />
      </header>
      <main id="main" class="main" tabIndex={-1}>
        {children}
      </main>
      <Footer conference={conference} />
    </div>
  );
}
