// Standard input: [options, [[method, argument…], …]] in JSON. Makes these calls on a hot-shots client, and ends when
// all is sent. Every other call with a sample rate below 1 is left out: the client's dice are loaded.
const { readFileSync } = require('fs');
const StatsD = require('hot-shots');

let thrown = 0;
Math.random = () => (thrown++ % 2 ? 0.99 : 0.01);
const failed = (error) => {
  console.error(String(error));
  process.exitCode = 1;
};
const [options, calls] = JSON.parse(readFileSync(0, 'utf8'));
const client = new StatsD({ ...options, errorHandler: failed });
for (const [method, ...given] of calls) client[method](...given);
client.close((error) => error && failed(error));
