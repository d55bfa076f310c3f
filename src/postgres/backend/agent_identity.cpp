// The agent: whom the backend serves, as pg_stat_activity, inet_client_addr() and the log show it.
//
// Owns the address in this backend's status entry and in its Port. The worker writes it into the slot; nothing of it
// comes by SQL, which a client could forge. It is looked at when a statement starts, when something is logged and when
// a message is sent: one load of a number each time. Display only, and never a host name: that would be a question to
// a name server. A backend that serves nobody for a second shows no address, and says so in place of application_name.
// Must not know which client it is.
#include <charconv>
#include <cstring>

#include <arpa/inet.h>

#include "postgres/backend/agent.hpp"

extern "C" {
#include "executor/executor.h"
#include "libpq/libpq-be.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
}

namespace pgpool::postgres::agent
{

uint32_t identity_seen;

namespace
{

SockAddr own_address;
char *own_host, *own_port;
bool pooled_seen;
char client_host[INET6_ADDRSTRLEN], client_port[8];

emit_log_hook_type previous_log;
ExecutorStart_hook_type previous_executor_start;

// Of the client's connection, where the worker sets them. PostgreSQL would show those of its own socket, none.
constexpr const char *kTcpSettings[] = {"tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count",
                                        "tcp_user_timeout"};
config_int *tcp_settings[lengthof(kTcpSettings)];

template <size_t N> const char *show_tcp_setting()
{
	static char text[16];

	follow_identity();
	bool is_tcp = MyProcPort->raddr.addr.ss_family != AF_UNIX;
	snprintf(text, sizeof text, "%d", is_tcp ? *tcp_settings[N]->variable : 0);
	return text;
}

struct Identity {
	SockAddr address;
	char *host, *port;
};

// One client follows the other, often from the same host; inet_ntop() would be the larger part of what that costs.
void show_host(sa_family_t family, const void *address, size_t size)
{
	static uint8_t shown[sizeof(in6_addr)];
	static sa_family_t shown_family = AF_UNSPEC;

	if (family == shown_family && memcmp(shown, address, size) == 0)
		return;
	inet_ntop(family, address, client_host, sizeof client_host);
	memcpy(shown, address, size);
	shown_family = family;
}

// The bytes come from the region: nothing but a whole IPv4 or IPv6 address is taken.
bool internet_address(const uint8_t *bytes, uint32_t length, Identity &to)
{
	sockaddr_in v4;
	sockaddr_in6 v6;
	uint16_t port = 0;
	sa_family_t family = AF_UNSPEC;

	memset(&to.address, 0, sizeof to.address);
	if (length >= sizeof family && length <= sizeof v6)
		memcpy(&family, bytes, sizeof family);
	if (family == AF_INET && length >= sizeof v4) {
		memcpy(&v4, bytes, sizeof v4);
		memcpy(&to.address.addr, &v4, sizeof v4);
		to.address.salen = sizeof v4;
		show_host(AF_INET, &v4.sin_addr, sizeof v4.sin_addr);
		port = ntohs(v4.sin_port);
	} else if (family == AF_INET6 && length >= sizeof v6) {
		memcpy(&v6, bytes, sizeof v6);
		memcpy(&to.address.addr, &v6, sizeof v6);
		to.address.salen = sizeof v6;
		show_host(AF_INET6, &v6.sin6_addr, sizeof v6.sin6_addr);
		port = ntohs(v6.sin6_port);
	} else
		return false;
	*std::to_chars(client_port, client_port + sizeof client_port - 1, port).ptr = '\0';
	to.host = client_host;
	to.port = client_port;
	return true;
}

void show(const Identity &identity)
{
	volatile PgBackendStatus *status = MyBEEntry;

	MyProcPort->raddr = identity.address;
	MyProcPort->remote_host = identity.host;
	MyProcPort->remote_port = identity.port;
	if (!status)
		return;
	PGSTAT_BEGIN_WRITE_ACTIVITY(status);
	memcpy(const_cast<SockAddr *>(&status->st_clientaddr), &identity.address, sizeof identity.address);
	PGSTAT_END_WRITE_ACTIVITY(status);
}

void on_log(ErrorData *error)
{
	check_slot();
	follow_identity();
	// A query of pgpool's own has the client's settings in it, and so may have what is said of it. Whoever set them was
	// logged at that time; who must know of an ERROR, the client, is told.
	if (serves_pgpool()) {
		error->hide_stmt = true;
		error->output_to_server = error->output_to_server && error->elevel >= FATAL;
	}
	if (previous_log)
		previous_log(error);
}

void on_executor_start(QueryDesc *query, int flags)
{
	follow_identity();
	before_statement();
	if (previous_executor_start)
		previous_executor_start(query, flags);
	else
		standard_ExecutorStart(query, flags);
}

} // namespace

void keep_own_identity()
{
	own_address = MyProcPort->raddr;
	own_host = MyProcPort->remote_host;
	own_port = MyProcPort->remote_port;
	identity_seen = slot->identity_sequence.load();
	previous_log = emit_log_hook;
	emit_log_hook = on_log;
	previous_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = on_executor_start;
}

void install_tcp_settings()
{
	static const GucShowHook hooks[] = {show_tcp_setting<0>, show_tcp_setting<1>, show_tcp_setting<2>,
	                                    show_tcp_setting<3>};

	for (size_t i = 0; i < lengthof(kTcpSettings); i++) {
		config_generic *setting = compat::find_setting(kTcpSettings[i]);
		if (!setting || setting->vartype != PGC_INT)
			continue;
		tcp_settings[i] = reinterpret_cast<config_int *>(setting);
		tcp_settings[i]->show_hook = hooks[i];
	}
}

// While the worker writes, the number is odd or changes: then the next occasion is early enough.
void read_identity()
{
	uint8_t bytes[sizeof slot->address];
	uint32_t before = slot->identity_sequence.load(std::memory_order_acquire);
	Identity identity;

	if (before & 1)
		return;
	memcpy(bytes, slot->address, sizeof bytes);
	uint32_t length = slot->address_length;
	bool pooled = slot->pooled;
	std::atomic_thread_fence(std::memory_order_acquire);
	if (slot->identity_sequence.load(std::memory_order_relaxed) != before)
		return;
	identity_seen = before;
	if (pooled || !internet_address(bytes, length, identity))
		identity = {own_address, own_host, own_port};
	show(identity);
	if (pooled != pooled_seen)
		pgstat_report_appname(pooled ? "pgpool: idle" : application_name);
	pooled_seen = pooled;
}

} // namespace pgpool::postgres::agent
