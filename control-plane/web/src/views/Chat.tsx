// SPDX-License-Identifier: EUPL-1.2
import type { JSX } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';

import { MESSAGE_LIMIT, segments } from '../chat';
import type { Call } from '../room';
import { useApp, useChange, useT } from './context';
import { Icon } from './Icon';

/** Messages and the field for one's own. Enter sends, Shift and Enter breaks the line. */
export function Chat({ call }: { readonly call: Call }): JSX.Element {
  const { locale } = useApp();
  const t = useT();
  useChange(call.chat);
  const [text, setText] = useState('');
  const log = useRef<HTMLOListElement>(null);
  const messages = call.chat.messages;
  useChange(call);
  const rule = call.own.chat;
  useEffect(() => {
    call.chat.setOpen(true);
    return () => call.chat.setOpen(false);
  }, [call]);
  useEffect(() => {
    log.current?.lastElementChild?.scrollIntoView({ block: 'nearest' });
  }, [messages.length]);
  const send = async (): Promise<void> => {
    const message = text.trim();
    if (message === '') {
      return;
    }
    setText('');
    if (!(await call.sendChat(message))) {
      setText(message);
    }
  };
  return (
    <div class="chat">
      {messages.length === 0 && (
        <div class="chat-empty">
          <Icon name="chat" size={30} />
          <p>{t('chat.empty')}</p>
        </div>
      )}
      <div class="chat-scroll" role="log" aria-label={t('chat.log')} tabIndex={0}>
        <ol ref={log} class="chat-log">
        {messages.map((message, index) => {
          const before = messages[index - 1];
          const follows = before?.identity === message.identity && message.at - before.at < 120_000;
          return (
            <li key={message.id} class={`chat-message${message.own ? ' chat-own' : ''}${follows ? ' chat-follows' : ''}`} data-testid="chat-message" data-identity={message.identity} data-own={message.own}>
              <p class={follows ? 'visually-hidden' : 'chat-head'}>
                <span class="chat-name">{message.own ? t('chat.you') : message.name === '' ? t('chat.unnamed') : message.name}</span>{' '}
                <time dateTime={new Date(message.at).toISOString()}>{locale.clock(new Date(message.at))}</time>
              </p>
              <p class="chat-text" dir="auto">
                {segments(message.text).map((segment, position) =>
                  segment.kind === 'link' ? (
                    <a key={position} href={segment.href} target="_blank" rel="noopener noreferrer nofollow">
                      {segment.text}
                    </a>
                  ) : (
                    <span key={position}>{segment.text}</span>
                  ),
                )}
              </p>
            </li>
          );
        })}
        </ol>
      </div>
      {rule === 'Moderators' && (
        <p id="chat-rule" class="hint chat-rule">
          {t('chat.moderators')}
        </p>
      )}
      {rule !== 'Off' ? (
        <form
          class="chat-form"
          onSubmit={(event) => {
            event.preventDefault();
            void send();
          }}
        >
          <label class="visually-hidden" for="chat-input">
            {t('chat.label')}
          </label>
          <textarea
            id="chat-input"
            data-testid="chat-input"
            rows={2}
            maxLength={MESSAGE_LIMIT}
            placeholder={t('chat.label')}
            aria-describedby={rule === 'Moderators' ? 'chat-rule' : undefined}
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) {
                event.preventDefault();
                void send();
              }
            }}
          />
          <button type="submit" class="round round-brand" data-testid="chat-send" aria-label={t('chat.send')} title={t('chat.send')}>
            <Icon name="send" size={20} />
          </button>
        </form>
      ) : (
        <p class="hint chat-off">{t('chat.off')}</p>
      )}
    </div>
  );
}
