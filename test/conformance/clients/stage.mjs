// What the clients' tests share: where the router is, and what the backends behind it do.
//
// A model whose name begins with "plays-" answers with a recorded stream, "breaks-" with one that ends in the middle, "answers-" with a
// refusal. Every other model is a simulated engine.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

export const router = process.env.ROUTER_URL;
export const stage = process.env.STAGE_URL; // the backend itself, past the router
export const key = process.env.API_KEY;
export const model = process.env.MODEL;

// What the recordings say: the text, the thoughts before it, why it ended, and the tokens of the prompt and the answer.
export const recordings = JSON.parse(readFileSync(new URL('../testdata/recordings.json', import.meta.url)));

const beginning = 'Grüße, 世界 👋🏽';
const brokeOff = /the backend broke off in the middle of the stream/;

// Every way in which a stream breaks: what had arrived by then, and what the error says.
export const breaks = {
  'breaks-reset': { text: beginning, says: /the backend broke off/, lossy: true },
  'breaks-close': { text: beginning, says: brokeOff },
  'breaks-clean': { text: beginning, says: brokeOff },
  'breaks-done': { text: beginning, says: /the backend ended the stream before the answer was complete/ },
  'breaks-cut': { text: 'Half of', says: brokeOff },
  'breaks-error': { text: 'Half of', says: /EngineCore encountered an issue/ },
  'breaks-silence': { text: beginning, says: /the backend did not send the next part of its answer/ },
};

// beginsWith checks what a client had of a broken stream. A reset may destroy what was still on its way.
export const beginsWith = (text, { text: want, lossy }) =>
  assert.ok(text === want || (lossy && want.startsWith(text)), `${JSON.stringify(text)} in place of ${JSON.stringify(want)}`);

// What is asked with a client's own rules of retrying, by the label in its x-request-id. The router's log tells how often it was asked.
export const retried = {
  'wrong-key': { model, key: 'unknown', status: 401 },
  'unknown-model': { model: 'no-such-model', status: 404 },
  'backend-400': { model: 'answers-400', status: 400 },
  'backend-402': { model: 'answers-402', status: 402 },
  'backend-422': { model: 'answers-422', status: 422 },
  'backend-401': { model: 'answers-401', status: 502 },
  'backend-500': { model: 'answers-500', status: 502 },
  'backend-503': { model: 'answers-503', status: 503 },
  'backend-503-once': { model: 'answers-503-once', status: 200 },
};

// askAll asks for everything in retried at once; ask returns the status that the client saw in the end.
export const askAll = async (ask) => {
  const seen = await Promise.all(Object.entries(retried).map(async ([label, { model: name, key: other }]) =>
    [label, await ask({ model: name, key: other ?? key, headers: { 'X-Request-Id': `retries-${label}` } })]));
  assert.deepEqual(Object.fromEntries(seen), Object.fromEntries(Object.entries(retried).map(([label, { status }]) => [label, status])));
};

export const thrown = (promise) => promise.then(() => assert.fail('no error'), (error) => error);
