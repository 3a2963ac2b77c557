CREATE TABLE llmproxy_schema (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT llmproxy_schema_pkc PRIMARY KEY (version_num)
);

CREATE TABLE projects (
	id VARCHAR(255) NOT NULL, 
	name TEXT NOT NULL, 
	active BOOLEAN NOT NULL, 
	created_at DOUBLE NOT NULL, 
	updated_at DOUBLE NOT NULL, 
	deactivated_at DOUBLE, allowance JSON, revision BIGINT DEFAULT '1' NOT NULL, labels JSON, metadata JSON, group_id VARCHAR(64) REFERENCES project_groups (id), policy JSON, 
	PRIMARY KEY (id)
);

CREATE TABLE provider_keys (
	project_id VARCHAR(255) NOT NULL, 
	api VARCHAR(255) NOT NULL, 
	sealed BLOB NOT NULL, 
	masked VARCHAR(32) NOT NULL, reference TEXT, 
	PRIMARY KEY (project_id, api), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
);

CREATE TABLE tokens (
	id VARCHAR(32) NOT NULL, 
	project_id VARCHAR(255) NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	prefix VARCHAR(16) NOT NULL, 
	name TEXT NOT NULL, 
	active BOOLEAN NOT NULL, 
	expires_at DOUBLE, 
	max_requests BIGINT, 
	request_count BIGINT NOT NULL, 
	apis JSON NOT NULL, 
	endpoints JSON NOT NULL, 
	models JSON NOT NULL, 
	ips JSON NOT NULL, 
	created_at DOUBLE NOT NULL, 
	last_used_at DOUBLE, 
	deactivated_at DOUBLE, allowance JSON, cache_hits BIGINT DEFAULT '0' NOT NULL, revision BIGINT DEFAULT '1' NOT NULL, labels JSON, metadata JSON, previous_hash VARCHAR(64), previous_expires_at DOUBLE, policy JSON, 
	PRIMARY KEY (id), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE, 
	UNIQUE (hash)
);

CREATE TABLE canaries (
	name VARCHAR(32) NOT NULL, 
	sealed BLOB NOT NULL, 
	PRIMARY KEY (name)
);

CREATE TABLE usage_by_period (
	period VARCHAR(10) NOT NULL, 
	project_id VARCHAR(255) NOT NULL, 
	token_id VARCHAR(64) NOT NULL, 
	api VARCHAR(255) NOT NULL, 
	model VARCHAR(128) NOT NULL, 
	requests BIGINT NOT NULL, 
	failed BIGINT NOT NULL, 
	estimated BIGINT NOT NULL, 
	unpriced BIGINT NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	cached_tokens BIGINT NOT NULL, 
	cache_write_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	reasoning_tokens BIGINT NOT NULL, 
	cost_usd DOUBLE NOT NULL, 
	PRIMARY KEY (period, project_id, token_id, api, model)
);

CREATE TABLE ledger_journals (
	name VARCHAR(64) NOT NULL, 
	place BIGINT NOT NULL, 
	updated_at DOUBLE NOT NULL, 
	PRIMARY KEY (name)
);

CREATE TABLE spending (
	id VARCHAR(400) NOT NULL, 
	amount BIGINT NOT NULL, 
	ends DOUBLE NOT NULL, 
	PRIMARY KEY (id)
);

CREATE TABLE epochs (
	name VARCHAR(32) NOT NULL, 
	number BIGINT NOT NULL, 
	PRIMARY KEY (name)
);

CREATE TABLE changes (
	epoch BIGINT NOT NULL, 
	project_id VARCHAR(255) NOT NULL, 
	PRIMARY KEY (epoch)
);

CREATE TABLE budget_advances (
	run VARCHAR(64) NOT NULL, 
	budget VARCHAR(400) NOT NULL, 
	amount BIGINT NOT NULL, 
	ends DOUBLE NOT NULL, 
	updated_at DOUBLE NOT NULL, 
	PRIMARY KEY (run, budget)
);

CREATE INDEX budget_advances_by_budget ON budget_advances (budget);

CREATE INDEX projects_by_age ON projects (created_at, id);

CREATE INDEX tokens_by_age ON tokens (created_at, id);

CREATE INDEX tokens_of_project_by_age ON tokens (project_id, created_at, id);

