// SPDX-License-Identifier: EUPL-1.2
import type { JSX } from 'preact';

import { DEVICE_KINDS, type DeviceKind } from '../devices';
import { useApp, useChange, useT } from './context';

/** One field for each kind of device. `onChosen` tells the call, if there is one. */
export function DeviceFields({ onChosen }: { readonly onChosen?: (kind: DeviceKind, id: string) => void }): JSX.Element {
  const { devices } = useApp();
  const t = useT();
  useChange(devices);
  const kinds = DEVICE_KINDS.filter((kind) => devices.list(kind).length > 0);
  if (kinds.length === 0) {
    return <p class="hint">{devices.available ? t('device.hint') : t('device.none')}</p>;
  }
  return (
    <div class="device-fields">
      {kinds.map((kind) => (
        <div class="field" key={kind}>
          <label for={`device-${kind}`}>{t(`device.${kind}`)}</label>
          <select
            id={`device-${kind}`}
            data-testid={`device-${kind}`}
            value={devices.chosen(kind) ?? ''}
            onChange={(event) => {
              const id = event.currentTarget.value;
              void devices.choose(kind, id);
              onChosen?.(kind, id);
            }}
          >
            {devices.chosen(kind) === null && <option value="">{t('device.default')}</option>}
            {devices.list(kind).map((device) => (
              <option key={device.id} value={device.id}>
                {device.label}
              </option>
            ))}
          </select>
        </div>
      ))}
    </div>
  );
}
