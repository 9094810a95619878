-- Initial schema of version 0.2.0 for SQLite. Statements are separated by empty lines; never change this file.

CREATE TABLE alerts (
    id VARCHAR(36) NOT NULL,
    rule VARCHAR(64) NOT NULL,
    subject VARCHAR(255) NOT NULL,
    symbols TEXT NOT NULL,
    severity VARCHAR(16) NOT NULL,
    state VARCHAR(16) NOT NULL,
    value DOUBLE,
    limit_value DOUBLE,
    message TEXT NOT NULL,
    since VARCHAR(32) NOT NULL,
    last_seen_at VARCHAR(32) NOT NULL,
    opened_at VARCHAR(32),
    acknowledged_at VARCHAR(32),
    acknowledged_by VARCHAR(128),
    snoozed_until VARCHAR(32),
    snoozed_by VARCHAR(128),
    resolved_at VARCHAR(32),
    resolution VARCHAR(16),
    resolved_by VARCHAR(128),
    CONSTRAINT pk_alerts PRIMARY KEY (id),
    CONSTRAINT ck_alerts_state_known CHECK (state IN ('pending', 'open', 'acknowledged', 'snoozed', 'resolved')),
    CONSTRAINT ck_alerts_severity_known CHECK (severity IN ('info', 'warning', 'critical')),
    CONSTRAINT ck_alerts_opened_at_known CHECK ((state = 'pending') = (opened_at IS NULL)),
    CONSTRAINT ck_alerts_resolved_at_known CHECK ((state = 'resolved') = (resolved_at IS NOT NULL AND resolution IS NOT NULL)),
    CONSTRAINT ck_alerts_value_range CHECK (value >= -1e300 AND value <= 1e300),
    CONSTRAINT ck_alerts_limit_value_range CHECK (limit_value >= -1e300 AND limit_value <= 1e300)
)

CREATE UNIQUE INDEX uq_alerts_rule_subject_live ON alerts (rule, subject) WHERE state <> 'resolved'

CREATE INDEX ix_alerts_resolved_at ON alerts (resolved_at, id)

CREATE TABLE notification_channels (
    id VARCHAR(36) NOT NULL,
    name VARCHAR(64) NOT NULL,
    kind VARCHAR(16) NOT NULL,
    url TEXT NOT NULL,
    secret TEXT,
    kinds TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    created_at VARCHAR(32) NOT NULL,
    CONSTRAINT pk_notification_channels PRIMARY KEY (id),
    CONSTRAINT uq_notification_channels_name UNIQUE (name),
    CONSTRAINT ck_notification_channels_kind_known CHECK (kind IN ('apprise', 'webhook'))
)

CREATE TABLE notifications (
    id INTEGER NOT NULL,
    channel_id VARCHAR(36) NOT NULL,
    event_seq BIGINT,
    kind VARCHAR(16) NOT NULL,
    is_critical BOOLEAN NOT NULL,
    "key" VARCHAR(255) NOT NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    event TEXT NOT NULL,
    state VARCHAR(16) NOT NULL,
    attempts INTEGER NOT NULL,
    created_at VARCHAR(32) NOT NULL,
    next_attempt_at VARCHAR(32),
    claimed_until VARCHAR(32),
    delivered_at VARCHAR(32),
    error VARCHAR(255),
    CONSTRAINT pk_notifications PRIMARY KEY (id),
    CONSTRAINT uq_notifications_channel_id_event_seq UNIQUE (channel_id, event_seq),
    CONSTRAINT ck_notifications_kind_known CHECK (kind IN ('error', 'trade', 'status')),
    CONSTRAINT ck_notifications_state_known CHECK (state IN ('pending', 'delivered', 'held', 'digested', 'dead')),
    CONSTRAINT ck_notifications_next_attempt_at_known CHECK ((state = 'pending') = (next_attempt_at IS NOT NULL)),
    CONSTRAINT ck_notifications_delivered_at_known CHECK ((state = 'delivered') = (delivered_at IS NOT NULL)),
    CONSTRAINT ck_notifications_attempts_range CHECK (attempts >= 0)
)

CREATE INDEX ix_notifications_state ON notifications (channel_id, state, id)

CREATE TABLE configuration_versions (
    version INTEGER NOT NULL,
    body TEXT NOT NULL,
    created_at VARCHAR(32) NOT NULL,
    created_by VARCHAR(128) NOT NULL,
    CONSTRAINT pk_configuration_versions PRIMARY KEY (version),
    CONSTRAINT ck_configuration_versions_version_range CHECK (version >= 1)
)

CREATE TRIGGER configuration_versions_no_update BEFORE UPDATE ON configuration_versions
BEGIN SELECT RAISE(ABORT, 'configuration_versions_append_only'); END

CREATE TRIGGER configuration_versions_no_delete BEFORE DELETE ON configuration_versions
BEGIN SELECT RAISE(ABORT, 'configuration_versions_append_only'); END

CREATE TABLE job_executors (
    executor_id VARCHAR(128) NOT NULL,
    seen_ms BIGINT NOT NULL,
    role VARCHAR(16),
    version VARCHAR(64),
    settings_hash VARCHAR(64),
    CONSTRAINT pk_job_executors PRIMARY KEY (executor_id),
    CONSTRAINT ck_job_executors_seen_ms_positive CHECK (seen_ms > 0)
)

