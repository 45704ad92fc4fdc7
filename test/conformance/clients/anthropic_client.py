"""Anthropic's client for Python, as it is published, against a router that does not serve its API."""

import unittest

import anthropic

from stage import KEY, MODEL, ROUTER

ASK = {"model": MODEL, "max_tokens": 8, "messages": [{"role": "user", "content": "Say something about rivers."}]}


class Client(unittest.TestCase):
    def ask(self, **more):
        client = anthropic.Anthropic(base_url=ROUTER, api_key=KEY, **more)
        self.addCleanup(client.close)
        with self.assertRaises(anthropic.NotFoundError) as caught:
            client.messages.create(**ASK)
        return caught.exception

    def test_errors_of_a_path_that_is_not_served_are_our_envelope(self):
        error = self.ask()
        self.assertEqual(error.status_code, 404)
        self.assertEqual(error.body["error"]["code"], "not_found")
        self.assertEqual(error.body["error"]["type"], "invalid_request_error")
        self.assertRegex(error.response.headers["x-request-id"], r"^[0-9a-f-]{36}$")

    def test_retries_of_a_path_that_is_not_served(self):
        self.ask(default_headers={"X-Request-Id": "retries-unknown-path"})


if __name__ == "__main__":
    unittest.main(verbosity=2)
