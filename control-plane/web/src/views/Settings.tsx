// SPDX-License-Identifier: EUPL-1.2
import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';

import type { Call } from '../room';
import type { Figures } from '../stats';
import { useApp, useT } from './context';
import { DeviceFields } from './Devices';
import { Dialog } from './Dialog';
import { LanguageSwitch } from './Shell';

/** Devices, language, and figures of the connection while it is open. */
export function Settings({ call, onClose }: { readonly call: Call; readonly onClose: () => void }): JSX.Element {
  const { devices } = useApp();
  const t = useT();
  const [figures, setFigures] = useState<Figures | null>(null);
  useEffect(() => {
    void devices.refresh();
    let open = true;
    const read = async (): Promise<void> => {
      const next = await call.figures();
      if (open && next) {
        setFigures(next);
      }
    };
    void read();
    const timer = window.setInterval(() => void read(), 2000);
    return () => {
      open = false;
      window.clearInterval(timer);
    };
  }, [call, devices]);
  return (
    <Dialog title={t('settings.title')} onClose={onClose} wide>
      <section class="settings-part">
        <h3>{t('settings.devices')}</h3>
        <DeviceFields onChosen={(kind, id) => void call.switchDevice(kind, id).catch(() => undefined)} />
      </section>
      <section class="settings-part">
        <h3>{t('settings.connection')}</h3>
        {figures ? (
          <dl class="figures" data-testid="figures">
            <dt>{t('settings.up')}</dt>
            <dd>{figures.upKbps} kbit/s</dd>
            <dt>{t('settings.down')}</dt>
            <dd>{figures.downKbps} kbit/s</dd>
            <dt>{t('settings.loss')}</dt>
            <dd>{figures.lossPercent} %</dd>
            {figures.roundTripMs !== null && (
              <>
                <dt>{t('settings.rtt')}</dt>
                <dd>{figures.roundTripMs} ms</dd>
              </>
            )}
            {figures.protocol !== null && (
              <>
                <dt>{t('settings.protocol')}</dt>
                <dd>{figures.protocol.toUpperCase()}</dd>
              </>
            )}
            {figures.cipher !== null && (
              <>
                <dt>{t('settings.cipher')}</dt>
                <dd>{figures.cipher.replaceAll('_', ' ')}</dd>
              </>
            )}
          </dl>
        ) : (
          <p class="hint">{t('settings.measuring')}</p>
        )}
      </section>
      <section class="settings-part">
        <h3>{t('settings.language')}</h3>
        <LanguageSwitch />
      </section>
      <section class="settings-part">
        <h3>{t('settings.keys')}</h3>
        <p class="hint">{t('settings.keys.text')}</p>
      </section>
    </Dialog>
  );
}
