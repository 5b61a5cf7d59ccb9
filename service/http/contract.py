"""The contract of each route. `openapi` makes the document from it."""

from collections.abc import Mapping
from typing import Any, Final, get_args

from service.http import answers, bodies, operation_bodies, paths
from service.http.chat_bodies import Chat
from service.http.route import JSONL, SSE, TEXT, Answer, Contract, Parameter
from service.model.completion import CompletionBody
from service.model.errors import (
    KeyReused,
    MailboxFull,
    MessageExists,
    NoBroker,
    NotAsked,
    NotFound,
    NothingFailed,
    OperationEnded,
    PlayheadError,
    SessionBusy,
    SessionOwned,
    UnknownMessage,
)
from service.model.events import OperationStatus
from service.model.intake import MAX_LETTERS
from service.model.operation import Executor
from service.model.position import InvalidPosition
from service.model.task import TaskKind, TaskStatus
from service.registry.event_page import LogGone
from service.registry.export import LogStillOpen
from service.sessions.conversations import MessageTooLarge

_PLACE: Final = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_ID: Final = {"type": "string", "pattern": "^[!-~]{1,128}$"}
_WEBHOOK_ID: Final = {"type": "string", "pattern": "^[!-~]{1,255}$"}
_NAME: Final = {"type": "string", "minLength": 1, "maxLength": paths.MAX_TEXT, "pattern": bodies.NO_NUL}
_POSITION: Final = {"type": "string", "pattern": "^[0-9]{1,16}-[0-9]{1,12}$"}


def _limit(usual: int = paths.USUAL_ENTRIES, most: int = paths.MAX_ENTRIES) -> Parameter:
    schema = {"type": "integer", "minimum": 1, "maximum": most, "default": usual}
    return Parameter("limit", schema, "How many at once, at most")


def _place(name: str) -> Parameter:
    return Parameter(name, _PLACE, "A place in the list, out of an earlier answer")


def _choice(name: str, says: str, *words: str) -> Parameter:
    return Parameter(name, {"type": "string", "enum": list(words)}, says)


def _position(name: str, says: str, place: Any = "query") -> Parameter:
    return Parameter(name, _POSITION, says, place, InvalidPosition)


def _stream(says: str) -> Answer:
    return Answer(200, f"{says}, as server-sent events", answers.Frame, SSE)


_KEY: Final = Parameter("Idempotency-Key", _ID, "Makes a repeat of this request harmless, for a day", "header")
_ON_GAP: Final = _choice("on_gap", "Whether a gap is told in the stream, or refused", "tell", "refuse")
_LAST_EVENT_ID: Final = _position("Last-Event-ID", "The last position that was seen: go on behind it", "header")
_IF_NONE_MATCH: Final = Parameter("If-None-Match", {"type": "string"}, "An `ETag` that the client has", "header", None)
_DONE: Final = Answer(204, "Done")

