// SPDX-License-Identifier: EUPL-1.2
import {
  ConnectionError,
  ConnectionErrorReason,
  ConnectionState,
  DisconnectReason,
  EngineEvent,
  type LocalTrack,
  type Participant,
  type RemoteTrack,
  Room,
  RoomEvent,
  setLogLevel,
  Track,
  type TrackPublication,
} from 'livekit-client';

import { ChatLog } from './chat';
import type { DeviceKind } from './devices';
import type { Door, DoorDeps } from './door';
import { PlenumError, reasonFor, type Reason } from './errors';
import { Emitter } from './events';
import { LOBBY_TOPIC, LobbyList } from './lobby';
import { MOVE_TOPIC, MoveNotice } from './move';
import { Moderation } from './moderation';
import { PatientReconnect } from './retry';
import { type ChatRule, parseChatRule, parseHand, parseRole, type Person, Roster, type Source, type TrackState } from './roster';
import { Stage } from './stage';
import { figuresOf, type Figures, type Sample, sampleOf } from './stats';

/** Topic of LiveKit's own chat components, so that their users and ours read each other. */
const CHAT_TOPIC = 'lk.chat';
const LEGACY_CHAT_TOPIC = 'lk-chat-topic';
/** Nothing that this page reads from a stream is larger. */
const STREAM_LIMIT_BYTES = 64 * 1024;

const SOURCES: Readonly<Record<Source, Track.Source>> = {
  camera: Track.Source.Camera,
  microphone: Track.Source.Microphone,
  screen_share: Track.Source.ScreenShare,
  screen_share_audio: Track.Source.ScreenShareAudio,
};
/** Numbers of `TrackSource` in permissions. */
const SOURCE_NUMBERS: Readonly<Record<Source, number>> = { camera: 1, microphone: 2, screen_share: 3, screen_share_audio: 4 };

/** What the room needs from outside. */
export interface CallDeps {
  readonly fetch: DoorDeps['fetch'];
  readonly door: Door;
  readonly random: () => number;
  readonly now: () => number;
}

/** Devices to begin with. */
export interface Wishes {
  readonly microphone: boolean;
  readonly camera: boolean;
  readonly devices: Readonly<Record<DeviceKind, string | null>>;
}

/** What I may do and do, for the bar. */
export interface OwnState {
  readonly may: Readonly<Record<Source, boolean>>;
  /** `Off` also where data may not be sent at all. */
  readonly chat: ChatRule;
  readonly mayRaiseHand: boolean;
  readonly moderator: boolean;
  readonly audioBlocked: boolean;
  readonly reconnecting: boolean;
}

/** One call: owns the engine, feeds the engine-free parts, and is their only way to it. */
export class Call extends Emitter<{ change: []; ended: [Reason]; failed: ['microphone' | 'camera' | 'screen' | 'chat' | 'hand', unknown]; mutedByOther: [] }> {
  readonly roster = new Roster();
  readonly stage = new Stage();
  readonly chat = new ChatLog();
  readonly lobby = new LobbyList();
  readonly move = new MoveNotice();
  readonly moderation: Moderation;
  readonly #deps: CallDeps;
  readonly #room: Room;
  #token = '';
  #wiredEngine: unknown = null;
  #scheduled = false;
  #over = false;
  #muting = false;
  #mediaNumbers = new WeakMap<object, number>();
  #nextMediaNumber = 1;
  #sample: Sample | null = null;

