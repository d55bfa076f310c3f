// See worker_control.hpp.
#include "net/worker_control.hpp"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <vector>

#include "core/worker/engine.hpp"
#include "net/loop.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

template <class Row> constexpr size_t kRowsInPacket = (control::kMaxPacket - sizeof(control::Rows)) / sizeof(Row);

void send_end(PacketSocket &to, uint64_t id)
{
	const control::Head end{control::kMagic, region::kVersion, control::Type::End, sizeof(end), id};
	to.send(&end, sizeof(end));
}

template <class Row> void send_rows(PacketSocket &to, control::Type type, uint64_t id, const Row *rows, size_t n)
{
	auto head = control::make<control::Rows>(type, id);
	head.count = static_cast<uint32_t>(n);
	head.head.size = static_cast<uint32_t>(sizeof(head) + n * sizeof(Row));
	std::string packet(reinterpret_cast<const char *>(&head), sizeof(head));
	packet.append(reinterpret_cast<const char *>(rows), n * sizeof(Row));
	to.send(packet.data(), packet.size());
}

template <class Row> void send_all_rows(PacketSocket &to, control::Type type, uint64_t id, const std::vector<Row> &rows)
{
	for (size_t at = 0; at < rows.size(); at += kRowsInPacket<Row>)
		send_rows(to, type, id, &rows[at], std::min(kRowsInPacket<Row>, rows.size() - at));
	send_end(to, id);
}

// A packet at a time, as they are taken.
template <class Rows, class List> void feed_rows(PacketSocket &to, control::Type type, uint64_t id, List &list)
{
	auto rows = std::make_shared<Rows>(list);
	to.feed([&to, type, id, rows] {
		const auto some = rows->next(kRowsInPacket<typename Rows::Row>);
		if (!some.empty())
			send_rows(to, type, id, some.data(), some.size());
		else
			send_end(to, id);
		return !some.empty();
	});
}

} // namespace

std::string control_path(uint32_t worker)
{
	char path[64];
	snprintf(path, sizeof(path), control::kWorkerSocketFormat, worker);
	return path;
}

bool WorkerControl::listen(uint32_t worker, std::string &why)
{
	return PacketListener::listen(
	           loop_, control_path(worker).c_str(),
	           [this](int fd) {
		           PacketSocket::adopt(
		               loop_, fd,
		               [this](PacketSocket &from, const control::Head &head, const std::vector<int> &) {
			               on_packet(from, head);
		               },
		               [this](PacketSocket &from) { end_drain(from); });
	           },
	           why) != nullptr;
}

// The backend that asked has closed its connection: the statement is over.
void WorkerControl::end_drain(PacketSocket &from)
{
	auto it = drains_.find(&from);
	if (it == drains_.end())
		return;
	const uint32_t database = it->second;
	drains_.erase(it);
	engine_.pools().end_drain(database);
}

void WorkerControl::on_packet(PacketSocket &from, const control::Head &head)
{
	auto ack = control::make<control::Ack>(control::Type::Ack, head.id);
	switch (head.type) {
	case control::Type::ListClients:
		feed_rows<core::ClientRows>(from, control::Type::ClientRows, head.id, engine_.clients().sessions());
		return;
	case control::Type::ListServers:
		feed_rows<core::ServerRows>(from, control::Type::ServerRows, head.id, engine_.pools().servers());
		return;
	case control::Type::ListPrepared:
		send_all_rows(from, control::Type::PreparedRows, head.id, engine_.prepared_rows());
		return;
	case control::Type::TerminateClient:
	case control::Type::CancelClient:
		if (head.size == sizeof(control::ClientVerb)) {
			const uint64_t id = reinterpret_cast<const control::ClientVerb &>(head).client_id;
			ack.done =
			    head.type == control::Type::CancelClient ? engine_.cancel_client(id) : engine_.terminate_client(id);
		}
		break;
	case control::Type::DrainDatabase:
		if (head.size == sizeof(control::DrainDatabase)) {
			const uint32_t database = reinterpret_cast<const control::DrainDatabase &>(head).database_oid;
			end_drain(from);
			drains_[&from] = database;
			engine_.on_drain_database(database, ack.done);
		}
		break;
	case control::Type::CancelKey: {
		const auto &m = reinterpret_cast<const control::CancelKey &>(head);
		if (head.size == sizeof(m) && m.key_length <= sizeof(m.key))
			engine_.clients().cancel_here(m.pid, {reinterpret_cast<const char *>(m.key), m.key_length});
		break;
	}
	case control::Type::YieldServer:
		if (head.size == sizeof(control::YieldServer))
			engine_.pools().on_yield(reinterpret_cast<const control::YieldServer &>(head));
		return;
	case control::Type::Proof:
		if (head.size == sizeof(control::Proof))
			engine_.pools().on_proof(reinterpret_cast<const control::Proof &>(head));
		return;
	case control::Type::PlaceFree:
		if (head.size == sizeof(control::PlaceFree)) {
			engine_.pools().on_place_free(reinterpret_cast<const control::PlaceFree &>(head));
		}
		return;
	default:
		return;
	}
	from.send(&ack, sizeof(ack));
}

} // namespace pgpool::net