CREATE TABLE pending_results (
	ledger_id VARCHAR(64) NOT NULL, 
	result_id VARCHAR(255) NOT NULL, 
	at DOUBLE NOT NULL, 
	project_id VARCHAR(255) NOT NULL, 
	token_id VARCHAR(64) NOT NULL, 
	api VARCHAR(255) NOT NULL, 
	model VARCHAR(128) NOT NULL, 
	held JSON NOT NULL, attribution VARCHAR(4000) DEFAULT '' NOT NULL, 
	PRIMARY KEY (ledger_id)
);

CREATE INDEX pending_results_by_result ON pending_results (result_id);

CREATE INDEX pending_results_by_time ON pending_results (at);

CREATE TABLE activity (
	step INTEGER NOT NULL, 
	at BIGINT NOT NULL, 
	project_id VARCHAR(255) NOT NULL, 
	api VARCHAR(255) NOT NULL, 
	model VARCHAR(128) NOT NULL, 
	requests BIGINT NOT NULL, 
	failed BIGINT NOT NULL, 
	refused BIGINT NOT NULL, 
	cache_hits BIGINT NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	first_byte_00 BIGINT NOT NULL, 
	first_byte_01 BIGINT NOT NULL, 
	first_byte_02 BIGINT NOT NULL, 
	first_byte_03 BIGINT NOT NULL, 
	first_byte_04 BIGINT NOT NULL, 
	first_byte_05 BIGINT NOT NULL, 
	first_byte_06 BIGINT NOT NULL, 
	first_byte_07 BIGINT NOT NULL, 
	first_byte_08 BIGINT NOT NULL, 
	first_byte_09 BIGINT NOT NULL, 
	first_byte_10 BIGINT NOT NULL, 
	first_byte_11 BIGINT NOT NULL, 
	first_byte_12 BIGINT NOT NULL, 
	first_byte_13 BIGINT NOT NULL, 
	first_byte_14 BIGINT NOT NULL, 
	first_byte_15 BIGINT NOT NULL, 
	first_byte_16 BIGINT NOT NULL, 
	first_byte_17 BIGINT NOT NULL, 
	first_byte_18 BIGINT NOT NULL, 
	first_byte_19 BIGINT NOT NULL, 
	first_byte_20 BIGINT NOT NULL, 
	first_byte_21 BIGINT NOT NULL, 
	first_byte_22 BIGINT NOT NULL, 
	first_byte_23 BIGINT NOT NULL, 
	first_byte_24 BIGINT NOT NULL, 
	first_byte_25 BIGINT NOT NULL, 
	first_byte_26 BIGINT NOT NULL, 
	first_byte_27 BIGINT NOT NULL, 
	first_byte_28 BIGINT NOT NULL, 
	first_byte_29 BIGINT NOT NULL, 
	cost_usd DOUBLE NOT NULL, 
	PRIMARY KEY (step, at, project_id, api, model)
);

CREATE TABLE management_keys (
	id VARCHAR(32) NOT NULL, 
	name TEXT NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	prefix VARCHAR(16) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	projects JSON, 
	created_at DOUBLE NOT NULL, 
	last_used_at DOUBLE, 
	deactivated_at DOUBLE, 
	PRIMARY KEY (id), 
	UNIQUE (hash)
);

CREATE INDEX management_keys_by_age ON management_keys (created_at, id);

CREATE TABLE admin_sessions (
	id VARCHAR(32) NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	previous_hash VARCHAR(64), 
	csrf_token VARCHAR(64) NOT NULL, 
	subject VARCHAR(255) NOT NULL, 
	created_at DOUBLE NOT NULL, 
	rotated_at DOUBLE NOT NULL, 
	last_seen_at DOUBLE NOT NULL, 
	client VARCHAR(64) NOT NULL, 
	user_agent VARCHAR(255) NOT NULL, principal TEXT, 
	PRIMARY KEY (id), 
	UNIQUE (hash)
);

CREATE INDEX admin_sessions_by_previous_hash ON admin_sessions (previous_hash);

CREATE TABLE creations (
	name VARCHAR(64) NOT NULL, 
	fingerprint VARCHAR(64) NOT NULL, 
	at DOUBLE NOT NULL, 
	sealed BLOB, 
	PRIMARY KEY (name)
);

CREATE INDEX creations_by_time ON creations (at);