  constructor(deps: CallDeps) {
    super();
    setLogLevel('warn');
    this.#deps = deps;
    const patience = new PatientReconnect(deps.random);
    this.#room = new Room({
      adaptiveStream: true,
      dynacast: true,
      // Until the server speaks v1 signalling, asking for it would cost a refused attempt at every full reconnect.
      singlePeerConnection: false,
      reconnectPolicy: patience,
      dataStream: { maxPayloadByteLength: STREAM_LIMIT_BYTES },
      publishDefaults: { videoCodec: 'vp8', simulcast: true, dtx: true, red: true },
      audioCaptureDefaults: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
    this.moderation = new Moderation({ fetch: deps.fetch, door: deps.door, token: () => this.#token, roomName: () => this.#room.name });
    this.#listen();
  }

  /** Connects with the door's token, then turns on what was wished for. */
  async connect(url: string, token: string, wishes: Wishes): Promise<void> {
    this.#token = token;
    this.#wireEngine();
    try {
      await this.#room.connect(url, token, { maxRetries: 3, peerConnectionTimeout: 20_000 });
    } catch (error) {
      this.#over = true;
      throw joinError(error);
    }
    this.#refresh();
    void this.#begin(wishes);
  }

  /** Rights and state of the own participant. */
  get own(): OwnState {
    const permissions = this.#room.localParticipant.permissions;
    const role = parseRole(this.#room.localParticipant.attributes['plenum.role']);
    const may = (source: Source): boolean =>
      permissions?.canPublish === true &&
      (permissions.canPublishSources.length === 0 || permissions.canPublishSources.map(Number).includes(SOURCE_NUMBERS[source]));
    return {
      may: {
        microphone: may('microphone'),
        camera: may('camera'),
        screen_share: may('screen_share'),
        screen_share_audio: may('screen_share_audio'),
      },
      chat: permissions?.canPublishData === true ? parseChatRule(this.#room.localParticipant.attributes['plenum.chat']) : 'Off',
      // The hand belongs to everybody who has a role, whatever else they may change of themselves.
      mayRaiseHand: permissions?.canUpdateMetadata === true || role !== null,
      moderator: role === 'Moderator',
      audioBlocked: !this.#room.canPlaybackAudio,
      reconnecting: this.#room.state === ConnectionState.Reconnecting || this.#room.state === ConnectionState.SignalReconnecting,
    };
  }

  async setMicrophone(on: boolean): Promise<void> {
    this.#muting = true;
    await this.#try('microphone', () => this.#room.localParticipant.setMicrophoneEnabled(on));
    this.#muting = false;
  }

  async setCamera(on: boolean): Promise<void> {
    await this.#try('camera', () => this.#room.localParticipant.setCameraEnabled(on));
  }

  async setScreenShare(on: boolean): Promise<void> {
    const audio = this.own.may.screen_share_audio;
    await this.#try('screen', () =>
      this.#room.localParticipant.setScreenShareEnabled(on, { audio, selfBrowserSurface: 'exclude', surfaceSwitching: 'include', systemAudio: 'include' }),
    );
  }

  /** Raises or lowers the own hand; the time decides the order of speaking. */
  async setHand(up: boolean): Promise<void> {
    await this.#try('hand', () => this.#room.localParticipant.setAttributes({ 'plenum.hand': up ? String(this.#deps.now()) : '' }));
  }

  /** Sends to everybody (or to whom the server lets it). The own message appears at once. */
  async sendChat(text: string): Promise<boolean> {
    return await this.#try('chat', async () => {
      const info = await this.#room.localParticipant.sendText(text, { topic: CHAT_TOPIC });
      const me = this.#room.localParticipant;
      this.chat.handleMessage({ id: info.id, identity: me.identity, name: me.name ?? '', text, at: info.timestamp, own: true });
    });
  }

  /** Uses another device, for what runs and for what comes. */
  async switchDevice(kind: DeviceKind, id: string): Promise<void> {
    await this.#room.switchActiveDevice(kind, id, false);
  }

  /** After a click: lets sound play where the browser had held it back. */
  async startAudio(): Promise<void> {
    await this.#room.startAudio();
    this.#refresh();
  }

  /** Shows or plays a track in an element; the returned function takes it away again. */
  attach(identity: string, source: Source, element: HTMLMediaElement): () => void {
    const track = this.#room.getParticipantByIdentity(identity)?.getTrackPublication(SOURCES[source])?.track;
    if (!track) {
      return () => undefined;
    }
    track.attach(element);
    return () => {
      track.detach(element);
    };
  }

  /** Leaves of the person's own will. */
  async leave(): Promise<void> {
    await this.#room.disconnect();
    this.#end('Left');
  }

  /** Figures of the connection since the last call. */
  async figures(): Promise<Figures | null> {
    const tracks: (LocalTrack | RemoteTrack)[] = [];
    for (const participant of [this.#room.localParticipant, ...this.#room.remoteParticipants.values()]) {
      for (const publication of participant.getTrackPublications()) {
        if (publication.track) {
          tracks.push(publication.track as LocalTrack | RemoteTrack);
        }
      }
    }
    const reports = await Promise.all(tracks.map((track) => track.getRTCStatsReport().catch(() => undefined)));
    const rows = reports.flatMap((report) => (report ? [[...report.values()] as Record<string, unknown>[]] : []));
    const sample = sampleOf(rows, this.#deps.now());
    const before = this.#sample;
    this.#sample = sample;
    return before === null ? null : figuresOf(before, sample);
  }

  async #begin(wishes: Wishes): Promise<void> {
    for (const kind of ['audiooutput', 'audioinput', 'videoinput'] as const) {
      const id = wishes.devices[kind];
      if (id !== null) {
        await this.switchDevice(kind, id).catch(() => undefined);
      }
    }
    if (wishes.microphone && this.own.may.microphone) {
      await this.setMicrophone(true);
    }
    if (wishes.camera && this.own.may.camera) {
      await this.setCamera(true);
    }
  }

  #listen(): void {
    const refresh = (): void => this.#refresh();
    const room = this.#room;
    for (const event of [
      RoomEvent.Connected,
      RoomEvent.ParticipantConnected,
      RoomEvent.ParticipantDisconnected,
      RoomEvent.TrackPublished,
      RoomEvent.TrackUnpublished,
      RoomEvent.TrackSubscribed,
      RoomEvent.TrackUnsubscribed,
      RoomEvent.TrackUnmuted,
      RoomEvent.LocalTrackPublished,
      RoomEvent.LocalTrackUnpublished,
      RoomEvent.ParticipantNameChanged,
      RoomEvent.ParticipantAttributesChanged,
      RoomEvent.ParticipantPermissionsChanged,
      RoomEvent.ConnectionQualityChanged,
      RoomEvent.AudioPlaybackStatusChanged,
    ] as const) {
      room.on(event, refresh);
    }
    room.on(RoomEvent.SignalConnected, () => this.#wireEngine());
    room.on(RoomEvent.TrackMuted, (publication, participant) => {
      if (participant.isLocal && sourceOf(publication) === 'microphone' && !this.#muting) {
        this.emit('mutedByOther');
      }
      this.#refresh();
    });
    room.on(RoomEvent.ConnectionStateChanged, (state) => {
      if (state !== ConnectionState.Connected) {
        this.roster.handleReconnecting();
        this.move.handleReconnecting();
      }
      this.#wireEngine();
      this.#refresh();
    });
    room.on(RoomEvent.ActiveSpeakersChanged, (speakers) => {
      this.stage.handleSpeakers(
        speakers.map((speaker) => speaker.identity),
        this.#deps.now(),
      );
      this.#refresh();
    });
    room.on(RoomEvent.Disconnected, (reason) => {
      this.#end(endReason(reason));
    });
    room.on(RoomEvent.MediaDevicesError, (error, kind) => {
      if (kind === 'audioinput' || kind === 'videoinput') {
        this.emit('failed', kind === 'audioinput' ? 'microphone' : 'camera', error);
      }
    });
    room.on(RoomEvent.DataReceived, (payload, participant, _kind, topic, _encryption, identity) => {
      // Some packets come from the server: whatever a participant sends under their topics is not one.
      const server = participant === undefined && (identity === undefined || identity === '');
      if (topic === LOBBY_TOPIC && server) {
        this.lobby.handlePacket(payload);
      } else if (topic === MOVE_TOPIC && server) {
        this.move.handlePacket(payload);
        this.#refresh();
      } else if (topic === LEGACY_CHAT_TOPIC && participant) {
        this.#legacyChat(payload, participant);
      }
    });
    room.on(RoomEvent.ChatMessage, (message, participant) => {
      if (participant && !participant.isLocal) {
        this.#chatFrom(participant, message.id, message.message, message.timestamp);
      }
    });
    room.registerTextStreamHandler(CHAT_TOPIC, (reader, from) => {
      void reader
        .readAll()
        .then((text) => {
          const participant = room.getParticipantByIdentity(from.identity);
          this.chat.handleMessage({
            id: reader.info.id,
            identity: from.identity,
            name: participant?.name ?? '',
            text,
            at: reader.info.timestamp,
            own: false,
          });
        })
        // A stream that breaks off is a message that never came.
        .catch(() => undefined);
    });
  }

  /** Older clients of LiveKit's components send a JSON packet instead of, or beside, the stream. */
  #legacyChat(payload: Uint8Array, participant: Participant): void {
    try {
      const body = JSON.parse(new TextDecoder().decode(payload)) as { id?: unknown; message?: unknown; timestamp?: unknown; ignoreLegacy?: unknown };
      if (typeof body.id === 'string' && typeof body.message === 'string' && body.ignoreLegacy !== true) {
        this.#chatFrom(participant, body.id, body.message, typeof body.timestamp === 'number' ? body.timestamp : this.#deps.now());
      }
    } catch {
      // Not a chat message.
    }
  }

  #chatFrom(participant: Participant, id: string, text: string, at: number): void {
    this.chat.handleMessage({ id, identity: participant.identity, name: participant.name ?? '', text, at, own: false });
  }

