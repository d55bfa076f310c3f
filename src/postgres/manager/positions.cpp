// How far this node and its standbys are: read from shared memory, without a query.
//
// Owns what is read of the walsenders, whose each of them is, and since when a standby lacks what it lacks. It is a
// hint: a name of a walsender is what its standby claims, and a position says nothing of a promotion. What is promised
// to clients is proved by the node itself. Must not know rows of tables or what workers do with the numbers.
#include <cstring>
#include <ctime>

#include <sys/socket.h>

#include "postgres/manager/manager.hpp"

extern "C" {
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "common/ip.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "storage/spin.h"
#include "utils/backend_status.h"
}

namespace pgpool::postgres
{

namespace
{

constexpr int kMaxWalsenders = 256; // more standbys of one node than anybody has
constexpr int kSamples = 256;

// Whose a walsender is does not change as long as it lives.
struct Walsender {
	pid_t pid;
	int node; // -1 = nobody's that is known
	char name[region::kNameLen];
	char address[64]; // numeric, "" = Unix socket
};

// When this node was first seen to have flushed so far.
struct Sample {
	uint64_t lsn;
	int64 at;
};

Walsender walsenders[kMaxWalsenders];
uint32 matched_with; // nodes_changed when these were given to nodes
Sample samples[kSamples];
int sample_count;

region::Header &header()
{
	return *region_view.header();
}

int64 monotonic_us()
{
	timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64CONST(1000000) + t.tv_nsec / 1000;
}

// When they are full, the older half is kept half as densely: what is long ago is known less exactly, but for ever.
void note_flushed(uint64_t lsn, int64 now)
{
	if (sample_count > 0 && samples[sample_count - 1].lsn == lsn)
		return;
	if (sample_count > 0 && samples[sample_count - 1].lsn > lsn)
		sample_count = 0; // another life of this cluster
	if (sample_count == kSamples) {
		constexpr int kQuarter = kSamples / 4;
		for (int i = 0; i < kQuarter; i++)
			samples[i] = samples[2 * i];
		memmove(samples + kQuarter, samples + kSamples / 2, sizeof(Sample) * (kSamples / 2));
		sample_count = 3 * kQuarter;
	}
	samples[sample_count++] = {lsn, now};
}

// Of the first position that it lacks; 0 = it lacks none.
int64 lag_ms(uint64_t replayed, int64 now)
{
	int from = 0, to = sample_count;

	while (from < to) {
		int middle = from + (to - from) / 2;
		if (samples[middle].lsn > replayed)
			to = middle;
		else
			from = middle + 1;
	}
	return from == sample_count ? 0 : Max((now - samples[from].at) / 1000, INT64CONST(1));
}

// Looks up who a new walsender is; it is known before it streams.
void learn(Walsender &w, pid_t pid)
{
	w.pid = pid;
	w.name[0] = w.address[0] = '\0';
	pgstat_clear_backend_activity_snapshot();
	const PgBackendStatus *seen = compat::backend_status(pid);
	if (seen != nullptr && !OidIsValid(seen->st_databaseid)) { // a logical one has a database
		const SockAddr &client = seen->st_clientaddr;
		strlcpy(w.name, seen->st_appname, sizeof w.name);
		if (client.addr.ss_family != AF_UNIX && pg_getnameinfo_all(&client.addr, client.salen, w.address,
		                                                           sizeof w.address, nullptr, 0, NI_NUMERICHOST) != 0)
			w.address[0] = '\0';
	}
	pgstat_clear_backend_activity_snapshot();
}

bool is_named(uint32 node, const char *name)
{
	return (header().nodes_used.load() & (1U << node)) != 0 && strcmp(region_view.node(node).names.name, name) == 0;
}

bool is_at(uint32 node, const char *address)
{
	return (header().nodes_used.load() & (1U << node)) != 0 && strcmp(region_view.node(node).names.host, address) == 0;
}

// One that lost its connection may be there twice for a while, from the same address.
bool name_is_shared(const Walsender &w)
{
	for (const Walsender &other : walsenders)
		if (other.pid != 0 && strcmp(other.name, w.name) == 0 && strcmp(other.address, w.address) != 0)
			return true;
	return false;
}

// By its name, if no other standby has that; or by its address, if no other walsender and no other node has that one.
int node_of(const Walsender &w)
{
	int at_address = -1, others = 0;

	for (uint32 i = 0; i < region::kMaxNodes && !name_is_shared(w); i++)
		if (is_named(i, w.name))
			return static_cast<int>(i);
	if (w.address[0] == '\0')
		return -1;
	for (uint32 i = 0; i < region::kMaxNodes; i++)
		if (is_at(i, w.address)) {
			at_address = static_cast<int>(i);
			others++;
		}
	for (const Walsender &other : walsenders)
		if (&other != &w && other.pid != 0 && strcmp(other.address, w.address) == 0)
			others++;
	return others == 1 ? at_address : -1;
}

void match_all()
{
	for (Walsender &w : walsenders)
		w.node = w.pid != 0 && w.name[0] != '\0' ? node_of(w) : -1;
	matched_with = header().nodes_changed.load();
}

struct Streaming {
	pid_t pid;
	uint64_t replayed;
};

Streaming look_at(WalSnd &from)
{
	Streaming s{};

	SpinLockAcquire(&from.mutex);
	if (from.pid != 0 && from.state == WALSNDSTATE_STREAMING)
		s = {from.pid, from.apply};
	SpinLockRelease(&from.mutex);
	return s;
}

// Of each node the furthest: one that lost its connection may have a walsender of before for a while.
void read_walsenders(uint64_t (&replayed)[region::kMaxNodes])
{
	Streaming now[kMaxWalsenders];
	const int count = Min(max_wal_senders, kMaxWalsenders);
	bool others = matched_with != header().nodes_changed.load();

	for (int i = 0; i < count; i++) {
		now[i] = look_at(WalSndCtl->walsnds[i]);
		if (now[i].pid != walsenders[i].pid) {
			if (now[i].pid != 0)
				learn(walsenders[i], now[i].pid);
			else
				walsenders[i] = {};
			others = true;
		}
	}
	if (others)
		match_all();
	for (int i = 0; i < count; i++)
		if (now[i].pid != 0 && walsenders[i].node >= 0)
			replayed[walsenders[i].node] = Max(replayed[walsenders[i].node], now[i].replayed);
}

// The end of what was written, as a commit tells it: where a page ends, the next record is said to begin behind the
// header of the next page, and nobody ever replays that as long as there is nothing else on it.
uint64_t end_of_wal()
{
	const XLogRecPtr next = GetXLogInsertRecPtr();

	if (XLogSegmentOffset(next, wal_segment_size) == SizeOfXLogLongPHD)
		return next - SizeOfXLogLongPHD;
	return next % XLOG_BLCKSZ == SizeOfXLogShortPHD ? next - SizeOfXLogShortPHD : next;
}

} // namespace

void begin_commits()
{
	if (RecoveryInProgress())
		return; // nothing commits here
	for (auto &last : header().database_commit) {
		uint64_t told = last.load(), end = end_of_wal(); // in this order: what is beyond is of a life that ended
		while (!last.compare_exchange_strong(told, end))
			end = end_of_wal();
	}
}

bool positions_wanted()
{
	return header().nodes_used.load() != 0 && header().positions_wanted_until.load() > monotonic_us();
}

void read_positions()
{
	if (header().nodes_used.load() == 0)
		return;

	uint64_t replayed[region::kMaxNodes] = {};
	read_walsenders(replayed);
	// after them: so nobody is ahead of it, and what is flushed since is no lag of theirs
	// The time before the position: who was answered before it has seen nothing that is not flushed.
	const int64 now = monotonic_us();
	const uint64_t flushed = header().primary.load() ? GetFlushRecPtr(nullptr) : GetXLogReplayRecPtr(nullptr);
	note_flushed(flushed, now);
	header().flushed.store(flushed);
	header().flushed_at.store(now);
	for (uint32 i = 0; i < region::kMaxNodes; i++) {
		region::NodeSlot &n = region_view.node(i);
		n.replayed.store(replayed[i]);
		n.lag_ms.store(replayed[i] != 0 ? lag_ms(replayed[i], now) : 0);
	}
}

} // namespace pgpool::postgres
