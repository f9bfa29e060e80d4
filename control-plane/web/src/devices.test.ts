// SPDX-License-Identifier: EUPL-1.2
import { describe, expect, it } from 'vitest';

import { Devices, failureOf, levelOf } from './devices';
import { FakeStorage } from './testing';

class FakeTrack {
  stopped = false;
  stop(): void {
    this.stopped = true;
  }
}

function make(more: { refuse?: string; devices?: { deviceId: string; label: string; kind: string }[] } = {}) {
  const opened: { constraints: MediaStreamConstraints; track: FakeTrack }[] = [];
  const meters = { running: 0 };
  const storage = new FakeStorage();
  const devices = new Devices({
    media: {
      addEventListener: () => undefined,
      enumerateDevices: () => Promise.resolve((more.devices ?? []) as unknown as MediaDeviceInfo[]),
      getUserMedia: (constraints = {}) => {
        if (more.refuse !== undefined) {
          return Promise.reject(new DOMException('no', more.refuse));
        }
        const track = new FakeTrack();
        opened.push({ constraints, track });
        return Promise.resolve({ getTracks: () => [track] } as unknown as MediaStream);
      },
    },
    storage,
    meter: () => {
      meters.running += 1;
      return () => {
        meters.running -= 1;
      };
    },
  });
  return { devices, opened, meters, storage };
}

describe('devices', () => {
  it('are off until somebody turns them on', () => {
    const { devices, opened } = make();
    expect(devices.wanted).toEqual({ microphone: false, camera: false });
    expect(opened).toEqual([]);
  });

  it('are freed when turned off and when the preview ends, but what was wanted stays known', async () => {
    const { devices, opened, meters } = make();
    await devices.setMicrophone(true);
    await devices.setCamera(true);
    await devices.setCamera(false);
    expect(opened.map(({ track }) => track.stopped)).toEqual([false, true]);
    devices.release();
    expect(opened.every(({ track }) => track.stopped)).toBe(true);
    expect(meters.running).toBe(0);
    expect(devices.wanted).toEqual({ microphone: true, camera: false });
  });

  it('come back when somebody returns from waiting, and stay off after a call', async () => {
    const { devices, opened } = make();
    await devices.setCamera(true);
    devices.release();
    expect(devices.camera).toBeNull();
    await devices.resume();
    expect(devices.camera).not.toBeNull();
    expect(opened).toHaveLength(2);
    devices.forget();
    await devices.resume();
    expect(devices.wanted).toEqual({ microphone: false, camera: false });
    expect(opened.every(({ track }) => track.stopped)).toBe(true);
  });

  it('change at once when another one is chosen, and the choice lasts', async () => {
    const list = [
      { deviceId: 'cam1', label: 'One', kind: 'videoinput' },
      { deviceId: 'cam2', label: 'Two', kind: 'videoinput' },
    ];
    const { devices, opened, storage } = make({ devices: list });
    await devices.setCamera(true);
    await devices.choose('videoinput', 'cam2');
    expect(opened[0]?.track.stopped).toBe(true);
    expect(opened[1]?.constraints).toMatchObject({ video: { deviceId: { ideal: 'cam2' } } });
    expect(devices.chosen('videoinput')).toBe('cam2');
    expect([...storage.values.values()]).toEqual(['cam2']);
  });

  it('that were unplugged since count as not chosen', async () => {
    const { devices } = make({ devices: [{ deviceId: 'cam1', label: 'One', kind: 'videoinput' }] });
    await devices.choose('videoinput', 'gone');
    await devices.refresh();
    expect(devices.chosen('videoinput')).toBeNull();
  });

  it('without name or id are not listed: a browser tells them only after its permission', async () => {
    const { devices } = make({ devices: [{ deviceId: '', label: '', kind: 'audioinput' }] });
    await devices.refresh();
    expect(devices.list('audioinput')).toEqual([]);
  });

  it('that fail are off again, with a reason that has a text', async () => {
    for (const [name, failure] of [['NotAllowedError', 'Denied'], ['NotFoundError', 'NotFound'], ['NotReadableError', 'InUse'], ['OverconstrainedError', 'NotFound'], ['Strange', 'Failed']] as const) {
      const { devices } = make({ refuse: name });
      await devices.setCamera(true);
      expect(devices.wanted.camera).toBe(false);
      expect(devices.failures.camera).toBe(failure);
    }
    expect(failureOf('no error at all')).toBe('Failed');
  });

  it('do not exist without a secure context, and say so', async () => {
    const devices = new Devices({ media: undefined, storage: new FakeStorage(), meter: () => () => undefined });
    expect(devices.available).toBe(false);
    await devices.setMicrophone(true);
    expect(devices.failures.microphone).toBe('NotFound');
  });
});

describe('the level', () => {
  it('is 0 for silence, 100 for full scale, and grows with loudness', () => {
    const tone = (amplitude: number): number[] => Array.from({ length: 1024 }, (_, at) => amplitude * Math.sin(at / 5));
    expect(levelOf([])).toBe(0);
    expect(levelOf([0, 0, 0])).toBe(0);
    expect(levelOf([1, -1, 1, -1])).toBe(100);
    const levels = [0.001, 0.01, 0.1, 1].map((amplitude) => levelOf(tone(amplitude)));
    expect([...levels].sort((a, b) => a - b)).toEqual(levels);
    expect(new Set(levels).size).toBe(4);
  });
});