  /** The engine is made anew after failures; refreshed tokens must reach the page from each. */
  #wireEngine(): void {
    const engine = this.#room.engine as Room['engine'] | undefined;
    if (engine && engine !== this.#wiredEngine) {
      this.#wiredEngine = engine;
      engine.on(EngineEvent.TokenRefreshed, (token) => {
        this.#token = token;
      });
    }
  }

  /** Events come in bursts: one new state per burst. */
  #refresh(): void {
    if (this.#scheduled || this.#over) {
      return;
    }
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      if (this.#over) {
        return;
      }
      const people = [this.#room.localParticipant, ...this.#room.remoteParticipants.values()].map((participant) => this.#person(participant));
      const connected = this.#room.state === ConnectionState.Connected;
      // While the room is rebuilt, the last picture of it stays on the screen.
      if (connected || this.roster.people.length === 0) {
        this.roster.handlePeople(people, connected, this.#deps.now());
        this.stage.handlePeople(people);
      }
      if (connected && !this.own.moderator) {
        this.lobby.clear();
      }
      this.emit('change');
    });
  }

  #person(participant: Participant): Person {
    const tracks: Partial<Record<Source, TrackState>> = {};
    for (const publication of participant.getTrackPublications()) {
      const source = sourceOf(publication);
      if (source) {
        tracks[source] = { sid: publication.trackSid, muted: publication.isMuted, media: this.#mediaNumber(publication.track) };
      }
    }
    const role = parseRole(participant.attributes['plenum.role']);
    return {
      identity: participant.identity,
      name: participant.name ?? '',
      local: participant.isLocal,
      role,
      guest: role === 'Guest' || participant.attributes['plenum.guest'] === 'true' || participant.attributes['plenum.guest'] === '1',
      hand: parseHand(participant.attributes['plenum.hand']),
      speaking: participant.isSpeaking,
      quality: participant.connectionQuality,
      joinedAt: participant.joinedAt?.getTime() ?? 0,
      tracks,
    };
  }

  #mediaNumber(track: object | undefined): number {
    if (!track) {
      return 0;
    }
    let number = this.#mediaNumbers.get(track);
    if (number === undefined) {
      number = this.#nextMediaNumber;
      this.#nextMediaNumber += 1;
      this.#mediaNumbers.set(track, number);
    }
    return number;
  }

  async #try(what: 'microphone' | 'camera' | 'screen' | 'chat' | 'hand', run: () => Promise<unknown>): Promise<boolean> {
    try {
      await run();
      return true;
    } catch (error) {
      // Closing the browser's own dialog for screens is no failure.
      if (what !== 'screen' || !(error instanceof Error && error.name === 'NotAllowedError')) {
        this.emit('failed', what, error);
      }
      return false;
    } finally {
      this.#refresh();
    }
  }

  #end(reason: Reason): void {
    if (!this.#over) {
      this.#over = true;
      this.emit('ended', reason);
    }
  }
}

