"""The official OpenAI client for Python, as it is published, against a running router.

OPENAI_BASE_URL and OPENAI_API_KEY are read by the client itself; MODEL and EMBEDDING_MODEL name what the router serves.
"""

import asyncio
import os
import re
import unittest

import openai

MODEL = os.environ["MODEL"]
EMBEDDING_MODEL = os.environ["EMBEDDING_MODEL"]
MESSAGES = [{"role": "user", "content": "Say something about rivers."}]
REQUEST_ID = re.compile(r"[0-9a-f-]{36}")


class Client(unittest.TestCase):
    def setUp(self):
        self.client = openai.OpenAI(max_retries=0, timeout=60)
        self.addCleanup(self.client.close)

    def check_usage(self, usage):
        self.assertGreater(usage.prompt_tokens, 0)
        self.assertGreater(usage.completion_tokens, 0)
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)

    def test_models_list_and_retrieve(self):
        self.assertIn(MODEL, [m.id for m in self.client.models.list()])
        self.assertEqual(self.client.models.retrieve(MODEL).id, MODEL)

    def test_chat(self):
        answer = self.client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=24)
        self.assertEqual(answer.object, "chat.completion")
        self.assertEqual(answer.choices[0].message.role, "assistant")
        self.assertTrue(answer.choices[0].message.content)
        self.assertIn(answer.choices[0].finish_reason, ("stop", "length"))
        self.check_usage(answer.usage)
        self.assertRegex(answer._request_id, REQUEST_ID)

    def test_chat_stream_without_usage(self):
        text, finish = "", None
        for chunk in self.client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=24, stream=True):
            self.assertEqual(len(chunk.choices), 1)
            self.assertNotIn("usage", chunk.model_fields_set)
            text += chunk.choices[0].delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
        self.assertTrue(text)
        self.assertIn(finish, ("stop", "length"))

    def test_chat_stream_with_usage(self):
        chunks = list(
            self.client.chat.completions.create(
                model=MODEL, messages=MESSAGES, max_tokens=24, stream=True, stream_options={"include_usage": True}
            )
        )
        last = chunks.pop()
        self.assertEqual(last.choices, [])
        self.check_usage(last.usage)
        self.assertTrue(chunks)
        self.assertTrue(all(chunk.usage is None for chunk in chunks))

    def test_chat_stream_left_in_the_middle(self):
        with self.client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=2000, stream=True) as stream:
            for _, _ in zip(range(3), stream):
                pass
        answer = self.client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=2)
        self.assertTrue(answer.choices)

    def test_chat_async(self):
        async def ask():
            async with openai.AsyncOpenAI(max_retries=0, timeout=60) as client:
                asks = [client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=4) for _ in range(16)]
                return await asyncio.gather(*asks)

        self.assertEqual(len({answer._request_id for answer in asyncio.run(ask())}), 16)

    def test_completions(self):
        answer = self.client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=12)
        self.assertTrue(answer.choices[0].text)
        self.check_usage(answer.usage)

    def test_completions_stream(self):
        stream = self.client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=12, stream=True)
        self.assertTrue("".join(chunk.choices[0].text for chunk in stream))

    def test_embeddings(self):
        answer = self.client.embeddings.create(model=EMBEDDING_MODEL, input=["first", "second"])
        self.assertEqual([d.index for d in answer.data], [0, 1])
        self.assertTrue(all(isinstance(x, float) for d in answer.data for x in d.embedding))
        self.assertNotEqual(answer.data[0].embedding, answer.data[1].embedding)

    def test_error_shapes(self):
        stranger = openai.OpenAI(max_retries=0, api_key="unknown")
        self.addCleanup(stranger.close)
        keyless = {"Authorization": openai.Omit()}
        ask = {"model": MODEL, "messages": MESSAGES}
        cases = [
            (stranger, openai.AuthenticationError, 401, "invalid_api_key", None, ask),
            (self.client, openai.AuthenticationError, 401, "missing_api_key", None, {**ask, "extra_headers": keyless}),
            (self.client, openai.NotFoundError, 404, "model_not_found", "model", {**ask, "model": "none"}),
            (self.client, openai.BadRequestError, 400, "invalid_request", "messages", {**ask, "messages": []}),
        ]
        for client, kind, status, code, param, arguments in cases:
            with self.subTest(code):
                with self.assertRaises(kind) as caught:
                    client.chat.completions.create(**arguments)
                error = caught.exception
                self.assertEqual((error.status_code, error.code, error.param), (status, code, param))
                self.assertRegex(error.request_id, REQUEST_ID)


if __name__ == "__main__":
    unittest.main(verbosity=2)
