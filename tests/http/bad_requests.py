"""Bad requests, and how each is refused: bodies, nesting, headers, positions, cursors, limits, tokens, keys, ids.

`{session}`, `{task}` and `{operation}` are there, so that what is not refused would change them; what there is not is
NOBODYS.
"""

import json
from typing import Final, NamedTuple

from tests.http.wire import Header

NOBODYS: Final = "01890000-0000-7000-8000-000000000000"
SESSION: Final = "/sessions/{session}"
TASK: Final = "/tasks/{task}"
OPERATION: Final = "/operations/{operation}"
COMPLETE: Final = f"{OPERATION}/complete"
APPROVE: Final = f"{OPERATION}/approve"
JSON_TYPE: Final = "application/json"


class Bad(NamedTuple):
    """A request, and how it is refused."""

    status: int
    method: str
    path: str
    body: bytes | None = None
    headers: tuple[Header, ...] = ()
    error_type: str = ""
    """Where it is another one than the status's usual one."""


def text(value: object) -> bytes:
    return json.dumps({"text": value}).encode()


def nested(depth: int) -> bytes:
    return b'{"text":' + b"[" * depth + b"]" * depth + b"}"


NOT_JSON: list[bytes] = [
    *(b"{", b"}", b"[", b"nul", b"'text'", b"{'text': 'x'}", b'{"text": }', b'{"text": "x",}', b'{"text": "x"} x'),
    *(b'{"text": "x"', b'{"text": "\xff"}', b'{"text": "\xc3\x28"}', b'{"text": "\\ud800"}', b'{"text": "\\x"}'),
    *(b'{"text": "a\nb"}', b'{"text": "\x00"}', b'{"text": NaN}', b'{"text": Infinity}', b"\x00", b"\xef\xbb\xbf{}"),
    *(b"// {}", b'{"text": 01}', b"--", b"\xff\xfe{\x00}\x00", b"<text>x</text>", b"text=x", b"\x1f\x8b\x08\x00"),
    b'{"text": ' + b"9" * 5_000 + b"}",
]
NOT_A_MESSAGE: list[bytes] = [
    *(b"{}", b"null", b"true", b"1", b'"x"', b"[]", b'["text"]', b"[[]]", b'{"text": null}', b'{"parts": null}'),
    *map(text, [1, 1.5, True, [], {}, ["x"], {"text": "x"}]),
    *map(text, ["", " ", "\n\t", "\u00a0", "\u2003"]),
    b'{"Text": "x"}',
    b'{"text": "x", "role": "system"}',
    b'{"text": "x", "parts": [{"type": "text", "text": "x"}]}',
    b'{"text": "x", "task_id": "1"}',
    b'{"text": "x", "__proto__": {}}',
    b'{"parts": []}',
    b'{"parts": {}}',
    b'{"parts": "x"}',
    b'{"parts": ["x"]}',
    b'{"parts": [null]}',
    b'{"parts": [{}]}',
    b'{"parts": [{"type": "text"}]}',
    b'{"parts": [{"text": "x"}]}',
    b'{"parts": [{"type": "text", "text": 1}]}',
    b'{"parts": [{"type": "text", "text": null}]}',
    b'{"parts": [{"type": "text", "text": " "}]}',
    b'{"parts": [{"type": "TEXT", "text": "x"}]}',
    b'{"parts": [{"type": "file", "url": "https://a.test", "mediaType": "image/png"}]}',
    b'{"parts": [{"type": "text", "text": "x", "state": "done"}]}',
    json.dumps({"parts": [{"type": "text", "text": "x"}] * 101}).encode(),
    nested(100),
    nested(500),
    nested(100_000),
]
NOT_A_SESSION: list[bytes] = [
    *(b"null", b"[]", b"1", b'"x"', b"true", b'{"id": "x"}', b'{"id": null}', b'{"model": 1}', b'{"": 1}'),
    *(b'{"model": ""}', b'{"title": "a\\u0000"}', b'{"owner": "x"}', b'{"max_iterations": 0}', b'{"max_seconds": -1}'),
    *(b'{"max_iterations": 1.5}', b'{"max_iterations": true}', b'{"max_seconds": "1"}', b'{"max_seconds": 1e99}'),
    json.dumps({"system_prompt": "x" * 65_537}).encode(),
    json.dumps({"title": "x" * 201}).encode(),
]
NO_SUCH_TASK = [
    *("x", "0", "-1", "null", "undefined", NOBODYS, NOBODYS.upper().replace("8", "A"), NOBODYS[:-1], NOBODYS + "0"),
    *(f"%20{NOBODYS}", f"{NOBODYS}%20", f"{NOBODYS}%00", f"{{{NOBODYS}}}", f"urn:uuid:{NOBODYS}", "%00", "..", "."),
    *(NOBODYS.replace("-", ""), f"{NOBODYS}%0A", "%2e%2e%2fhealthz", "%F0%9F%9A%80", "%FF", "a" * 2000, "';%20--"),
    *(NOBODYS.replace("0", "%EF%BC%90"), "%EF%BC%90", "*", "$where", "1%2F2", "%25"),
]
NO_SUCH_SESSION = [
    "x",
    NOBODYS,
    "%00",
    "%0A",
    "a%20b",
    "%F0%9F%9A%80",
    "a" * 129,
    "~",
    "';%20--",
    "%FF",
    "..%2F..",
    "%25s",
]
NO_SUCH_ROUTE = [
    *("/index.html", "/console", "/console/", "/console/x.js", "/console/model", "/console/model/x.js"),
    *("/console/../app.py", "/console/..%2f..%2fapp.py", "/console/model/..%2findex.js", "/console/%2e%2e/app.py"),
    *("/sessions/", "/session", "/tasks/", "/SESSIONS", "/sessions/x/y", "/healthz/", "/healthz/x"),
    *(
        "/favicon.ico",
        "/.env",
        "/..",
        "/../../etc/passwd",
        "/%2e%2e/etc/passwd",
        "//healthz",
        "/%00",
        "/\\",
        "/metric",
    ),
    f"/tasks/{NOBODYS}/",
    f"/tasks/{NOBODYS}/streams",
    f"/tasks/{NOBODYS}/stream/",
]
NO_SUCH_METHOD = [
    *(("PUT", "/sessions"), ("DELETE", "/sessions"), ("PATCH", "/tasks"), ("PUT", SESSION), ("POST", SESSION)),
    *(("GET", f"{SESSION}/messages"), ("PUT", f"{SESSION}/messages"), ("POST", f"/tasks/{NOBODYS}")),
    *(("POST", f"/tasks/{NOBODYS}/stream"), ("HEAD", f"/tasks/{NOBODYS}/stream"), ("OPTIONS", "/sessions")),
    *(("POST", "/healthz"), ("DELETE", "/readyz"), ("TRACE", "/sessions"), ("POST", "/tasks")),
]
FOREIGN_HOSTS = [
    *("evil.test", "evil.test:8080", "localhost.evil.test", "127.0.0.1.evil.test", "127.0.0.1@evil.test", "0.0.0.0"),
    *("192.168.0.1", "[::]", "[::2]", "169.254.169.254", "localhost:", "localhost:x", "LOCALHOST.", "1.127.0.0.1"),
    *("", "127.0.0.1:123456", "2130706433", "0x7f.1"),
]
FOREIGN_ORIGINS = [
    *("http://evil.test", "https://evil.test", "null", "", "http://localhost", "http://127.0.0.1", "file://"),
    *("http://localhost:1", "https://HOST", "http://HOST.evil.test", "http://HOST/", "HOST", "http://HOST, http://x"),
]
OTHER_TYPES = [
    *("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json", ""),
    *("application/jsonp", "application/octet-stream", "*/*", "application/problem+json", "application/json5"),
    "text/plain; application/json",
]
NO_POSITIONS = [
    *("", "-", "1", "1-", "-1", "--", "1--1", "-1-1", "1-1-1", "1.0-1", "a-1", "1-a", "0x1-1", "1e3-1", "1_0-1"),
    *("+1-1", "1-+1", "1%202-1", "%D9%A1-1", "12345678901234567-1", "1-1234567890123", "1-1%00", "null", "undefined"),
    *("*", "$", "9" * 300, "%E2%88%92-1", "1%E2%80%931", "0-0-0", "1:1", "1,1", "../..", "%27;--"),
]
HEADER_POSITIONS = [
    *(
        "",
        "-",
        "1",
        "1-",
        "-1",
        "1--1",
        "1-1-1",
        "1.0-1",
        "a-1",
        "0x1-1",
        "+1-1",
        "1 2-1",
        "1- 1",
        "12345678901234567-1",
    ),
    *("1-1234567890123", "null", "*", "$", "9" * 300, "1-1,1-2", b"\xff-1", b"\xd9\xa1-1", b"1\xe2\x80\x931"),
]
NO_LIMITS = ["0", "-1", "x", "", "1e1", "1.0", "+1", "1&limit=1", "%00", "%D9%A1", "0x10", "9" * 30, "null", "1%202"]
NO_CREDENTIALS: list[tuple[Header, ...]] = [
    *(
        (("Authorization", text),)
        for text in ("", "Bearer", "Bearer ", "Bearer x", "bearer x", "Basic YTph", "x", "Token x")
    ),
    *(
        (("Authorization", text),)
        for text in ("Bearer a.b.c", "Bearer ..", "Bearer null", "Bearer x y", "Bearer " + "x" * 7000)
    ),
    *((("Authorization", text),) for text in (b"Bearer \xff", b"\xffearer x", b"Bearer \xe2\x82\xac")),
    (("Authorization", "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ."),),
    (("Authorization", f"Bearer ph_0123456789ab_{'x' * 43}"),),
    *(
        (("X-API-Key", text),)
        for text in ("", "x", "ph_", "ph__", "ph_x_y", "' OR 1=1 --", "ph_" + "a" * 7000, b"ph_\xff")
    ),
    *(
        (("X-API-Key", f"ph_{name}_{secret * 43}"),)
        for name, secret in (("0123456789ab", "x"), ("0123456789AB", "x"), ("0123456789ab", "!"))
    ),
    (("X-API-Key", "x"), ("X-API-Key", "x")),
    (("X-API-Key", "x"), ("Authorization", "Bearer x")),
    (("Authorization", "Bearer x"), ("Authorization", "Bearer x")),
]
DONE: Final = b'{"success": true}'
YES: Final = b'{"approved": true}'
NOT_A_COMPLETION: list[bytes] = [
    *(b"", b"{}", b"null", b"true", b"1", b'"x"', b"[]", b'[{"success": true}]', b'{"success": null}'),
    *(b'{"success": 1}', b'{"success": "true"}', b'{"success": []}', b'{"Success": true}', b'{"result": 1}'),
    *(b'{"success": true, "error": "x"}', b'{"success": true, "error_type": "x"}', b'{"success": true, "details": 1}'),
    *(b'{"success": true, "error": null}', b'{"success": false, "result": 1}', b'{"success": false, "result": null}'),
    *(b'{"success": false, "error": 1}', b'{"success": false, "error_type": ""}', b'{"error": "x"}'),
    *(b'{"success": false, "error_type": "Not_so"}', b'{"success": false, "error_type": "a b"}'),
    *(b'{"success": false, "error_type": "a\\u0000"}', b'{"success": false, "error_type": null, "x": 1}'),
    *(b'{"progress": 1, "success": true}', b'{"progress": 1, "success": null}', b'{"progress": 1, "result": 1}'),
    *(b'{"progress": null, "error": "x"}', b'{"success": true, "status": "succeeded"}', b'{"success": true, "": 1}'),
    *(b'{"success": true, "operation_id": 1}', b'{"success": true, "operation_id": ""}'),
    *(b'{"success": true, "operation_id": "x"}', b'{"success": true, "operation_id": "\\u0000"}'),
    b'{"success": true, "operation_id": "%s"}' % NOBODYS.encode(),
    b'{"progress": 1, "operation_id": "%s"}' % NOBODYS.encode(),
    b'{"success": true, "task_id": "%s"}' % NOBODYS.encode(),
    b'{"progress": 1, "task_id": "%s"}' % NOBODYS.encode(),
    *(
        b'{"success": true, "task_id": ""}',
        b'{"success": true, "task_id": "\\u0000"}',
        b'{"success": true, "task_id": 1}',
    ),
    *(b'{"success": true, "task_id": "a b"}', b'{"success": true, "__proto__": {}}'),
    json.dumps({"success": False, "error": "x" * 2001}).encode(),
    json.dumps({"success": False, "error_type": "x" * 65}).encode(),
    json.dumps({"success": False, "details": "x" * 65_536}).encode(),
    json.dumps({"progress": "x" * 16_384}).encode(),
    json.dumps({"success": True, "task_id": "x" * 129}).encode(),
    json.dumps({f"field{n}": n for n in range(50)}).encode(),
    b'{"success": true, "result": ' + b"[" * 65 + b"]" * 65 + b"}",
    b'{"success": true, "result": ' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}",
    b'{"success": false, "details": ' + b"[" * 65 + b"]" * 65 + b"}",
    b'{"success": true, "result": [' + b",".join([b"1"] * 50_000) + b"]}",
]
NO_ANSWER_TO_ANYTHING: list[bytes] = [
    *(
        b"",
        b"{}",
        b"null",
        b"true",
        b'"yes"',
        b"[]",
        b'{"approved": null}',
        b'{"approved": "true"}',
        b'{"approved": 1}',
    ),
    *(b'{"Approved": true}', b'{"approved": true, "answer": 1}', b'{"approved": null, "answer": null}'),
    *(b'{"approved": true, "reason": "x"}', b'{"approved": true, "reason": null}', b'{"answer": 1, "reason": "x"}'),
    *(b'{"approved": false, "reason": 1}', b'{"approved": false, "reason": "\\u0000"}', b'{"reason": "x"}'),
    *(b'{"approved": false, "success": false}', b'{"answer": 1, "": 1}', b'{"approved": false, "by": "me"}'),
    json.dumps({"approved": False, "reason": "x" * 2001}).encode(),
    b'{"answer": ' + b"[" * 65 + b"]" * 65 + b"}",
    b'{"answer": [' + b",".join([b"1"] * 1000) + b"]}",
]
UNASKED_ANSWERS: list[bytes] = [YES, b'{"approved": false, "reason": "x"}', b'{"answer": "x"}']
NO_SIGNATURES: list[tuple[Header, ...]] = [
    (("webhook-id", message_id), ("webhook-timestamp", seconds), ("webhook-signature", signature))
    for message_id, seconds, signature in (
        *(("m", "1", "v1,x"), ("", "", ""), ("m", "99999999999", "v1,x"), ("a b", "1", "v1,x"), ("m", "-1", "v1,x")),
        *(("m", "x", "v1,x"), ("m", "1e9", "v1,x"), ("m", "1", "x" * 2049), ("m" * 256, "1", "v1,x"), ("m", "1", "\t")),
        *((b"\xff", "1", "v1,x"), ("m", "1", b"v1,\xff"), ("m", "1700000000", "v1a,x v1,y")),
    )
]
NO_SIGNATURES += [
    (("webhook-signature", "v1,x"),),
    (("webhook-signature", "v1,x"), ("webhook-signature", "v1,x")),
    (("webhook-signature", "v1,x"), ("X-API-Key", "x")),
    (("webhook-id", "m"), ("webhook-timestamp", "1"), ("webhook-signature", "v1,x"), ("Authorization", "Bearer x")),
]
NO_TOKENS = ["", "x", "..", "a.b.c", "%00", "%FF", "x&token=x", "x" * 5000, "eyJhbGciOiJub25lIn0.e30.", "null"]
NO_SETTINGS = [
    *(
        b'{"title": ""}',
        b'{"title": 1}',
        b'{"title": ["x"]}',
        b'{"model": {}}',
        b'{"model": "\\u0000"}',
        b'{"system_prompt": ""}',
    ),
    *(b'{"max_iterations": 0}', b'{"max_iterations": 1001}', b'{"max_iterations": "1"}', b'{"max_iterations": 2.5}'),
    *(
        b'{"max_iterations": 99999999999999999999}',
        b'{"max_seconds": 0.5}',
        b'{"max_seconds": 86401}',
        b'{"max_seconds": []}',
    ),
    *(
        b'{"max_seconds": 1e300}',
        b'{"max_seconds": true}',
        b'{"Title": "x"}',
        b'{"settings": {}}',
        b'{"status": "idle"}',
    ),
    *(b'{"created_at": null}', b'{"id": "x"}', b'[{"title": "x"}]', b'"title"', b"0", b"false"),
]
DEEP = [
    *(b"[" * depth + b"]" * depth for depth in (2, 127, 400, 900, 1100, 20_000)),
    *(b'{"a":' * depth + b"1" + b"}" * depth for depth in (2, 127, 400, 900, 1100, 20_000)),
    *(b'{"title":' * depth + b'"x"' + b"}" * depth for depth in (2, 900)),
]
NOTHING_TO_SAY = [b"[]", b"null", b'"x"', b"1", b'{"reason": "x"}', b'{"": 1}', b'{"token": null}', b'{"ttl": 1}']
LARGE = b'{"text":"' + b"x" * (1024 * 1024) + b'"}'
TABLE: dict[str, list[Bad]] = {
    "a body that is not JSON": [Bad(400, "POST", f"{SESSION}/messages", body) for body in NOT_JSON],
    "the same for a session": [Bad(400, "POST", "/sessions", body) for body in NOT_JSON[:6]],
    "JSON that is no message": [Bad(422, "POST", f"{SESSION}/messages", body) for body in NOT_A_MESSAGE],
    "a change that is none": [
        Bad(422, "PATCH", SESSION, body) for body in (*NOT_A_SESSION[5:6], b'{"owner": ""}', b'{"messages": []}')
    ],
    "no place in a list": [
        Bad(422, "GET", f"{path}?{name}={value}")
        for path, name in (("/sessions", "before"), ("/tasks", "before"), (f"{SESSION}/tasks", "after"))
        for value in ("", "x", "-1", "1.5", "9" * 20, "9223372036854775808", "%D9%A1", f"1&{name}=2", "+1")
    ],
    "no number of entries": [
        Bad(422, "GET", f"/sessions?limit={value}") for value in ("0", "101", "-1", "x", "", "1e1", "1&limit=1")
    ],
    "no task that could be": [
        Bad(422, "GET", f"/tasks?{query}")
        for query in (
            *(
                "status=done",
                "status=",
                "status=queued&status=queued",
                "status=%00",
                "kind=x",
                "kind=turn%00",
                "session=",
            ),
            *("owner=", "owner=a&owner=b", f"owner={'x' * 256}", f"session={'x' * 256}", "session=a&session=b"),
            *("owner=%00", "session=%00", "owner=a%00b", "session="),
        )
    ],
    "no key": [
        Bad(422, "POST", path, body, tuple(("Idempotency-Key", key) for key in keys))
        for path, body in (("/sessions", b"{}"), (f"{SESSION}/messages", text("Hi")))
        for keys in (("",), ("a b",), ("x" * 129,), ("\u00e9",), ("a", "a"))
    ],
    "no such way to be answered": [
        Bad(422, "POST", f"{SESSION}/messages?stream={value}", text("Hi")) for value in ("0", "true", "", "1&stream=1")
    ],
    "JSON that is no session": [Bad(422, "POST", "/sessions", body) for body in NOT_A_SESSION],
    "no message at all": [Bad(422, "POST", f"{SESSION}/messages"), Bad(422, "POST", f"{SESSION}/messages", b"")],
    "a message that is too large": [
        Bad(413, "POST", f"{SESSION}/messages", text("x" * 131_073)),
        Bad(413, "POST", f"{SESSION}/messages", text("\u20ac" * 50_000)),
        Bad(413, "POST", f"{SESSION}/messages", text("\x00" * 32_768)),
        Bad(413, "POST", f"{SESSION}/messages", LARGE, (), "body_too_large"),
        Bad(413, "POST", "/sessions", LARGE, (), "body_too_large"),
    ],
    "another content type": [
        Bad(415, "POST", f"{SESSION}/messages", text("x"), (("Content-Type", kind),)) for kind in OTHER_TYPES
    ],
    "an id that names no task": [Bad(404, "GET", f"/tasks/{name}") for name in NO_SUCH_TASK],
    "and none to follow": [
        Bad(404, "GET", f"/tasks/{name}/stream") for name in NO_SUCH_TASK if name not in {"..", "."}
    ],
    "an id that names no session": [Bad(404, "GET", f"/sessions/{name}") for name in NO_SUCH_SESSION],
    "and none to post to": [Bad(404, "POST", f"/sessions/{name}/messages", text("x")) for name in NO_SUCH_SESSION],
    "a route that there is not": [Bad(404, "GET", path) for path in NO_SUCH_ROUTE],
    "a method that there is not": [Bad(405, method, path) for method, path in NO_SUCH_METHOD],
    "a foreign host (pitfall 52)": [
        Bad(403, "POST", "/sessions", None, (("Host", host),), "forbidden_host") for host in FOREIGN_HOSTS
    ],
    "a foreign origin": [Bad(403, "POST", "/sessions", None, (("Origin", origin),)) for origin in FOREIGN_ORIGINS],
    "a page before what is no message": [
        Bad(422, "GET", f"{SESSION}?before={value}")
        for value in ("", "%00", "%0A", "a%20b", "%FF", "a" * 129, "x&before=x")
    ],
    "two ways with gaps": [Bad(422, "GET", f"{TASK}/stream?on_gap=tell&on_gap={way}") for way in ("tell", "x")],
    "an unknown way with gaps": [
        Bad(422, "GET", f"{TASK}/stream?on_gap={value}") for value in ("", "REFUSE", "1", "%00", "tell%20")
    ],
    "no position": [
        Bad(400, "GET", f"{TASK}/{where}={position}", error_type="validation_error")
        for where in ("stream?last_message_id", "events?after")
        for position in NO_POSITIONS
    ],
    "no position in the header": [
        Bad(400, "GET", f"{TASK}/stream", None, (("Last-Event-ID", position),), "validation_error")
        for position in HEADER_POSITIONS
    ],
    "two positions": [
        Bad(400, "GET", f"{TASK}/events?after=0-0&after=0-0", error_type="validation_error"),
        Bad(400, "GET", f"{TASK}/stream?last_message_id=0-0&last_message_id=0-0", error_type="validation_error"),
        Bad(400, "GET", f"{TASK}/stream", None, (("Last-Event-ID", "0-0"),) * 2, "validation_error"),
        Bad(400, "GET", f"{TASK}/stream?last_message_id=x", None, (("Last-Event-ID", "0-0"),), "validation_error"),
    ],
    "no limit": [
        Bad(422, "GET", f"{path}?limit={value}")
        for path, most in (("/tasks", 100), (f"{SESSION}/tasks", 100), (f"{TASK}/events", 1000))
        for value in (*NO_LIMITS, most + 1)
    ],
    "nobody's credential": [
        Bad(401, method, path, body, headers)
        for method, path, body in (("GET", TASK, None), ("POST", f"{SESSION}/messages", text("Hi")))
        for headers in NO_CREDENTIALS
    ],
    "no stream token": [
        Bad(401, method, f"{path}?token={token}")
        for method, path in (("GET", f"{TASK}/stream"), ("GET", TASK), ("DELETE", SESSION))
        for token in NO_TOKENS
    ],
    "no settings": [
        Bad(422, method, path, body)
        for method, path in (("POST", "/sessions"), ("PATCH", SESSION))
        for body in NO_SETTINGS
    ],
    "no owner": [
        Bad(422, "PATCH", SESSION, body)
        for body in (
            b'{"owner": ""}',
            b'{"owner": 1}',
            b'{"owner": "\\u0000"}',
            b'{"owner": "ann\\n"}',
            b'{"owner": "ann\\u0085"}',
            json.dumps({"owner": "x" * 256}).encode(),
        )
    ],
    "a change that is not JSON": [Bad(400, "PATCH", SESSION, body) for body in NOT_JSON],
    "nothing is to be said here": [
        Bad(422, "POST", f"{TASK}/{what}", body) for what in ("cancel", "token") for body in NOTHING_TO_SAY
    ],
    "nor what is not JSON": [
        Bad(400, "POST", f"{TASK}/{what}", body) for what in ("cancel", "token") for body in NOT_JSON[:8]
    ],
    "nested": [
        Bad(422, method, path, body)
        for method, path in (
            ("POST", "/sessions"),
            ("PATCH", SESSION),
            ("POST", f"{TASK}/cancel"),
            ("POST", f"{SESSION}/messages"),
        )
        for body in DEEP
    ],
    "compressed": [
        Bad(415, method, path, b"{}", (("Content-Encoding", coding),))
        for method, path in (("PATCH", SESSION), ("POST", f"{SESSION}/messages"), ("POST", f"{TASK}/cancel"))
        for coding in ("gzip", "br", "x", "")
    ],
    "another content type elsewhere": [
        Bad(415, method, path, b"{}", (("Content-Type", kind),))
        for method, path in (("PATCH", SESSION), ("POST", f"{TASK}/cancel"), ("POST", f"{TASK}/token"))
        for kind in OTHER_TYPES
    ],
    "too large elsewhere": [
        Bad(413, method, path, LARGE, (), "body_too_large")
        for method, path in (("PATCH", SESSION), ("POST", f"{TASK}/cancel"), ("POST", f"{TASK}/token"))
    ],
    "a task that there is not": [
        Bad(404, method, f"/tasks/{name}/{what}")
        for method, what in (
            ("POST", "cancel"),
            ("POST", "token"),
            ("GET", "events"),
            ("GET", "verify"),
            ("GET", "export"),
        )
        for name in ("x", NOBODYS, "%00", "%FF", "a" * 2000, "1%2F2")
    ],
    "a session that there is not": [
        Bad(404, method, f"/sessions/{name}{what}", body)
        for method, what, body in (
            ("PATCH", "", b"{}"),
            ("DELETE", "", None),
            ("GET", "/tasks", None),
            ("GET", "/stream", None),
        )
        for name in ("x", NOBODYS, "%00", "%FF", "a" * 2000, "1%2F2")
    ],
    "a completion that is none": [Bad(422, "POST", COMPLETE, body) for body in NOT_A_COMPLETION],
    "nor what is no JSON (pitfall 27)": [Bad(422, "POST", COMPLETE, body) for body in NOT_JSON],
    "an answer that is none": [Bad(422, "POST", APPROVE, body) for body in (*NO_ANSWER_TO_ANYTHING, *UNASKED_ANSWERS)],
    "and what is no JSON": [
        Bad(400, "POST", f"{OPERATION}/{what}", b) for what in ("approve", "cancel") for b in NOT_JSON
    ],
    "nothing is to be said of the cancellation of an operation": [
        Bad(422, "POST", f"{OPERATION}/cancel", body) for body in NOTHING_TO_SAY
    ],
    "nested where operations are": [
        Bad(422, "POST", f"{OPERATION}/{what}", body) for what in ("complete", "approve", "cancel") for body in DEEP
    ],
    "compressed, of another type, or too large where operations are": [
        bad
        for what, body in (("complete", DONE), ("approve", YES), ("cancel", b"{}"))
        for bad in (
            *(Bad(415, "POST", f"{OPERATION}/{what}", body, (("Content-Encoding", c),)) for c in ("gzip", "x", "")),
            *(Bad(415, "POST", f"{OPERATION}/{what}", body, (("Content-Type", kind),)) for kind in OTHER_TYPES),
            Bad(413, "POST", f"{OPERATION}/{what}", LARGE, (), "body_too_large"),
        )
    ],
    "a name for a completion that is none (pitfall 58)": [
        Bad(422, "POST", COMPLETE, DONE, tuple((header, name) for name in names))
        for header, most in (("Idempotency-Key", 128), ("webhook-id", 255))
        for names in (("",), ("a b",), ("x" * (most + 1),), ("\u00e9",), ("a", "a"), (b"\xff",), (b"a\tb",))
    ],
    "nobody's signature": [Bad(401, "POST", COMPLETE, DONE, headers) for headers in NO_SIGNATURES],
    "nobody's credential for an operation": [
        Bad(401, method, path, body, headers)
        for method, path, body in (("POST", COMPLETE, DONE), ("POST", APPROVE, YES), ("GET", OPERATION, None))
        for headers in NO_CREDENTIALS
    ],
    "no stream token for an operation": [
        Bad(401, "POST", f"{OPERATION}/{what}?token={token}", body)
        for what, body in (("complete", DONE), ("cancel", None))
        for token in NO_TOKENS
    ],
    "an operation that there is not": [
        Bad(404, method, f"/operations/{name}{what}", body)
        for method, what, body in (
            ("GET", "", None),
            ("POST", "/complete", DONE),
            ("POST", "/approve", YES),
            ("POST", "/cancel", None),
            ("POST", "/redrive", None),
        )
        for name in NO_SUCH_TASK
        if name not in {"..", "."}
    ],
    "no operation that could be": [
        Bad(422, "GET", f"/operations?{query}")
        for query in (
            *(f"limit={value}" for value in (*NO_LIMITS, 101)),
            *(f"before={value}" for value in ("", "x", "-1", "1.5", "9" * 20, "1&before=2")),
            *("status=done", "status=", "status=pending&status=pending", "status=%00", "executor=x", "executor="),
            *("stuck=0", "stuck=", "stuck=true", "stuck=1&stuck=1", "tool=", "tool=%00", "session=", "session=a%00"),
            *(f"tool={'x' * 256}", "tool=a&tool=b", "session=a&session=b"),
        )
    ],
    "what operations do not take": [
        Bad(405, method, path)
        for method, path in (
            *(("GET", COMPLETE), ("PUT", COMPLETE), ("GET", APPROVE), ("DELETE", OPERATION), ("POST", "/operations")),
            *(("PATCH", OPERATION), ("GET", f"{OPERATION}/cancel"), ("POST", OPERATION)),
        )
    ],
    "no dead letters that could be": [
        *(Bad(422, "GET", f"/dead-letters?limit={value}") for value in (*NO_LIMITS, 1001)),
        *(
            Bad(422, "POST", "/dead-letters/redrive", json.dumps(body).encode())
            for body in (
                *({"id": id_} for id_ in ("", "x", "0" * 15, "0" * 17, "A" * 16, "0" * 15 + "\n", 1)),
                *({"reason": reason} for reason in ("", "x", "FAILED", 1, ["failed"])),
                *({"id": "0" * 16, "reason": "failed"}, {"id": None}, {"reason": None}, {"all": True}, []),
            )
        ),
        *(Bad(405, method, "/dead-letters") for method in ("POST", "DELETE")),
        Bad(405, "GET", "/dead-letters/redrive"),
    ],
    "an expectation": [Bad(417, "POST", "/sessions", b"{}", (("Expect", value),)) for value in ("x", "200-ok", "100")],
}

USUAL_TYPES: Final = {
    400: "malformed_json",
    401: "unauthenticated",
    403: "forbidden_origin",
    404: "not_found",
    405: "method_not_allowed",
    413: "message_too_large",
    415: "unsupported_media_type",
    417: "http_error",
    422: "validation_error",
}
