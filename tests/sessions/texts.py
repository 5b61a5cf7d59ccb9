"""Texts that some store, some encoding or some parser has trouble with; each must come back as it went in."""

from typing import Final

ODD_TEXTS: Final = {
    "NUL (pitfall 59)": "a\x00b\x00",
    "a NUL alone": "\x00",
    "the six characters of an escaped NUL": r"\u0000",
    "every control character": "".join(map(chr, range(32))) + "\x7f" + "".join(map(chr, range(0x80, 0xA0))),
    "line ends of all kinds": "a\r\nb\rc\nd\x0be\x0cf\x85g\u2028h\u2029i",
    "quotes and backslashes": "\\\"'`$$ $1 %s {0} \\n \\",
    "SQL": "'); DROP TABLE sessions; --",
    "spaces around": "  \t spaced \u00a0\u3000 ",
    "a byte order mark in front": "\ufeffBOM",
    "noncharacters": "\ufffe\uffff\U0001fffe\U0010ffff",
    "the replacement character": "\ufffd",
    "private use": "\ue000\U000f0000\U0010fffd",
    "beyond the basic plane": "\U0001f9d1\u200d\U0001f680 \U00020000 \U0001d11e",
    "not normalized": "e\u0301 \u00e9 \u1e9b\u0323 \ufb01",
    "right to left": "\u202eabc\u202c \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "combining without a base": "\u0301\u0489" * 50,
    "zero width": "\u200b\u200c\u200d\u2060",
    "JSON": '{"type":"text","text":"x"}',
    "an SSE frame": 'id: 1-1\ndata: {"type":"finish"}\n\n',
    "128 KiB": "x" * 131_072,
    "128 KiB of four-byte characters": "\U0001f680" * 32_768,
    "32 KiB of NUL, 192 KiB as JSON": "\x00" * 32_767,
}
