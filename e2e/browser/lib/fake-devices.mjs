// SPDX-License-Identifier: EUPL-1.2
// Camera and microphone for a browser that takes none from files: Firefox. The film is drawn on a canvas with the
// same code as the files', the tone comes from an oscillator.

import { encodeBits } from './frame-code.mjs';
import { FRAMES, FRAME_RATE } from './people.mjs';

function install(words, person, rate) {
  const film = () => {
    const canvas = document.createElement('canvas');
    canvas.width = 640;
    canvas.height = 360;
    const drawing = canvas.getContext('2d');
    const started = performance.now();
    let shown = -1;
    const draw = () => {
      const counter = Math.floor(((performance.now() - started) * rate) / 1000);
      if (counter === shown) return;
      shown = counter;
      drawing.fillStyle = `rgb(${person.colour.join()})`;
      drawing.fillRect(0, 80, 640, 280);
      drawing.fillStyle = 'rgb(200,200,200)';
      drawing.fillRect((counter % 16) * 40, 200, 40, 40);
      words[counter % words.length].forEach((bit, at) => {
        drawing.fillStyle = bit ? 'rgb(235,235,235)' : 'rgb(16,16,16)';
        drawing.fillRect((at % 16) * 40, Math.floor(at / 16) * 40, 40, 40);
      });
    };
    draw();
    setInterval(draw, 1000 / rate / 3);
    return canvas.captureStream(rate).getVideoTracks()[0];
  };
  const sound = () => {
    const context = new AudioContext();
    context.resume();
    const oscillator = context.createOscillator();
    oscillator.frequency.value = person.tone;
    const gain = context.createGain();
    gain.gain.value = 0.5;
    const out = context.createMediaStreamDestination();
    oscillator.connect(gain).connect(out);
    oscillator.start();
    return out.stream.getAudioTracks()[0];
  };
  navigator.mediaDevices.getUserMedia = async (constraints = {}) =>
    new MediaStream([...(constraints.audio ? [sound()] : []), ...(constraints.video ? [film()] : [])]);
}

/** Gives every document of the page the person's film and tone instead of devices. */
export async function fakeDevices(page, person) {
  const words = Array.from({ length: FRAMES }, (_, counter) => encodeBits(person.id, counter));
  await page.evaluateOnNewDocument(install, words, person, FRAME_RATE);
}
