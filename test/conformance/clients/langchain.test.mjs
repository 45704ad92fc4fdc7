// LangChain's chat model and embeddings for OpenAI, as they are published, against a running router.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai';
import { askAll, beginsWith, breaks, key, model, recordings, router, stage, thrown } from './stage.mjs';

const chat = (name, { headers, base = router, ...options } = {}) => new ChatOpenAI({
  model: name, apiKey: key, maxRetries: 0, ...options, configuration: { baseURL: `${base}/v1`, defaultHeaders: headers },
});
const prompt = 'Say something about rivers.';
const joined = async (stream) => {
  let whole;
  for await (const chunk of await stream) whole = whole ? whole.concat(chunk) : chunk;
  return whole;
};

test('chat: an answer has text, a finish reason and usage', async () => {
  const answer = await chat(model, { maxTokens: 5 }).invoke(prompt);
  assert.ok(answer.content.length > 0);
  assert.equal(answer.response_metadata.finish_reason, 'length');
  assert.equal(answer.usage_metadata.output_tokens, 5);
  assert.ok(answer.usage_metadata.input_tokens > 0);
});

test('chat: many at once are each answered', async () => {
  const answers = await chat(model, { maxTokens: 4 }).batch(Array.from({ length: 16 }, (_, i) => `Number ${i}`));
  assert.equal(new Set(answers.map((answer) => answer.id)).size, 16);
});

test('stream: it says what the whole answer says', async () => {
  const ask = chat(model, { maxTokens: 24, temperature: 0, modelKwargs: { seed: 7 } });
  assert.equal((await joined(ask.stream(prompt))).content, (await ask.invoke(prompt)).content);
});

test('stream: it can be left in the middle', async () => {
  let seen = 0;
  for await (const _ of await chat(model, { maxTokens: 2000 }).stream(prompt)) {
    if (++seen === 3) break;
  }
  assert.equal(seen, 3);
});

test('usage: a stream ends in it', async () => {
  const { usage_metadata: usage } = await joined(chat(model, { maxTokens: 9 }).stream(prompt));
  assert.equal(usage.output_tokens, 9);
  assert.equal(usage.total_tokens, usage.input_tokens + usage.output_tokens);
});

test('usage: a stream that does not ask for it has none', async () => {
  const answer = await joined(chat('plays-vllm-continuous', { streamUsage: false }).stream(prompt));
  assert.equal(answer.usage_metadata, undefined);
});

test('embeddings: one vector for each input', async () => {
  const vectors = new OpenAIEmbeddings({ model, apiKey: key, maxRetries: 0, configuration: { baseURL: `${router}/v1` } });
  const [first, second] = await vectors.embedDocuments(['first', 'second']);
  assert.ok([...first, ...second].every(Number.isFinite));
  assert.notDeepEqual(first, second);
  assert.deepEqual(await vectors.embedQuery('first'), first);
});

for (const [name, want] of Object.entries(recordings)) {
  test(`recordings: ${name} arrives whole`, async () => {
    const answer = await joined(chat(`plays-${name}`).stream(prompt));
    assert.equal(answer.content, want.text);
    assert.equal(answer.response_metadata.finish_reason, want.finish);
    assert.deepEqual([answer.usage_metadata.input_tokens, answer.usage_metadata.output_tokens], want.usage);
  });
}

const weather = { name: 'weather', args: { city: 'Bristol', usage: null }, id: 'call_7', type: 'tool_call' };

test('tools: a call comes whole', async () => {
  assert.deepEqual((await chat('plays-vllm-tools').invoke(prompt)).tool_calls, [weather]);
});

test('tools: the deltas of a call are joined', async () => {
  const answer = await joined(chat('plays-vllm-tools').stream(prompt));
  assert.deepEqual(answer.tool_calls, [weather]);
  assert.equal(answer.response_metadata.finish_reason, 'tool_calls');
  assert.equal(answer.usage_metadata.total_tokens, 60);
});

const refused = [
  ['an unknown key', chat(model, { apiKey: 'unknown', maxRetries: 2 }), 401, 'invalid_api_key', null],
  ['an unknown model', chat('no-such-model', { maxRetries: 2 }), 404, 'model_not_found', 'model'],
  ['a wrong value', chat(model, { modelKwargs: { n: 'two' }, maxRetries: 2 }), 400, 'invalid_request', 'n'],
  ['a backend\'s own refusal', chat('answers-400', { maxRetries: 2 }), 400, 400, 'max_tokens'],
];
for (const [what, ask, status, code, param] of refused) {
  test(`errors: ${what} has its status, code and param`, async () => {
    for (const error of [await thrown(ask.invoke(prompt)), await thrown(joined(ask.stream(prompt)))]) {
      assert.deepEqual([error.status, error.code, error.param], [status, code, param], String(error));
      assert.match(error.requestID, /^[0-9a-f-]{36}$/);
    }
  });
}

test('retries: only what a second try can help is tried again', async () => {
  await askAll(async ({ model: name, key: apiKey, headers }) =>
    chat(name, { apiKey, headers, maxRetries: 2 }).invoke(prompt).then(() => 200, (error) => error.status));
});

for (const [name, want] of Object.entries(breaks)) {
  test(`breaks: ${name} throws after the beginning of the answer`, async () => {
    let text = '';
    const error = await thrown((async () => {
      for await (const chunk of await chat(name).stream(prompt)) text += chunk.content;
    })());
    assert.match(error.message, want.says);
    beginsWith(text, want);
  });
}

test('breaks: an answer that is streamed inside the SDK throws too', async () => {
  const error = await thrown(chat('breaks-clean', { streaming: true }).invoke(prompt));
  assert.match(error.message, breaks['breaks-clean'].says);
});

test('breaks: half a tool call is an error, not a call', async () => {
  const error = await thrown(joined(chat('breaks-tools').stream(prompt)));
  assert.match(error.message, /the backend broke off/);
});

// Why the router does not leave a broken stream as it is: this is what the SDK makes of one that ends cleanly in the middle.
test('direct: a stream that ends too early looks complete', async () => {
  const answer = await joined(chat('breaks-clean', { base: stage }).stream(prompt));
  assert.equal(answer.content, breaks['breaks-clean'].text);
});