CREATE TABLE usage_of_projects (
	period VARCHAR(10) NOT NULL, 
	project_id VARCHAR(255) NOT NULL, 
	api VARCHAR(255) NOT NULL, 
	model VARCHAR(128) NOT NULL, 
	requests BIGINT NOT NULL, 
	failed BIGINT NOT NULL, 
	estimated BIGINT NOT NULL, 
	unpriced BIGINT NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	cached_tokens BIGINT NOT NULL, 
	cache_write_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	reasoning_tokens BIGINT NOT NULL, 
	cost_usd DOUBLE NOT NULL, 
	PRIMARY KEY (period, project_id, api, model)
);

CREATE TABLE audit_log (
	seq BIGINT NOT NULL, 
	at DOUBLE NOT NULL, 
	action VARCHAR(64) NOT NULL, 
	actor VARCHAR(128) NOT NULL, 
	outcome VARCHAR(16) NOT NULL, 
	project_id VARCHAR(255) NOT NULL, 
	token_id VARCHAR(64) NOT NULL, 
	request_id VARCHAR(128) NOT NULL, 
	client VARCHAR(64) NOT NULL, 
	line TEXT NOT NULL, 
	hash VARCHAR(64) NOT NULL, 
	PRIMARY KEY (seq)
);

CREATE INDEX audit_log_by_time ON audit_log (at);

CREATE INDEX audit_log_of_project ON audit_log (project_id, seq);

CREATE TABLE usage_by_attribution (
	period VARCHAR(10) NOT NULL, 
	project_id VARCHAR(255) NOT NULL, 
	name VARCHAR(32) NOT NULL, 
	source VARCHAR(8) NOT NULL, 
	value VARCHAR(128) NOT NULL, 
	api VARCHAR(255) NOT NULL, 
	model VARCHAR(128) NOT NULL, 
	requests BIGINT NOT NULL, 
	failed BIGINT NOT NULL, 
	estimated BIGINT NOT NULL, 
	unpriced BIGINT NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	cached_tokens BIGINT NOT NULL, 
	cache_write_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	reasoning_tokens BIGINT NOT NULL, 
	cost_usd DOUBLE NOT NULL, 
	PRIMARY KEY (period, project_id, name, source, value, api, model)
);

CREATE TABLE further_provider_keys (
	project_id VARCHAR(255) NOT NULL, 
	api VARCHAR(255) NOT NULL, 
	position INTEGER NOT NULL, 
	sealed BLOB NOT NULL, 
	masked VARCHAR(32) NOT NULL, reference TEXT, 
	PRIMARY KEY (project_id, api, position), 
	FOREIGN KEY(project_id) REFERENCES projects (id) ON DELETE CASCADE
);

CREATE TABLE project_groups (
	id VARCHAR(64) NOT NULL, 
	name TEXT NOT NULL, 
	parent_id VARCHAR(64), 
	allowance JSON, 
	created_at DOUBLE NOT NULL, 
	updated_at DOUBLE NOT NULL, 
	revision BIGINT DEFAULT '1' NOT NULL, 
	PRIMARY KEY (id)
);

CREATE INDEX project_groups_by_age ON project_groups (created_at, id);

CREATE INDEX project_groups_by_parent ON project_groups (parent_id);

CREATE INDEX projects_of_group ON projects (group_id);

CREATE INDEX usage_by_token ON usage_by_period (token_id, period);

CREATE INDEX usage_by_attribution_value ON usage_by_attribution (name, value, period);

CREATE INDEX usage_by_attribution_of_project ON usage_by_attribution (project_id, name, value, period);

CREATE TABLE ledger_kinds (
	id BIGINT NOT NULL, 
	used_on INTEGER NOT NULL, 
	project_id VARCHAR(255) NOT NULL, 
	token_id VARCHAR(64) NOT NULL, 
	api VARCHAR(255) NOT NULL, 
	endpoint VARCHAR(255) NOT NULL, 
	model VARCHAR(128) NOT NULL, 
	answered VARCHAR(128) NOT NULL, 
	outcome VARCHAR(16) NOT NULL, 
	basis VARCHAR(16) NOT NULL, 
	error VARCHAR(64) NOT NULL, 
	status INTEGER NOT NULL, 
	upstream_status INTEGER, 
	stream BOOLEAN NOT NULL, 
	PRIMARY KEY (id)
);

