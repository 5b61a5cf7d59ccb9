"""The one place that reads the environment."""

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from dotenv.parser import parse_stream
from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, SettingsConfigDict

from service.model.errors import ConfigurationError

PREFIX: Final = "PLAYHEAD_"
SECRET_BYTES: Final = 32
"""As long as what HS256 makes of it (RFC 7518, 3.2)."""

_ORIGIN: Final = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[1-9][0-9]{0,4})?", re.ASCII)
_BASE: Final = re.compile(r"[A-Za-z0-9:/._~%\[\]-]+", re.ASCII)
_SCHEMES: Final = MappingProxyType(
    {
        "redis_url": ("redis", "rediss", "unix"),
        "postgres_url": ("postgresql", "postgres"),
        "amqp_url": ("amqp", "amqps"),
        "model_url": ("http", "https"),
        "otlp_url": ("http", "https"),
        "url": ("http", "https"),
    }
)


class Settings(BaseSettings):
    """What can be set, by environment variables `PLAYHEAD_<NAME>` or a `.env` file in the working directory."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    http_host: str = "127.0.0.1"
    """Where to listen; a loopback address as long as nobody is asked who they are."""
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """0 takes a free port, which is printed."""
    probe_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Where a process without doors answers `/healthz`, `/readyz` and `/metrics`; without it nowhere."""
    api_keys: Literal["off", "on"] = "off"
    """With `on`, everybody must show who they are: an API key, or a token where those are set."""
    jwt_secret: str | None = Field(default=None, repr=False)
    """What the issuer of bearer tokens signs with (HS256)."""
    jwt_jwks: str | None = Field(default=None, repr=False)
    """Where the issuer's public keys are: a file, or a URL."""
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    cors_origins: str | None = None
    """Pages of these origins may ask, too; see `allowed_origins`."""
    data_dir: Path = Path("data")
    """Where the embedded stores keep their data between runs."""
    redis_url: str | None = Field(default=None, repr=False)
    """Redis 7.0 or later, or Valkey 8 or later; without it an embedded Valkey is started."""
    postgres_url: str | None = Field(default=None, repr=False)
    """PostgreSQL 15 or later; without it an embedded one is started."""
    amqp_url: str | None = Field(default=None, repr=False)
    """A RabbitMQ 3.10 or later, over which completions come; without it they come over HTTP alone."""
    model_url: str | None = Field(default=None, repr=False)
    """An OpenAI-compatible endpoint, up to and including its `/v1`; without it the demo model answers."""
    model_key: str = Field(default="", repr=False)
    model: str | None = None
    """The model's name at that endpoint; needed with `model_url`."""
    model_idle_seconds: Annotated[float, Field(gt=0, le=300)] = 60
    """A model's connection that is silent for so long has failed; one that only keeps it alive fails after 300 s."""
    lease_seconds: Annotated[float, Field(ge=0.5, le=3600)] = 15
    """How long a worker holds a task without a sign of life; another one takes over after it."""
    heartbeat_seconds: Annotated[float, Field(ge=0.1, le=300)] = 15
    """A stream is silent for half a second longer at most, whatever the stores do."""
    hot_ttl_seconds: Annotated[int, Field(ge=10, le=30 * 24 * 3600)] = 3600
    """How long a log stays in Redis once it is archived; then it is read from PostgreSQL."""
    write_timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    """A client that takes nothing of an answer for so long is disconnected; a reader of a stream may come back."""
    tools_file: Path | None = None
    """A JSON file with the remote tools that models may ask; see `deploy/env.example`."""
    workspace_dir: Path | None = None
    """Where background jobs run, each session's in a folder of its own; without it there are none.

    Their commands run as the user of this process, and may do what that one may: read a `.env` file, reach the stores
    and the network. Whoever may talk to an agent may have them run. Linux only.
    """
    public_url: str | None = None
    """Under which external services reach the doors, without a slash at its end; without it they are told nowhere."""
    otlp_url: str | None = Field(default=None, repr=False)
    """An OpenTelemetry collector, by its base URL for OTLP over HTTP; with it the service is traced (extra `otel`)."""

    url: str | None = Field(default=None, repr=False)
    """The service that commands ask; without it the one of this machine, at `http_port`."""
    token: str = Field(default="", repr=False)
    """With which they ask: an API key or a JWT."""

    @property
    def asks_who(self) -> bool:
        """Whether everybody must show who they are; else who shows nothing is the one local owner."""
        return self.api_keys == "on" or self.jwt_secret is not None or self.jwt_jwks is not None

    @property
    def allowed_origins(self) -> frozenset[str]:
        """The origins of `cors_origins`."""
        return frozenset(_listed(self.cors_origins or ""))

    @field_validator("http_host")
    @classmethod
    def _is_address(cls, host: str) -> str:
        try:
            is_loopback(host)
        except ValueError:
            raise ValueError(
                "an address is expected: 127.0.0.1, ::1, localhost, or another one of this machine"
            ) from None
        return host

    @field_validator("jwt_secret")
    @classmethod
    def _is_long_enough(cls, secret: str | None) -> str | None:
        if secret is not None and len(secret.encode()) < SECRET_BYTES:
            raise ValueError(f"a secret of {SECRET_BYTES} bytes or more is expected")
        return secret

    @field_validator("jwt_issuer", "jwt_audience")
    @classmethod
    def _is_no_blank(cls, name: str | None) -> str | None:
        if name is not None and not name.strip():
            raise ValueError("a name is expected")
        return name

    @field_validator("jwt_jwks")
    @classmethod
    def _is_place(cls, place: str | None) -> str | None:
        if place is not None and "://" in place and not _is_http_url(place):
            raise ValueError("a file, or a URL is expected that begins with http:// or https://")
        return place

    @field_validator("public_url")
    @classmethod
    def _is_base(cls, url: str | None) -> str | None:
        if url is not None and not (_is_http_url(url) and _BASE.fullmatch(url)):
            raise ValueError(
                "a URL is expected that begins with http:// or https://, without user, query, fragment and spaces"
            )
        return None if url is None else url.rstrip("/")

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: str | None) -> str | None:
        if origins is not None and not all(_ORIGIN.fullmatch(origin) for origin in _listed(origins)):
            raise ValueError(
                "exact origins are expected, with commas between them: https://app.example.com, http://localhost:5173"
            )
        return origins

    @field_validator("redis_url", "postgres_url", "amqp_url", "model_url", "otlp_url", "url")
    @classmethod
    def _has_scheme(cls, url: str | None, field: ValidationInfo) -> str | None:
        schemes = _SCHEMES[field.field_name or ""]
        scheme, separator, rest = (url or "").partition("://")
        if url is not None and not (separator and rest and scheme in schemes):
            raise ValueError(f"a URL is expected that begins with {' or '.join(f'{one}://' for one in schemes)}")
        return url

    @field_validator("amqp_url")
    @classmethod
    def _has_host(cls, url: str | None) -> str | None:
        try:
            readable = url is None or ((parts := urlsplit(url)).hostname is not None and parts.port != 0)
        except ValueError:  # its reason may hold a piece of the password
            readable = False
        if not readable:
            raise ValueError(
                "the URL cannot be read: amqp://user:password@host:port/vhost is expected, "
                "with special characters of the password percent-encoded"
            )
        return url

    @field_validator("model_key", "token")
    @classmethod
    def _fits_a_header(cls, key: str) -> str:
        if not (key.isascii() and key.isprintable()):
            raise ValueError("a key has printable ASCII characters only")
        return key

    @field_validator("model")
    @classmethod
    def _is_named(cls, model: str | None) -> str | None:
        if model is not None and not model.strip():
            raise ValueError("a model's name is expected")
        return model


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens there. Raises ValueError for what is no address."""
    return host == "localhost" or ip_address(host).is_loopback


def _listed(origins: str) -> list[str]:
    return [origin.strip() for origin in origins.split(",")] if origins.strip() else []


def _is_http_url(place: str) -> bool:
    try:
        parts = urlsplit(place)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # its reason may hold a piece of a password
        return False


def load_settings() -> Settings:
    """The settings as the environment has them.

    Raises ConfigurationError with one line that names a wrong one, or one that there is not. The value is not repeated:
    it may be secret.
    """
    _forget_postgres_variables()
    try:
        _refuse_broken_lines(Path(".env"))
        _refuse_unknown_names()
        settings = Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigurationError(f"{name}: {first['msg'].removeprefix('Value error, ')}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f".env: cannot be read as a text file in UTF-8: {type(error).__name__}") from None
    if settings.model_url is not None and settings.model is None:
        raise ConfigurationError(f"{PREFIX}MODEL: needed with {PREFIX}MODEL_URL: the model's name at that endpoint")
    if settings.model_url is None and (settings.model is not None or settings.model_key):
        raise ConfigurationError(f"{PREFIX}MODEL_URL: needed with {PREFIX}MODEL and {PREFIX}MODEL_KEY")
    _refuse_half_a_way_in(settings)
    return settings


def sources() -> Mapping[str, str]:
    """Where each setting comes from, by its field: `environment`, `.env` or `default`. What is empty is not set."""
    environment, file = (
        {name.upper() for name, value in source.env_vars.items() if value}
        for source in (EnvSettingsSource(Settings), DotEnvSettingsSource(Settings))
    )
    return {
        name: "environment" if env in environment else ".env" if env in file else "default"
        for name in Settings.model_fields
        for env in (PREFIX + name.upper(),)
    }


def _refuse_half_a_way_in(settings: Settings) -> None:
    """Tokens that could not be judged, and doors that are open to everybody who reaches them."""
    has_keys = settings.jwt_secret is not None or settings.jwt_jwks is not None
    if settings.jwt_secret is not None and settings.jwt_jwks is not None:
        raise ConfigurationError(
            f"{PREFIX}JWT_JWKS: not together with {PREFIX}JWT_SECRET: tokens are signed in one way"
        )
    for name, value in (("JWT_ISSUER", settings.jwt_issuer), ("JWT_AUDIENCE", settings.jwt_audience)):
        if has_keys and value is None:
            raise ConfigurationError(f"{PREFIX}{name}: needed with {PREFIX}JWT_SECRET or {PREFIX}JWT_JWKS")
        if value is not None and not has_keys:
            raise ConfigurationError(f"{PREFIX}{name}: needs {PREFIX}JWT_SECRET or {PREFIX}JWT_JWKS")
    if not settings.asks_who and not is_loopback(settings.http_host):
        raise ConfigurationError(
            f"{PREFIX}HTTP_HOST: only a loopback address (127.0.0.1, ::1, localhost) can be listened on "
            f"without {PREFIX}API_KEYS=on or {PREFIX}JWT_…"
        )


def _forget_postgres_variables() -> None:
    """asyncpg reads `PG…` variables where a URL is silent: those of a user's shell would decide about our databases."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def _refuse_broken_lines(file: Path) -> None:
    """What cannot be read would be passed over, and what it was to set would be missing in silence."""
    if not os.path.lexists(file):
        return
    with file.open(encoding="utf-8") as lines:
        for binding in parse_stream(lines):
            if binding.error or (binding.key is not None and binding.value is None):
                raise ConfigurationError(
                    f".env: line {binding.original.line} cannot be read: NAME=value is expected, with quotes closed"
                )


def _refuse_unknown_names() -> None:
    """A name with our prefix that is no setting is a typo, and what it was to set would be missing in silence."""
    known = [name.upper() for name in Settings.model_fields]
    given = {**DotEnvSettingsSource(Settings).env_vars, **EnvSettingsSource(Settings).env_vars}
    ours = (name.upper().removeprefix(PREFIX) for name in sorted(given) if name.upper().startswith(PREFIX))
    for name in ours:
        if name not in known:
            nearest = get_close_matches(name, known, 1)
            hint = f"; is {PREFIX}{nearest[0]} meant?" if nearest else ""
            raise ConfigurationError(f"{PREFIX}{name}: there is no such setting{hint}")
