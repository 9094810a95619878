"""Read-only SQL views under the table and column names of the customer's documents."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import event

from app.foundation.sql.schema import metadata

# Newest complete board: the scores that decisions use.
_NEWEST_RUN: Final = """\
SELECT r.run_id FROM scoring_runs r
JOIN scoring_run_coverage v ON v.run_id = r.run_id
WHERE NOT v.is_provisional
ORDER BY r.seq DESC LIMIT 1"""

# A contract is eligible if it passed the funnel of the newest complete board; NULL without one.
_SYMBOLS: Final = f"""\
CREATE VIEW symbols AS
SELECT c.id, c.symbol, c.settle AS root_symbol, c.base AS base_currency, c.quote AS quote_currency,
s.lot_size, s.tick_size, s.max_leverage,
CASE WHEN newest.run_id IS NULL THEN NULL ELSE EXISTS (
SELECT 1 FROM symbol_scores l WHERE l.run_id = newest.run_id AND l.symbol = c.symbol
AND c.vanished_at IS NULL) END AS is_eligible_for_management,
c.sector AS sector_category, c.cap_category AS market_cap_category,
c.first_seen AS created_at, c.last_seen AS updated_at
FROM contracts c
LEFT JOIN contract_specs s ON s.symbol_id = c.id AND s.valid_to IS NULL
LEFT JOIN ({_NEWEST_RUN}) newest ON 1 = 1"""  # noqa: S608  # names of ours

_COMPOSITION: Final = f"""\
CREATE VIEW portfolio_composition AS
SELECT m.symbol_id || '-' || m.entered_version AS id, m.symbol_id, m.rank AS position_rank,
m.included_at AS inclusion_date, l.composite AS current_score,
m.weight_u / 1000000.0 AS weight_percentage, m.status,
EXISTS (SELECT 1 FROM replacement_confirmations f
WHERE f.portfolio_id = m.portfolio_id AND f.symbol = m.symbol AND f.is_confirmed)
AS is_replacement_candidate
FROM portfolio_members m
LEFT JOIN ({_NEWEST_RUN}) newest ON 1 = 1
LEFT JOIN symbol_scores l ON l.run_id = newest.run_id AND l.symbol = m.symbol
WHERE m.status = 'Active'"""  # noqa: S608  # names of ours

_CONFIGURATION: Final = """\
CREATE VIEW system_configuration AS
SELECT e.key AS config_key, {value} AS config_value, c.version, c.created_at AS updated_at
FROM configuration_versions c CROSS JOIN {entries} e
WHERE c.version = (SELECT max(version) FROM configuration_versions)"""

VIEWS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "symbols": {"sqlite": _SYMBOLS, "postgresql": _SYMBOLS},
        "portfolio_composition": {"sqlite": _COMPOSITION, "postgresql": _COMPOSITION},
        "system_configuration": {
            "sqlite": _CONFIGURATION.format(
                value="json_extract(c.body, '$.' || e.key)", entries="json_each(c.body)"
            ),
            "postgresql": _CONFIGURATION.format(
                value="e.value", entries="LATERAL json_each_text(c.body::json)"
            ),
        },
    }
)


@event.listens_for(metadata, "after_create")
def _create_views(_target: Any, connection: Any, **_: Any) -> None:
    for statements in VIEWS.values():
        connection.exec_driver_sql(statements[connection.dialect.name])
