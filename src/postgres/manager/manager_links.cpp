// Links: the connections of workers (and of check()) to the manager.
//
// Owns manager.sock, an epoll descriptor over it and all links, and for each link a queue of answers that its
// socket did not take yet: a worker that reads slowly must not hold up the others. Lookups are gathered and
// answered in one transaction; an ERROR costs the lookup that raised it. Must not know what an answer means.
#include <cerrno>
#include <cstring>

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "region/log_limit.hpp"
#include "postgres/manager/manager.hpp"
#include "postgres/base/settings.hpp"

extern "C" {
#include "access/xact.h"
#include "executor/spi.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
}

namespace pgpool::postgres
{

namespace
{

constexpr int kMaxLinks = 256;
constexpr int kBatch = 64;
constexpr size_t kMaxQueued = size_t{16} * 1024 * 1024;

struct Outgoing {
	Outgoing *next;
	size_t size;
	char bytes[FLEXIBLE_ARRAY_MEMBER];
};

struct Link {
	int fd; // -1 = free
	uint32 serial;
	int worker; // -1 = has not said hello
	bool listeners_due;
	Outgoing *first, *last;
	size_t queued;
};

struct Question {
	int link;
	uint32 serial;
	control::AuthLookup lookup;
};

Link links[kMaxLinks];
Question *batch;
int batch_count, batch_next;
int epoll_fd = -1, listen_fd = -1;
region::Settings settings_now;
char *packet; // kMaxPacket bytes

constexpr uint64_t kListenTag = UINT64_MAX;

void watch(int i, int operation, uint32 events)
{
	epoll_event e{};

	e.events = events;
	e.data.u64 = static_cast<uint64_t>(i);
	(void)epoll_ctl(epoll_fd, operation, links[i].fd, &e);
}

// It may have a verifier in it.
void forget_first(Link &l)
{
	Outgoing *done = l.first;

	l.first = done->next;
	l.queued -= done->size;
	explicit_bzero(done->bytes, done->size);
	pfree(done);
}

void drop(int i)
{
	Link &l = links[i];

	while (l.first)
		forget_first(l);
	close(l.fd);
	l.fd = -1;
	l.last = nullptr;
	l.queued = 0;
	l.serial++;
}

void send_listeners(int i)
{
	const Listeners &all = listeners();
	control::UnixListeners m = control::make<control::UnixListeners>(control::Type::UnixListeners);
	int count = all.transaction_count + all.session_count;
	alignas(cmsghdr) char space[CMSG_SPACE(sizeof all.fd)];
	iovec io = {&m, sizeof m};
	msghdr h{};

	m.transaction_fds = all.transaction_count;
	m.session_fds = all.session_count;
	h.msg_iov = &io;
	h.msg_iovlen = 1;
	if (count > 0) {
		memset(space, 0, sizeof space);
		h.msg_control = space;
		h.msg_controllen = CMSG_SPACE(sizeof(int) * count);
		cmsghdr *c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int) * count);
		memcpy(CMSG_DATA(c), all.fd, sizeof(int) * count);
	}
	links[i].listeners_due = sendmsg(links[i].fd, &h, MSG_NOSIGNAL | MSG_DONTWAIT) < 0;
}

void flush(int i)
{
	Link &l = links[i];

	while (l.first && channel_send(l.fd, l.first->bytes, l.first->size))
		forget_first(l);
	if (l.first && errno != EAGAIN && errno != ENOBUFS) {
		drop(i);
		return;
	}
	if (l.first == nullptr) {
		l.last = nullptr;
		if (l.listeners_due)
			send_listeners(i);
		watch(i, EPOLL_CTL_MOD, l.listeners_due ? EPOLLIN | EPOLLOUT : EPOLLIN);
	}
}