CREATE_SESSION: Final = Contract(
    "create_session",
    "A new session",
    (Answer(201, "The session", answers.SettledSession),),
    (_KEY,),
    bodies.CreateSession,
    (KeyReused, NotFound),
)
LIST_SESSIONS: Final = Contract(
    "list_sessions",
    "Your sessions, the newest first",
    (Answer(200, "Sessions", answers.SessionList),),
    (_limit(), _place("before")),
)
READ_SESSION: Final = Contract(
    "read_session",
    "A session with its newest messages",
    (Answer(200, "The session", answers.Session),),
    (Parameter("before", _ID, "A message's id: those before it are asked for", refused=UnknownMessage),),
)
CHANGE_SESSION: Final = Contract(
    "change_session",
    "Change settings; null unsets one. An owner is given once",
    (_DONE,),
    body=bodies.ChangeSession,
    raises=(SessionOwned,),
)
DELETE_SESSION: Final = Contract(
    "delete_session", "Delete a session; what runs of it is cancelled, and its messages and logs go", (_DONE,)
)
POST_MESSAGE: Final = Contract(
    "post_message",
    "Post a message: a turn begins, or it waits in the mailbox of the one that runs",
    (
        Answer(202, "What became of it", answers.Posted),
        _stream("With `stream=1`: the log of the task that takes the message"),
    ),
    (_KEY, _choice("stream", "Answer with the stream", "1")),
    bodies.PostMessage,
    (MessageTooLarge, MailboxFull, KeyReused, LogGone),
)
FOLLOW_SESSION: Final = Contract(
    "follow_session",
    "The stream of the turn that runs, or else of the one that is queued",
    (_stream("The whole log"), Answer(204, "No turn is there")),
    raises=(LogGone,),
)
LIST_SESSION_TASKS: Final = Contract(
    "list_session_tasks",
    "A session's tasks in their order",
    (Answer(200, "Tasks", answers.SessionTasks),),
    (_limit(), _place("after")),
)
LIST_TASKS: Final = Contract(
    "list_tasks",
    "The newest tasks first",
    (Answer(200, "Tasks", answers.TaskList),),
    (
        _limit(),
        _place("before"),
        _choice("status", "Those that stand so", *get_args(TaskStatus)),
        _choice("kind", "Those of this kind", *get_args(TaskKind)),
        Parameter("session", _NAME, "Those of this session"),
        Parameter("owner", _NAME, "Those of this owner"),
    ),
)
READ_TASK: Final = Contract("read_task", "How a task stands", (Answer(200, "The task", answers.Task),))
CANCEL_TASK: Final = Contract(
    "cancel_task",
    "Have a task ended as cancelled",
    (
        Answer(202, "It will end; its log says when", answers.Task),
        Answer(200, "It had ended already", answers.Task),
    ),
    body=bodies.CancelTask,
)
FOLLOW_TASK: Final = Contract(
    "follow_task",
    "A task's log from a position on, what is there and then live",
    (_stream("The log behind that position"), Answer(204, "That position is the end")),
    (_LAST_EVENT_ID, _position("last_message_id", "The same, where no header can be sent"), _ON_GAP),
    raises=(LogGone,),
)
LIST_EVENTS: Final = Contract(
    "list_events",
    "The next events behind a position, for programs that poll",
    (Answer(200, "Events", answers.EventPage),),
    (_limit(paths.USUAL_EVENTS, paths.MAX_EVENTS), _position("after", "Those behind this position")),
    raises=(LogGone,),
)
VERIFY_TASK: Final = Contract(
    "verify_task", "The proof of a task's log", (Answer(200, "What was found out", answers.Verdict),)
)
EXPORT_TASK: Final = Contract(
    "export_task",
    "The log of a task that has ended, as a file",
    (
        Answer(200, "A manifest, the events, the counts and the SHA-256, a line each", answers.Line, JSONL, ("ETag",)),
        Answer(304, "The client has it already", headers=("ETag",)),
    ),
    (_IF_NONE_MATCH, _choice("redact", "Blank what was said", "1")),
    raises=(LogStillOpen, LogGone),
)
MINT_TOKEN: Final = Contract(
    "mint_token",
    "A token that opens the task's stream for five minutes, for `EventSource`",
    (Answer(201, "The token", answers.Token),),
    body=bodies.MintToken,
)
LIST_OPERATIONS: Final = Contract(
    "list_operations",
    "The newest operations first",
    (Answer(200, "Operations", answers.OperationList),),
    (
        _limit(),
        _place("before"),
        _choice("status", "Those that stand so", *get_args(OperationStatus)),
        _choice("executor", "Those that such a one ends", *get_args(Executor)),
        Parameter("tool", _NAME, "Those of this tool"),
        Parameter("session", _NAME, "Those of this session"),
        _choice("stuck", "Those past their deadline, and those whose follow-up failed", "1"),
    ),
)
READ_OPERATION: Final = Contract(
    "read_operation",
    "How an operation stands, and what came about its end",
    (Answer(200, "The operation", answers.Operation),),
)
COMPLETE_OPERATION: Final = Contract(
    "complete_operation",
    "How an operation ended, or how far it is; a 404 may be there later: `Retry-After` says when to try again",
    (
        Answer(200, "It has this outcome, and its follow-up is due", answers.Receipt),
        Answer(202, "The progress is noted", answers.Noted),
    ),
    (
        Parameter("Idempotency-Key", _ID, "What the sender calls this message: a repeat is harmless", "header"),
        Parameter("webhook-id", _WEBHOOK_ID, "The same; of a signed message the only one that counts", "header"),
    ),
    CompletionBody,
    (OperationEnded,),
)
CANCEL_OPERATION: Final = Contract(
    "cancel_operation",
    "End an operation as cancelled, unless it has ended; the agent is told",
    (Answer(200, "The operation as it stands then", answers.WholeOperation),),
    body=operation_bodies.CancelOperation,
)
REDRIVE_OPERATION: Final = Contract(
    "redrive_operation",
    "Have a follow-up that failed tried again, by another task; one that rests goes on at once",
    (Answer(202, "The task that does", answers.Redriven),),
    body=operation_bodies.RedriveOperation,
    raises=(NothingFailed,),
)
LIST_DEAD_LETTERS: Final = Contract(
    "list_dead_letters",
    "What came over the message broker and nobody could take, the oldest first",
    (Answer(200, "Dead letters", answers.DeadLetterList),),
    (_limit(most=MAX_LETTERS),),
    raises=(NoBroker,),
)
REDRIVE_DEAD_LETTERS: Final = Contract(
    "redrive_dead_letters",
    "Send dead letters again: one, those of a reason, or all",
    (Answer(200, "So many were", answers.RedrivenLetters),),
    body=operation_bodies.RedriveLetters,
    raises=(NoBroker,),
)
ANSWER_OPERATION: Final = Contract(
    "answer_operation",
    "A person's answer: whether something may be done, or to a question of the tool `ask`",
    (Answer(200, "It is taken", answers.Receipt),),
    body=operation_bodies.AnswerOperation,
    raises=(OperationEnded, NotAsked),
)
POST_CHAT: Final = Contract(
    "post_chat",
    "What `useChat` of the AI SDK posts: a message, an edit, the wish for another answer, or answers to approvals",
    (_stream("The answer, or what an answer goes on with"),),
    body=Chat,
    raises=(
        *(NotFound, SessionBusy, MessageExists, MessageTooLarge, MailboxFull, LogGone),
        *(OperationEnded, NotAsked),
    ),
    refuses_in_words=True,
)
FOLLOW_CHAT: Final = Contract(
    "follow_chat",
    "The answer that is under way in a chat, from its beginning",
    (_stream("The whole answer"), Answer(204, "None is under way, or there is no such chat")),
    refuses_in_words=True,
)
STOP_CHAT: Final = Contract(
    "stop_chat",
    "Have the answer ended that is under way in a chat",
    (Answer(204, "It ends, or there was none"),),
    refuses_in_words=True,
)
METRICS: Final = Contract("metrics", "What this process counts, for Prometheus", (Answer(200, "Samples", str, TEXT),))
ALIVE: Final = Contract("alive", "Whether the process runs", (Answer(200, "It does", answers.Alive),))
READY: Final = Contract(
    "ready",
    "Whether the process can work, and which store is away since when",
    (Answer(200, "It can", answers.Readiness), Answer(503, "It cannot", answers.Readiness)),
)
CONTRACT: Final = Contract("contract", "This document", (Answer(200, "OpenAPI 3.1", Mapping[str, Any]),))


def _file(name: str, says: str, media_type: str, *raises: type[PlayheadError]) -> Contract:
    done = (Answer(200, "It", str, media_type, ("ETag",)), Answer(304, "The browser has it", headers=("ETag",)))
    return Contract(name, says, done, (_IF_NONE_MATCH,), raises=raises)


PAGE: Final = _file("page", "The page: a chat, logs, tasks and operations, for people", "text/html")
PAGE_FILE: Final = _file("page_file", "A file of the page", "*/*", NotFound)
PAGE_FILE_IN_FOLDER: Final = _file("page_file_in_folder", "A module or a stylesheet of the page", "*/*", NotFound)
