"""What the page has to show, and each of its views by its address."""

from dataclasses import dataclass

import httpx

from tests.acceptance.waiting import until

SAMPLE = (
    "/fail rate_limit times=1",
    "/reason The scene is small; a table will do.",
    '/tool think {"thought": "What do they want to see?"}',
    "/say ## The scene",
    "/say It has **three** parts, see `scene.json`:",
    "/say | part | frames |",
    "/say |---|---|",
    "/say | intro | 3 |",
    "/say | credits | 12 |",
    "/say - [x] lights",
    "/say - [ ] sound",
    "/say ```python",
    "/say render(scene=1)",
    "/say ```",
)
HOSTILE = (
    '<script>alert(1)</script> <img src=x onerror="alert(2)"> <svg onload=alert(3)><style>*{display:none}</style>',
    "[a](javascript:alert(4)) [b](JaVa\tScRiPt:alert(5)) [c](data:text/html,<script>alert(6)</script>)",
    "![d](https://example.org/pixel.png) <https://example.org/> <iframe src=//example.org>",
    "\u202ereversed\u202c zero\u200bwidth \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 " + "x" * 20_000,
)
"""What a model may say that means harm; it stands in several lines of one text."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A session with something of everything, and what became of it."""

    session_id: str
    task_id: str
    operation_id: str
    """Of a question that nobody has answered."""

    @property
    def addresses(self) -> dict[str, tuple[str, str]]:
        """Every view by its name: where it is, and a text that stands there when all of it does."""
        return {
            "new chat": ("/#/chat", "Say something."),
            "chat": (f"/#/chat/{self.session_id}", "Shall the credits be longer?"),
            "log": (f"/#/tasks/{self.task_id}", "The message at event"),
            "tasks": ("/#/tasks", "turn"),
            "operations": ("/#/operations", "ask"),
            "operation": (f"/#/operations/{self.operation_id}", "Shall the credits be longer?"),
            "dead letters": ("/#/dead-letters", "No RabbitMQ is configured"),
            "health": ("/#/health", "The whole service"),
        }


async def make_sample(http: httpx.AsyncClient) -> Sample:
    """At a service with the demo model."""
    session = (await http.post("/sessions", json={"title": "The scene"})).raise_for_status().json()["id"]

    async def idle() -> bool:
        return (await http.get(f"/sessions/{session}")).json()["status"] == "idle"

    async def say(*lines: str) -> str:
        posted = await http.post(f"/sessions/{session}/messages", json={"text": "\n".join(lines)})
        await until(idle, "the end of the turn")
        return posted.raise_for_status().json()["task_id"]

    task = await say(*SAMPLE)
    await say('/tool ask {"question": "Shall the credits be longer?"}')
    (operation,) = (await http.get("/operations", params={"session": session})).json()["operations"]
    return Sample(session, task, operation["id"])
