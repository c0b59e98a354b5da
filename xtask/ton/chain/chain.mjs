// toncenter's HTTP API, version 2, over a chain of this process alone, on 127.0.0.1.
//
//   node chain.mjs PORT API_KEY
//
// As at toncenter, who has a key sends it as the header X-API-Key (or `api_key` in the URL); a wrong one is 401, and
// without one there is one request a second: 429. Beside the API, under /dev/ and for tests alone:
//
//   GET  /dev/accounts                     addresses of the wallets v4r2 and v5r1 and of a storage contract
//   POST /dev/fund {address, nanoton}      pays into any account
//   POST /dev/storage {balance, file_size, rate, max_span, last_proof_time}   deploys a storage contract: {address}

import http from 'node:http';
import { Address } from '@ton/core';
import { Ledger } from './ledger.mjs';
import { methods, Refusal } from './toncenter.mjs';

const MOST_BODY_BYTES = 1 << 20;
const ANONYMOUS_PER_SECOND = 1;

const [port, apiKey] = [Number(process.argv[2]), process.argv[3]];
const ledger = await Ledger.start();
const api = methods(ledger);
const recent = [];

const server = http.createServer(async (request, response) => {
  const answer = (status, value) => {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(JSON.stringify(value));
  };
  try {
    const url = new URL(request.url, 'http://127.0.0.1');
    const body = await read(request);
    if (url.pathname.startsWith('/dev/')) return answer(200, await dev(url.pathname.slice(5), body));
    const refused = admit(request.headers['x-api-key'] ?? url.searchParams.get('api_key'));
    if (refused) return answer(refused.code, { ok: false, result: refused.message, code: refused.code });
    answer(200, await call(request.method, url, body));
  } catch (error) {
    const code = error instanceof Refusal ? error.code : 500;
    answer(code, { ok: false, error: error.message, code });
  }
});
server.listen(port, '127.0.0.1', () => console.log('ready'));

async function read(request) {
  let text = '';
  for await (const chunk of request) {
    text += chunk;
    if (text.length > MOST_BODY_BYTES) throw new Refusal(422, 'the request is too long');
  }
  if (text === '') return {};
  try { return JSON.parse(text); } catch { throw new Refusal(422, 'the request is not JSON'); }
}

function admit(key) {
  if (key != null) return key === apiKey ? undefined : new Refusal(401, 'API key does not exist');
  const now = Date.now();
  while (recent.length > 0 && recent[0] <= now - 1000) recent.shift();
  if (recent.length >= ANONYMOUS_PER_SECOND) return new Refusal(429, 'Ratelimit exceed');
  recent.push(now);
  return undefined;
}

async function call(verb, url, body) {
  const name = /^\/api\/v2\/(\w+)$/.exec(url.pathname)?.[1];
  const wrapped = name === 'jsonRPC';
  const method = wrapped ? body.method : name;
  if (!Object.hasOwn(api, String(method))) throw new Refusal(404, 'Not Found');
  const posted = wrapped || method === 'runGetMethod' || method.startsWith('sendBoc');
  if (verb !== (posted ? 'POST' : 'GET')) throw new Refusal(405, 'Method Not Allowed');
  const params = wrapped ? body.params ?? {} : { ...Object.fromEntries(url.searchParams), ...body };
  const result = { ok: true, result: await api[method](params), '@extra': `${Date.now() / 1000}:0:0` };
  return wrapped ? { ...result, jsonrpc: '2.0', id: body.id } : result;
}

async function dev(name, body) {
  switch (name) {
    case 'accounts': return ledger.accounts;
    case 'fund':
      await ledger.fund(Address.parse(body.address), BigInt(body.nanoton));
      return {};
    case 'storage': {
      const terms = { balance: BigInt(body.balance), fileSize: BigInt(body.file_size), rate: BigInt(body.rate), maxSpan: body.max_span };
      return { address: await ledger.deployStorage({ ...terms, lastProofTime: body.last_proof_time ?? 0 }) };
    }
    default: throw new Refusal(404, 'Not Found');
  }
}
