"""Logs: one line each, secrets masked, nothing forged, one path for every library."""

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from app.telemetry.logging import MASK, RotatedLog, configure_logging, create_mask

CANARY = "canary-5e7d!x"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail(text: str) -> None:
    raise RuntimeError(text)


@pytest.mark.parametrize(
    "text",
    [
        'a\r\n{"event":"forged"}',
        "\x1b[31mred\x1b[0m",
        "\u2028forged",
        'quote"},{',
        "\x00",
        "\u202e",
    ],
)
def test_S14_json_lines_cannot_be_forged(text: str) -> None:
    stream = io.StringIO()
    configure_logging(level="info", form="json", stream=stream)
    structlog.get_logger().info(text, detail=text, **{text: [text]})
    logging.getLogger("library").warning("%s", text)
    assert stream.getvalue().isascii()
    first, second = lines(stream)
    assert (first["event"], first["detail"], first[text]) == (text, text, [text])
    assert second["event"] == text
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize(
    "text", ["a\r\nforged", "\x1b[31mred", "\u2028forged", "\x9bforged", "\x00"]
)
def test_S14_console_lines_cannot_be_forged(text: str) -> None:
    stream = io.StringIO()
    configure_logging(level="info", form="console", stream=stream)
    structlog.get_logger().info(text, detail=text, more=[text], **{text: 1})
    logging.getLogger("library").warning("%s", text)
    assert len(stream.getvalue().splitlines()) == 2
    for sign in ("\x1b", "\u2028", "\x9b", "\x00", "\r"):
        assert sign not in stream.getvalue()


def test_S13_secrets_are_masked_by_name_and_by_value() -> None:
    stream = io.StringIO()
    configure_logging(level="info", form="json", secrets=[CANARY, "abc"], stream=stream)
    log = structlog.get_logger()
    log.info("started", password="x1", api_key="x2", Authorization="x3", cursor_secret="x4")
    in_event = f"value {CANARY} in the event"
    log.info(in_event, nested={"passphrase": "x5", "list": [CANARY, 1]})
    log.info("urls", url=f"postgresql+asyncpg://me:{'pw' * 9}@db/x", thing=io.BytesIO)
    logging.getLogger("library").error("said %s", CANARY)
    try:
        fail(f"inside {CANARY}")
    except RuntimeError:
        log.exception("failed")
        logging.getLogger("library").exception("failed too")
    text = stream.getvalue()
    for secret in ("x1", "x2", "x3", "x4", "x5", CANARY, "pwpw"):
        assert secret not in text
    assert lines(stream)[2]["url"] == f"postgresql+asyncpg://me:{MASK}@db/x"
    assert lines(stream)[1]["nested"] == {"passphrase": MASK, "list": [MASK, 1]}
    assert "RuntimeError" in lines(stream)[-1]["exception"]
    assert len(lines(stream)) == 6


def test_S02_keys_and_queries_of_websockets_are_masked() -> None:
    stream = io.StringIO()
    configure_logging(level="info", form="json", stream=stream)
    key = "mysym_LoWeIWlSd7snWQXHA2ZmGzQwDEfYhp2pnOEcAqFwiaI4l0Pg1wq1pCg1p"
    logging.getLogger("uvicorn.error").info(
        '%s - "WebSocket %s" 403', "127.0.0.1:1", "/stream?token=another-secret&x=1"
    )
    logging.getLogger("library").warning("got %s", key)
    structlog.get_logger().info("refused", text=f"?q={key}")
    text = stream.getvalue()
    for secret in (key, key[14:], "another-secret"):
        assert secret not in text
    assert lines(stream)[0]["event"] == f'127.0.0.1:1 - "WebSocket /stream?{MASK}" 403'
    assert lines(stream)[1]["event"] == f"got {key[:14]}{MASK}"


def test_short_values_do_not_mask_ordinary_text() -> None:
    mask = create_mask(["abc", ""])
    assert mask(None, "info", {"event": "abc"}) == {"event": "abc"}


def test_levels_and_quiet_libraries() -> None:
    stream = io.StringIO()
    configure_logging(level="warning", form="json", stream=stream)
    structlog.get_logger().info("unheard")
    logging.getLogger("library").info("unheard")
    logging.getLogger("sqlalchemy.engine").info("unheard")
    structlog.get_logger().warning("heard")
    logging.getLogger("sqlalchemy.engine").error("heard")
    found = lines(stream)
    assert [line["event"] for line in found] == ["heard", "heard"]
    assert {line["level"] for line in found} == {"warning", "error"}
    assert all(line["timestamp"].endswith("Z") for line in found)


def test_context_variables_are_on_the_log_line() -> None:
    stream = io.StringIO()
    configure_logging(level="info", form="json", stream=stream)
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        structlog.get_logger().info("inside")
        logging.getLogger("library").warning("inside too")
    assert [line["request_id"] for line in lines(stream)] == ["r-1", "r-1"]


def test_tracebacks_keep_their_lines_on_the_console() -> None:
    stream = io.StringIO()
    configure_logging(level="info", form="console", stream=stream)
    try:
        fail("broken")
    except RuntimeError:
        structlog.get_logger().exception("failed")
    assert "RuntimeError: broken" in stream.getvalue().splitlines()[-1]


def test_a_log_file_is_rotated_by_size_and_keeps_the_given_number(tmp_path: Path) -> None:
    path = tmp_path / "service.log"
    log = RotatedLog(path, 1_000, 2)
    configure_logging(level="info", form="json", secrets=["sesame-sesame"], stream=log)
    for number in range(40):
        structlog.get_logger().info("step", number=number, detail="sesame-sesame")
        logging.getLogger("library").warning("step %s", number)
    log.close()
    files = [path, *(tmp_path / f"service.log.{index}" for index in (1, 2))]
    assert sorted(tmp_path.iterdir()) == sorted(files), "older ones are gone"
    assert all(0 < file.stat().st_size <= 1_000 for file in files)
    lines = [json.loads(line) for file in reversed(files) for line in file.read_text().splitlines()]
    own = [one["number"] for one in lines if one["event"] == "step"]
    assert own == list(range(own[0], 40)), "no line is lost or out of order"
    assert "sesame" not in path.read_text()
