// What is told with the time that has passed is told anew each second, while somebody looks.

/** @param {() => void} act @returns {() => void} ends it */
export function everySecond(act) {
  const timer = setInterval(() => document.hidden || act(), 1000);
  return () => clearInterval(timer);
}
