"""`my-symbols config` at a running service: read, change, compare and restore settings."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import pytest

from app.cli.exit_codes import ExitCode
from tests.cli.command import Ended, ended, here, started
from tests.cli.test_client import answering

# One service serves all tests of this file: with xdist, keep them together (--dist loadgroup).
pytestmark = pytest.mark.xdist_group("live_settings")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a service with a portfolio of ten, in a process of its own."""
    directory = tmp_path_factory.mktemp("settings")
    child = started("demo", "--port", "0", "--contracts", "40", "--json", cwd=directory)
    line = child.stdout.readline()
    if not line:
        raise AssertionError(child.stderr.read())
    yield json.loads(line)["url"]
    child.send_signal(signal.SIGINT)
    ended(child)


def config(url: str, *words: str, given: str | None = None) -> Ended:
    return here("config", *words, given=given, MYSYMBOLS_URL=url)


def done(url: str, *words: str) -> Ended:
    said = config(url, *words)
    assert said.code == ExitCode.OK, said.err
    return said


def words_of(text: str) -> str:
    return " ".join(text.split())


def version(url: str) -> int:
    found: int = done(url, "get", "--json").document["version"]
    return found


def test_one_setting_is_its_value_alone_and_a_group_a_table(url: str) -> None:
    assert done(url, "get", "entry_score").out == "0.6\n"
    assert done(url, "get", "eligibility.quotes").out == '["USDT"]\n'
    assert done(url, "get", "rebalancing.cost_based_no_trade_band").out == "false\n"
    table = done(url, "get", "sizing").out
    assert f"settings of version {version(url)}" in table
    assert "sizing.var_limit" in table
    assert "quality." not in table
    machine = done(url, "get", "eligibility", "--json").document
    assert machine == {
        "version": version(url),
        "settings": {
            "eligibility.min_turnover": "5000000",
            "eligibility.min_daily_bars": 90,
            "eligibility.quotes": ["USDT"],
        },
    }
    everything = done(url, "get", "--json").document
    assert everything["eligibility"]["min_daily_bars"] == 90


def test_settings_change_together_and_the_command_shows_what_changed(url: str) -> None:
    first = version(url)
    said = done(
        url,
        *("set", "score_tilt=0.7", "family_weights.risk=0.3", "family_weights.technical=0.25"),
        *("rebalancing.method=equal", "eligibility.quotes=USDT,USDC"),
        *("eligibility.min_turnover=6000000.25", "automation.rebalance=observe"),
        *("--reason", "tuned"),
    )
    assert f"version {first + 1}" in said.out
    for row in ("score_tilt 0.5 0.7", "family_weights.risk 0.4 0.3", "rebalancing.method"):
        assert row in words_of(said.out.replace("│", "")), said.out
    shown = done(url, "get", "--json").document
    assert (shown["score_tilt"], shown["rebalancing"]["method"]) == (0.7, "equal")
    assert shown["eligibility"]["quotes"] == ["USDT", "USDC"]
    assert shown["eligibility"]["min_turnover"] == "6000000.25"
    assert shown["family_weights"]["market_structure"] == 0.25, "the others keep their value"
    same = done(url, "set", "score_tilt=0.7")
    assert same.out == f"nothing changes: version {first + 1}\n"
    newest = done(url, "history", "--json", "--limit", "1").document["items"][0]
    assert (newest["version"], newest["reason"]) == (first + 1, "tuned")


def test_a_key_of_a_map_changes_alone(url: str) -> None:
    names = "rebalancing.fixed_weights"
    done(url, "set", f'{names}={{"BTCUSDT": 10, "ETHUSDT": 5}}')
    done(url, "set", f"{names}.BTCUSDT=12.5")
    kept = done(url, "get", names, "--json").document["settings"][names]
    assert kept == {"BTCUSDT": 12.5, "ETHUSDT": 5}
    done(url, "set", f"{names}.ETHUSDT=null", f"{names}.BTCUSDT=11")
    assert done(url, "get", names, "--json").document["settings"][names] == {"BTCUSDT": 11}
    done(url, "set", f"{names}={{}}")
    assert done(url, "get", names).out == "{}\n"


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("score_tilt", "'score_tilt' is not of the form KEY=VALUE."),
        ("score_tild=1", "'score_tild' is not a setting. Did you mean score_tilt?"),
        ("var_limit=1", "'var_limit' is not a setting. Did you mean sizing.var_limit?"),
        ("correlation=1", "correlation is a group; its settings are correlation.limit,"),
        ("rebalancing.method=best", "rebalancing.method must be one of score_tilted, inverse_"),
        ("family_weights.luck=1", "the keys of family_weights are technical, fundamental,"),
        ("replacement.count_funding=yes", "replacement.count_funding must be true or false"),
        ("score_tilt=much", "score_tilt must be a number, not 'much'."),
    ],
)
def test_wrong_usage_is_named_with_the_choices(assignment: str, said: str) -> None:
    wrong = here("config", "set", assignment)
    assert wrong.code == ExitCode.USAGE
    assert said in words_of(wrong.err.replace("│", " "))


