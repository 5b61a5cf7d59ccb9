"""Settings: what is read, from where, and how a wrong one is told: one line, its name, never its value."""

import os
from pathlib import Path

import pytest

from service.model.errors import ConfigurationError
from service.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in values.items():
        monkeypatch.setenv(f"PLAYHEAD_{name}", value)
    return load_settings()


def test_what_is_not_set_has_its_default() -> None:
    settings = load_settings()
    assert (settings.http_host, settings.http_port, settings.data_dir) == ("127.0.0.1", 8080, Path("data"))
    assert (settings.redis_url, settings.postgres_url) == (None, None)
    assert (settings.model_url, settings.model_key, settings.model) == (None, "", None)
    assert settings.model_idle_seconds == 60
    assert (settings.lease_seconds, settings.heartbeat_seconds, settings.write_timeout_seconds) == (15, 15, 30)
    assert (settings.asks_who, settings.allowed_origins) == (False, frozenset())


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch, HTTP_HOST="::1", HTTP_PORT="0", MODEL_URL="http://m.test/v1", MODEL="m", LEASE_SECONDS="0.5"
    )
    assert (settings.http_host, settings.http_port, settings.model, settings.lease_seconds) == ("::1", 0, "m", 0.5)


def test_a_dotenv_file_is_read_and_the_environment_goes_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(
        "# a comment\nPLAYHEAD_HTTP_PORT=1234\nPLAYHEAD_LEASE_SECONDS=2\nPLAYHEAD_MODEL_KEY=\nOTHER=1\n"
    )
    settings = load(monkeypatch, LEASE_SECONDS="3")
    assert (settings.http_port, settings.lease_seconds, settings.model_key) == (1234, 3, "")


NAMES = [name.upper() for name in Settings.model_fields]


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert load(monkeypatch, **{name: ""}) == load_settings()
    monkeypatch.delenv(f"PLAYHEAD_{name}")
    assert load_settings() == Settings(_env_file=None)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_one_of_ours(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Without the prefix a variable is somebody else's."""
    monkeypatch.setenv(name, "whatever")
    assert load_settings() == Settings(_env_file=None)


SECRET = "hunter2"
UNKNOWN = [
    ("REDIS_URI", "; is PLAYHEAD_REDIS_URL meant?"),
    ("POSTGRESS_URL", "; is PLAYHEAD_POSTGRES_URL meant?"),
    ("HTTPPORT", "; is PLAYHEAD_HTTP_PORT meant?"),
    ("LEASE_SECOND", "; is PLAYHEAD_LEASE_SECONDS meant?"),
    ("redis_uri", "; is PLAYHEAD_REDIS_URL meant?"),
    ("XYZZY", ""),
]


@pytest.mark.parametrize("place", ["environment", ".env"])
@pytest.mark.parametrize(("name", "hint"), UNKNOWN, ids=[name for name, _ in UNKNOWN])
def test_a_name_that_is_no_setting_is_refused_with_the_nearest_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, name: str, hint: str
) -> None:
    if place == "environment":
        monkeypatch.setenv(f"PLAYHEAD_{name}", SECRET)
    else:
        (tmp_path / ".env").write_text(f"PLAYHEAD_HTTP_PORT=1\nPLAYHEAD_{name}={SECRET}\n")
    with pytest.raises(ConfigurationError) as raised:
        load_settings()
    assert str(raised.value) == f"PLAYHEAD_{name.upper()}: there is no such setting{hint}"


def test_an_unknown_name_is_told_before_what_is_wrong_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"^PLAYHEAD_MODEL_URI: "):
        load(monkeypatch, MODEL_URI="http://m.test/v1", MODEL="m")


def test_our_settings_are_known_in_small_letters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("playhead_http_port", "1234")
    assert load_settings().http_port == 1234


def test_a_dotenv_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"PLAYHEAD_MODEL_KEY=\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"^\.env: cannot be read"):
        load_settings()


