// SPDX-License-Identifier: EUPL-1.2

package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// Calls the RoomService with a token of our own making: the SDK would make a better one.
func twirp(t *testing.T, method, token string) int {
	t.Helper()
	base := strings.Replace(address(t), "ws", "http", 1)
	request, err := http.NewRequest(http.MethodPost, base+"/twirp/livekit.RoomService/"+method, strings.NewReader(`{"room":"any"}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	_, _ = io.Copy(io.Discard, response.Body)
	return response.StatusCode
}