CREATE TABLE leases (
    name VARCHAR(32) NOT NULL,
    holder VARCHAR(128) NOT NULL,
    epoch BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    CONSTRAINT pk_leases PRIMARY KEY (name),
    CONSTRAINT ck_leases_epoch_not_negative CHECK (epoch >= 0)
)

CREATE TABLE shared_markets (
    name VARCHAR(32) NOT NULL,
    epoch BIGINT NOT NULL,
    version BIGINT NOT NULL,
    stamped_ms BIGINT NOT NULL,
    payload BLOB NOT NULL,
    CONSTRAINT pk_shared_markets PRIMARY KEY (name)
)

CREATE TABLE sync_requests (
    request_id VARCHAR(64) NOT NULL,
    requested_ms BIGINT NOT NULL,
    done_ms BIGINT,
    error VARCHAR(64),
    detail VARCHAR(500),
    CONSTRAINT pk_sync_requests PRIMARY KEY (request_id)
)

CREATE TABLE event_head (
    id VARCHAR(16) NOT NULL,
    seq BIGINT NOT NULL,
    CONSTRAINT pk_event_head PRIMARY KEY (id),
    CONSTRAINT ck_event_head_seq_range CHECK (seq >= 0)
)

CREATE TABLE events (
    seq BIGINT NOT NULL,
    topic VARCHAR(32) NOT NULL,
    type VARCHAR(64) NOT NULL,
    subject VARCHAR(64),
    data TEXT NOT NULL,
    occurred_at VARCHAR(32) NOT NULL,
    CONSTRAINT pk_events PRIMARY KEY (seq),
    CONSTRAINT ck_events_seq_positive CHECK (seq >= 1)
)

CREATE INDEX ix_events_occurred_at ON events (occurred_at)

CREATE TABLE idempotency_keys (
    principal VARCHAR(128) NOT NULL,
    "key" VARCHAR(255) NOT NULL,
    route VARCHAR(255) NOT NULL,
    fingerprint VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL,
    locked_until VARCHAR(32) NOT NULL,
    status INTEGER,
    headers TEXT,
    body BLOB,
    created_at VARCHAR(32) NOT NULL,
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (principal, "key"),
    CONSTRAINT ck_idempotency_keys_state_known CHECK (state IN ('running', 'done')),
    CONSTRAINT ck_idempotency_keys_answer_known CHECK ((state = 'done') = (status IS NOT NULL))
)

CREATE INDEX ix_idempotency_keys_created_at ON idempotency_keys (created_at)

CREATE TABLE service_facts (
    "key" VARCHAR(64) NOT NULL,
    value TEXT NOT NULL,
    CONSTRAINT pk_service_facts PRIMARY KEY ("key")
)

CREATE TABLE contracts (
    id VARCHAR(36) NOT NULL,
    code VARCHAR(64) NOT NULL,
    symbol VARCHAR(64) NOT NULL,
    base VARCHAR(64) NOT NULL,
    quote VARCHAR(16) NOT NULL,
    settle VARCHAR(16) NOT NULL,
    kind VARCHAR(16) NOT NULL,
    status VARCHAR(16) NOT NULL,
    listed_ms BIGINT,
    expires_ms BIGINT,
    market_stage VARCHAR(32),
    market_type VARCHAR(32),
    sector VARCHAR(64) NOT NULL,
    cap_category VARCHAR(32) NOT NULL,
    first_seen VARCHAR(32) NOT NULL,
    last_seen VARCHAR(32) NOT NULL,
    vanished_at VARCHAR(32),
    paused_since VARCHAR(32),
    CONSTRAINT pk_contracts PRIMARY KEY (id)
)

CREATE UNIQUE INDEX uq_contracts_code_current ON contracts (code) WHERE vanished_at IS NULL

CREATE UNIQUE INDEX uq_contracts_symbol_current ON contracts (symbol) WHERE vanished_at IS NULL

CREATE TABLE candles (
    symbol_id VARCHAR(36) NOT NULL,
    interval_min INTEGER NOT NULL,
    opened_ms BIGINT NOT NULL,
    open DOUBLE NOT NULL,
    high DOUBLE NOT NULL,
    low DOUBLE NOT NULL,
    close DOUBLE NOT NULL,
    volume DOUBLE NOT NULL,
    turnover DOUBLE NOT NULL,
    revision INTEGER NOT NULL,
    CONSTRAINT pk_candles PRIMARY KEY (symbol_id, interval_min, opened_ms),
    CONSTRAINT ck_candles_prices CHECK (low > 0 AND low <= open AND low <= close AND high >= open AND high >= close AND high < 1e300),
    CONSTRAINT ck_candles_volume_range CHECK (volume >= 0 AND volume <= 1e300),
    CONSTRAINT ck_candles_turnover_range CHECK (turnover >= 0 AND turnover <= 1e300)
)
 WITHOUT ROWID

CREATE TRIGGER candles_revised AFTER UPDATE ON candles
BEGIN INSERT INTO candle_revisions (symbol_id, interval_min, opened_ms, revision, open, high, low, close, volume, turnover) VALUES (OLD.symbol_id, OLD.interval_min, OLD.opened_ms, OLD.revision, OLD.open, OLD.high, OLD.low, OLD.close, OLD.volume, OLD.turnover); END

