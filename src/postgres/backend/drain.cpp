// Statements that need a database without connections, and how workers give up theirs for them.
//
// Owns what must hold before a pooled server is closed: the statement would come to the point where PostgreSQL waits
// for the other backends (its rights, names and options are looked at first; what PostgreSQL refuses it refuses itself,
// afterwards), and nobody else is in the way: sessions that are not pooled, or a transaction that may be a long one,
// are waited for as long as PostgreSQL would. Then workers close idle servers and open none until the statement ends,
// which they see by the end of this connection, whatever ends it. Must not know pools or sessions.
#include <cstring>

#include <unistd.h>

#include "postgres/base/shared.hpp"

extern "C" {
#include "access/htup_details.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "access/xlogutils.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_subscription.h"
#include "catalog/pg_tablespace.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/tablespace.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "nodes/parsenodes.h"
#include "replication/slot.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
}

namespace pgpool::postgres
{

namespace
{

constexpr int kWaitMs = 5000; // as CountOtherDBBackends()
constexpr int kPollUs = 20000;
constexpr int kYoungMs = 500; // a transaction that has not lasted longer will hardly last kWaitMs more
constexpr int kAckMs = 1000;

// ---- would it come to the wait?

HeapTuple database_row(Oid database)
{
	return SearchSysCache1(DATABASEOID, ObjectIdGetDatum(database));
}

bool is_template(Oid database)
{
	HeapTuple tuple = database_row(database);
	bool is = HeapTupleIsValid(tuple) && reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple))->datistemplate;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return is;
}

