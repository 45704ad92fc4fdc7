"""What the clients' tests share: where the router is, and what the backends behind it do.

A model whose name begins with "plays-" answers with a recorded stream, "breaks-" with one that ends in the middle, "answers-" with a
refusal. Every other model is a simulated engine.
"""

import concurrent.futures
import json
import os
import pathlib

ROUTER = os.environ["ROUTER_URL"]
STAGE = os.environ["STAGE_URL"]  # the backend itself, past the router
KEY = os.environ["API_KEY"]
MODEL = os.environ["MODEL"]

# What the recordings say: the text, the thoughts before it, why it ended, and the tokens of the prompt and the answer.
RECORDINGS = json.loads((pathlib.Path(__file__).parent.parent / "testdata" / "recordings.json").read_text(encoding="utf-8"))

BEGINNING = "Grüße, 世界 👋🏽"
BROKE_OFF = "the backend broke off in the middle of the stream"

# Every way in which a stream breaks: what had arrived by then, and what the error says.
BREAKS = {
    "breaks-reset": (BEGINNING, "the backend broke off"),
    "breaks-close": (BEGINNING, BROKE_OFF),
    "breaks-clean": (BEGINNING, BROKE_OFF),
    "breaks-done": (BEGINNING, "the backend ended the stream before the answer was complete"),
    "breaks-cut": ("Half of", BROKE_OFF),
    "breaks-error": ("Half of", "EngineCore encountered an issue"),
    "breaks-silence": (BEGINNING, "the backend did not send the next part of its answer"),
}

# What is asked with a client's own rules of retrying, by the label in its x-request-id: the model, the key and the status that the
# client sees in the end. The router's log tells how often it was asked.
RETRIED = {
    "wrong-key": (MODEL, "unknown", 401),
    "unknown-model": ("no-such-model", KEY, 404),
    "backend-400": ("answers-400", KEY, 400),
    "backend-402": ("answers-402", KEY, 402),
    "backend-422": ("answers-422", KEY, 422),
    "backend-401": ("answers-401", KEY, 502),
    "backend-500": ("answers-500", KEY, 502),
    "backend-503": ("answers-503", KEY, 503),
    "backend-503-once": ("answers-503-once", KEY, 200),
}


def check_beginning(test, name, text):
    """Checks what a client had of a broken stream. A reset may destroy what was still on its way."""
    want = BREAKS[name][0]
    if name == "breaks-reset":
        test.assertTrue(want.startswith(text), text)
    else:
        test.assertEqual(text, want)


def ask_all(test, ask):
    """Asks for everything in RETRIED at once; ask(model, key, headers) returns the status that the client saw in the end."""
    with concurrent.futures.ThreadPoolExecutor(len(RETRIED)) as pool:
        seen = {
            label: pool.submit(ask, model, key, {"X-Request-Id": f"retries-{label}"}) for label, (model, key, _) in RETRIED.items()
        }
        test.assertEqual(
            {label: future.result() for label, future in seen.items()},
            {label: status for label, (_, _, status) in RETRIED.items()},
        )