function sourceOf(publication: TrackPublication): Source | null {
  return (Object.keys(SOURCES) as Source[]).find((name) => SOURCES[name] === publication.source) ?? null;
}

/** What an end by the server means to a person. */
function endReason(reason: DisconnectReason | undefined): Reason {
  switch (reason) {
    case DisconnectReason.CLIENT_INITIATED:
      return 'Left';
    case DisconnectReason.DUPLICATE_IDENTITY:
      return 'DuplicateIdentity';
    case DisconnectReason.PARTICIPANT_REMOVED:
      return 'Removed';
    case DisconnectReason.ROOM_DELETED:
    case DisconnectReason.ROOM_CLOSED:
      return 'Ended';
    case DisconnectReason.MEDIA_FAILURE:
      return 'MediaFailure';
    case DisconnectReason.JOIN_FAILURE:
      return 'JoinFailed';
    default:
      return 'ConnectionLost';
  }
}

/** A refusal that may pass, by the name that came with it. */
function refusedAs(name: string, message: string): PlenumError {
  return reasonFor(name) === 'Unknown' ? PlenumError.unavailable(message, null) : PlenumError.refused(name, null, message);
}

/** What a failed join means: certain refusals end, everything else may pass. */
function joinError(error: unknown): PlenumError {
  const message = error instanceof Error ? error.message : 'the room could not be joined';
  if (error instanceof ConnectionError) {
    if (error.reason === ConnectionErrorReason.NotAllowed) {
      return PlenumError.refused('JoinFailed', null, message);
    }
    if (error.reason === ConnectionErrorReason.LeaveRequest) {
      return PlenumError.refused(endReason((error as { context?: DisconnectReason }).context), null, message);
    }
    if (error.reason === ConnectionErrorReason.InternalError) {
      // Asked why it refused, the server answered with a status whose phrase is its reason; over HTTP/2 there is no phrase.
      const said = (error as { context?: { status?: number; statusText?: string } }).context;
      if (said?.status === 503) {
        return refusedAs(said.statusText ?? '', message);
      }
    }
    if (error.reason === ConnectionErrorReason.ServerUnreachable || error.reason === ConnectionErrorReason.WebSocket || error.reason === ConnectionErrorReason.Timeout) {
      return PlenumError.unavailable(message, null);
    }
  }
  return PlenumError.refused('MediaFailure', null, message);
}
