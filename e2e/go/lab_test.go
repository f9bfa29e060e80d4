// SPDX-License-Identifier: EUPL-1.2

// Package e2e speaks to a running Plenum as somebody who writes a LiveKit backend does: with the public Go SDK, through
// the tenant `lab`, with the key that every SDK's documentation uses. Every packet carries its number in its payload and
// is accounted for at every subscriber.
package e2e

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/logger"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

const (
	apiKey      = "devkey"
	apiSecret   = "secretsecretsecretsecretsecretsecret"
	publishers  = 2
	subscribers = 20
	// Packets that count, after the first ones by which every subscriber has shown that it receives.
	audioPackets = 500
	videoPackets = 300
	messages     = 100
	// Long enough on a busy machine; nothing here measures time.
	patience = 60 * time.Second
)

func TestMain(m *testing.M) {
	lksdk.SetLogger(logger.GetDiscardLogger())
	os.Exit(m.Run())
}

func address(t *testing.T) string {
	t.Helper()
	url := os.Getenv("PLENUM_URL")
	if url == "" {
		t.Fatal("PLENUM_URL must name a running Plenum with the tenant lab, such as ws://127.0.0.1:7880 (make run)")
	}
	return url
}

func connect(t *testing.T, room, identity string, callback *lksdk.RoomCallback) *lksdk.Room {
	t.Helper()
	connected, err := lksdk.ConnectToRoom(address(t), lksdk.ConnectInfo{
		APIKey: apiKey, APISecret: apiSecret, RoomName: room, ParticipantIdentity: identity, ParticipantName: identity,
	}, callback)
	if err != nil {
		t.Fatalf("%s joins %s: %v", identity, room, err)
	}
	t.Cleanup(connected.Disconnect)
	return connected
}

func eventually(t *testing.T, what string, ask func() error) {
	t.Helper()
	end := time.Now().Add(patience)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// A received track of one subscriber: how often each number came.
type ledger struct {
	mu    sync.Mutex
	count map[uint32]int
	order int
	last  uint32
}

func (l *ledger) note(number uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.count == nil {
		l.count = map[uint32]int{}
	}
	l.count[number]++
	if number < l.last {
		l.order++
	}
	l.last = number
}

type books struct {
	mu  sync.Mutex
	all map[string]*ledger
}

func (b *books) of(key string) *ledger {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.all[key] == nil {
		b.all[key] = &ledger{}
	}
	return b.all[key]
}

const mark = 0x504c454e // "PLEN"

// An Opus packet is opaque to a forwarder.
func audioPayload(publisher byte, number uint32) []byte {
	payload := make([]byte, 80)
	payload[0] = 0x78
	binary.BigEndian.PutUint32(payload[1:], mark)
	payload[5] = publisher
	binary.BigEndian.PutUint32(payload[6:], number)
	return payload
}

// Each packet is a whole key frame of VP8: descriptor with S and a 15-bit picture id, frame tag, start code, 320×180.
func videoPayload(publisher byte, number uint32) []byte {
	payload := make([]byte, 1100)
	head := []byte{0x90, 0x80, 0x80 | byte(number>>8)&0x7f, byte(number), 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x00}
	copy(payload, head)
	binary.BigEndian.PutUint32(payload[20:], mark)
	payload[24] = publisher
	binary.BigEndian.PutUint32(payload[25:], number)
	return payload
}

func read(payload []byte, video bool) (publisher byte, number uint32, ok bool) {
	at := 1
	if video {
		at = 20
	}
	if len(payload) < at+9 || binary.BigEndian.Uint32(payload[at:]) != mark {
		return 0, 0, false
	}
	return payload[at+4], binary.BigEndian.Uint32(payload[at+5:]), true
}

type sender struct {
	room         *lksdk.Room
	audio, video *lksdk.LocalTrack
	id           byte
	audioNumber  uint32
	videoNumber  uint32
}

func (s *sender) sendAudio(t *testing.T) {
	packet := &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: uint16(s.audioNumber), Timestamp: s.audioNumber * 960}, Payload: audioPayload(s.id, s.audioNumber)}
	if err := s.audio.WriteRTP(packet, nil); err != nil {
		t.Errorf("publisher %d sends audio: %v", s.id, err)
	}
	s.audioNumber++
}

func (s *sender) sendVideo(t *testing.T) {
	packet := &rtp.Packet{Header: rtp.Header{Version: 2, Marker: true, SequenceNumber: uint16(s.videoNumber), Timestamp: s.videoNumber * 3000}, Payload: videoPayload(s.id, s.videoNumber)}
	if err := s.video.WriteRTP(packet, nil); err != nil {
		t.Errorf("publisher %d sends video: %v", s.id, err)
	}
	s.videoNumber++
}

