// The agent: lets a backend that a worker opened serve one client after the other, each as in a session of its own.
//
// Owns its start and its moments. It starts after authentication, when the startup packet names a slot of the region
// and the peer of the socket is the worker that owns the slot: anybody may send the parameter, only the kernel says
// who sent it. It acts when messages pass on their way out, by a wrapper around PostgreSQL's table of methods: before
// ReadyForQuery in every protocol, after all that the query did. There it tells the worker by ParameterStatus what the
// session keeps (agent_settings.cpp, agent_pins.cpp) and by the slot where its last commit ended.
//
// Nothing may leave the wrapper as an ERROR: PostgreSQL would report it and come back with the next ReadyForQuery.
// Hooks are set in this process alone; other backends pay one search of their startup packet. Must not know sessions
// or pools.
#include <cstring>

#include <sys/socket.h>

#include "postgres/backend/agent.hpp"

extern "C" {
#include "access/xact.h"
#include "commands/sequence.h"
#include "libpq/auth.h"
#include "libpq/libpq.h"
#include "replication/walsender.h"
#include "utils/memutils.h"
}

namespace pgpool::postgres
{

namespace agent
{

region::AgentSlot *slot;
uint32_t slot_generation;

namespace
{

region::AgentSlot own_slot; // in place of one that the worker took back

ClientAuthentication_hook_type previous_authentication;
char *slot_setting; // only so that the server accepts the parameter
const PQcommMethods *plain;
PQcommMethods wrapped;
bool inside; // what is sent now comes from the agent itself

// ---- commits

void publish_commit()
{
	static XLogRecPtr published;

	if (XactLastCommitEnd == published)
		return;
	published = XactLastCommitEnd;
	slot->commit_lsn.store(published, std::memory_order_release);
}

// ---- settings that could not be applied

volatile uint32_t applies_done; // a signal handler looks at it
bool apply_failed;

// Its error has been sent, and the worker will close the connection; but the client's messages are here already.
void note_failed_apply()
{
	apply_failed |= slot->applies.load(std::memory_order_acquire) != applies_done;
}

// ---- currval() and lastval()

uint64_t sequences_of; // the client that called nextval(), if anybody did

// With the values go those that a sequence with CACHE has in store: a gap in its numbers, as when a session ends.
void forget_sequences_of_others()
{
	uint64_t client = slot->client.load(std::memory_order_relaxed);

	if (client == sequences_of)
		return;
	ResetSequenceCaches();
	sequences_of = client;
}

// ---- before ReadyForQuery

// The transaction that a look into the catalogs needed may be left; the log is told, the client is not. What the
// error says is not copied: there may be no memory for it.
void recover(MemoryContext context)
{
	int code = geterrcode();

	MemoryContextSwitchTo(context);
	FlushErrorState();
	if (IsTransactionState())
		AbortCurrentTransaction();
	MemoryContextSwitchTo(context);
	ereport(LOG_SERVER_ONLY,
	        (errmsg("pgpool could not find out what its session keeps: SQLSTATE %s", unpack_sql_state(code))));
}

void look_for_settings(bool greeted, char status)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		if (greeted)
			flag_new_settings(status != 'I');
		else
			flag_settings();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		FlushErrorState(); // out of memory; next time again
	}
	PG_END_TRY();
}

// Whose session it is: proves to the worker what a query would, without one. ALTER ROLE ... SET may end queries early.
void greet()
{
	char oids[40];

	snprintf(oids, sizeof oids, "%u %u", MyDatabaseId, GetAuthenticatedUserId());
	put_parameter_status("pgpool.identity", oids);
	put_parameter_status("pgpool.agent", "1");
}

void tell_settings(char status)
{
	static bool greeted;

	if (!greeted || settings_changed())
		look_for_settings(greeted, status);
	if (!greeted)
		greet();
	greeted = true;
	report_strings();
	report_own();
	if (status == 'I' && settings_changed()) { // a placeholder is none any more
		look_for_settings(true, status);
		report_strings();
	}
}

void tell_pins()
{
	MemoryContext context = CurrentMemoryContext;

	look_without_catalog();
	if (pins_need_catalog()) {
		PG_TRY();
		{
			read_catalog_for_pins();
		}
		PG_CATCH();
		{
			recover(context);
			pins_unknown();
		}
		PG_END_TRY();
	}
	report_pins();
}

void before_ready(char status)
{
	publish_commit();
	forget_defaults();
	inside = true;
	if (status == 'I' && library_came())
		scan_settings(); // what it defines
	tell_settings(status);
	tell_idle_timeout();
	if (status == 'I') // only then the worker may give the session to somebody else
		tell_pins();
	inside = false;
}

// ---- messages on their way out

// "!name" instead of "name": the value is the session's default, nobody has to SET it.
int put_default(const char *body, size_t length)
{
	auto *marked = static_cast<char *>(palloc_extended(length + 1, MCXT_ALLOC_NO_OOM | MCXT_ALLOC_HUGE));

	if (!marked)
		return plain->putmessage('S', body, length);
	marked[0] = '!';
	memcpy(marked + 1, body, length);
	int result = plain->putmessage('S', marked, length + 1);
	pfree(marked);
	return result;
}

int put_parameter(const char *body, size_t length)
{
	if (memchr(body, '\0', length) == nullptr)
		return plain->putmessage('S', body, length);
	switch (kind_of_report(body)) {
	case Report::Nothing:
		return 0;
	case Report::Default:
		return put_default(body, length);
	default:
		return plain->putmessage('S', body, length);
	}
}

int putmessage(char type, const char *body, size_t length)
{
	// a look into catalogs may want to say something, when the client asked for debugging messages
	if (inside)
		return type == 'N' ? 0 : plain->putmessage(type, body, length);
	check_slot();
	follow_identity();
	switch (type) {
	case '1': // ParseComplete
		look_for_plans(false);
		break;
	case 'S':
		return put_parameter(body, length);
	case 'E':
		note_failed_apply();
		break;
	case 'Z':
		forget_timeouts();
		if (slot->applies.load(std::memory_order_acquire) != applies_done)
			applies_done = applies_done + 1; // there may be more of it behind this one
		look_for_plans(true);
		before_ready(length > 0 ? body[0] : 'E');
		break;
	default:
		break;
	}
	return plain->putmessage(type, body, length);
}

// ---- start

const char *startup_parameter(const Port *port, const char *name)
{
	const char *value = nullptr;

	for (int i = 0; i + 1 < list_length(port->guc_options); i += 2)
		if (strcmp(static_cast<const char *>(list_nth(port->guc_options, i)), name) == 0)
			value = static_cast<const char *>(list_nth(port->guc_options, i + 1));
	return value;
}

// "slot.generation", as the worker writes it
region::AgentSlot *slot_named(const char *text, uint32_t &generation)
{
	uint32_t number[2] = {};

	for (int i = 0; i < 2; i++) {
		const char *end = text + strspn(text, "0123456789");
		if (end == text || end - text > 10 || *end != (i == 0 ? '.' : '\0'))
			return nullptr;
		number[i] = static_cast<uint32_t>(strtoul(text, nullptr, 10));
		text = end + 1;
	}
	generation = number[1];
	return number[0] < region_view.header()->max_agents ? &region_view.agent(number[0]) : nullptr;
}

bool peer_owns(const Port *port, const region::AgentSlot &named)
{
	uint32_t owner = named.owner.load();
	ucred peer{};
	socklen_t size = sizeof peer;

	if (port->raddr.addr.ss_family != AF_UNIX || owner == 0 || owner > region_view.header()->workers)
		return false;
	if (getsockopt(port->sock, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.pid <= 0)
		return false;
	return region_view.worker(owner - 1).pid.load() == peer.pid;
}

void start(region::AgentSlot &mine, uint32_t generation)
{
	slot = &mine;
	slot_generation = generation;
	check_slot();
	slot->commit_lsn.store(0);
	slot->backend_pid.store(MyProcPid);
	applies_done = slot->applies.load();
	sequences_of = slot->client.load();
	keep_own_identity();
	install_placeholders();
	install_pins();
	install_defaults();
	install_plans();
	install_leftovers();
	install_timeouts();
	install_uncounted();
	install_tcp_settings();
	plain = PqCommMethods;
	wrapped = *plain;
	wrapped.putmessage = putmessage;
	PqCommMethods = &wrapped;
}

void on_authentication(Port *port, int status)
{
	if (previous_authentication)
		previous_authentication(port, status);
	if (status != STATUS_OK || slot || am_walsender)
		return;
	const char *named = startup_parameter(port, "pgpool.agent");
	uint32_t generation = 0;
	region::AgentSlot *mine = named ? slot_named(named, generation) : nullptr;
	if (mine && mine->generation.load() == generation && peer_owns(port, *mine))
		start(*mine, generation);
}

} // namespace

// A backend whose client left may be at work when the worker has long given its slot to another: nothing that is
// written there is for it, and nothing that it writes is for anybody.
void leave_slot()
{
	own_slot.generation.store(slot_generation);
	own_slot.client.store(sequences_of);
	own_slot.applies.store(applies_done);
	own_slot.hushed.store(0);
	slot = &own_slot;
}

bool serves_pgpool()
{
	return slot->applies.load(std::memory_order_acquire) != applies_done ||
	       slot->hushed.load(std::memory_order_acquire) != 0;
}

void before_statement()
{
	check_slot();
	forget_sequences_of_others();
	if (apply_failed)
		ereport(FATAL,
		        (errcode(ERRCODE_CONNECTION_EXCEPTION), errmsg("the settings of the client could not be applied"),
		         errdetail("A setting that the session has was refused when another backend took it over.")));
}

void put_parameter_status(const char *name, const char *value)
{
	char body[256];
	int length = snprintf(body, sizeof body, "%s%c%s", name, '\0', value) + 1;

	plain->putmessage('S', body, static_cast<size_t>(length));
}

bool put_setting(const char *mark, const char *name, const char *value)
{
	size_t mark_size = strlen(mark), name_size = strlen(name) + 1, value_size = strlen(value) + 1;
	size_t length = mark_size + name_size + value_size;
	auto *body = static_cast<char *>(palloc_extended(length, MCXT_ALLOC_NO_OOM | MCXT_ALLOC_HUGE));

	if (!body)
		return false;
	memcpy(body, mark, mark_size);
	memcpy(body + mark_size, name, name_size);
	memcpy(body + mark_size + name_size, value, value_size);
	plain->putmessage('S', body, length);
	pfree(body);
	return true;
}

} // namespace agent

void install_agent()
{
	DefineCustomStringVariable("pgpool.agent", "Slot of the region, in connections of pgpool's own.", nullptr,
	                           &agent::slot_setting, "", PGC_BACKEND,
	                           GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE, nullptr, nullptr, nullptr);
	agent::previous_authentication = ClientAuthentication_hook;
	ClientAuthentication_hook = agent::on_authentication;
}

} // namespace pgpool::postgres