CREATE TABLE market_snapshots (
    symbol_id VARCHAR(36) NOT NULL,
    taken_ms BIGINT NOT NULL,
    open_interest DOUBLE,
    mark_price DOUBLE,
    turnover_24h DOUBLE,
    CONSTRAINT pk_market_snapshots PRIMARY KEY (taken_ms, symbol_id),
    CONSTRAINT ck_market_snapshots_open_interest_range CHECK (open_interest >= 0 AND open_interest <= 1e300),
    CONSTRAINT ck_market_snapshots_mark_price_range CHECK (mark_price >= 0 AND mark_price <= 1e300),
    CONSTRAINT ck_market_snapshots_turnover_24h_range CHECK (turnover_24h >= 0 AND turnover_24h <= 1e300)
)
 WITHOUT ROWID

CREATE TABLE funding_rates (
    symbol_id VARCHAR(36) NOT NULL,
    settled_ms BIGINT NOT NULL,
    rate VARCHAR(48) NOT NULL,
    interval_ms BIGINT,
    CONSTRAINT pk_funding_rates PRIMARY KEY (symbol_id, settled_ms),
    CONSTRAINT ck_funding_rates_rate_exact CHECK (rate IS NULL OR (rate GLOB '*[0-9]*' AND ltrim(rate, '-') NOT GLOB '*[^0-9.]*'))
)
 WITHOUT ROWID

CREATE TABLE candle_revisions (
    symbol_id VARCHAR(36) NOT NULL,
    interval_min INTEGER NOT NULL,
    opened_ms BIGINT NOT NULL,
    revision INTEGER NOT NULL,
    open DOUBLE NOT NULL,
    high DOUBLE NOT NULL,
    low DOUBLE NOT NULL,
    close DOUBLE NOT NULL,
    volume DOUBLE NOT NULL,
    turnover DOUBLE NOT NULL,
    CONSTRAINT pk_candle_revisions PRIMARY KEY (symbol_id, interval_min, opened_ms, revision)
)
 WITHOUT ROWID

CREATE TABLE quality_verdicts (
    symbol_id VARCHAR(36) NOT NULL,
    at VARCHAR(32) NOT NULL,
    verdict VARCHAR(16) NOT NULL,
    score DOUBLE NOT NULL,
    flags TEXT NOT NULL,
    CONSTRAINT pk_quality_verdicts PRIMARY KEY (symbol_id, at),
    CONSTRAINT ck_quality_verdicts_score_range CHECK (score >= 0 AND score <= 1)
)
 WITHOUT ROWID

CREATE INDEX ix_quality_verdicts_at ON quality_verdicts (at)

CREATE TABLE performance_marks (
    slot VARCHAR(32) NOT NULL,
    at VARCHAR(32) NOT NULL,
    version INTEGER NOT NULL,
    mark TEXT NOT NULL,
    CONSTRAINT pk_performance_marks PRIMARY KEY (slot),
    CONSTRAINT ck_performance_marks_version_positive CHECK (version >= 1)
)

CREATE TABLE portfolio (
    id VARCHAR(36) NOT NULL,
    version INTEGER NOT NULL,
    configuration_version INTEGER NOT NULL,
    cash_u INTEGER NOT NULL,
    weighted_at VARCHAR(32),
    updated_at VARCHAR(32),
    CONSTRAINT pk_portfolio PRIMARY KEY (id),
    CONSTRAINT ck_portfolio_version_range CHECK (version >= 0),
    CONSTRAINT ck_portfolio_cash_u_range CHECK (cash_u >= 0 AND cash_u <= 100000000)
)

CREATE TABLE portfolio_history (
    aggregate VARCHAR(36) NOT NULL,
    seq BIGINT NOT NULL,
    type VARCHAR(32) NOT NULL,
    symbol VARCHAR(64),
    other_symbol VARCHAR(64),
    payload TEXT NOT NULL,
    reason TEXT NOT NULL,
    actor VARCHAR(128) NOT NULL,
    request_id VARCHAR(128) NOT NULL,
    occurred_at VARCHAR(32) NOT NULL,
    configuration_version INTEGER NOT NULL,
    input_hash VARCHAR(128),
    code_version VARCHAR(64) NOT NULL,
    prev_hash VARCHAR(64) NOT NULL,
    hash VARCHAR(64) NOT NULL,
    CONSTRAINT pk_portfolio_history PRIMARY KEY (aggregate, seq),
    CONSTRAINT ck_portfolio_history_seq_positive CHECK (seq >= 1)
)

CREATE INDEX ix_portfolio_history_moved ON portfolio_history (aggregate, seq) WHERE type IN ('ADD', 'REBALANCE', 'REMOVE', 'REPLACE', 'WEIGHTS')

CREATE TRIGGER portfolio_history_no_update BEFORE UPDATE ON portfolio_history
BEGIN SELECT RAISE(ABORT, 'portfolio_history_append_only'); END

CREATE TRIGGER portfolio_history_no_delete BEFORE DELETE ON portfolio_history
BEGIN SELECT RAISE(ABORT, 'portfolio_history_append_only'); END

