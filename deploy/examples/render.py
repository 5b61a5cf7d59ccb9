"""An external service to try Playhead's operations with: it takes work, takes its time, and says when it is done.

    python deploy/examples/render.py              # completes over HTTP, at the callback_url that comes with each call
    python deploy/examples/render.py --amqp URL   # completes over RabbitMQ (needs the package pika)

It listens on 127.0.0.1:9000 and is described to Playhead by `tools.json` beside it, with the secret that both sides
sign with. A call names what to render: {"scene": 1, "seconds": 5}; with "fail": true the work fails, with "at_once":
true the answer to the call has the result. A real service keeps what it has taken in a database before it answers 202.
"""

import argparse
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from standardwebhooks import Webhook, WebhookVerificationError

try:
    import pika  # needed for RabbitMQ only
except ImportError:
    pika = None

SECRET = os.environ.get("RENDER_SECRET") or json.loads((Path(__file__).parent / "tools.json").read_text())[0]["secret"]
TRIES = 10
"""Of each completion. Playhead takes the same one any number of times: a repeat is answered like the first."""


class Render(BaseHTTPRequestHandler):
    """Calls of the tool."""

    protocol_version = "HTTP/1.1"
    amqp_url: ClassVar[str | None] = None

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), 1024 * 1024))
        try:
            call = Webhook(SECRET).verify(body, dict(self.headers))
        except WebhookVerificationError:
            return self._answer(401, {"error": "The signature does not fit."})
        work = call["arguments"]
        if work.get("at_once"):
            return self._answer(200, {"success": True, "result": done(work)})
        # The operation's id names the work: a real service would look up here whether it has it already.
        threading.Thread(target=render, args=(self.amqp_url, call), daemon=True).start()
        return self._answer(202, {})

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def done(work: dict[str, object]) -> object:
    return {"scene": work.get("scene"), "frames": 3}


def render(amqp_url: str | None, call: dict[str, Any]) -> None:
    """The work itself."""
    work = call["arguments"]
    seconds = float(work.get("seconds", 5))
    time.sleep(seconds / 2)
    tell(amqp_url, call, {"operation_id": call["operation_id"], "progress": 0.5}, "half")
    time.sleep(seconds / 2)
    ended: dict[str, object] = {"operation_id": call["operation_id"], "task_id": call["task_id"]}
    if work.get("fail"):
        ended |= {"success": False, "error_type": "patch_error", "error": "The scene does not fit the stage."}
    else:
        ended |= {"success": True, "result": done(work)}
    tell(amqp_url, call, ended, "end")


def tell(amqp_url: str | None, call: dict[str, Any], message: dict[str, object], name: str) -> None:
    """Send a message until it is taken; its name says which it is, however often it is sent."""
    for tried in range(TRIES):
        time.sleep(min(tried, 5))
        try:
            if amqp_url is not None:
                publish(amqp_url, message, f"{call['operation_id']}.{name}")
            else:
                post(str(call["callback_url"]), message, f"{call['operation_id']}.{name}")
        except Exception as error:
            print(f"{name} of {call['operation_id']}: {type(error).__name__}, try {tried + 1}", file=sys.stderr)
        else:
            print(f"{name} of {call['operation_id']}: told")
            return


def post(url: str, message: dict[str, object], name: str) -> None:
    """Over HTTP: signed by Standard Webhooks, with the secret of the tool. Raises where it was not taken."""
    body = json.dumps(message)
    now = datetime.now(UTC)
    headers = {
        "Content-Type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(name, now, body),
    }
    request = urllib.request.Request(url, body.encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        if error.code not in (409, 422):  # for good: the operation has another outcome, or the message is wrong
            raise


def publish(url: str, message: dict[str, object], name: str) -> None:
    """Over RabbitMQ: persistent, and confirmed by the broker. Raises where it was not."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish(
            "chat_operations",
            "operation.complete",
            json.dumps(message).encode(),
            pika.BasicProperties(message_id=name, app_id="render", content_type="application/json", delivery_mode=2),
            mandatory=True,
        )
    finally:
        connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Renders, or pretends to.")
    parser.add_argument("--port", type=int, default=9000)
    parser.add_argument("--amqp", metavar="URL", help="complete over this RabbitMQ, and not over HTTP")
    arguments = parser.parse_args()
    Render.amqp_url = arguments.amqp
    if arguments.amqp and pika is None:
        parser.error("--amqp needs the package pika")
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), Render)
    print(f"render listens on http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
