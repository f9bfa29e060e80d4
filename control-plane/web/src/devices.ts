// SPDX-License-Identifier: EUPL-1.2
import { Emitter } from './events';

/** Kinds a person chooses from. */
export type DeviceKind = 'audioinput' | 'videoinput' | 'audiooutput';

/** All kinds. */
export const DEVICE_KINDS: readonly DeviceKind[] = ['audioinput', 'videoinput', 'audiooutput'];

/** One device. */
export interface Device {
  readonly id: string;
  readonly label: string;
}

/** Why a device cannot be used. Each has a text in both languages (`device.<name>`). */
export const DEVICE_FAILURES = ['Denied', 'NotFound', 'InUse', 'Failed'] as const;

/** One of them. */
export type DeviceFailure = (typeof DEVICE_FAILURES)[number];

/** The failure of an exception of `getUserMedia`. */
export function failureOf(error: unknown): DeviceFailure {
  const name = error instanceof Error || error instanceof DOMException ? error.name : '';
  switch (name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return 'Denied';
    case 'NotFoundError':
    case 'OverconstrainedError':
      return 'NotFound';
    case 'NotReadableError':
    case 'AbortError':
      return 'InUse';
    default:
      return 'Failed';
  }
}

/** Loudness of a block of samples as 0–100: −60 dB and below are 0, full scale is 100. */
export function levelOf(samples: ArrayLike<number>): number {
  let sum = 0;
  for (let index = 0; index < samples.length; index += 1) {
    sum += (samples[index] ?? 0) ** 2;
  }
  const rms = Math.sqrt(sum / Math.max(1, samples.length));
  if (rms <= 0) {
    return 0;
  }
  return Math.round(Math.min(100, Math.max(0, (20 * Math.log10(rms) + 60) * (100 / 60))));
}

/** What the parts of the browser are called here, so that tests bring their own. */
export interface DevicesDeps {
  readonly media: Pick<MediaDevices, 'getUserMedia' | 'enumerateDevices' | 'addEventListener'> | undefined;
  readonly storage: Pick<Storage, 'getItem' | 'setItem'>;
  /** Measures a stream; gives a function that stops. */
  readonly meter: (stream: MediaStream, onLevel: (level: number) => void) => () => void;
}

const STORE_KEY = 'plenum.device.';

/** Devices, their choice, and the preview before joining. Camera and microphone are off until somebody turns them on. */
export class Devices extends Emitter<{ change: []; level: [number] }> {
  readonly #deps: DevicesDeps;
  #lists: Record<DeviceKind, readonly Device[]> = { audioinput: [], videoinput: [], audiooutput: [] };
  #microphone: MediaStream | null = null;
  #camera: MediaStream | null = null;
  #wanted = { microphone: false, camera: false };
  #failures: { microphone: DeviceFailure | null; camera: DeviceFailure | null } = { microphone: null, camera: null };
  #stopMeter: (() => void) | null = null;

  constructor(deps: DevicesDeps) {
    super();
    this.#deps = deps;
    deps.media?.addEventListener('devicechange', () => void this.refresh());
  }

  /** Whether this browser has devices at all (it has none without a secure context). */
  get available(): boolean {
    return this.#deps.media !== undefined;
  }

  get camera(): MediaStream | null {
    return this.#camera;
  }

  /** What the person turned on before joining. */
  get wanted(): { readonly microphone: boolean; readonly camera: boolean } {
    return this.#wanted;
  }

  get failures(): { readonly microphone: DeviceFailure | null; readonly camera: DeviceFailure | null } {
    return this.#failures;
  }

  list(kind: DeviceKind): readonly Device[] {
    return this.#lists[kind];
  }

  /** The chosen device; null is the browser's default. A device that is not there any more counts as none. */
  chosen(kind: DeviceKind): string | null {
    const id = this.#deps.storage.getItem(STORE_KEY + kind);
    const devices = this.#lists[kind];
    return id !== null && (devices.length === 0 || devices.some((device) => device.id === id)) ? id : null;
  }