CREATE TABLE proposals (
    proposal_id VARCHAR(64) NOT NULL,
    portfolio_id VARCHAR(36) NOT NULL,
    kind VARCHAR(16) NOT NULL,
    subject VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL,
    version INTEGER NOT NULL,
    reason TEXT NOT NULL,
    action TEXT NOT NULL,
    opened_at VARCHAR(32) NOT NULL,
    expires_at VARCHAR(32) NOT NULL,
    run_id VARCHAR(64),
    decided_at VARCHAR(32),
    decided_by VARCHAR(128),
    decision_reason TEXT,
    decision_run_id VARCHAR(64),
    decision_version INTEGER,
    CONSTRAINT pk_proposals PRIMARY KEY (proposal_id),
    CONSTRAINT ck_proposals_kind_known CHECK (kind IN ('rebalance', 'replacement', 'signal')),
    CONSTRAINT ck_proposals_state_known CHECK (state IN ('open', 'approved', 'declined', 'expired', 'superseded')),
    CONSTRAINT ck_proposals_decided_at_known CHECK ((state = 'open') = (decided_at IS NULL))
)

CREATE INDEX ix_proposals_opened_at ON proposals (opened_at, proposal_id)

CREATE UNIQUE INDEX uq_proposals_open ON proposals (portfolio_id, kind, subject) WHERE state = 'open'

CREATE TABLE rebalance_runs (
    run_id VARCHAR(64) NOT NULL,
    portfolio_id VARCHAR(36) NOT NULL,
    state VARCHAR(32) NOT NULL,
    reason TEXT NOT NULL,
    method VARCHAR(32),
    scheduled_at VARCHAR(32),
    actor VARCHAR(128) NOT NULL,
    request_id VARCHAR(128) NOT NULL,
    "key" VARCHAR(255),
    owner VARCHAR(128) NOT NULL,
    requested_at VARCHAR(32) NOT NULL,
    lease_until VARCHAR(32) NOT NULL,
    started_at VARCHAR(32),
    finished_at VARCHAR(32),
    version_before INTEGER,
    version_after INTEGER,
    triggers TEXT,
    changes TEXT,
    turnover_u INTEGER,
    cost DOUBLE,
    details TEXT,
    error_code VARCHAR(64),
    error_detail TEXT,
    CONSTRAINT pk_rebalance_runs PRIMARY KEY (run_id),
    CONSTRAINT ck_rebalance_runs_state_known CHECK (state IN ('planned', 'running', 'done', 'unchanged', 'observed', 'proposed', 'failed', 'aborted_stale', 'aborted_killed', 'aborted_expired')),
    CONSTRAINT ck_rebalance_runs_finished_at_known CHECK ((state IN ('planned', 'running')) = (finished_at IS NULL)),
    CONSTRAINT ck_rebalance_runs_turnover_u_range CHECK (turnover_u >= 0 AND turnover_u <= 200000000)
)

CREATE UNIQUE INDEX uq_rebalance_runs_tick ON rebalance_runs (portfolio_id, scheduled_at) WHERE scheduled_at IS NOT NULL AND state IN ('planned', 'running', 'done', 'unchanged', 'observed', 'proposed')

CREATE INDEX ix_rebalance_runs_requested_at ON rebalance_runs (requested_at, run_id)

CREATE UNIQUE INDEX uq_rebalance_runs_active ON rebalance_runs (portfolio_id) WHERE state IN ('planned', 'running')

CREATE TABLE scoring_algorithms (
    name VARCHAR(64) NOT NULL,
    version INTEGER NOT NULL,
    body TEXT NOT NULL,
    created_at VARCHAR(32) NOT NULL,
    created_by VARCHAR(128) NOT NULL,
    CONSTRAINT pk_scoring_algorithms PRIMARY KEY (name, version)
)

CREATE TABLE scoring_runs (
    run_id VARCHAR(36) NOT NULL,
    algorithm VARCHAR(64) NOT NULL,
    algorithm_version INTEGER NOT NULL,
    configuration_version INTEGER NOT NULL,
    as_of VARCHAR(32) NOT NULL,
    calculated_at VARCHAR(32) NOT NULL,
    duration_ms DOUBLE NOT NULL,
    data_source VARCHAR(16) NOT NULL,
    input_hash VARCHAR(128) NOT NULL,
    universe_size INTEGER NOT NULL,
    coverage TEXT NOT NULL,
    excluded TEXT NOT NULL,
    inputs BLOB,
    seq BIGINT DEFAULT '0' NOT NULL,
    CONSTRAINT pk_scoring_runs PRIMARY KEY (run_id),
    CONSTRAINT ck_scoring_runs_universe_size_range CHECK (universe_size >= 0 AND universe_size <= 1000000)
)

CREATE INDEX ix_scoring_runs_calculated_at ON scoring_runs (calculated_at, run_id)

CREATE UNIQUE INDEX uq_scoring_runs_seq ON scoring_runs (seq)

CREATE TABLE scoring_moments (
    algorithm VARCHAR(64) NOT NULL,
    algorithm_version INTEGER NOT NULL,
    day VARCHAR(10) NOT NULL,
    moments TEXT NOT NULL,
    CONSTRAINT pk_scoring_moments PRIMARY KEY (algorithm, algorithm_version, day)
)