@pytest.mark.parametrize(
    "line",
    [
        f'PLAYHEAD_MODEL_KEY="{SECRET}',
        f"PLAYHEAD_MODEL_KEY='{SECRET}",
        f"PLAYHEAD_MODEL_KEY {SECRET}",
        "PLAYHEAD_MODEL_KEY",
        f"={SECRET}",
        f'PLAYHEAD_MODEL_KEY="{SECRET}" more',
    ],
)
def test_a_line_of_a_dotenv_file_that_cannot_be_read_is_told_by_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"# a comment\n\nexport PLAYHEAD_HTTP_PORT=1\n{line}\nOTHER=1\n")
    with pytest.raises(ConfigurationError, match=r"^\.env: line 4 cannot be read: ") as raised:
        load_settings()
    assert SECRET not in str(raised.value)


def test_a_dotenv_file_that_is_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(ConfigurationError, match=r"^\.env: cannot be read"):
        load_settings()
    (tmp_path / ".env").rmdir()
    (tmp_path / ".env").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match=r"^\.env: cannot be read"):
        load_settings()


def test_variables_of_postgres_own_programs_do_not_bend_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncpg would read them."""
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "standby")
    load_settings()
    assert not [name for name in os.environ if name.startswith("PG")]


LONG = f"{SECRET} and more, until there are 32 bytes"
ISSUED = {"JWT_ISSUER": "https://issuer.test", "JWT_AUDIENCE": "playhead"}
WAYS_IN: list[dict[str, str]] = [
    {"API_KEYS": "on"},
    {"JWT_SECRET": LONG, **ISSUED},
    {"JWT_JWKS": "keys.json", **ISSUED},
    {"JWT_JWKS": "https://issuer.test/.well-known/jwks.json", **ISSUED},
]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "127.0.0.1"])
@pytest.mark.parametrize("way_in", WAYS_IN, ids=lambda way_in: next(iter(way_in)))
def test_with_a_way_in_any_address_can_be_listened_on(
    monkeypatch: pytest.MonkeyPatch, way_in: dict[str, str], host: str
) -> None:
    settings = load(monkeypatch, HTTP_HOST=host, **way_in)
    assert (settings.asks_who, settings.http_host) == (True, host)
    assert SECRET not in repr(settings)


def test_origins_are_listed_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, CORS_ORIGINS="https://app.example.com, http://localhost:5173,http://[::1]:80")
    assert settings.allowed_origins == {"https://app.example.com", "http://localhost:5173", "http://[::1]:80"}


WRONG: list[tuple[str, dict[str, str]]] = [
    *(("API_KEYS", {"API_KEYS": value}) for value in ("yes", "true", "1", "ON")),
    ("JWT_SECRET", {"JWT_SECRET": SECRET, **ISSUED}),
    ("JWT_SECRET", {"JWT_SECRET": "x" * 31, **ISSUED}),
    ("JWT_JWKS", {"JWT_SECRET": LONG, "JWT_JWKS": "keys.json", **ISSUED}),
    *(("JWT_JWKS", {"JWT_JWKS": value, **ISSUED}) for value in (f"ftp://u:{SECRET}@h/", "https:///x", "https://h:x/")),
    ("JWT_ISSUER", {"JWT_SECRET": LONG, "JWT_AUDIENCE": "playhead"}),
    ("JWT_AUDIENCE", {"JWT_SECRET": LONG, "JWT_ISSUER": "https://issuer.test"}),
    ("JWT_ISSUER", {"JWT_ISSUER": " ", "JWT_AUDIENCE": "playhead", "JWT_SECRET": LONG}),
    ("JWT_ISSUER", {"JWT_ISSUER": "https://issuer.test"}),
    ("JWT_AUDIENCE", {"JWT_AUDIENCE": "playhead", "API_KEYS": "on"}),
    *(
        ("CORS_ORIGINS", {"CORS_ORIGINS": value})
        for value in ("*", "null", "a.test", "https://a.test/", "https://*.test", "file://")
    ),
    *(
        ("CORS_ORIGINS", {"CORS_ORIGINS": value})
        for value in (
            ",",
            "https://a.test,",
            "https://a.test https://b.test",
            "HTTPS://A.TEST",
            f"https://u:{SECRET}@a.test",
        )
    ),
    *(("HTTP_HOST", {"HTTP_HOST": value, "API_KEYS": "on"}) for value in ("example.test", "[::1]", " ")),
    *(("HTTP_PORT", {"HTTP_PORT": value}) for value in ("-1", "65536", "http", "80.5", "0x50", "8080;", "8 0", "1e9")),
    *(("PROBE_PORT", {"PROBE_PORT": value}) for value in ("-1", "65536", "on", "80.5")),
    *(
        ("HTTP_HOST", {"HTTP_HOST": value})
        for value in ("0.0.0.0", "::", "192.168.0.1", "example.test", "127.0.0.1:80", "localhost.", "[::1]", " ", "1")
    ),
    *(("REDIS_URL", {"REDIS_URL": value}) for value in (f"user:{SECRET}@host", "localhost:6379", "redis:/x", "x")),
    *(("POSTGRES_URL", {"POSTGRES_URL": value}) for value in (f"user:{SECRET}@host", "host=x", "postgres:/x")),
    *(("OTLP_URL", {"OTLP_URL": value}) for value in (f"{SECRET}:4318", "x", "http:/x", f"grpc://{SECRET}:4317")),
    *(
        ("AMQP_URL", {"AMQP_URL": value})
        for value in (f"u:{SECRET}@host", "amqp:/x", f"amqp://u:{SECRET}/1@h/", f"amqp://u:{SECRET}@[::1/")
    ),
    *(("MODEL_URL", {"MODEL_URL": value, "MODEL": "m"}) for value in (f"{SECRET}.test/v1", "x", "http:/x")),
    ("MODEL", {"MODEL_URL": "http://m.test/v1"}),
    ("MODEL", {"MODEL_URL": "http://m.test/v1", "MODEL_KEY": SECRET}),
    ("MODEL", {"MODEL_URL": "http://m.test/v1", "MODEL": "  "}),
    ("MODEL_URL", {"MODEL": "m"}),
    ("MODEL_URL", {"MODEL_KEY": SECRET}),
    ("MODEL_URL", {"MODEL": "m", "MODEL_KEY": SECRET}),
    *(
        (name, {name: value})
        for name, values in {
            "LEASE_SECONDS": ("0", "0.4", "-1", "3601", "nan", "inf", "soon", "15s"),
            "HEARTBEAT_SECONDS": ("0", "0.09", "301", "nan", "inf", "x"),
            "WRITE_TIMEOUT_SECONDS": ("0", "-1", "3601", "nan", "inf", "x"),
            "MODEL_IDLE_SECONDS": ("0", "-0.1", "301", "nan", "inf", "x"),
            "HOT_TTL_SECONDS": ("0", "9", "-1", "2592001", "nan", "inf", "60.5", "1h", "0x10"),
        }.items()
        for value in values
    ),
]
OF_A_KIND: list[tuple[str, dict[str, str]]] = [
    *(("REDIS_URL", {"REDIS_URL": f"{scheme}://u:{SECRET}@h"}) for scheme in ("http", "postgresql", "valkey", "amqp")),
    *(("POSTGRES_URL", {"POSTGRES_URL": f"{scheme}://u:{SECRET}@h/d"}) for scheme in ("http", "redis", "mysql")),
    *(("AMQP_URL", {"AMQP_URL": f"{scheme}://u:{SECRET}@h/"}) for scheme in ("http", "redis", "AMQP")),
    *(("MODEL_URL", {"MODEL_URL": f"{scheme}://{SECRET}.test", "MODEL": "m"}) for scheme in ("ftp", "redis", "file")),
    ("MODEL_KEY", {"MODEL_URL": "http://m.test/v1", "MODEL": "m", "MODEL_KEY": f"{SECRET}\u20ac"}),
]


def test_there_are_enough_of_them() -> None:
    assert len(WRONG) + len(OF_A_KIND) + len(UNKNOWN) >= 120


def assert_told(error: ConfigurationError, name: str, values: dict[str, str]) -> None:
    line = str(error)
    assert line.startswith(f"PLAYHEAD_{name}: ")
    assert "\n" not in line
    assert len(line) < 200
    assert SECRET not in line
    assert not [value for value in values.values() if len(value) > 4 and value in line]


@pytest.mark.parametrize(("name", "values"), WRONG, ids=[" ".join(f"{k}={v}" for k, v in w.items()) for _, w in WRONG])
def test_a_wrong_value_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, values: dict[str, str]
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(monkeypatch, **values)
    assert_told(raised.value, name, values)


@pytest.mark.parametrize(("name", "values"), OF_A_KIND, ids=[f"{n} {i}" for i, (n, _) in enumerate(OF_A_KIND)])
def test_a_value_that_nothing_can_be_opened_with_is_refused_before_anything_is_opened(
    monkeypatch: pytest.MonkeyPatch, name: str, values: dict[str, str]
) -> None:
    """Otherwise the start fails later, with a traceback or with a line that names no setting."""
    with pytest.raises(ConfigurationError) as raised:
        load(monkeypatch, **values)
    assert_told(raised.value, name, values)


def test_the_model_s_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, MODEL_URL="http://m.test/v1", MODEL="m", MODEL_KEY=SECRET)
    assert settings.model_key == SECRET
    assert SECRET not in f"{settings!r} {settings}"


def test_the_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, TOKEN=SECRET)
    assert settings.token == SECRET
    assert SECRET not in f"{settings!r} {settings}"


def test_settings_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch)
    with pytest.raises(ValueError, match="frozen"):
        settings.http_port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    "url", ["amqp://guest:guest@localhost/", "amqps://u:p@h:5671/%2Fv?heartbeat=5", "amqp://[::1]"]
)
def test_a_broker_can_be_named_already(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert load(monkeypatch, AMQP_URL=url).amqp_url == url


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://play.example", "https://play.example"),
        ("https://play.example/", "https://play.example"),
        ("http://[::1]:8080/a/b/", "http://[::1]:8080/a/b"),
    ],
)
def test_a_public_url_has_no_slash_at_its_end(monkeypatch: pytest.MonkeyPatch, url: str, base: str) -> None:
    assert load(monkeypatch, PUBLIC_URL=url).public_url == base


@pytest.mark.parametrize(
    "url",
    [
        SECRET,
        f"ftp://{SECRET}",
        f"https:///{SECRET}",
        f"https://u:{SECRET}@h",
        f"https://h/?{SECRET}",
        f"https://h/#{SECRET}",
        f"https://h/{SECRET} x",
        f"https://h/{SECRET}\n",
        f"https://ä/{SECRET}",
        f"https://h:0/{SECRET}",
    ],
)
def test_what_is_no_public_url_is_told(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^PLAYHEAD_PUBLIC_URL: a URL is expected") as raised:
        load(monkeypatch, PUBLIC_URL=url)
    assert SECRET not in str(raised.value)


def test_remote_tools_are_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().tools_file is None
    assert load(monkeypatch, TOOLS_FILE="tools.json").tools_file == Path("tools.json")


def test_urls_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may hold a password."""
    schemes = {
        "JWT_JWKS": "https",
        "REDIS_URL": "redis",
        "POSTGRES_URL": "postgresql",
        "AMQP_URL": "amqp",
        "MODEL_URL": "https",
        "URL": "https",
    }
    values = {name: f"{scheme}://u:{SECRET}@h/" for name, scheme in schemes.items()}
    assert SECRET not in repr(load(monkeypatch, **values, **ISSUED, MODEL="m"))
