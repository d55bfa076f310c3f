// A worker at work: its ports, its control socket, signals and the engine on one event loop.
//
// Owns them all, the link to the manager and the addresses of the server, and implements the core's Outside. It is told
// of the server only what it needs: the region, descriptors that become readable for a signal and for the postmaster's
// death, and how to log. Must not know PostgreSQL's headers; src/postgres/worker/worker_main.cpp makes one and calls
// run().
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include <sys/socket.h>
#include <uv.h>

#include "core/worker/engine.hpp"
#include "core/base/ports.hpp"
#include "net/derivations.hpp"
#include "net/loop.hpp"
#include "net/node_cancel.hpp"
#include "net/node_dialer.hpp"
#include "net/node_pulse.hpp"
#include "net/packet.hpp"
#include "net/worker_control.hpp"
#include "net/worker_ports.hpp"
#include "net/worker_problem.hpp"

namespace pgpool::net
{

struct Host {
	region::View region;
	uint32_t worker;
	int signal_fd;     // an eventfd: something of the following became true
	int postmaster_fd; // readable when the postmaster is gone
	std::function<bool()> postmaster_alive;
	std::function<bool()> stop_requested; // SIGTERM
	void (*log)(const char *);
	core::Grammar &grammar;
};

class WorkerLoop final : public core::Outside
{
public:
	explicit WorkerLoop(const Host &host);
	~WorkerLoop() override;

	void run(); // returns when drained after SIGTERM, or at once when the postmaster is gone

	// core::Outside
	int64_t now_us() override { return loop_.now_us(); }
	int64_t clock_us() override { return Loop::clock_us(); }
	int64_t wall_us() override;
	void alarm() override;
	void random(void *out, size_t size) override;
	void log(std::string_view line) override;
	core::Grammar &grammar() override { return host_.grammar; }
	bool read_facts(uint32_t database, std::string &text) override;
	bool ask_manager(const control::AuthLookup &lookup) override;
	void wake_manager() override;
	void derive(uint64_t id, std::string_view password, const proto::ScramVerifier &verifier) override
	{
		derivations_.start(id, password, verifier);
	}
	void forget_derivation(uint64_t id) override { derivations_.forget(id); }
	core::Stream *dial(const core::ServerAddress &address, core::StreamOwner *owner) override;
	void interrupt_backend(int32_t pid) override;
	void terminate_backend(int32_t pid) override;
	void tell_worker(uint32_t worker, const void *packet, size_t size) override;
	void forward_cancel(const control::CancelKey &cancel, uint64_t session) override;
	void cancel_on_node(uint32_t node, const core::Stream &server, int32_t pid, std::string_view key,
	                    uint64_t id) override
	{
		node_cancels_.start(node, static_cast<const SocketStream &>(server), pid, key, id);
	}
	bool take_pulse(uint32_t node, const core::Stream &server) override
	{
		return node_pulses_.take(node, static_cast<const SocketStream &>(server));
	}

private:
	void raise_file_limit();
	int client_files() const;
	void load_tls();
	void connect_manager();
	void on_manager_packet(const control::Head &head, const std::vector<int> &fds);
	void on_signal();
	void on_tick();
	void resolve_server();

	Host host_;
	Loop loop_;
	core::Engine engine_;
	uv_poll_t signal_poll_, postmaster_poll_;
	uv_timer_t timer_, alarm_;
	WorkerProblem problem_;
	WorkerPorts ports_;
	WorkerControl control_;
	Derivations derivations_;
	NodeDialer nodes_;
	NodeCancels node_cancels_;
	NodePulses node_pulses_;
	PacketSocket *manager_ = nullptr;
	sockaddr_storage unix_server_{}, tcp_server_{};
	socklen_t unix_server_length_ = 0, tcp_server_length_ = 0;
	int64_t stop_deadline_ = 0;
	int file_limit_ = 0;
	bool stopping_ = false;
	bool finished_ = false;
};

} // namespace pgpool::net
