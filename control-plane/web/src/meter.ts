// SPDX-License-Identifier: EUPL-1.2
import { levelOf } from './devices';

const EVERY_MS = 80;

/** Measures a microphone with the browser's analyser; gives a function that stops. */
export function meter(stream: MediaStream, onLevel: (level: number) => void): () => void {
  const context = new AudioContext();
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const timer = window.setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    onLevel(levelOf(samples));
  }, EVERY_MS);
  return () => {
    window.clearInterval(timer);
    void context.close();
  };
}