void post(int i, const void *bytes, size_t size)
{
	Link &l = links[i];

	if (l.fd < 0)
		return;
	if (l.first == nullptr && channel_send(l.fd, bytes, size))
		return;
	if (l.first == nullptr && errno != EAGAIN && errno != ENOBUFS) {
		drop(i);
		return;
	}
	if (l.queued + size > kMaxQueued) {
		ereport(LOG, (errmsg("pgpool worker %d does not read the answers of the manager: link closed", l.worker)));
		drop(i);
		return;
	}
	auto *o = static_cast<Outgoing *>(MemoryContextAlloc(TopMemoryContext, offsetof(Outgoing, bytes) + size));
	o->next = nullptr;
	o->size = size;
	memcpy(o->bytes, bytes, size);
	(l.last ? l.last->next : l.first) = o;
	l.last = o;
	l.queued += size;
	watch(i, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
}

void send_settings(int i)
{
	static control::SettingsMessage m;

	m = control::make<control::SettingsMessage>(control::Type::Settings);
	m.settings = settings_now;
	post(i, &m, sizeof m);
}

// A worker that starts while no manager is there has them from the region.
void renew_settings(uint32 generation)
{
	fill_settings(settings_now, generation + 1);
	region::write_settings(*region_view.header(), settings_now);
}

void accept_links()
{
	for (;;) {
		int fd = accept4(listen_fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
		int i = 0;

		if (fd < 0)
			return;
		while (i < kMaxLinks && links[i].fd >= 0)
			i++;
		if (i == kMaxLinks) {
			ereport(LOG, (errmsg("pgpool manager has too many links")));
			close(fd);
			continue;
		}
		links[i].fd = fd;
		links[i].worker = -1;
		links[i].listeners_due = false;
		watch(i, EPOLL_CTL_ADD, EPOLLIN);
	}
}

template <size_t N> void end_string(char (&s)[N])
{
	s[N - 1] = '\0';
}

void take_lookup(int i)
{
	Question &q = batch[batch_count++];

	q.link = i;
	q.serial = links[i].serial;
	memcpy(&q.lookup, packet, sizeof q.lookup);
	end_string(q.lookup.user);
	end_string(q.lookup.database);
	end_string(q.lookup.tenant);
	end_string(q.lookup.sni);
	end_string(q.lookup.certificate_cn);
	end_string(q.lookup.certificate_dn);
}

void take_hello(int i)
{
	control::Hello hello;

	memcpy(&hello, packet, sizeof hello);
	if (hello.worker >= region_view.header()->workers)
		return;
	links[i].worker = static_cast<int>(hello.worker);
	send_settings(i);
	if (links[i].fd < 0)
		return;
	send_listeners(i);
	if (links[i].fd >= 0 && links[i].listeners_due)
		watch(i, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
}

// False: the link is gone, or has nothing more.
bool read_one(int i)
{
	ssize_t n = recv(links[i].fd, packet, control::kMaxPacket, MSG_DONTWAIT);
	control::Head head;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0 || !packet_valid(packet, n)) {
		if (n > 0)
			ereport(LOG, (errmsg("pgpool manager got a packet of another build or a broken one: link closed"),
			              errhint("After an upgrade of the library, restart the server.")));
		drop(i);
		return false;
	}
	memcpy(&head, packet, sizeof head);
	if (head.type == control::Type::Hello && head.size == sizeof(control::Hello))
		take_hello(i);
	else if (head.type == control::Type::AuthLookup && head.size == sizeof(control::AuthLookup))
		take_lookup(i);
	else if (head.type == control::Type::Poke && head.size == sizeof(control::Poke))
		; // we are awake
	else
		ereport(LOG, (errmsg("pgpool manager got a packet of unexpected type %u", static_cast<unsigned>(head.type))));
	return links[i].fd >= 0;
}

void answer_next(control::AuthAnswer &a)
{
	const Question &q = batch[batch_next];
	MemoryContext old = CurrentMemoryContext;

	a = control::make<control::AuthAnswer>(control::Type::AuthAnswer, q.lookup.head.id);
	if (links[q.link].serial == q.serial) {
		answer_lookup(q.lookup, a);
		a.in_hot_standby = RecoveryInProgress();
		MemoryContextSwitchTo(old);
		post(q.link, &a, sizeof a);
	}
	explicit_bzero(&a, sizeof a);
}

void answer_failed(control::AuthAnswer &a, const ErrorData *error)
{
	const Question &q = batch[batch_next];

	a = control::make<control::AuthAnswer>(control::Type::AuthAnswer, q.lookup.head.id);
	a.tenant_slot = a.pool_slot = UINT32_MAX;
	put_error(a.error, unpack_sql_state(error->sqlerrcode), "pgpool could not look up the login");
	strlcpy(a.error.hint, "The server log has the cause.", sizeof a.error.hint);
	if (links[q.link].serial == q.serial)
		post(q.link, &a, sizeof a);
}

// One line: what asked for it is a stranger's.
void log_failure(const ErrorData *error)
{
	static region::LogLimit limit;

	if (!limit.take(GetCurrentTimestamp()))
		return;
	uint64 more = limit.held_back();
	ereport(LOG, (errmsg_internal("pgpool could not look up a login: %.200s (" UINT64_FORMAT " before were not logged)",
	                              error->message ? error->message : "", more),
	              errhidestmt(true), errhidecontext(true)));
}

void answer_in_transaction(control::AuthAnswer &a)
{
	SetCurrentStatementStartTimestamp(); // or now() would stand still
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	for (; batch_next < batch_count && !ConfigReloadPending; batch_next++) {
		CHECK_FOR_INTERRUPTS();
		answer_next(a);
	}
	PopActiveSnapshot();
	SPI_finish();
	CommitTransactionCommand();
}

} // namespace

const region::Settings &current_settings()
{
	return settings_now;
}

void links_start()
{
	epoll_event e{};

	for (Link &l : links)
		l.fd = -1;
	batch = static_cast<Question *>(MemoryContextAlloc(TopMemoryContext, sizeof(Question) * kBatch));
	packet = static_cast<char *>(MemoryContextAlloc(TopMemoryContext, control::kMaxPacket));
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	listen_fd = channel_listen(control::kManagerSocket);
	e.events = EPOLLIN;
	e.data.u64 = kListenTag;
	if (epoll_fd < 0 || listen_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &e) < 0)
		ereport(FATAL, (errcode_for_socket_access(),
		                errmsg("pgpool manager could not listen on \"%s\": %m", control::kManagerSocket)));
	renew_settings(region::present_settings(*region_view.header()).generation);
}

