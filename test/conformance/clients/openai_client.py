"""The official OpenAI client for Python, as it is published, against a running router.

OPENAI_BASE_URL and OPENAI_API_KEY are read by the client itself.
"""

import asyncio
import re
import unittest

import openai

from stage import BREAKS, MODEL, RECORDINGS, STAGE, ask_all, check_beginning

MESSAGES = [{"role": "user", "content": "Say something about rivers."}]
ARGUMENTS = '{"city": "Bristol", "usage": null}'
REQUEST_ID = re.compile(r"[0-9a-f-]{36}")


class Client(unittest.TestCase):
    def setUp(self):
        self.client = openai.OpenAI(max_retries=0, timeout=60)
        self.addCleanup(self.client.close)

    def check_usage(self, usage):
        self.assertGreater(usage.prompt_tokens, 0)
        self.assertGreater(usage.completion_tokens, 0)
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)

    def test_models_are_listed_and_retrieved(self):
        self.assertIn(MODEL, [m.id for m in self.client.models.list()])
        self.assertEqual(self.client.models.retrieve(MODEL).id, MODEL)

    def test_chat_answers(self):
        answer = self.client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=24)
        self.assertEqual(answer.object, "chat.completion")
        self.assertEqual(answer.choices[0].message.role, "assistant")
        self.assertTrue(answer.choices[0].message.content)
        self.assertIn(answer.choices[0].finish_reason, ("stop", "length"))
        self.check_usage(answer.usage)
        self.assertRegex(answer._request_id, REQUEST_ID)

    def test_stream_without_usage(self):
        text, finish = "", None
        for chunk in self.client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=24, stream=True):
            self.assertEqual(len(chunk.choices), 1)
            self.assertNotIn("usage", chunk.model_fields_set)
            text += chunk.choices[0].delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
        self.assertTrue(text)
        self.assertIn(finish, ("stop", "length"))

    def test_usage_ends_a_stream_that_asks_for_it(self):
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

    def test_stream_left_in_the_middle(self):
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

    def test_completions_answer(self):
        answer = self.client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=12)
        self.assertTrue(answer.choices[0].text)
        self.check_usage(answer.usage)

    def test_completions_stream(self):
        stream = self.client.completions.create(model=MODEL, prompt="Once upon a time", max_tokens=12, stream=True)
        self.assertTrue("".join(chunk.choices[0].text for chunk in stream))

    def test_embeddings_are_numbers(self):
        answer = self.client.embeddings.create(model=MODEL, input=["first", "second"])
        self.assertEqual([d.index for d in answer.data], [0, 1])
        self.assertTrue(all(isinstance(x, float) for d in answer.data for x in d.embedding))
        self.assertNotEqual(answer.data[0].embedding, answer.data[1].embedding)

    def test_errors_have_status_code_and_param(self):
        stranger = openai.OpenAI(max_retries=0, api_key="unknown")
        self.addCleanup(stranger.close)
        keyless = {"Authorization": openai.Omit()}
        ask = {"model": MODEL, "messages": MESSAGES}
        cases = [
            (stranger, openai.AuthenticationError, 401, "invalid_api_key", None, ask),
            (self.client, openai.AuthenticationError, 401, "missing_api_key", None, {**ask, "extra_headers": keyless}),
            (self.client, openai.NotFoundError, 404, "model_not_found", "model", {**ask, "model": "none"}),
            (self.client, openai.BadRequestError, 400, "invalid_request", "messages", {**ask, "messages": []}),
            (self.client, openai.BadRequestError, 400, "400", "max_tokens", {**ask, "model": "answers-400"}),
        ]
        for client, kind, status, code, param, arguments in cases:
            with self.subTest(code):
                with self.assertRaises(kind) as caught:
                    client.chat.completions.create(**arguments)
                error = caught.exception
                self.assertEqual((error.status_code, error.code, error.param), (status, code, param))
                self.assertRegex(error.request_id, REQUEST_ID)

    def test_errors_of_a_full_backend_say_when_to_come_back(self):
        with self.assertRaises(openai.InternalServerError) as caught:
            self.client.chat.completions.create(model="answers-503", messages=MESSAGES)
        self.assertEqual(caught.exception.status_code, 503)
        self.assertGreaterEqual(int(caught.exception.response.headers["retry-after"]), 1)

    def test_retries_only_what_a_second_try_can_help(self):
        def ask(model, key, headers):
            with openai.OpenAI(api_key=key, default_headers=headers) as client:
                try:
                    client.chat.completions.create(model=model, messages=MESSAGES)
                except openai.APIStatusError as error:
                    return error.status_code
                return 200

        ask_all(self, ask)

    def play(self, name, **more):
        with self.client.chat.completions.stream(
            model=f"plays-{name}", messages=MESSAGES, stream_options={"include_usage": True}, **more
        ) as stream:
            return stream.get_final_completion()

    def test_recordings_arrive_whole(self):
        for name, want in RECORDINGS.items():
            with self.subTest(name):
                # One of them ends at its limit, which the client's own joining of streams takes for an error.
                stream = self.client.chat.completions.create(
                    model=f"plays-{name}", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
                )
                chunks = list(stream)
                choices = [choice for chunk in chunks for choice in chunk.choices]
                self.assertEqual("".join(choice.delta.content or "" for choice in choices), want["text"])
                self.assertEqual(choices[-1].finish_reason, want["finish"])
                usage = chunks[-1].usage
                self.assertEqual([usage.prompt_tokens, usage.completion_tokens], want["usage"])

    def test_recordings_of_two_choices_with_logprobs_and_a_refusal(self):
        stream = self.client.chat.completions.create(model="plays-openai-two", messages=MESSAGES, stream=True, n=2)
        choices = [choice for chunk in stream for choice in chunk.choices]
        self.assertEqual("".join(c.delta.content or "" for c in choices if c.index == 0), "Yes")
        self.assertEqual("".join(c.delta.refusal or "" for c in choices if c.index == 1), "I cannot.")
        self.assertEqual([c.finish_reason for c in choices if c.finish_reason], ["content_filter", "stop"])
        self.assertEqual(len([c for c in choices if c.logprobs]), 2)

    def test_tools_are_called_whole(self):
        call = self.client.chat.completions.create(model="plays-vllm-tools", messages=MESSAGES).choices[0].message.tool_calls[0]
        self.assertEqual((call.id, call.function.name, call.function.arguments), ("call_7", "weather", ARGUMENTS))

    def test_tools_are_joined_from_their_deltas(self):
        answer = self.play("vllm-tools")
        call = answer.choices[0].message.tool_calls[0]
        self.assertEqual((call.id, call.function.name, call.function.arguments), ("call_7", "weather", ARGUMENTS))
        self.assertEqual(answer.choices[0].finish_reason, "tool_calls")
        self.assertEqual(answer.usage.total_tokens, 60)

    def test_breaks_are_errors_after_the_beginning_of_the_answer(self):
        for name, (_, says) in BREAKS.items():
            with self.subTest(name):
                text = ""
                with self.assertRaisesRegex(openai.APIError, says):
                    for chunk in self.client.chat.completions.create(model=name, messages=MESSAGES, stream=True):
                        self.assertIsNone(chunk.choices[0].finish_reason)
                        text += chunk.choices[0].delta.content or ""
                check_beginning(self, name, text)

    def test_breaks_of_a_tool_call_are_errors(self):
        with self.assertRaisesRegex(openai.APIError, "the backend broke off"):
            with self.client.chat.completions.stream(model="breaks-tools", messages=MESSAGES) as stream:
                stream.get_final_completion()

    def test_breaks_reach_an_asynchronous_client(self):
        async def ask():
            async with openai.AsyncOpenAI(max_retries=0, timeout=60) as client:
                async for _ in await client.chat.completions.create(model="breaks-clean", messages=MESSAGES, stream=True):
                    pass

        with self.assertRaisesRegex(openai.APIError, "the backend broke off"):
            asyncio.run(ask())

    # Why the router does not leave a broken stream as it is: this is what the client makes of one that ends cleanly in the middle.
    def test_direct_stream_that_ends_too_early_looks_complete(self):
        with openai.OpenAI(base_url=f"{STAGE}/v1", max_retries=0) as client:
            chunks = list(client.chat.completions.create(model="breaks-clean", messages=MESSAGES, stream=True))
        self.assertEqual(len(chunks), 3)


if __name__ == "__main__":
    unittest.main(verbosity=2)
