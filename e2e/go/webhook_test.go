// SPDX-License-Identifier: EUPL-1.2

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/livekit/protocol/webhook"
	lksdk "github.com/livekit/server-sdk-go/v2"
	"github.com/pion/webrtc/v4"
)

// A backend as LiveKit's documentation has it: its own verification, its own reading of the body.
type backend struct {
	lock   sync.Mutex
	events []*livekit.WebhookEvent
	wrong  []error
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	event, err := webhook.ReceiveWebhookEvent(r, auth.NewSimpleKeyProvider(apiKey, apiSecret))
	if r.Header.Get("Content-Type") != "application/webhook+json" {
		err = fmt.Errorf("content type %q", r.Header.Get("Content-Type"))
	}
	b.lock.Lock()
	defer b.lock.Unlock()
	if err != nil {
		b.wrong = append(b.wrong, err)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	b.events = append(b.events, event)
}

// Events of a room, each once.
func (b *backend) of(room string) ([]*livekit.WebhookEvent, error) {
	b.lock.Lock()
	defer b.lock.Unlock()
	if len(b.wrong) > 0 {
		return nil, b.wrong[0]
	}
	var found []*livekit.WebhookEvent
	for _, event := range b.events {
		same := func(other *livekit.WebhookEvent) bool { return other.Id == event.Id }
		if event.GetRoom().GetName() == room && !slices.ContainsFunc(found, same) {
			found = append(found, event)
		}
	}
	return found, nil
}

// TestWebhooks needs a Plenum whose tenant `lab` names https://127.0.0.1:PORT of PLENUM_WEBHOOK_LISTEN as a receiver, and
// tls.crt and tls.key for it in PLENUM_WEBHOOK_TLS: e2e/tests/webhooks.rs sets that up.
func TestWebhooks(t *testing.T) {
	listen, folder := os.Getenv("PLENUM_WEBHOOK_LISTEN"), os.Getenv("PLENUM_WEBHOOK_TLS")
	if listen == "" {
		t.Skip("PLENUM_WEBHOOK_LISTEN names no address: this run has no receiver of webhooks")
	}
	receiver := &backend{}
	server := &http.Server{Addr: listen, Handler: receiver}
	go func() {
		_ = server.ListenAndServeTLS(filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key"))
	}()
	t.Cleanup(func() { _ = server.Close() })

	const name = "told"
	room := connect(t, name, "anna", &lksdk.RoomCallback{})
	track, err := lksdk.NewLocalTrack(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus})
	if err != nil {
		t.Fatal(err)
	}
	publication, err := room.LocalParticipant.PublishTrack(track, &lksdk.TrackPublicationOptions{Name: "voice", Source: livekit.TrackSource_MICROPHONE})
	if err != nil {
		t.Fatal(err)
	}
	told := func(want int) []*livekit.WebhookEvent {
		var found []*livekit.WebhookEvent
		eventually(t, fmt.Sprintf("%d events", want), func() error {
			events, err := receiver.of(name)
			if err == nil && len(events) < want {
				err = fmt.Errorf("%d so far", len(events))
			}
			found = events
			return err
		})
		return found
	}
	told(3)
	room.Disconnect()
	api := lksdk.NewRoomServiceClient(address(t), apiKey, apiSecret)
	told(5)
	if _, err := api.DeleteRoom(t.Context(), &livekit.DeleteRoomRequest{Room: name}); err != nil {
		t.Fatal(err)
	}
	events := told(6)

	var names []string
	for _, event := range events {
		names = append(names, event.Event)
		if event.GetRoom().GetSid() != events[0].GetRoom().GetSid() {
			t.Errorf("%s is of another room", event.Event)
		}
		if age := time.Since(time.Unix(event.CreatedAt, 0)); age < -time.Minute || age > 10*time.Minute {
			t.Errorf("%s was created %s ago", event.Event, age)
		}
	}
	want := []string{
		webhook.EventRoomStarted, webhook.EventParticipantJoined, webhook.EventTrackPublished, webhook.EventTrackUnpublished,
		webhook.EventParticipantLeft, webhook.EventRoomFinished,
	}
	if !slices.Equal(names, want) {
		t.Fatalf("got %v, want %v", names, want)
	}
	if identity := events[1].GetParticipant().GetIdentity(); identity != "anna" {
		t.Errorf("%q joined", identity)
	}
	if sid := events[2].GetTrack().GetSid(); sid != publication.SID() {
		t.Errorf("track %s was published, not %s", sid, publication.SID())
	}
	if reason := events[5].RoomEndReason; reason != livekit.RoomEndReason_ROOM_END_API_DELETE {
		t.Errorf("the room ended by %s", reason)
	}
}
