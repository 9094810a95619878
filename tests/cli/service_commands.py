"""Every command that asks the service, once, with arguments that give a well-formed request.

A new command belongs here; tests/cli/test_operations.py says which operations have none.
"""

import shlex
from pathlib import Path
from typing import Final

from app.cli.lazy import COMMANDS, load_application

ID: Final = "00000000-0000-4000-8000-00000000000a"
SETTINGS: Final = Path(__file__).parents[1] / "examples" / "settings.json"
TIME: Final = "2026-03-01T00:00:00Z"
# Lines for the commands that ask for a secret.
SECRETS: Final = "https://desk.example/hook\n0123456789abcdef0123\n"

READS: Final = tuple(
    tuple(shlex.split(line))
    for line in f"""
    status
    health
    dashboard
    changes 0 --limit 5
    whoami
    symbols list --search BTC --eligible --status Open --sector defi --others --limit 5
    symbols show BTCUSDT
    symbols convert XBTUSDTM
    symbols validate BTCUSDT NOSUCH
    sectors list
    sectors export
    universe funnel
    universe eligibility BTCUSDT
    market quote BTCUSDT
    market candles BTCUSDT --interval 1h --from {TIME} --to {TIME} --limit 30
    market book BTCUSDT --levels 5
    market impact BTCUSDT 10000 --side sell
    market funding BTCUSDT --from {TIME} --limit 5
    market open-interest BTCUSDT --to {TIME} --limit 5
    market quality BTCUSDT --limit 3
    scoring rankings --by RISK --limit 5 --eligible-only
    scoring history BTCUSDT --limit 5
    scoring explain BTCUSDT
    scoring algorithms
    scoring validation --horizon 14 --days 90
    scoring run {ID}
    portfolio show
    portfolio statistics
    portfolio weights
    portfolio correlation --days 20
    portfolio candidates
    portfolio replacements
    portfolio optimize equal
    portfolio tradeable
    portfolio should-trade BTCUSDT
    portfolio safety
    portfolio integrity
    portfolio rebalances --limit 5 --state done
    portfolio rebalances {ID}
    portfolio proposals --kind rebalance
    portfolio position-size BTCUSDT --balance 1000
    portfolio position-sizes --balance 1000
    history --symbol BTCUSDT --action ADD --limit 5
    locks list
    locks show BTCUSDT
    watchlist
    trading show
    positions --from {TIME} --to {TIME}
    performance equity --from {TIME} --to {TIME}
    performance trades --symbol BTCUSDT --from {TIME} --to {TIME}
    performance attribution --days 7
    performance marks --from {TIME} --to {TIME}
    performance analytics
    performance metrics
    performance replacements
    report --from {TIME} --to {TIME}
    signals show {ID}
    signals pending
    signals processed --hours 48
    signals statistics --days 7
    alerts list --state resolved --severity warning --rule low_score --symbol BTCUSDT
    alerts show {ID}
    alerts rules
    channels list
    notifications list --channel {ID} --state dead
    config get
    config diff 1 2
    config history
    config export
    portfolio preview --set score_tilt=0.7 --lock BTCUSDT=ban --balance 1000 --top 5
    jobs list --kind scoring --state done
    jobs show scoring:{ID}
    audit list --actor key:engine --action refused --from {TIME} --to {TIME}
    sessions list
    """.splitlines()
    if line.strip()
)
CHANGES: Final = tuple(
    tuple(shlex.split(line))
    for line in f"""
    symbols sync
    sectors set BTC layer1
    sectors reset BTC
    sectors import -
    market release BTCUSDT --reason checked
    scoring calculate BTCUSDT
    scoring set-algorithm --factor-weight volatility=0.5 --impact-notional 10000 --reason test
    scoring replay {ID}
    replay rebalance {ID}
    replay replacement 12
    replay signal {ID}
    replay alert {ID}
    portfolio initialize --size 3
    portfolio add BTCUSDT --reason test
    portfolio remove BTCUSDT
    portfolio replace BTCUSDT ETHUSDT
    portfolio rebalance --dry-run --method equal --balance 1000
    portfolio approve {ID} --reason test --user me
    portfolio decline {ID}
    locks set BTCUSDT ban --reason test --expires {TIME} --user me
    locks delete BTCUSDT
    trading on --reason test
    trading off --reason test --user me
    performance book BTCUSDT fill-1 --pnl -12.5 --at {TIME} --fees 0.1 --funding -0.2
    signals post desk momentum --strength 0.8 --confidence 0.9 --symbol BTCUSDT --direction BUY
    signals cleanup --older-than-days 30
    signals reprocess --max-retries 3
    alerts acknowledge {ID} --user me
    alerts snooze {ID} --minutes 2
    alerts resolve {ID}
    alerts set-rule low_score --enabled --severity warning --cooldown-s 60 --reason test
    channels add desk --kind webhook --subject error --subject trade --signed
    channels change {ID} --name desk --disabled --new-address
    channels test {ID}
    channels delete {ID}
    notifications redrive 7
    config set score_tilt=0.7
    config rollback 1
    config apply {SETTINGS} --yes
    jobs cancel scoring:{ID}
    sessions end {ID}
    sample-data
    """.splitlines()
    if line.strip()
)
# Streams events until Ctrl-C.
STREAMS: Final = (("watch", "portfolio_change"),)


def name_of(command: tuple[str, ...]) -> str:
    """The command without its arguments: `locks set`."""
    is_group = bool(load_application(COMMANDS[command[0]]).registered_groups) or (
        len(load_application(COMMANDS[command[0]]).registered_commands) > 1
    )
    return " ".join(command[: 2 if is_group else 1])
