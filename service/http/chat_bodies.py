"""What `useChat` posts, and what of it is believed: which chat, what is wanted, and one message.

The hook posts its whole history. Conversations are kept here, so none of it is looked at but the user's last message,
or which approvals are answered, and how, in the message that is named.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.http import bodies
from service.http.operation_bodies import MAX_REASON_CHARACTERS
from service.http.problems import invalid
from service.model.encoding import plain
from service.model.errors import InvalidInput, NotFound
from service.model.events import TextPart
from service.model.ids import MessageId, OperationId, parse_operation_id
from service.model.operation import Approval
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


@dataclass(frozen=True, slots=True)
class Answered:
    """What was asked in the answer with this id has been answered."""

    chat_id: str
    message_id: str
    approvals: Mapping[OperationId, Approval]


Asked = Submit | Again | NewestAgain | GoOn | Answered

RESPONDED: Final = "approval-responded"
"""The state of a tool's part whose approval the hook's user has answered."""

_Id = Annotated[str, Field(pattern=r"^[!-~]{1,128}\z", json_schema_extra={"pattern": "^[!-~]{1,128}$"})]


class _Loose(BaseModel):
    """As posted by a client whose other fields are its own."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, hide_input_in_errors=True)


def _an_operation(text: str) -> str:
    try:
        return parse_operation_id(text)
    except NotFound:
        raise ValueError("This is no operation's id.") from None


class ChatApproval(_Loose):
    """A person's yes or no. The reason of a no is told to the model; a yes needs none."""

    id: Annotated[str, AfterValidator(_an_operation), Field(json_schema_extra={"format": "uuid"})]
    approved: bool
    reason: Annotated[bodies.Text, Field(max_length=MAX_REASON_CHARACTERS)] | None = None


class ChatPart(_Loose):
    """A part of a message: of a user's, `type` is `text`; of an assistant's only answered approvals are looked at.

    Of those `type` is `tool-…` or `dynamic-tool`, and `state` is `approval-responded`.
    """

    type: str
    text: str = ""
    state: str = ""
    approval: ChatApproval | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "ChatPart":
        if self.state == RESPONDED and self.approval is None:
            raise ValueError("An answer has an `approval`, with `id` and `approved`.")
        return self


class ChatMessage(_Loose):
    """A message as the hook has it."""

    id: _Id
    role: Literal["user", "assistant", "system"]
    parts: Annotated[list[ChatPart], Field(max_length=MAX_PARTS)] = []

    def said(self) -> NewMessage:
        if any(part.type != "text" for part in self.parts):
            raise InvalidInput("A message takes text only: files and other parts cannot be sent yet.")
        return NewMessage(tuple(TextPart(part.text) for part in self.parts), MessageId(self.id))

    def approvals(self) -> Mapping[OperationId, Approval]:
        """What was answered."""
        given = [part.approval for part in self.parts if part.approval is not None]
        said = {OperationId(each.id): Approval(each.approved, None if each.approved else each.reason) for each in given}
        if len(said) < len(given):
            raise InvalidInput("An approval is answered once in a message.")
        return said


class Chat(_Loose):
    """What is posted. Other fields, and all messages but the last one and one that is named, may be anything."""

    id: _Id
    trigger: Literal["submit-message", "regenerate-message"]
    messageId: _Id | None = None  # noqa: N815
    messages: list[ChatMessage]
    """The one that is looked at, if there is any."""


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
        answer_id = chat.messageId or last.id
        approvals = last.approvals()
        return Answered(chat.id, answer_id, approvals) if approvals else GoOn(answer_id)
    return Submit(chat.id, said) if chat.messageId is None else Again(chat.id, said, is_edited=True)


def _checked(posted: dict[str, Any]) -> Chat:
    given = {name: posted[name] for name in Chat.model_fields if name in posted}
    if isinstance(messages := given.get("messages"), list):
        given["messages"] = _looked_at(messages, posted)
    try:
        return Chat.model_validate(given)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None


def _looked_at(messages: list[Any], posted: dict[str, Any]) -> list[Any]:
    """The answer that is to be gone on with, wherever it stands, if one is named; else the last message."""
    named = posted.get("messageId") if posted.get("trigger") == "submit-message" else None
    for message in reversed(messages) if named is not None else ():
        if isinstance(message, dict) and message.get("role") == "assistant" and message.get("id") == named:
            return [_with_parts(message, _answered_parts(message))]
    return [_said(message) for message in messages[-1:]]


def _answered_parts(message: dict[str, Any]) -> list[Any]:
    parts = message.get("parts")
    answered = filter(_is_answered, parts if isinstance(parts, list) else [])
    return [_only(part, "type", "state", "approval") for part in answered]


def _is_answered(part: Any) -> bool:
    if not isinstance(part, dict) or part.get("state") != RESPONDED:
        return False
    kind = part.get("type")
    return isinstance(kind, str) and (kind.startswith("tool-") or kind == "dynamic-tool")


def _said(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    if message.get("role") != "user":
        return _with_parts(message, [])
    parts = message.get("parts", [])
    return _with_parts(message, [_only(part, "type", "text") for part in parts] if isinstance(parts, list) else parts)


def _with_parts(message: dict[str, Any], parts: Any) -> dict[str, Any]:
    return message | {"parts": parts}


def _only(value: Any, *names: str) -> Any:
    return {name: value[name] for name in names if name in value} if isinstance(value, dict) else value