CREATE TABLE ledger_runs (
	id BIGINT NOT NULL, 
	used_on INTEGER NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	PRIMARY KEY (id)
);

CREATE TABLE ledger_lines (
	run_id BIGINT NOT NULL, 
	number BIGINT NOT NULL, 
	kind_id BIGINT NOT NULL, 
	at DOUBLE NOT NULL, 
	duration DOUBLE NOT NULL, 
	request_id VARCHAR(128) NOT NULL, 
	input_tokens BIGINT NOT NULL, 
	cached_tokens BIGINT NOT NULL, 
	cache_write_tokens BIGINT NOT NULL, 
	output_tokens BIGINT NOT NULL, 
	reasoning_tokens BIGINT NOT NULL, 
	cost_usd DOUBLE, 
	bytes_in BIGINT NOT NULL, 
	bytes_out BIGINT NOT NULL, 
	attribution VARCHAR(4000) NOT NULL, 
	attempts INTEGER NOT NULL, 
	attempted VARCHAR(512) NOT NULL, 
	PRIMARY KEY (run_id, number)
)
 WITHOUT ROWID

;

CREATE INDEX ledger_lines_by_time ON ledger_lines (at);

CREATE TABLE budget_alerts (
	id VARCHAR(32) NOT NULL, 
	at DOUBLE NOT NULL, 
	kind VARCHAR(16) NOT NULL, 
	threshold INTEGER NOT NULL, 
	soft BOOLEAN NOT NULL, 
	owner VARCHAR(16) NOT NULL, 
	owner_id VARCHAR(255) NOT NULL, 
	name TEXT NOT NULL, 
	project_id VARCHAR(255) NOT NULL, 
	budget VARCHAR(400) NOT NULL, 
	unit VARCHAR(8) NOT NULL, 
	period VARCHAR(16) NOT NULL, 
	"limit" BIGINT NOT NULL, 
	spent BIGINT NOT NULL, 
	ends DOUBLE NOT NULL, 
	delivered_at DOUBLE, 
	PRIMARY KEY (id), 
	CONSTRAINT budget_alerts_once UNIQUE (budget, "limit", soft, threshold)
);

CREATE INDEX budget_alerts_by_time ON budget_alerts (at, id);

CREATE INDEX tokens_by_previous_hash ON tokens (previous_hash);

CREATE TABLE revoked_subjects (
	id VARCHAR(255) NOT NULL, 
	issued_before DOUBLE, 
	revoked_at DOUBLE NOT NULL, 
	reason VARCHAR(200) NOT NULL, 
	PRIMARY KEY (id)
);

CREATE INDEX revoked_subjects_by_time ON revoked_subjects (revoked_at, id);

CREATE INDEX usage_of_project_by_token ON usage_by_period (project_id, token_id, period);

CREATE INDEX ledger_runs_by_name ON ledger_runs (name);

CREATE VIEW ledger AS SELECT CASE WHEN l.number < 0 THEN r.name ELSE r.name || '-' || printf('%010x', l.number) END AS id, l.at, l.duration, l.request_id, k.project_id, k.token_id, k.api, k.endpoint, k.model, k.answered, k.outcome, k.basis, k.error, k.status, k.upstream_status, k.stream, l.input_tokens, l.cached_tokens, l.cache_write_tokens, l.output_tokens, l.reasoning_tokens, l.cost_usd, l.bytes_in, l.bytes_out, l.attribution, l.attempts, l.attempted, r.name AS run, l.number FROM ledger_lines l LEFT JOIN ledger_kinds k ON k.id = l.kind_id LEFT JOIN ledger_runs r ON r.id = l.run_id;

CREATE INDEX budget_alerts_by_owner_id ON budget_alerts (owner_id, owner, at, id);

CREATE INDEX budget_alerts_by_owner ON budget_alerts (owner, at, id);

CREATE INDEX budget_alerts_by_project_id ON budget_alerts (project_id, at, id);

INSERT INTO "llmproxy_schema" VALUES ('0031');

INSERT INTO "epochs" VALUES ('audit', 0);

INSERT INTO "epochs" VALUES ('changes', 0);

INSERT INTO "epochs" VALUES ('groups', 0);

INSERT INTO "changes" VALUES (0, '');