func publish(t *testing.T, room *lksdk.Room, id byte) *sender {
	t.Helper()
	audio, err := lksdk.NewLocalTrack(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2})
	if err != nil {
		t.Fatal(err)
	}
	video, err := lksdk.NewLocalTrack(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := room.LocalParticipant.PublishTrack(audio, &lksdk.TrackPublicationOptions{Name: "audio", Source: livekit.TrackSource_MICROPHONE}); err != nil {
		t.Fatalf("publisher %d publishes audio: %v", id, err)
	}
	if _, err := room.LocalParticipant.PublishTrack(video, &lksdk.TrackPublicationOptions{Name: "video", Source: livekit.TrackSource_CAMERA, VideoWidth: 320, VideoHeight: 180}); err != nil {
		t.Fatalf("publisher %d publishes video: %v", id, err)
	}
	return &sender{room: room, audio: audio, video: video, id: id}
}

func TestEveryPacketOfTwoPublishersReachesTwentySubscribers(t *testing.T) {
	room := fmt.Sprintf("packets-%d", time.Now().UnixNano())
	media := &books{all: map[string]*ledger{}}
	data := &books{all: map[string]*ledger{}}

	for index := range subscribers {
		name := fmt.Sprintf("subscriber-%02d", index)
		callback := lksdk.NewRoomCallback()
		callback.OnTrackSubscribed = func(track *webrtc.TrackRemote, publication *lksdk.RemoteTrackPublication, from *lksdk.RemoteParticipant) {
			video := track.Kind() == webrtc.RTPCodecTypeVideo
			ledger := media.of(fmt.Sprintf("%s/%s/%s", name, from.Identity(), track.Kind()))
			go func() {
				for {
					packet, _, err := track.ReadRTP()
					if err != nil {
						return
					}
					// A packet without our mark is padding or silence made by the server.
					if publisher, number, ok := read(packet.Payload, video); ok {
						if from.Identity() != fmt.Sprintf("publisher-%d", publisher) {
							t.Errorf("%s got a packet of publisher %d as one of %s", name, publisher, from.Identity())
						}
						ledger.note(number)
					}
				}
			}()
		}
		callback.OnDataPacket = func(packet lksdk.DataPacket, params lksdk.DataReceiveParams) {
			if user, ok := packet.(*lksdk.UserDataPacket); ok && len(user.Payload) >= 4 {
				data.of(name + "/" + params.SenderIdentity).note(binary.BigEndian.Uint32(user.Payload))
			}
		}
		connect(t, room, name, callback)
	}
	var senders []*sender
	for index := range publishers {
		connected := connect(t, room, fmt.Sprintf("publisher-%d", index), lksdk.NewRoomCallback())
		senders = append(senders, publish(t, connected, byte(index)))
	}

	// Until every subscriber has received something of every track, packets are sent that do not count.
	eventually(t, "every subscriber receives every track", func() error {
		for _, sender := range senders {
			sender.sendAudio(t)
			sender.sendVideo(t)
		}
		missing := 0
		for index := range subscribers {
			for publisher := range publishers {
				for _, kind := range []string{"audio", "video"} {
					ledger := media.of(fmt.Sprintf("subscriber-%02d/publisher-%d/%s", index, publisher, kind))
					ledger.mu.Lock()
					if len(ledger.count) == 0 {
						missing++
					}
					ledger.mu.Unlock()
				}
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d tracks are silent", missing, subscribers*publishers*2)
		}
		return nil
	})

	var sending sync.WaitGroup
	for _, sender := range senders {
		firstAudio, firstVideo := sender.audioNumber, sender.videoNumber
		sending.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for sender.audioNumber < firstAudio+audioPackets || sender.videoNumber < firstVideo+videoPackets {
				<-tick.C
				if sender.audioNumber < firstAudio+audioPackets {
					sender.sendAudio(t)
				}
				if sender.videoNumber < firstVideo+videoPackets {
					sender.sendVideo(t)
				}
			}
		})
		sending.Go(func() {
			for number := range uint32(messages) {
				payload := binary.BigEndian.AppendUint32(nil, number)
				if err := sender.room.LocalParticipant.PublishDataPacket(lksdk.UserData(payload), lksdk.WithDataPublishReliable(true), lksdk.WithDataPublishTopic("lab")); err != nil {
					t.Errorf("publisher %d sends message %d: %v", sender.id, number, err)
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	sending.Wait()

	type sum struct{ expected, received, missing, repeated, disordered int }
	account := func() (ofMedia, ofData sum) {
		for index := range subscribers {
			for publisher, sender := range senders {
				for _, track := range []struct {
					kind        string
					first, last uint32
				}{{"audio", sender.audioNumber - audioPackets, sender.audioNumber}, {"video", sender.videoNumber - videoPackets, sender.videoNumber}} {
					ledger := media.of(fmt.Sprintf("subscriber-%02d/publisher-%d/%s", index, publisher, track.kind))
					ledger.mu.Lock()
					for number := track.first; number < track.last; number++ {
						ofMedia.expected++
						switch times := ledger.count[number]; {
						case times == 0:
							ofMedia.missing++
						default:
							ofMedia.received++
							ofMedia.repeated += times - 1
						}
					}
					ofMedia.disordered += ledger.order
					ledger.mu.Unlock()
				}
				ledger := data.of(fmt.Sprintf("subscriber-%02d/publisher-%d", index, publisher))
				ledger.mu.Lock()
				for number := range uint32(messages) {
					ofData.expected++
					switch times := ledger.count[number]; {
					case times == 0:
						ofData.missing++
					default:
						ofData.received++
						ofData.repeated += times - 1
					}
				}
				ofData.disordered += ledger.order
				ledger.mu.Unlock()
			}
		}
		return ofMedia, ofData
	}
	t.Cleanup(func() {
		m, d := account()
		fmt.Printf("packets: %+v; messages: %+v\n", m, d)
	})
	eventually(t, "every packet is accounted for", func() error {
		m, d := account()
		if m.missing > 0 || d.missing > 0 {
			return fmt.Errorf("%d of %d packets and %d of %d messages are missing", m.missing, m.expected, d.missing, d.expected)
		}
		return nil
	})
	m, d := account()
	if m.repeated > 0 || d.repeated > 0 {
		t.Errorf("%d packets and %d messages came more than once", m.repeated, d.repeated)
	}
	if d.disordered > 0 {
		t.Errorf("%d reliable messages came out of order", d.disordered)
	}
}

func TestTheRoomServiceAdministersARoom(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	room := fmt.Sprintf("service-%d", time.Now().UnixNano())
	client := lksdk.NewRoomServiceClient(address(t), apiKey, apiSecret)

	created, err := client.CreateRoom(ctx, &livekit.CreateRoomRequest{Name: room, EmptyTimeout: 120, Metadata: "made by a backend"})
	if err != nil {
		t.Fatalf("CreateRoom: %v", err)
	}
	if created.Name != room || created.Metadata != "made by a backend" {
		t.Errorf("CreateRoom answered %v", created)
	}

	type event struct{ what, value string }
	events := make(chan event, 64)
	callback := lksdk.NewRoomCallback()
	callback.OnDataPacket = func(packet lksdk.DataPacket, _ lksdk.DataReceiveParams) {
		if user, ok := packet.(*lksdk.UserDataPacket); ok {
			events <- event{"data", string(user.Payload)}
		}
	}
	callback.OnRoomMetadataChanged = func(metadata string) { events <- event{"room metadata", metadata} }
	callback.OnMetadataChanged = func(_ string, who lksdk.Participant) {
		events <- event{"metadata", who.Identity() + ":" + who.Metadata()}
	}
	callback.OnTrackMuted = func(_ lksdk.TrackPublication, who lksdk.Participant) { events <- event{"muted", who.Identity()} }
	callback.OnDisconnectedWithReason = func(reason lksdk.DisconnectionReason) { events <- event{"disconnected", string(reason)} }
	watcher := connect(t, room, "watcher", callback)
	gone := make(chan string, 4)
	leaving := lksdk.NewRoomCallback()
	leaving.OnDisconnectedWithReason = func(reason lksdk.DisconnectionReason) { gone <- string(reason) }
	speaker := connect(t, room, "speaker", leaving)
	publish(t, speaker, 7)

	expect := func(want event) {
		t.Helper()
		var seen []event
		end := time.After(patience)
		for {
			select {
			case got := <-events:
				if got == want {
					return
				}
				seen = append(seen, got)
			case <-end:
				t.Fatalf("no %v; seen %v", want, seen)
			}
		}
	}

	eventually(t, "ListRooms knows the room with two people", func() error {
		listed, err := client.ListRooms(ctx, &livekit.ListRoomsRequest{Names: []string{room}})
		if err != nil {
			return err
		}
		if len(listed.Rooms) != 1 || listed.Rooms[0].NumParticipants != 2 || listed.Rooms[0].Sid != watcher.SID() {
			return fmt.Errorf("ListRooms answered %v", listed.Rooms)
		}
		return nil
	})
	listed, err := client.ListParticipants(ctx, &livekit.ListParticipantsRequest{Room: room})
	if err != nil {
		t.Fatalf("ListParticipants: %v", err)
	}
	var names []string
	for _, participant := range listed.Participants {
		names = append(names, participant.Identity)
	}
	slices.Sort(names)
	if !slices.Equal(names, []string{"speaker", "watcher"}) {
		t.Errorf("ListParticipants answered %v", names)
	}
	found, err := client.GetParticipant(ctx, &livekit.RoomParticipantIdentity{Room: room, Identity: "speaker"})
	if err != nil {
		t.Fatalf("GetParticipant: %v", err)
	}
	if len(found.Tracks) != 2 {
		t.Fatalf("GetParticipant answered %d tracks", len(found.Tracks))
	}

	if _, err := client.UpdateParticipant(ctx, &livekit.UpdateParticipantRequest{Room: room, Identity: "speaker", Metadata: "has the floor"}); err != nil {
		t.Fatalf("UpdateParticipant: %v", err)
	}
	expect(event{"metadata", "speaker:has the floor"})
	if _, err := client.UpdateRoomMetadata(ctx, &livekit.UpdateRoomMetadataRequest{Room: room, Metadata: "item 2"}); err != nil {
		t.Fatalf("UpdateRoomMetadata: %v", err)
	}
	expect(event{"room metadata", "item 2"})
	muted, err := client.MutePublishedTrack(ctx, &livekit.MuteRoomTrackRequest{Room: room, Identity: "speaker", TrackSid: found.Tracks[0].Sid, Muted: true})
	if err != nil {
		t.Fatalf("MutePublishedTrack: %v", err)
	}
	if !muted.Track.Muted {
		t.Errorf("MutePublishedTrack answered %v", muted.Track)
	}
	expect(event{"muted", "speaker"})
	topic := "notice"
	if _, err := client.SendData(ctx, &livekit.SendDataRequest{Room: room, Data: []byte("from the backend"), Kind: livekit.DataPacket_RELIABLE, DestinationIdentities: []string{"watcher"}, Topic: &topic}); err != nil {
		t.Fatalf("SendData: %v", err)
	}
	expect(event{"data", "from the backend"})
	if _, err := client.RemoveParticipant(ctx, &livekit.RoomParticipantIdentity{Room: room, Identity: "speaker"}); err != nil {
		t.Fatalf("RemoveParticipant: %v", err)
	}
	select {
	case reason := <-gone:
		if reason != string(lksdk.ParticipantRemoved) {
			t.Errorf("the removed one was told %q", reason)
		}
	case <-time.After(patience):
		t.Fatal("the removed one was not told")
	}
	if _, err := client.DeleteRoom(ctx, &livekit.DeleteRoomRequest{Room: room}); err != nil {
		t.Fatalf("DeleteRoom: %v", err)
	}
	// The SDK has no word of its own for ROOM_DELETED.
	expect(event{"disconnected", string(lksdk.OtherReason)})
	if listed, err := client.ListRooms(ctx, &livekit.ListRoomsRequest{Names: []string{room}}); err != nil || len(listed.Rooms) != 0 {
		t.Errorf("after DeleteRoom, ListRooms answered %v, %v", listed, err)
	}
}

func TestAWrongSecretAndAForeignKeyAreRefused(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for name, pair := range map[string][2]string{
		"wrong secret": {apiKey, "another secret of sufficient length"},
		"unknown key":  {"nobody", apiSecret},
	} {
		client := lksdk.NewRoomServiceClient(address(t), pair[0], pair[1])
		if _, err := client.ListRooms(ctx, &livekit.ListRoomsRequest{}); err == nil {
			t.Errorf("%s: ListRooms answered", name)
		}
		token, err := auth.NewAccessToken(pair[0], pair[1]).SetIdentity("mallory").SetVideoGrant(&auth.VideoGrant{RoomJoin: true, Room: "any"}).ToJWT()
		if err != nil {
			t.Fatal(err)
		}
		if room, err := lksdk.ConnectToRoomWithToken(address(t), token, lksdk.NewRoomCallback()); err == nil {
			room.Disconnect()
			t.Errorf("%s: joined", name)
		}
	}
	// A token that may only join must not administer.
	token, err := auth.NewAccessToken(apiKey, apiSecret).SetIdentity("guest").SetVideoGrant(&auth.VideoGrant{RoomJoin: true, Room: "any"}).ToJWT()
	if err != nil {
		t.Fatal(err)
	}
	if status := twirp(t, "ListRooms", token); status == 200 {
		t.Error("a token without roomList lists rooms")
	}
	if status := twirp(t, "DeleteRoom", token); status == 200 {
		t.Error("a token without roomCreate deletes rooms")
	}
}
