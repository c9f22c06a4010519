// npm `hot-shots`: `hotshots.js HOST PORT`; for each number on stdin one round of metrics, told with `sent NUMBER`.
'use strict';

const readline = require('readline');
const { StatsD } = require('hot-shots');

Math.random = () => 0; // what is sampled is always sent, so that its total is known
const [host, port] = process.argv.slice(2);
const options = { host, port: Number(port), prefix: 'hotshots.', globalTags: { env: 'test' }, originDetection: false };
const client = new StatsD({ ...options, errorHandler: (error) => { throw error; } });

async function round(number) {
  const sends = [];
  const send = (kind, ...words) => sends.push(new Promise((resolve, reject) => {
    client[kind](...words, (error) => (error ? reject(error) : resolve()));
  }));
  for (let i = 0; i < 20; i++) send('increment', 'hits', 1, { path: 'a' });
  send('increment', 'hits', 10, { path: 'b' });
  for (let i = 0; i < 4; i++) send('increment', 'sampled', 1, 0.5);
  send('gauge', 'level', number);
  send('gaugeDelta', 'moved', 3);
  send('gaugeDelta', 'moved', -1);
  for (let milliseconds = 1; milliseconds <= 10; milliseconds++) {
    send('timing', 'latency', milliseconds);
    send('histogram', 'size', milliseconds);
    send('distribution', 'depth', milliseconds);
  }
  for (let user = 0; user < 3; user++) send('set', 'users', 10 * number + user);
  send('event', `round ${number}`, 'line one\nline two', {});
  send('check', 'hotshots.up', client.CHECKS.OK, {});
  await Promise.all(sends);
}

async function main() {
  console.log('ready');
  for await (const line of readline.createInterface({ input: process.stdin })) {
    await round(Number(line));
    console.log('sent', line);
  }
  client.close();
}

main();
