// Replaying: how many events are shown after how much time. At a speed, time in the log passes so many times as fast as
// it does here; at most a share of the log comes at once, so that it is seen to pass. Silence may be passed over.

/** @typedef {1 | 4 | "max"} Speed */
/** @typedef {{position: {ms: number}}[]} Events */
/**
 * @typedef {object} Pace
 * @property {(milliseconds: number, speed: Speed) => number} advance time has passed; how many events are shown now
 * @property {() => number} silence milliseconds of the log until the next event
 * @property {() => void} skip the next event comes at once
 */

export const SILENCE_MILLISECONDS = 1000; // and less is none, here and on the timeline
const LOOKS_AT_MAX = 60; // a log is through after so many

/**
 * Go on from where so many events are shown.
 * @param {Events} events may grow
 * @param {number} shown
 * @param {() => boolean} [skipsSilence] whether silence of more than a second is passed over
 * @returns {Pace}
 */
export function pace(events, shown, skipsSilence = () => false) {
  let now = events[Math.max(0, shown - 1)]?.position.ms ?? 0; // in the log

  const silence = () => (shown < events.length ? Math.max(0, events[shown].position.ms - now) : 0);

  function pass() {
    while (shown < events.length && events[shown].position.ms <= now) shown += 1;
  }

  function skip() {
    now += silence();
  }

  return {
    silence,
    skip,
    advance(milliseconds, speed) {
      if (speed === "max") {
        shown = Math.min(events.length, shown + Math.max(1, Math.ceil(events.length / LOOKS_AT_MAX)));
        now = events[shown - 1]?.position.ms ?? now;
        return shown;
      }
      now += milliseconds * speed;
      pass();
      if (skipsSilence() && silence() > SILENCE_MILLISECONDS) {
        skip();
        pass();
      }
      return shown;
    },
  };
}