def test_a_key_may_be_given_once() -> None:
    wrong = here("config", "set", "score_tilt=1", "score_tilt=2")
    assert (wrong.code, "score_tilt is given twice" in wrong.err) == (ExitCode.USAGE, True)


def test_a_refused_change_names_the_setting_and_its_bounds(url: str) -> None:
    before = version(url)
    refused = config(url, "set", "score_tilt=7")
    assert refused.code == ExitCode.REFUSED
    assert "score_tilt" in refused.err
    assert "from 0 to 5" in refused.err
    assert version(url) == before


def test_versions_are_compared_listed_and_restored(url: str) -> None:
    first = version(url)
    done(url, "set", "exit_score=0.4", "max_portfolio_symbols=12", "--reason", "calmer")
    done(url, "set", "exit_score=0.5")
    compared = done(url, "diff", str(first), str(first + 2)).out
    assert "exit_score" in compared
    assert "max_portfolio_symbols" in compared
    machine = done(url, "diff", str(first), str(first + 2), "--json").document["changes"]
    assert machine[0] == {"key": "exit_score", "old": 0.55, "new": 0.5}
    assert "no setting differs" in done(url, "diff", "1", "1").out
    unknown = config(url, "diff", "1", "99")
    assert (unknown.code, "version 99" in unknown.err) == (ExitCode.REFUSED, True)
    listed = done(url, "history").out
    assert "exit_score: 0.4 -> 0.5" in listed
    assert "calmer" in listed
    more = done(url, "history", "--limit", "1")
    assert "There are more than 1;" in more.err
    restored = done(url, "rollback", str(first)).out
    assert f"version {first + 3}" in restored
    assert "exit_score" in restored
    assert done(url, "diff", str(first), str(first + 3), "--json").document["changes"] == []
    again = done(url, "rollback", str(first), "--key", "k", "--json").document
    assert again["configuration"]["version"] == first + 3, "nothing to restore"
    assert "cash_remainder_at_least" in done(url, "set", "max_weight_percentage=8").err
    done(url, "rollback", str(first))


def test_a_change_is_decided_on_the_version_that_was_read() -> None:
    answer = json.dumps({"version": 3, "configuration": {"version": 4}, "warnings": []}).encode()
    with answering(200, answer) as (elsewhere, asked):
        assert config(elsewhere, "rollback", "1", "--key", "k", "--json").code == ExitCode.OK
    assert [one[:2] for one in asked] == [
        ("GET", "/api/symbol-mgmt/configuration"),
        ("POST", "/api/symbol-mgmt/configuration/rollback"),
    ]
    assert (asked[1][2]["If-Match"], asked[1][2]["Idempotency-Key"]) == ('"3"', "k")
    assert json.loads(asked[1][3]) == {"version": 1}