CREATE TABLE signals (
    signal_id VARCHAR(36) NOT NULL,
    source VARCHAR(64) NOT NULL,
    source_id VARCHAR(255),
    type VARCHAR(64) NOT NULL,
    symbol VARCHAR(64),
    direction VARCHAR(8) NOT NULL,
    strength DOUBLE NOT NULL,
    confidence DOUBLE NOT NULL,
    data TEXT,
    claimed_at VARCHAR(32),
    claimed_expires_at VARCHAR(32),
    received_at VARCHAR(32) NOT NULL,
    expires_at VARCHAR(32) NOT NULL,
    state VARCHAR(16) NOT NULL,
    attempts INTEGER NOT NULL,
    completed_at VARCHAR(32),
    reason TEXT,
    evaluation VARCHAR(16),
    score DOUBLE,
    approvals DOUBLE,
    voted DOUBLE,
    verdict_reason TEXT,
    is_skill_weighted BOOLEAN,
    board_id VARCHAR(36),
    configuration_version INTEGER,
    CONSTRAINT pk_signals PRIMARY KEY (signal_id),
    CONSTRAINT uq_signals_source_source_id UNIQUE (source, source_id),
    CONSTRAINT ck_signals_state_known CHECK (state IN ('received', 'validated', 'evaluating', 'approved', 'applied', 'rejected', 'expired', 'failed')),
    CONSTRAINT ck_signals_direction_known CHECK (direction IN ('BUY', 'SELL', 'NEUTRAL')),
    CONSTRAINT ck_signals_completed_at_known CHECK ((state IN ('received', 'validated', 'evaluating')) = (completed_at IS NULL)),
    CONSTRAINT ck_signals_strength_range CHECK (strength >= 0 AND strength <= 1),
    CONSTRAINT ck_signals_confidence_range CHECK (confidence >= 0 AND confidence <= 1),
    CONSTRAINT ck_signals_score_range CHECK (score >= 0 AND score <= 1)
)

CREATE INDEX ix_signals_approved ON signals (expires_at, signal_id) WHERE state = 'approved'

CREATE INDEX ix_signals_waiting ON signals (received_at, signal_id) WHERE state IN ('received', 'validated', 'evaluating')

CREATE INDEX ix_signals_completed_at ON signals (completed_at, signal_id)

CREATE TABLE signal_records (
    kind VARCHAR(16) NOT NULL,
    name VARCHAR(64) NOT NULL,
    type VARCHAR(64) NOT NULL,
    bin INTEGER NOT NULL,
    outcomes INTEGER NOT NULL,
    forecast_sum DOUBLE NOT NULL,
    occurrences INTEGER NOT NULL,
    squared_error_sum DOUBLE NOT NULL,
    CONSTRAINT pk_signal_records PRIMARY KEY (kind, name, type, bin),
    CONSTRAINT ck_signal_records_kind_known CHECK (kind IN ('agent', 'source')),
    CONSTRAINT ck_signal_records_occurrences_counted CHECK (occurrences >= 0 AND occurrences <= outcomes),
    CONSTRAINT ck_signal_records_bin_range CHECK (bin >= 0 AND bin <= 9)
)

CREATE TABLE contract_specs (
    symbol_id VARCHAR(36) NOT NULL,
    valid_from VARCHAR(32) NOT NULL,
    valid_to VARCHAR(32),
    is_inverse BOOLEAN NOT NULL,
    multiplier VARCHAR(48) NOT NULL,
    lot_size INTEGER NOT NULL,
    tick_size VARCHAR(48) NOT NULL,
    max_order_lots BIGINT,
    max_leverage INTEGER,
    initial_margin VARCHAR(48),
    maintenance_margin VARCHAR(48),
    maker_fee VARCHAR(48),
    taker_fee VARCHAR(48),
    funding_interval_ms BIGINT,
    CONSTRAINT pk_contract_specs PRIMARY KEY (symbol_id, valid_from),
    CONSTRAINT fk_contract_specs_symbol_id FOREIGN KEY(symbol_id) REFERENCES contracts (id),
    CONSTRAINT ck_contract_specs_validity CHECK (valid_to IS NULL OR valid_to > valid_from),
    CONSTRAINT ck_contract_specs_lot_size_positive CHECK (lot_size >= 1),
    CONSTRAINT ck_contract_specs_multiplier_positive CHECK (multiplier GLOB '*[1-9]*' AND multiplier NOT GLOB '*[^0-9.]*'),
    CONSTRAINT ck_contract_specs_tick_size_positive CHECK (tick_size GLOB '*[1-9]*' AND tick_size NOT GLOB '*[^0-9.]*'),
    CONSTRAINT ck_contract_specs_initial_margin_exact CHECK (initial_margin IS NULL OR (initial_margin GLOB '*[0-9]*' AND ltrim(initial_margin, '-') NOT GLOB '*[^0-9.]*')),
    CONSTRAINT ck_contract_specs_maintenance_margin_exact CHECK (maintenance_margin IS NULL OR (maintenance_margin GLOB '*[0-9]*' AND ltrim(maintenance_margin, '-') NOT GLOB '*[^0-9.]*')),
    CONSTRAINT ck_contract_specs_maker_fee_exact CHECK (maker_fee IS NULL OR (maker_fee GLOB '*[0-9]*' AND ltrim(maker_fee, '-') NOT GLOB '*[^0-9.]*')),
    CONSTRAINT ck_contract_specs_taker_fee_exact CHECK (taker_fee IS NULL OR (taker_fee GLOB '*[0-9]*' AND ltrim(taker_fee, '-') NOT GLOB '*[^0-9.]*'))
)

CREATE UNIQUE INDEX uq_contract_specs_symbol_id_open ON contract_specs (symbol_id) WHERE valid_to IS NULL

