// Runs the real statsd, many times over in one process: a case a line in, its flushes a line out.
//
// In, as JSON: {"options": statsd's configuration, in JavaScript, "intervals": [[datagram in base64, …], …]}. Out:
// {"flushes": [what Graphite was sent, …], "report": the busiest keys, "crash": what was thrown, or null}. All of statsd that reads, computes and
// writes is its own code, loaded afresh for each case: stats.js, lib/process_metrics.js, lib/helpers.js, lib/set.js,
// servers/tcp.js, backends/graphite.js. Replaced is what surrounds it: the reader of the configuration file, the sockets, the timer and
// the clock.

const fs = require('fs');
const Module = require('module');
const path = require('path');
const readline = require('readline');
const { StringDecoder } = require('string_decoder');
const util = require('util');

const root = fs.realpathSync(process.argv[2]);
const START = 1700000000000; // a whole second

let now = START;
const RealDate = Date;
global.Date = class extends RealDate {
  constructor(...given) { super(...(given.length ? given : [now])); }
  static now() { return now; }
};

let configuration, flush, handle, report, sent;
const silent = () => {};
global.setTimeout = (callback) => { flush = callback; };
global.setInterval = (callback) => { report = callback; }; // of the busiest keys
util.log = silent; // gone from node 23 on
process.on = silent; // statsd flushes once more at the end of the process

// The sockets: one that is written to, and one that a client has connected to, for servers/tcp.js.
const connection = {
  addListener: silent,
  on: (event, connected) => { if (event === 'connect') connected.call(connection); },
  write: (payload) => { sent.push(payload); },
  end: silent,
};
function createServer(accept) {
  let decoder;
  const stream = {
    setEncoding: (encoding) => { decoder = new StringDecoder(encoding); },
    on: (event, take) => { handle = (data) => take(decoder.write(data)); },
    address: () => null,
  };
  return { on: silent, listen: () => accept(stream) };
}
const surroundings = {
  './lib/config': { configFile: (_file, use) => use(configuration) },
  './lib/process_mgmt': { init: silent },
  './lib/mgmt_server': { start: silent },
  './lib/logger': { Logger: class { log() {} } },
  './servers/udp': { start: (_config, callback) => { handle = callback; return true; } },
  net: { createConnection: () => connection, createServer },
};
const load = Module._load;
Module._load = (name, parent, isMain) =>
  parent && parent.filename.startsWith(root) && name in surroundings ? surroundings[name] : load(name, parent, isMain);

function run(one) {
  for (const file of Object.keys(require.cache)) {
    if (file.startsWith(root)) delete require.cache[file];
  }
  now = START;
  configuration = { graphiteHost: 'graphite', ...(0, eval)(`(${one.options})`) };
  sent = [];
  report = null;
  require(path.join(root, 'stats.js'));
  for (const datagrams of one.intervals) {
    for (const datagram of datagrams) handle(Buffer.from(datagram, 'base64'), {});
    now += configuration.flushInterval;
    flush();
  }
  return report ? reported() : '';
}

function reported() {
  const texts = [];
  const write = process.stdout.write;
  process.stdout.write = (text) => texts.push(text);
  try {
    report();
  } finally {
    process.stdout.write = write;
  }
  return texts.join('');
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  let crash = null;
  let report = '';
  try {
    report = run(JSON.parse(line));
  } catch (error) {
    crash = String(error).split('\n')[0];
  }
  process.stdout.write(JSON.stringify({ flushes: sent, report, crash }) + '\n');
});
