// Anthropic's client for JavaScript, as it is published, against a router that does not serve its API.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import Anthropic from '@anthropic-ai/sdk';
import { key, model, router, thrown } from './stage.mjs';

const ask = { model, max_tokens: 8, messages: [{ role: 'user', content: 'Say something about rivers.' }] };
const client = (headers = {}) => new Anthropic({ baseURL: router, apiKey: key, authToken: null, defaultHeaders: headers });

test('errors: a path that is not served is a NotFoundError with our envelope', async () => {
  for (const error of [await thrown(client().messages.create(ask)), await thrown(client().messages.stream(ask).finalMessage())]) {
    assert.ok(error instanceof Anthropic.NotFoundError, String(error));
    assert.equal(error.status, 404);
    assert.equal(error.error.error.code, 'not_found');
    assert.equal(error.error.error.type, 'invalid_request_error');
    assert.match(error.headers.get('x-request-id'), /^[0-9a-f-]{36}$/);
  }
});

test('retries: a path that is not served is asked for once', async () => {
  assert.equal((await thrown(client({ 'X-Request-Id': 'retries-unknown-path' }).messages.create(ask))).status, 404);
});