CREATE TABLE portfolio_members (
    portfolio_id VARCHAR(36) NOT NULL,
    symbol_id VARCHAR(36) NOT NULL,
    entered_version INTEGER NOT NULL,
    symbol VARCHAR(64) NOT NULL,
    contract VARCHAR(64) NOT NULL,
    status VARCHAR(16) NOT NULL,
    rank INTEGER NOT NULL,
    included_at VARCHAR(32) NOT NULL,
    inclusion_reason TEXT NOT NULL,
    inclusion_price VARCHAR(48),
    inclusion_score DOUBLE,
    weight_u INTEGER NOT NULL,
    target_weight_u INTEGER NOT NULL,
    left_at VARCHAR(32),
    leaving_reason TEXT,
    CONSTRAINT pk_portfolio_members PRIMARY KEY (portfolio_id, symbol_id, entered_version),
    CONSTRAINT fk_portfolio_members_portfolio_id FOREIGN KEY(portfolio_id) REFERENCES portfolio (id),
    CONSTRAINT fk_portfolio_members_symbol_id FOREIGN KEY(symbol_id) REFERENCES contracts (id),
    CONSTRAINT ck_portfolio_members_status_known CHECK (status IN ('Active', 'Removed', 'Replaced')),
    CONSTRAINT ck_portfolio_members_left_at_known CHECK ((status = 'Active') = (left_at IS NULL)),
    CONSTRAINT ck_portfolio_members_rank_positive CHECK (rank >= 1),
    CONSTRAINT ck_portfolio_members_weight_u_range CHECK (weight_u >= 0 AND weight_u <= 100000000),
    CONSTRAINT ck_portfolio_members_target_weight_u_range CHECK (target_weight_u >= 0 AND target_weight_u <= 100000000),
    CONSTRAINT ck_portfolio_members_inclusion_score_range CHECK (inclusion_score >= 0 AND inclusion_score <= 1),
    CONSTRAINT ck_portfolio_members_inclusion_price_exact CHECK (inclusion_price IS NULL OR (inclusion_price GLOB '*[0-9]*' AND ltrim(inclusion_price, '-') NOT GLOB '*[^0-9.]*'))
)

CREATE UNIQUE INDEX uq_portfolio_members_symbol_id_active ON portfolio_members (portfolio_id, symbol_id) WHERE status = 'Active'

CREATE UNIQUE INDEX uq_portfolio_members_rank_active ON portfolio_members (portfolio_id, rank) WHERE status = 'Active'

CREATE TABLE trades (
    trade_id VARCHAR(128) NOT NULL,
    event_seq BIGINT NOT NULL,
    symbol_id VARCHAR(36) NOT NULL,
    symbol VARCHAR(64) NOT NULL,
    contract VARCHAR(64) NOT NULL,
    currency VARCHAR(16) NOT NULL,
    pnl VARCHAR(48) NOT NULL,
    fees VARCHAR(48) NOT NULL,
    funding VARCHAR(48) NOT NULL,
    occurred_at VARCHAR(32) NOT NULL,
    booked_at VARCHAR(32) NOT NULL,
    CONSTRAINT pk_trades PRIMARY KEY (trade_id),
    CONSTRAINT uq_trades_event_seq UNIQUE (event_seq),
    CONSTRAINT fk_trades_symbol_id FOREIGN KEY(symbol_id) REFERENCES contracts (id),
    CONSTRAINT ck_trades_event_seq_positive CHECK (event_seq >= 1),
    CONSTRAINT ck_trades_pnl_exact CHECK (pnl IS NULL OR (pnl GLOB '*[0-9]*' AND ltrim(pnl, '-') NOT GLOB '*[^0-9.]*')),
    CONSTRAINT ck_trades_fees_exact CHECK (fees IS NULL OR (fees GLOB '*[0-9]*' AND ltrim(fees, '-') NOT GLOB '*[^0-9.]*')),
    CONSTRAINT ck_trades_funding_exact CHECK (funding IS NULL OR (funding GLOB '*[0-9]*' AND ltrim(funding, '-') NOT GLOB '*[^0-9.]*'))
)

CREATE INDEX ix_trades_occurred_at ON trades (occurred_at, event_seq)

CREATE INDEX ix_trades_symbol_id ON trades (symbol_id, event_seq)

CREATE TRIGGER trades_no_update BEFORE UPDATE ON trades
BEGIN SELECT RAISE(ABORT, 'trades_append_only'); END

CREATE TRIGGER trades_no_delete BEFORE DELETE ON trades
BEGIN SELECT RAISE(ABORT, 'trades_append_only'); END

CREATE TABLE booked_totals (
    symbol_id VARCHAR(36) NOT NULL,
    currency VARCHAR(16) NOT NULL,
    results BIGINT NOT NULL,
    pnl VARCHAR(48) NOT NULL,
    fees VARCHAR(48) NOT NULL,
    funding VARCHAR(48) NOT NULL,
    CONSTRAINT pk_booked_totals PRIMARY KEY (symbol_id, currency),
    CONSTRAINT fk_booked_totals_symbol_id FOREIGN KEY(symbol_id) REFERENCES contracts (id),
    CONSTRAINT ck_booked_totals_results_positive CHECK (results >= 1),
    CONSTRAINT ck_booked_totals_pnl_exact CHECK (pnl IS NULL OR (pnl GLOB '*[0-9]*' AND ltrim(pnl, '-') NOT GLOB '*[^0-9.]*')),
    CONSTRAINT ck_booked_totals_fees_exact CHECK (fees IS NULL OR (fees GLOB '*[0-9]*' AND ltrim(fees, '-') NOT GLOB '*[^0-9.]*')),
    CONSTRAINT ck_booked_totals_funding_exact CHECK (funding IS NULL OR (funding GLOB '*[0-9]*' AND ltrim(funding, '-') NOT GLOB '*[^0-9.]*'))
)