def test_an_exported_file_is_applied_after_the_question(url: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    first = version(url)
    assert f"settings of version {first}" in done(url, "export", str(file)).err
    assert done(url, "export").out == file.read_text(encoding="utf-8")
    assert done(url, "apply", str(file)).out == f"nothing changes: version {first}\n"
    settings = json.loads(file.read_text(encoding="utf-8"))
    assert settings.pop("$schema") == "./configuration.schema.json"
    assert settings == {
        name: value
        for name, value in done(url, "get", "--json").document.items()
        if name != "version"
    }
    settings["score_tilt"], settings["rebalancing"]["fixed_weights"] = 1.25, {"BTCUSDT": 3}
    file.write_text(json.dumps(settings), encoding="utf-8")
    declined = config(url, "apply", str(file), given="n\n")
    assert declined.code == 1
    assert f"beside version {first}" in declined.out
    assert "score_tilt" in declined.out
    assert "rebalancing.fixed_weights.BTCUSDT" in declined.out
    assert version(url) == first
    silent = config(url, "apply", str(file), given="")
    assert (silent.code, version(url)) == (1, first)
    applied = config(url, "apply", str(file), "--reason", "from a file", given="y\n")
    assert applied.code == ExitCode.OK
    assert f"version {first + 1}" in applied.out
    newest = done(url, "history", "--json", "--limit", "1").document["items"][0]
    assert newest["reason"] == "from a file"
    assert [one["key"] for one in newest["changes"]] == [
        "rebalancing.fixed_weights.BTCUSDT",
        "score_tilt",
    ]
    part = tmp_path / "part.json"
    part.write_text('{"rebalancing": {"fixed_weights": {}}, "score_tilt": 0.5}', encoding="utf-8")
    told = done(url, "apply", str(part), "--yes").out
    assert told.count("rebalancing.fixed_weights.BTCUSDT") == 2, "before and after the change"
    again = done(url, "apply", str(part), "--yes", "--json").document["configuration"]
    assert (again["rebalancing"]["fixed_weights"], again["score_tilt"]) == ({}, 0.5)
    assert again["exit_score"] == settings["exit_score"], "a setting that the file lacks stays"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON: line 1, column 2"),
        ("[]", "is no JSON object of settings"),
        ('{"score_tilt": 1, "score_tilt": 2}', "names score_tilt twice"),
        ("\udcff", "cannot be read (UnicodeDecodeError)"),
    ],
)
def test_an_unusable_file_is_named_with_its_cause(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    refused = here("config", "apply", str(file))
    assert refused.code == ExitCode.CONFIGURATION
    assert said in words_of(refused.err)
    unasked = here("config", "apply", str(file), "--json")
    assert (unasked.code, "--yes" in unasked.err) == (ExitCode.USAGE, True)


def test_a_refused_file_changes_nothing_and_names_each_setting(url: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"score_tilt": 9, "speed": 1}', encoding="utf-8")
    before = version(url)
    refused = config(url, "apply", str(file), "--yes")
    assert refused.code == ExitCode.REFUSED
    assert "score_tilt" in refused.err
    assert "speed" in refused.err
    assert version(url) == before


def test_the_schema_checks_an_exported_file(url: str, tmp_path: Path) -> None:
    file = tmp_path / "configuration.schema.json"
    assert here("config", "schema", str(file)).code == ExitCode.OK
    assert here("config", "schema").out == file.read_text(encoding="utf-8")
    schema = json.loads(file.read_text(encoding="utf-8"))
    jsonschema_rs.meta.validate(schema)
    check = jsonschema_rs.Draft202012Validator(schema)
    exported = json.loads(done(url, "export").out)
    assert list(check.iter_errors(exported)) == []
    assert check.is_valid({"sizing": {"var_limit": 0.1}}), "a part of it"
    for wrong in (
        {"score_tilt": 9},
        {"speed": 1},
        {"version": 1},
        {"rebalancing": {"method": "best"}},
        {"family_weights": {"luck": 1}},
    ):
        assert not check.is_valid(wrong), wrong
    methods = schema["$defs"]["WeightingMethod"]["enum"]
    assert "score_tilted" in methods, "editors propose the choices"


def test_a_preview_shows_both_states_and_writes_nothing(url: str) -> None:
    before = version(url)
    words = ("--set", "max_weight_percentage=12", "--set", "rebalancing.method=hrp")
    shown = here("portfolio", "preview", *words, MYSYMBOLS_URL=url)
    assert shown.code == ExitCode.OK, shown.err
    for said in ("settings", "max_weight_percentage", "plan", "turnover", "members", "scores"):
        assert said in shown.out
    machine = here("portfolio", "preview", *words, "--json", MYSYMBOLS_URL=url).document
    assert [one["key"] for one in machine["changes"]] == [
        "max_weight_percentage",
        "rebalancing.method",
    ]
    assert version(url) == before
    member = machine["weights"][0]["symbol"]
    lock = ("--lock", f"{member}=ban", "--top", "0", "--balance", "10000")
    banned = here("portfolio", "preview", *lock, "--json", MYSYMBOLS_URL=url).document
    assert banned["weights"][0]["after"]["reason"] == "it is banned: preview"
    assert banned["before"]["lots"] is not None
    assert len(banned["scores"]) == len(banned["weights"])
    table = here("portfolio", "preview", *words, "--csv", MYSYMBOLS_URL=url).out
    assert table.splitlines()[0].startswith("symbol,before.current,before.planned,before.reason,")
    small = ("--set", "max_portfolio_symbols=3")
    refused = here("portfolio", "preview", *small, MYSYMBOLS_URL=url)
    assert "configuration would be refused: portfolio_exceeds_limit" in words_of(refused.out)
    evicted = here("portfolio", "preview", *small, "--evict-lowest", "--json", MYSYMBOLS_URL=url)
    assert len(evicted.document["after"]["members"]) == 3
    for wrong in ("BTCUSDT", "BTCUSDT=sell", "=ban"):
        usage = here("portfolio", "preview", "--lock", wrong)
        assert usage.code == ExitCode.USAGE
        assert "pin, ban, watch, none" in words_of(usage.err.replace("│", " "))


def test_the_former_name_of_the_group_still_works(url: str) -> None:
    former = here("configuration", "get", "entry_score", MYSYMBOLS_URL=url)
    assert (former.code, former.out) == (ExitCode.OK, "0.6\n")
    assert "configuration " not in here("--help").out.replace("of the configuration", "")