bool may_create_databases()
{
	HeapTuple tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	bool may = superuser();

	if (HeapTupleIsValid(tuple)) {
		may |= reinterpret_cast<Form_pg_authid>(GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return may;
}

bool owns(Oid database)
{
	return OidIsValid(database) && compat::owns_database(database, GetUserId());
}

bool may_use_tablespace(const char *name)
{
	Oid tablespace = get_tablespace_oid(name, true);

	return OidIsValid(tablespace) && tablespace != GLOBALTABLESPACE_OID &&
	       compat::may_create_in_tablespace(tablespace, GetUserId());
}

// WITH (FORCE) ends all sessions itself.
bool drops(const DropdbStmt *s, Oid database)
{
	int slots, active;

	if (!owns(database) || s->options != NIL || database == MyDatabaseId || is_template(database))
		return false;
	// Both are refused behind the wait for other sessions, but known before it: nobody is to lose servers for that.
	return (!ReplicationSlotsCountDBSlots(database, &slots, &active) || active == 0) &&
	       CountDBSubscriptions(database) == 0;
}

bool renames(const RenameStmt *s, Oid database)
{
	return owns(database) && may_create_databases() && database != MyDatabaseId &&
	       !OidIsValid(get_database_oid(s->newname, true));
}

bool moves(const AlterDatabaseStmt *s, Oid database)
{
	auto *option = s->options ? static_cast<DefElem *>(linitial(s->options)) : nullptr;

	return option && list_length(s->options) == 1 && strcmp(option->defname, "tablespace") == 0 && owns(database) &&
	       database != MyDatabaseId && may_use_tablespace(defGetString(option));
}

// A copy has the encoding and locale of its template, or it is refused.
bool same_locale(const DefElem *option, Oid database)
{
	HeapTuple tuple = database_row(database);
	bool same = false, null = true;
	char *name = option->defname;

	if (!HeapTupleIsValid(tuple))
		return false;
	if (strcmp(name, "encoding") == 0) {
		int encoding = IsA(option->arg, Integer)
		                   ? defGetInt32(const_cast<DefElem *>(option))
		                   : pg_valid_server_encoding(defGetString(const_cast<DefElem *>(option)));
		same = encoding == reinterpret_cast<Form_pg_database>(GETSTRUCT(tuple))->encoding;
	} else {
		same = true;
		static const int columns[] = {Anum_pg_database_datcollate, Anum_pg_database_datctype};
		for (int column : columns) {
			if (strcmp(name, column == Anum_pg_database_datcollate ? "lc_ctype" : "lc_collate") == 0)
				continue;
			Datum has = SysCacheGetAttr(DATABASEOID, tuple, static_cast<AttrNumber>(column), &null);
			same &= !null && strcmp(TextDatumGetCString(has), defGetString(const_cast<DefElem *>(option))) == 0;
		}
	}
	ReleaseSysCache(tuple);
	return same;
}

// What is not known here counts as refused: then nothing is drained, and PostgreSQL says what it has to say.
bool option_holds(DefElem *option, Oid source)
{
	const char *name = option->defname;

	if (option->arg == nullptr) // DEFAULT
		return true;
	if (strcmp(name, "template") == 0)
		return true;
	if (strcmp(name, "owner") == 0) {
		Oid owner = get_role_oid(defGetString(option), true);
		return OidIsValid(owner) && compat::may_give_to(GetUserId(), owner);
	}
	if (strcmp(name, "tablespace") == 0)
		return may_use_tablespace(defGetString(option));
	if (strcmp(name, "encoding") == 0 || strcmp(name, "locale") == 0 || strcmp(name, "lc_collate") == 0 ||
	    strcmp(name, "lc_ctype") == 0)
		return same_locale(option, source);
	if (strcmp(name, "is_template") == 0 || strcmp(name, "allow_connections") == 0) {
		(void)defGetBoolean(option); // PostgreSQL's own error, if any
		return true;
	}
	if (strcmp(name, "connection_limit") == 0)
		return defGetInt32(option) >= -1;
	if (strcmp(name, "strategy") == 0)
		return pg_strcasecmp(defGetString(option), "wal_log") == 0 ||
		       pg_strcasecmp(defGetString(option), "file_copy") == 0;
	return false;
}

Oid template_of(const CreatedbStmt *s)
{
	const char *name = "template1";
	ListCell *cell;

	foreach (cell, s->options) {
		auto *option = static_cast<DefElem *>(lfirst(cell));
		if (strcmp(option->defname, "template") == 0 && option->arg)
			name = defGetString(option);
	}
	return get_database_oid(name, true);
}

bool creates(const CreatedbStmt *s, Oid source)
{
	ListCell *cell, *other;

	if (!OidIsValid(source) || !may_create_databases() || !(is_template(source) || owns(source)) ||
	    OidIsValid(get_database_oid(s->dbname, true)))
		return false;
	foreach (cell, s->options) {
		auto *option = static_cast<DefElem *>(lfirst(cell));
		foreach (other, s->options) {
			auto *twin = static_cast<DefElem *>(lfirst(other));
			if (twin != option && strcmp(twin->defname, option->defname) == 0)
				return false;
		}
		if (!option_holds(option, source))
			return false;
	}
	return true;
}

// The database that it needs for itself; InvalidOid: none, or it will be refused before that matters.
Oid needs_alone(const Node *s, bool top_level)
{
	Oid database = InvalidOid;

	// PostgreSQL refuses it in all these states, and RENAME alone may stand in a block.
	if (XactReadOnly || RecoveryInProgress() || IsInParallelMode() || IsAbortedTransactionBlockState())
		return InvalidOid;
	if (!IsA(s, RenameStmt) && IsInTransactionBlock(top_level))
		return InvalidOid;
	switch (nodeTag(s)) {
	case T_DropdbStmt: {
		auto *d = reinterpret_cast<const DropdbStmt *>(s);
		database = get_database_oid(d->dbname, true);
		return drops(d, database) ? database : InvalidOid;
	}
	case T_CreatedbStmt: {
		auto *c = reinterpret_cast<const CreatedbStmt *>(s);
		database = template_of(c);
		return creates(c, database) ? database : InvalidOid;
	}
	case T_RenameStmt: {
		auto *r = reinterpret_cast<const RenameStmt *>(s);
		database = get_database_oid(r->subname, true);
		return renames(r, database) ? database : InvalidOid;
	}
	default: {
		auto *a = reinterpret_cast<const AlterDatabaseStmt *>(s);
		database = get_database_oid(a->dbname, true);
		return moves(a, database) ? database : InvalidOid;
	}
	}
}

// ---- is anybody else in the way?

int pooled(Oid database)
{
	int sum = 0;

	for (uint32 i = 0; i < region_view.header()->max_pools; i++) {
		const region::PoolSlot &p = region_view.pool(i);
		if (p.state.load() == region::SlotState::Free || p.database_oid != database)
			continue;
		for (uint32 w = 0; w < region_view.header()->workers; w++)
			sum += region_view.gauges(i, 0, w).open.load(); // those on nodes are nothing in its way
	}
	return sum;
}

// As PostgreSQL will, it looks at all processes but autovacuum, which PostgreSQL sends away. Read without the lock, as
// a look that comes too early or too late is followed by another one.
struct Watch {
	Oid database;
	TimestampTz began, now;
	LocalTransactionId *seen; // by process: which transaction, and since when it is known
	TimestampTz *since;
	int others;
	bool long_one;
};

void look(Watch &w)
{
	w.now = GetCurrentTimestamp();
	w.others = 0;
	w.long_one = false;
	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++) {
		PGPROC *p = &ProcGlobal->allProcs[i];
		if (p->pid == 0 || p == MyProc || p->databaseId != w.database || (p->statusFlags & PROC_IS_AUTOVACUUM))
			continue;
		if (BackendPidGetProc(p->pid) != p) // who ended leaves all this behind
			continue;
		w.others++;
		LocalTransactionId transaction = compat::local_transaction(p);
		if (w.seen[i] != transaction) {
			w.seen[i] = transaction;
			w.since[i] = w.now;
		}
		// One that was there at the first look may be of any age.
		if (LocalTransactionIdIsValid(transaction) &&
		    (w.since[i] == w.began || TimestampDifferenceExceeds(w.since[i], w.now, kYoungMs)))
			w.long_one = true;
	}
}

// No session ends a prepared transaction by going away.
bool has_prepared(Oid database)
{
	bool has = false;

	if (max_prepared_xacts == 0)
		return false;
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	Datum argument = ObjectIdGetDatum(database);
	Oid type = OIDOID;
	if (SPI_execute_with_args("SELECT FROM pg_catalog.pg_prepared_xacts p JOIN pg_catalog.pg_database d "
	                          "ON d.datname OPERATOR(pg_catalog.=) p.database WHERE d.oid OPERATOR(pg_catalog.=) $1",
	                          1, &type, &argument, nullptr, true, 1) == SPI_OK_SELECT)
		has = SPI_processed > 0;
	PopActiveSnapshot();
	SPI_finish();
	return has;
}

// True: only pooled sessions are there, and none that is known to stay.
bool wait_for_others(Oid database)
{
	Watch w{};

	if (pooled(database) == 0 || has_prepared(database))
		return false;
	w.database = database;
	w.seen = static_cast<LocalTransactionId *>(palloc0(sizeof(LocalTransactionId) * ProcGlobal->allProcCount));
	w.since = static_cast<TimestampTz *>(palloc0(sizeof(TimestampTz) * ProcGlobal->allProcCount));
	look(w);
	w.began = w.now;
	for (;;) {
		look(w);
		int ours = pooled(database);
		if (ours == 0)
			return false;
		if (w.others <= ours && !w.long_one)
			return true;
		if (TimestampDifferenceExceeds(w.began, w.now, kWaitMs))
			return false;
		CHECK_FOR_INTERRUPTS();
		pg_usleep(kPollUs);
	}
}

int ask_to_drain(uint32 worker, Oid database)
{
	auto m = control::make<control::DrainDatabase>(control::Type::DrainDatabase, worker);
	int fd = -1;

	m.database_oid = database;
	if (region_view.worker(worker).pid.load() != 0)
		fd = channel_connect_worker(worker);
	if (fd >= 0 && !channel_send(fd, &m, sizeof m)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

} // namespace

// At most a second for the answers: a worker that hangs delays the statement, it does not stop it.
void drain_begin(Drain &drain, const Node *s, bool top_level)
{
	Oid database = needs_alone(s, top_level);
	control::Ack ack;

	if (!OidIsValid(database) || !wait_for_others(database))
		return;
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), kAckMs);
	for (uint32 i = 0; i < region_view.header()->workers; i++) {
		drain.fd[i] = ask_to_drain(i, database);
		drain.count = i + 1;
	}
	for (uint32 i = 0; i < drain.count; i++)
		if (drain.fd[i] >= 0)
			(void)channel_receive(drain.fd[i], &ack, sizeof ack, deadline);
}

void drain_end(Drain &drain)
{
	while (drain.count > 0) {
		int fd = drain.fd[--drain.count];
		if (fd >= 0)
			close(fd);
	}
}

} // namespace pgpool::postgres
