// Loaded into the real statsd before its own code: it flushes when SIGUSR2 comes, and not by the clock. What it computes
// and sends is its own.
const setTimer = global.setTimeout;
let flush;
global.setTimeout = (callback, ...rest) =>
  callback.name === 'flushMetrics' ? void (flush = callback) : setTimer(callback, ...rest);
process.on('SIGUSR2', () => flush());
require('util').log = () => {}; // statsd's log; gone from node 23 on