CREATE TABLE replacement_confirmations (
    portfolio_id VARCHAR(36) NOT NULL,
    symbol VARCHAR(64) NOT NULL,
    candidate VARCHAR(64) NOT NULL,
    confirmations INTEGER NOT NULL,
    input_hash VARCHAR(128) NOT NULL,
    is_confirmed BOOLEAN NOT NULL,
    counted_at VARCHAR(32) NOT NULL,
    CONSTRAINT pk_replacement_confirmations PRIMARY KEY (portfolio_id, symbol),
    CONSTRAINT fk_replacement_confirmations_portfolio_id FOREIGN KEY(portfolio_id) REFERENCES portfolio (id),
    CONSTRAINT ck_replacement_confirmations_confirmations_positive CHECK (confirmations >= 1)
)

CREATE TABLE vacancies (
    portfolio_id VARCHAR(36) NOT NULL,
    symbol VARCHAR(64) NOT NULL,
    reason TEXT NOT NULL,
    vacated_at VARCHAR(32) NOT NULL,
    CONSTRAINT pk_vacancies PRIMARY KEY (portfolio_id, symbol),
    CONSTRAINT fk_vacancies_portfolio_id FOREIGN KEY(portfolio_id) REFERENCES portfolio (id)
)

CREATE TABLE rebalance_run_steps (
    run_id VARCHAR(64) NOT NULL,
    position INTEGER NOT NULL,
    beat VARCHAR(16) NOT NULL,
    state VARCHAR(16) NOT NULL,
    started_at VARCHAR(32) NOT NULL,
    finished_at VARCHAR(32) NOT NULL,
    detail TEXT NOT NULL,
    CONSTRAINT pk_rebalance_run_steps PRIMARY KEY (run_id, position),
    CONSTRAINT fk_rebalance_run_steps_run_id FOREIGN KEY(run_id) REFERENCES rebalance_runs (run_id),
    CONSTRAINT ck_rebalance_run_steps_position_positive CHECK (position >= 1),
    CONSTRAINT ck_rebalance_run_steps_state_known CHECK (state IN ('done', 'skipped', 'failed'))
)

CREATE TABLE symbol_scores (
    run_id VARCHAR(36) NOT NULL,
    symbol VARCHAR(64) NOT NULL,
    calculated_at VARCHAR(32) NOT NULL,
    status VARCHAR(16) NOT NULL,
    reason TEXT,
    rank INTEGER,
    composite DOUBLE,
    technical DOUBLE,
    fundamental DOUBLE,
    market_structure DOUBLE,
    risk DOUBLE,
    z DOUBLE,
    confidence DOUBLE,
    volatility DOUBLE,
    CONSTRAINT pk_symbol_scores PRIMARY KEY (run_id, symbol),
    CONSTRAINT fk_symbol_scores_run_id FOREIGN KEY(run_id) REFERENCES scoring_runs (run_id) ON DELETE CASCADE,
    CONSTRAINT ck_symbol_scores_rank_positive CHECK (rank >= 1),
    CONSTRAINT ck_symbol_scores_composite_range CHECK (composite >= 0 AND composite <= 1),
    CONSTRAINT ck_symbol_scores_technical_range CHECK (technical >= 0 AND technical <= 1),
    CONSTRAINT ck_symbol_scores_fundamental_range CHECK (fundamental >= 0 AND fundamental <= 1),
    CONSTRAINT ck_symbol_scores_market_structure_range CHECK (market_structure >= 0 AND market_structure <= 1),
    CONSTRAINT ck_symbol_scores_risk_range CHECK (risk >= 0 AND risk <= 1),
    CONSTRAINT ck_symbol_scores_confidence_range CHECK (confidence >= 0 AND confidence <= 1),
    CONSTRAINT ck_symbol_scores_z_range CHECK (z >= -1e6 AND z <= 1e6),
    CONSTRAINT ck_symbol_scores_volatility_range CHECK (volatility >= 0 AND volatility <= 1e300)
)

CREATE INDEX ix_symbol_scores_symbol_calculated_at ON symbol_scores (symbol, calculated_at, run_id)

CREATE TABLE scoring_run_details (
    run_id VARCHAR(36) NOT NULL,
    packed BLOB NOT NULL,
    CONSTRAINT pk_scoring_run_details PRIMARY KEY (run_id),
    CONSTRAINT fk_scoring_run_details_run_id FOREIGN KEY(run_id) REFERENCES scoring_runs (run_id) ON DELETE CASCADE
)

CREATE TABLE scoring_run_moments (
    run_id VARCHAR(36) NOT NULL,
    moments TEXT NOT NULL,
    CONSTRAINT pk_scoring_run_moments PRIMARY KEY (run_id),
    CONSTRAINT fk_scoring_run_moments_run_id FOREIGN KEY(run_id) REFERENCES scoring_runs (run_id) ON DELETE CASCADE
)

