// The AI SDK with its provider for OpenAI-compatible servers, as they are published, against a running router.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { APICallError, embed, embedMany, generateText, jsonSchema, RetryError, streamText, tool } from 'ai';
import { askAll, beginsWith, breaks, key, model, recordings, router, stage, thrown } from './stage.mjs';

const provider = (options = {}) =>
  createOpenAICompatible({ name: 'router', baseURL: `${router}/v1`, apiKey: key, includeUsage: true, ...options });
const models = provider();
const prompt = 'Say something about rivers.';
const once = { maxRetries: 0, prompt };
const quietly = { ...once, onError: () => {} }; // The default writes errors of streams to the console.
const tools = { weather: tool({ inputSchema: jsonSchema({ type: 'object', properties: { city: { type: 'string' } } }) }) };
const bristol = { city: 'Bristol', usage: null };

test('chat: an answer has text, a finish reason and usage', async () => {
  const { text, finishReason, usage } = await generateText({ ...once, model: models(model), maxOutputTokens: 5 });
  assert.ok(text.length > 0);
  assert.equal(finishReason, 'length');
  assert.equal(usage.outputTokens, 5);
  assert.ok(usage.inputTokens > 0);
});

test('stream: it says what the whole answer says', async () => {
  const ask = { ...once, model: models(model), maxOutputTokens: 24, temperature: 0, seed: 7 };
  const whole = await generateText(ask);
  const streamed = streamText(ask);
  let text = '';
  for await (const piece of streamed.textStream) text += piece;
  assert.equal(text, whole.text);
  assert.equal(await streamed.finishReason, whole.finishReason);
});

test('stream: it can be left in the middle', async () => {
  const controller = new AbortController();
  const stream = streamText({ ...quietly, model: models(model), maxOutputTokens: 2000, abortSignal: controller.signal });
  let seen = 0;
  for await (const part of stream.fullStream) {
    if (part.type === 'text-delta' && ++seen === 3) controller.abort();
    if (part.type === 'abort') break;
  }
  assert.ok(seen >= 3);
});

test('usage: a stream that asks for it ends in it', async () => {
  const usage = await streamText({ ...once, model: models(model), maxOutputTokens: 9 }).usage;
  assert.equal(usage.outputTokens, 9);
  assert.equal(usage.totalTokens, usage.inputTokens + usage.outputTokens);
});

test('usage: a stream that does not ask for it has none', async () => {
  const silent = provider({ includeUsage: false });
  const usage = await streamText({ ...once, model: silent('plays-vllm-continuous') }).usage;
  assert.equal(usage.totalTokens, undefined);
});

test('completions: a stream has text and usage', async () => {
  const streamed = streamText({ ...once, model: models.completionModel(model), maxOutputTokens: 12 });
  assert.ok((await streamed.text).length > 0);
  assert.equal((await streamed.usage).outputTokens, 12);
});

test('embeddings: one vector for each input', async () => {
  const { embeddings, usage } = await embedMany({ model: models.embeddingModel(model), values: ['first', 'second'], maxRetries: 0 });
  assert.equal(embeddings.length, 2);
  assert.ok(embeddings.flat().every(Number.isFinite));
  assert.notDeepEqual(embeddings[0], embeddings[1]);
  assert.ok(usage.tokens > 0);
  const { embedding } = await embed({ model: models.embeddingModel(model), value: 'first', maxRetries: 0 });
  assert.deepEqual(embedding, embeddings[0]);
});

for (const [name, want] of Object.entries(recordings)) {
  test(`recordings: ${name} arrives whole`, async () => {
    const streamed = streamText({ ...once, model: models(`plays-${name}`) });
    assert.equal(await streamed.text, want.text);
    assert.equal((await streamed.reasoningText) ?? '', want.reasoning);
    assert.equal(await streamed.finishReason, want.finish);
    const usage = await streamed.usage;
    assert.deepEqual([usage.inputTokens, usage.outputTokens], want.usage);
  });
}

test('tools: a call comes whole', async () => {
  const { toolCalls: [call], finishReason } = await generateText({ ...once, model: models('plays-vllm-tools'), tools });
  assert.deepEqual([call.toolCallId, call.toolName, call.input, finishReason], ['call_7', 'weather', bristol, 'tool-calls']);
});