int links_fd()
{
	return epoll_fd;
}

bool links_read()
{
	epoll_event events[kBatch];
	int n = epoll_wait(epoll_fd, events, kBatch, 0);

	batch_count = batch_next = 0;
	for (int k = 0; k < n; k++) {
		if (events[k].data.u64 == kListenTag) {
			accept_links();
			continue;
		}
		int i = static_cast<int>(events[k].data.u64);
		if (links[i].fd >= 0 && (events[k].events & EPOLLOUT))
			flush(i);
		// what does not fit is still there in the next round
		while (links[i].fd >= 0 && batch_count < kBatch && (events[k].events & ~EPOLLOUT))
			if (!read_one(i))
				break;
	}
	return batch_count > 0;
}

void links_answer()
{
	static control::AuthAnswer a; // keeps 4 KB with a verifier off the stack; wiped after use

	while (batch_next < batch_count) {
		MemoryContext old = CurrentMemoryContext;

		reload_if_asked(); // who logs in now is served as of now
		PG_TRY();
		{
			answer_in_transaction(a);
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(old);
			HOLD_INTERRUPTS();
			ErrorData *error = CopyErrorData();
			FlushErrorState();
			log_failure(error);
			AbortCurrentTransaction();
			MemoryContextSwitchTo(old);
			if (batch_next < batch_count) {
				answer_failed(a, error);
				batch_next++;
			}
			FreeErrorData(error);
			RESUME_INTERRUPTS();
		}
		PG_END_TRY();
		MemoryContextSwitchTo(old);
	}
	explicit_bzero(&a, sizeof a);
}

void links_poke()
{
	control::Poke m = control::make<control::Poke>(control::Type::Poke);

	for (int i = 0; i < kMaxLinks; i++)
		if (links[i].fd >= 0 && links[i].worker >= 0)
			post(i, &m, sizeof m);
}

void links_listeners()
{
	for (int i = 0; i < kMaxLinks; i++) {
		Link &l = links[i];
		if (l.fd < 0 || l.worker < 0)
			continue;
		if (l.first)
			l.listeners_due = true; // behind what waits already
		else
			send_listeners(i);
		if (l.listeners_due)
			watch(i, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
	}
}

void links_settings()
{
	renew_settings(settings_now.generation);
	for (int i = 0; i < kMaxLinks; i++)
		if (links[i].fd >= 0 && links[i].worker >= 0)
			send_settings(i);
}

} // namespace pgpool::postgres
