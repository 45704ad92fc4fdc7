// The official OpenAI client for JavaScript, as it is published, against a running router.
// OPENAI_BASE_URL and OPENAI_API_KEY are read by the client itself; MODEL and EMBEDDING_MODEL name what the router serves.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';

const model = process.env.MODEL;
const embeddingModel = process.env.EMBEDDING_MODEL;
const client = new OpenAI({ maxRetries: 0, timeout: 60_000 });
const messages = [{ role: 'user', content: 'Say something about rivers.' }];
const usageAddsUp = (usage) => {
  assert.ok(usage.prompt_tokens > 0, 'prompt_tokens');
  assert.ok(usage.completion_tokens > 0, 'completion_tokens');
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
};

test('models.list has the model', async () => {
  const ids = [];
  for await (const m of client.models.list()) {
    assert.equal(m.object, 'model');
    ids.push(m.id);
  }
  assert.ok(ids.includes(model), `${ids} lacks ${model}`);
});

test('models.retrieve gives the model', async () => {
  assert.equal((await client.models.retrieve(model)).id, model);
});

test('chat answers with text, a finish reason, usage and a request id', async () => {
  const answer = await client.chat.completions.create({ model, messages, max_tokens: 24 });
  assert.equal(answer.object, 'chat.completion');
  assert.equal(answer.choices.length, 1);
  assert.equal(answer.choices[0].message.role, 'assistant');
  assert.ok(answer.choices[0].message.content.length > 0);
  assert.ok(['stop', 'length'].includes(answer.choices[0].finish_reason));
  usageAddsUp(answer.usage);
  assert.match(answer._request_id, /^[0-9a-f-]{36}$/);
});

test('chat stops at max_tokens', async () => {
  const answer = await client.chat.completions.create({ model, messages, max_tokens: 3 });
  assert.equal(answer.choices[0].finish_reason, 'length');
  assert.equal(answer.usage.completion_tokens, 3);
});

test('chat gives as many choices as were asked for', async () => {
  const answer = await client.chat.completions.create({ model, messages, max_tokens: 8, n: 3 });
  assert.deepEqual(answer.choices.map((c) => c.index).sort(), [0, 1, 2]);
});

test('a chat stream without usage has none in any chunk', async () => {
  const stream = await client.chat.completions.create({ model, messages, max_tokens: 24, stream: true });
  let text = '';
  let finish = null;
  for await (const chunk of stream) {
    assert.equal(chunk.object, 'chat.completion.chunk');
    assert.equal(chunk.choices.length, 1);
    assert.ok(!('usage' in chunk), `usage in ${JSON.stringify(chunk)}`);
    text += chunk.choices[0].delta.content ?? '';
    finish = chunk.choices[0].finish_reason ?? finish;
  }
  assert.ok(text.length > 0);
  assert.ok(['stop', 'length'].includes(finish));
});

