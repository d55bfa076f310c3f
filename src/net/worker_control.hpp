// A worker's control socket: what backends and other workers ask of it.
//
// Owns the listening socket, what each packet asks the engine to do, the rows of the views as packets, and the drains
// of databases: one lasts as long as the backend that asked for it keeps its connection. Must not know sessions.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

#include "net/packet.hpp"
#include "region/control.hpp"

namespace pgpool::core
{
class Engine;
} // namespace pgpool::core

namespace pgpool::net
{

class Loop;

std::string control_path(uint32_t worker);

class WorkerControl
{
public:
	WorkerControl(Loop &loop, core::Engine &engine) : loop_(loop), engine_(engine) {}
	WorkerControl(const WorkerControl &) = delete;
	WorkerControl &operator=(const WorkerControl &) = delete;

	[[nodiscard]] bool listen(uint32_t worker, std::string &why);

private:
	void on_packet(PacketSocket &from, const control::Head &head);
	void end_drain(PacketSocket &from);

	Loop &loop_;
	core::Engine &engine_;
	std::unordered_map<PacketSocket *, uint32_t> drains_; // databases that statements need alone
};

} // namespace pgpool::net
