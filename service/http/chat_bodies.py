"""What `useChat` posts, and what of it is believed: which chat, what is wanted, and the last message.

The hook posts its whole history. Conversations are kept here, so none of it is looked at but the last message.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.http import bodies
from service.http.problems import invalid
from service.model.encoding import plain
from service.model.errors import InvalidInput
from service.model.events import TextPart
from service.model.ids import MessageId
from service.model.session import IdempotencyKey, NewMessage

MAX_CHAT_BYTES: Final = 16 * 1024 * 1024
"""A chat's whole history comes with each of its messages."""

MAX_CHAT_VALUES: Final = 100_000
"""So many values are made before they are thrown away."""

MAX_PARTS: Final = 100


@dataclass(frozen=True, slots=True)
class Submit:
    """A new message."""

    chat_id: str
    message: NewMessage

    @property
    def key(self) -> IdempotencyKey:
        """The same for a repeat. With a space in it, no client can send it as its own."""
        digest = sha256(orjson.dumps([self.message.id, [plain(part) for part in self.message.parts]]))
        return IdempotencyKey(f"chat {digest.hexdigest()}", digest.digest())


@dataclass(frozen=True, slots=True)
class Again:
    """Another answer to a message of the user's; in these words, where it was edited."""

    chat_id: str
    message: NewMessage
    is_edited: bool


@dataclass(frozen=True, slots=True)
class NewestAgain:
    """Another answer to whatever the user said last."""

    chat_id: str


@dataclass(frozen=True, slots=True)
class GoOn:
    """The answer with this id is to be gone on with."""

    message_id: str


Asked = Submit | Again | NewestAgain | GoOn

_Id = Annotated[str, Field(pattern=r"^[!-~]{1,128}\z", json_schema_extra={"pattern": "^[!-~]{1,128}$"})]


class _Loose(BaseModel):
    """As posted by a client whose other fields are its own."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, hide_input_in_errors=True)


class ChatPart(_Loose):
    """A part of a message; of a user's, `type` is `text`."""

    type: str
    text: str = ""


class ChatMessage(_Loose):
    """A message as the hook has it."""

    id: _Id
    role: Literal["user", "assistant", "system"]
    parts: Annotated[list[ChatPart], Field(max_length=MAX_PARTS)] = []

    def said(self) -> NewMessage:
        if any(part.type != "text" for part in self.parts):
            raise InvalidInput("A message takes text only: files and other parts cannot be sent yet.")
        return NewMessage(tuple(TextPart(part.text) for part in self.parts), MessageId(self.id))


class Chat(_Loose):
    """What is posted. Other fields, and all messages but the last one, may be anything."""

    id: _Id
    trigger: Literal["submit-message", "regenerate-message"]
    messageId: _Id | None = None  # noqa: N815
    messages: list[ChatMessage]
    """The last one, if there is any."""


def parse_chat(raw: bytes) -> Asked:
    """What is asked. Raises Problem and InvalidInput; both name what is wrong."""
    chat = _checked(bodies.parse_object(raw, MAX_CHAT_VALUES))
    last = chat.messages[0] if chat.messages else None
    said = last.said() if last is not None and last.role == "user" else None
    if chat.trigger == "regenerate-message":
        return NewestAgain(chat.id) if said is None else Again(chat.id, said, is_edited=False)
    if last is None:
        raise InvalidInput("There is no message in `messages`.")
    if said is None or chat.messageId not in (None, last.id):  # it names an answer then, which may be an earlier one
        return GoOn(chat.messageId or last.id)
    return Submit(chat.id, said) if chat.messageId is None else Again(chat.id, said, is_edited=True)


def _checked(posted: dict[str, Any]) -> Chat:
    given = {name: posted[name] for name in Chat.model_fields if name in posted}
    if isinstance(messages := given.get("messages"), list):
        given["messages"] = [_without_answer(message) for message in messages[-1:]]
    try:
        return Chat.model_validate(given)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None


def _without_answer(message: Any) -> Any:
    if isinstance(message, dict) and message.get("role") != "user":
        return {name: value for name, value in message.items() if name != "parts"}
    return message