CREATE TABLE scoring_run_coverage (
    run_id VARCHAR(36) NOT NULL,
    source_coverage TEXT NOT NULL,
    is_provisional BOOLEAN NOT NULL,
    CONSTRAINT pk_scoring_run_coverage PRIMARY KEY (run_id),
    CONSTRAINT fk_scoring_run_coverage_run_id FOREIGN KEY(run_id) REFERENCES scoring_runs (run_id) ON DELETE CASCADE
)

CREATE TABLE signal_effects (
    signal_id VARCHAR(36) NOT NULL,
    automation VARCHAR(16) NOT NULL,
    move VARCHAR(16),
    symbol VARCHAR(64),
    old_symbol VARCHAR(64),
    note TEXT,
    at VARCHAR(32) NOT NULL,
    proposal_id VARCHAR(64),
    version INTEGER,
    CONSTRAINT pk_signal_effects PRIMARY KEY (signal_id),
    CONSTRAINT fk_signal_effects_signal_id FOREIGN KEY(signal_id) REFERENCES signals (signal_id),
    CONSTRAINT ck_signal_effects_automation_known CHECK (automation IN ('observe', 'propose', 'auto')),
    CONSTRAINT ck_signal_effects_move_known CHECK ((move IS NULL) = (symbol IS NULL) AND (move IS NULL OR move IN ('add', 'remove', 'replace')))
)

CREATE TABLE signal_votes (
    signal_id VARCHAR(36) NOT NULL,
    agent VARCHAR(64) NOT NULL,
    weight DOUBLE NOT NULL,
    probability DOUBLE,
    recommendation VARCHAR(16),
    confidence DOUBLE,
    figures TEXT NOT NULL,
    reason TEXT,
    is_veto BOOLEAN NOT NULL,
    is_dissent BOOLEAN NOT NULL,
    is_source BOOLEAN DEFAULT 0 NOT NULL,
    CONSTRAINT pk_signal_votes PRIMARY KEY (signal_id, agent),
    CONSTRAINT fk_signal_votes_signal_id FOREIGN KEY(signal_id) REFERENCES signals (signal_id),
    CONSTRAINT ck_signal_votes_probability_range CHECK (probability >= 0 AND probability <= 1),
    CONSTRAINT ck_signal_votes_weight_range CHECK (weight >= 0 AND weight <= 1)
)

CREATE TABLE signal_outcomes (
    signal_id VARCHAR(36) NOT NULL,
    source VARCHAR(64) NOT NULL,
    type VARCHAR(64) DEFAULT '' NOT NULL,
    symbol VARCHAR(64) NOT NULL,
    starts_at VARCHAR(32) NOT NULL,
    ends_at VARCHAR(32) NOT NULL,
    booked_at VARCHAR(32),
    outperformed BOOLEAN,
    gain DOUBLE,
    median DOUBLE,
    universe_size INTEGER,
    reason TEXT,
    counts_for_agents BOOLEAN NOT NULL,
    counts_for_source BOOLEAN NOT NULL,
    CONSTRAINT pk_signal_outcomes PRIMARY KEY (signal_id),
    CONSTRAINT fk_signal_outcomes_signal_id FOREIGN KEY(signal_id) REFERENCES signals (signal_id),
    CONSTRAINT ck_signal_outcomes_window CHECK (ends_at > starts_at),
    CONSTRAINT ck_signal_outcomes_outperformed_booked CHECK (outperformed IS NULL OR NOT (booked_at IS NULL))
)

CREATE INDEX ix_signal_outcomes_open ON signal_outcomes (ends_at, starts_at, signal_id) WHERE booked_at IS NULL

CREATE INDEX ix_signal_outcomes_symbol ON signal_outcomes (symbol, ends_at)

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
LEFT JOIN (SELECT r.run_id FROM scoring_runs r
JOIN scoring_run_coverage v ON v.run_id = r.run_id
WHERE NOT v.is_provisional
ORDER BY r.seq DESC LIMIT 1) newest ON 1 = 1

CREATE VIEW portfolio_composition AS
SELECT m.symbol_id || '-' || m.entered_version AS id, m.symbol_id, m.rank AS position_rank,
m.included_at AS inclusion_date, l.composite AS current_score,
m.weight_u / 1000000.0 AS weight_percentage, m.status,
EXISTS (SELECT 1 FROM replacement_confirmations f
WHERE f.portfolio_id = m.portfolio_id AND f.symbol = m.symbol AND f.is_confirmed)
AS is_replacement_candidate
FROM portfolio_members m
LEFT JOIN (SELECT r.run_id FROM scoring_runs r
JOIN scoring_run_coverage v ON v.run_id = r.run_id
WHERE NOT v.is_provisional
ORDER BY r.seq DESC LIMIT 1) newest ON 1 = 1
LEFT JOIN symbol_scores l ON l.run_id = newest.run_id AND l.symbol = m.symbol
WHERE m.status = 'Active'

CREATE VIEW system_configuration AS
SELECT e.key AS config_key, json_extract(c.body, '$.' || e.key) AS config_value, c.version, c.created_at AS updated_at
FROM configuration_versions c CROSS JOIN json_each(c.body) e
WHERE c.version = (SELECT max(version) FROM configuration_versions)

INSERT INTO portfolio (id, version, configuration_version, cash_u)
VALUES ('main', 0, 1, 100000000)

INSERT INTO event_head (id, seq) VALUES ('main', 0), ('notified', 0)