test('a chat stream with include_usage ends in the usage, and only there', async () => {
  const stream = await client.chat.completions.create({
    model, messages, max_tokens: 24, stream: true, stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const last = chunks.pop();
  assert.deepEqual(last.choices, []);
  usageAddsUp(last.usage);
  assert.ok(chunks.length > 0);
  for (const chunk of chunks) assert.equal(chunk.usage ?? null, null);
});

test('a chat stream says what the whole answer says', async () => {
  const ask = { model, messages, max_tokens: 24, temperature: 0, seed: 7 };
  const whole = await client.chat.completions.create(ask);
  const streamed = await client.chat.completions.stream(ask).finalChatCompletion();
  assert.equal(streamed.choices[0].message.content, whole.choices[0].message.content);
  assert.equal(streamed.choices[0].finish_reason, whole.choices[0].finish_reason);
});

test('a chat stream can be left in the middle', async () => {
  const stream = await client.chat.completions.create({ model, messages, max_tokens: 2000, stream: true });
  let seen = 0;
  for await (const _ of stream) {
    if (++seen === 3) break;
  }
  assert.equal(seen, 3);
  assert.ok(stream.controller.signal.aborted);
});

test('many chats at once are each answered', async () => {
  const ask = (i) => client.chat.completions.create({ model, max_tokens: 6, messages: [{ role: 'user', content: `Number ${i}` }] });
  const answers = await Promise.all(Array.from({ length: 32 }, (_, i) => ask(i)));
  assert.equal(new Set(answers.map((a) => a._request_id)).size, 32);
});

test('completions answer', async () => {
  const answer = await client.completions.create({ model, prompt: 'Once upon a time', max_tokens: 12 });
  assert.equal(answer.object, 'text_completion');
  assert.ok(answer.choices[0].text.length > 0);
  usageAddsUp(answer.usage);
});

test('completions stream, with usage at the end', async () => {
  const stream = await client.completions.create({
    model, prompt: 'Once upon a time', max_tokens: 12, stream: true, stream_options: { include_usage: true },
  });
  let text = '';
  let usage = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.text ?? '';
    usage = chunk.usage ?? usage;
  }
  assert.ok(text.length > 0);
  usageAddsUp(usage);
});

test('embeddings come as numbers, one vector for each input', async () => {
  const answer = await client.embeddings.create({ model: embeddingModel, input: ['first', 'second'] });
  assert.deepEqual(answer.data.map((d) => d.index), [0, 1]);
  for (const { embedding } of answer.data) {
    assert.ok(embedding.length > 1);
    assert.ok(embedding.every(Number.isFinite));
  }
  assert.notDeepEqual(answer.data[0].embedding, answer.data[1].embedding);
  assert.ok(answer.usage.prompt_tokens > 0);
});

test('embeddings are the same as floats and in base64', async () => {
  const ask = (encoding_format) => client.embeddings.create({ model: embeddingModel, input: 'first', encoding_format });
  const [plain, packed] = await Promise.all([ask('float'), ask('base64')]);
  const bytes = Buffer.from(packed.data[0].embedding, 'base64');
  const floats = Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
  assert.equal(floats.length, plain.data[0].embedding.length);
  floats.forEach((f, i) => assert.ok(Math.abs(f - plain.data[0].embedding[i]) < 1e-6));
});

test('the key may come in X-API-Key', async () => {
  const other = new OpenAI({ maxRetries: 0, defaultHeaders: { Authorization: null, 'X-API-Key': process.env.OPENAI_API_KEY } });
  assert.equal((await other.models.retrieve(model)).id, model);
});

const failsWith = async (promise, kind, status, code, param = null) => {
  const error = await promise.then(() => assert.fail('no error'), (e) => e);
  assert.ok(error instanceof kind, `${error?.constructor?.name}: ${error}`);
  assert.equal(error.status, status);
  assert.equal(error.code, code);
  assert.equal(error.param, param);
  assert.ok(error.error.message.length > 0);
  assert.match(error.requestID, /^[0-9a-f-]{36}$/);
};

test('a missing key is an AuthenticationError', async () => {
  const other = new OpenAI({ maxRetries: 0, defaultHeaders: { Authorization: null } });
  await failsWith(other.chat.completions.create({ model, messages }), OpenAI.AuthenticationError, 401, 'missing_api_key');
});

test('an unknown key is an AuthenticationError', async () => {
  const other = new OpenAI({ maxRetries: 0, apiKey: 'unknown' });
  await failsWith(other.models.list(), OpenAI.AuthenticationError, 401, 'invalid_api_key');
});

test('an unknown model is a NotFoundError', async () => {
  const ask = client.chat.completions.create({ model: 'no-such-model', messages });
  await failsWith(ask, OpenAI.NotFoundError, 404, 'model_not_found', 'model');
});

test('an unknown model to retrieve is a NotFoundError', async () => {
  const error = await client.models.retrieve('no-such/model').then(() => assert.fail('no error'), (e) => e);
  assert.ok(error instanceof OpenAI.NotFoundError, String(error));
  assert.equal(error.code, 'model_not_found');
});

test('no messages are a BadRequestError that names them', async () => {
  const ask = client.chat.completions.create({ model, messages: [] });
  await failsWith(ask, OpenAI.BadRequestError, 400, 'invalid_request', 'messages');
});

test('a refused key fails a stream before it begins', async () => {
  const other = new OpenAI({ maxRetries: 0, apiKey: 'unknown' });
  const ask = other.chat.completions.create({ model, messages, stream: true });
  await failsWith(ask, OpenAI.AuthenticationError, 401, 'invalid_api_key');
});