test('tools: the deltas of a call are joined', async () => {
  const streamed = streamText({ ...once, model: models('plays-vllm-tools'), tools });
  const deltas = [];
  for await (const part of streamed.fullStream) if (part.type === 'tool-input-delta') deltas.push(part.delta);
  assert.deepEqual(JSON.parse(deltas.join('')), bristol);
  const [call] = await streamed.toolCalls;
  assert.deepEqual([call.toolCallId, call.toolName, call.input], ['call_7', 'weather', bristol]);
  assert.equal(await streamed.finishReason, 'tool-calls');
  assert.equal((await streamed.usage).totalTokens, 60);
});

const refused = [
  ['an unknown key', { model: provider({ apiKey: 'unknown' })(model) }, 401, 'invalid_api_key', null],
  ['an unknown model', { model: models('no-such-model') }, 404, 'model_not_found', 'model'],
  ['a wrong value', { model: models(model), providerOptions: { router: { n: 'two' } } }, 400, 'invalid_request', 'n'],
  ['a backend\'s own refusal', { model: models('answers-400') }, 400, 400, 'max_tokens'],
];
for (const [what, ask, status, code, param] of refused) {
  test(`errors: ${what} is an APICallError that is not retried`, async () => {
    const error = await thrown(generateText({ prompt, ...ask }));
    assert.ok(APICallError.isInstance(error), String(error));
    assert.equal(error.statusCode, status);
    assert.equal(error.isRetryable, false);
    assert.deepEqual([error.data.error.code, error.data.error.param], [code, param]);
    assert.match(error.responseHeaders['x-request-id'], /^[0-9a-f-]{36}$/);
  });
}

test('errors: an unknown key fails a stream before it begins', async () => {
  const streamed = streamText({ ...quietly, model: provider({ apiKey: 'unknown' })(model) });
  const parts = [];
  for await (const part of streamed.fullStream) parts.push(part);
  const failed = parts.find((part) => part.type === 'error');
  assert.equal(failed.error.statusCode, 401);
});

test('retries: only what a second try can help is tried again', async () => {
  await askAll(async ({ model: name, key: apiKey, headers }) => {
    const ask = generateText({ prompt, model: provider({ apiKey, headers })(name) });
    return ask.then(() => 200, (error) => (RetryError.isInstance(error) ? error.lastError : error).statusCode);
  });
});

for (const [name, want] of Object.entries(breaks)) {
  test(`breaks: ${name} throws after the beginning of the answer`, async () => {
    const streamed = streamText({ ...quietly, model: models(name) });
    let text = '';
    const reported = [];
    const error = await thrown((async () => {
      for await (const part of streamed.fullStream) {
        assert.notEqual(part.type, 'finish');
        if (part.type === 'text-delta') text += part.text;
        if (part.type === 'error') reported.push(part.error.message);
      }
    })());
    assert.ok(APICallError.isInstance(error), String(error));
    assert.equal(reported.length, 1);
    assert.match(reported[0], want.says);
    beginsWith(text, want);
    await assert.rejects(Promise.resolve(streamed.text));
  });
}

// The plain stream of text passes over error events: only the aborted connection makes it throw.
test('breaks: the stream of text throws too', async () => {
  const streamed = streamText({ ...quietly, model: models('breaks-clean') });
  let text = '';
  const error = await thrown((async () => {
    for await (const piece of streamed.textStream) text += piece;
  })());
  assert.ok(APICallError.isInstance(error), String(error));
  beginsWith(text, breaks['breaks-clean']);
});

test('breaks: half a tool call is an error, not a call', async () => {
  const streamed = streamText({ ...quietly, model: models('breaks-tools'), tools });
  const seen = [];
  await thrown((async () => {
    for await (const part of streamed.fullStream) seen.push(part.type);
  })());
  assert.ok(seen.includes('error') && !seen.includes('tool-call'), seen.join());
});

// Why the router does not leave a broken stream as it is: this is what the SDK makes of one that ends cleanly in the middle.
test('direct: a stream of text that ends too early looks complete', async () => {
  const streamed = streamText({ ...quietly, model: provider({ baseURL: `${stage}/v1` })('breaks-clean') });
  let text = '';
  for await (const piece of streamed.textStream) text += piece;
  assert.equal(text, breaks['breaks-clean'].text);
  assert.equal(await streamed.finishReason, 'error'); // for those who ask
});
