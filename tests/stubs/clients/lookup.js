// One lookup by Node: `lookup` goes through getaddrinfo, `resolve` through c-ares. Prints "ok ADDRESS..." or "error REASON".
const dns = require('node:dns').promises;
const [api, name] = process.argv.slice(2);
const absent = new Set(['ENOTFOUND', 'ENODATA']);

async function main() {
  const tries = api === 'lookup' ? [dns.lookup(name, { all: true })] : [dns.resolve4(name), dns.resolve6(name)];
  const results = await Promise.allSettled(tries);
  const addresses = results.filter((result) => result.status === 'fulfilled')
    .flatMap((result) => result.value).map((value) => value.address ?? value);
  if (addresses.length) return `ok ${addresses.join(' ')}`;
  const codes = results.map((result) => result.reason.code);
  return codes.every((code) => absent.has(code)) ? 'error not-found' : `error temporary ${codes.join(' ')}`;
}

main().then(console.log);