  /** Chooses a device; a running preview changes at once. */
  async choose(kind: DeviceKind, id: string): Promise<void> {
    this.#deps.storage.setItem(STORE_KEY + kind, id);
    if (kind === 'audioinput' && this.#microphone) {
      await this.setMicrophone(true);
    } else if (kind === 'videoinput' && this.#camera) {
      await this.setCamera(true);
    }
    this.emit('change');
  }

  /** Reads the list again. Before a permission, browsers give neither names nor ids; such entries are left out. */
  async refresh(): Promise<void> {
    let all: MediaDeviceInfo[] = [];
    try {
      all = (await this.#deps.media?.enumerateDevices()) ?? [];
    } catch {
      // A browser that refuses to list still has its defaults.
    }
    const lists: Record<DeviceKind, Device[]> = { audioinput: [], videoinput: [], audiooutput: [] };
    for (const device of all) {
      if (device.deviceId !== '' && device.label !== '') {
        lists[device.kind].push({ id: device.deviceId, label: device.label });
      }
    }
    this.#lists = lists;
    this.emit('change');
  }

  /** Turns the microphone of the preview on or off. */
  async setMicrophone(on: boolean): Promise<void> {
    this.#stopMeter?.();
    this.#stopMeter = null;
    stop(this.#microphone);
    this.#microphone = null;
    this.#wanted = { ...this.#wanted, microphone: on };
    this.#failures = { ...this.#failures, microphone: null };
    if (on) {
      try {
        const stream = await this.#open({ audio: { ...constraint(this.chosen('audioinput')), echoCancellation: true, noiseSuppression: true } });
        this.#microphone = stream;
        this.#stopMeter = this.#deps.meter(stream, (level) => this.emit('level', level));
        await this.refresh();
      } catch (error) {
        this.#wanted = { ...this.#wanted, microphone: false };
        this.#failures = { ...this.#failures, microphone: failureOf(error) };
      }
    }
    this.emit('change');
  }

  /** Turns the camera of the preview on or off. */
  async setCamera(on: boolean): Promise<void> {
    stop(this.#camera);
    this.#camera = null;
    this.#wanted = { ...this.#wanted, camera: on };
    this.#failures = { ...this.#failures, camera: null };
    if (on) {
      try {
        this.#camera = await this.#open({ video: { ...constraint(this.chosen('videoinput')), width: { ideal: 1280 }, height: { ideal: 720 } } });
        await this.refresh();
      } catch (error) {
        this.#wanted = { ...this.#wanted, camera: false };
        this.#failures = { ...this.#failures, camera: failureOf(error) };
      }
    }
    this.emit('change');
  }

  /** Frees the devices of the preview; what was wanted stays known for the room. */
  release(): void {
    this.#stopMeter?.();
    this.#stopMeter = null;
    stop(this.#microphone);
    stop(this.#camera);
    this.#microphone = null;
    this.#camera = null;
    this.emit('change');
  }

  /** Opens again what was wanted before the devices were freed. */
  async resume(): Promise<void> {
    if (this.#wanted.microphone && !this.#microphone) {
      await this.setMicrophone(true);
    }
    if (this.#wanted.camera && !this.#camera) {
      await this.setCamera(true);
    }
  }

  /** After a call, everything is off again. */
  forget(): void {
    this.release();
    this.#wanted = { microphone: false, camera: false };
    this.emit('change');
  }

  async #open(constraints: MediaStreamConstraints): Promise<MediaStream> {
    if (!this.#deps.media) {
      throw new DOMException('no devices', 'NotFoundError');
    }
    return await this.#deps.media.getUserMedia(constraints);
  }
}

function constraint(id: string | null): MediaTrackConstraints {
  // Not exact: a device that was unplugged since must not keep anybody out.
  return id === null ? {} : { deviceId: { ideal: id } };
}

function stop(stream: MediaStream | null): void {
  for (const track of stream?.getTracks() ?? []) {
    track.stop();
  }
}
