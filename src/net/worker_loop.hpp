// A worker at work: listeners, control sockets, signals and the engine on one event loop.
//
// Owns them all and implements the core's Outside. It is told of the server only what it needs: the
// region, descriptors that become readable for a signal and for the postmaster's death, and how to log.
// Must not know PostgreSQL's headers; src/postgres/worker/worker_main.cpp makes one and calls run().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <sys/socket.h>
#include <uv.h>

#include "core/worker/engine.hpp"
#include "core/base/ports.hpp"
#include "net/listener.hpp"
#include "net/loop.hpp"
#include "net/packet.hpp"

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
};

class WorkerLoop final : public core::Outside
{
public:
	explicit WorkerLoop(const Host &host);
	~WorkerLoop() override;

	void run(); // returns when drained after SIGTERM, or at once when the postmaster is gone

	// core::Outside
	int64_t now_us() override { return loop_.now_us(); }
	int64_t wall_us() override;
	void random(void *out, size_t size) override;
	void log(std::string_view line) override;
	bool ask_manager(const control::AuthLookup &lookup) override;
	void wake_manager() override;
	void derive(uint64_t id, std::string_view password, const proto::ScramVerifier &verifier) override;
	void forget_derivation(uint64_t id) override;
	core::Stream *dial(const core::ServerAddress &address, core::StreamOwner *owner) override;
	void interrupt_backend(int32_t pid) override;
	void terminate_backend(int32_t pid) override;
	void tell_worker(uint32_t worker, const void *packet, size_t size) override;
	void forward_cancel(const control::CancelKey &cancel, uint64_t session) override;

private:
	struct Derivation;
	void raise_file_limit();
	int client_files() const;
	void load_tls();
	void listen();
	void stop_listening();
	void give_up_ports();
	void problem(const std::string &text);
	void solved(const std::string &text);
	void connect_manager();
	void on_manager_packet(const control::Head &head, const std::vector<int> &fds);
	void replace_unix_listeners(const control::UnixListeners &m, const std::vector<int> &fds);
	void on_control_packet(PacketSocket &from, const control::Head &head);
	void end_drain(PacketSocket &from);
	template <class Row> void send_rows(PacketSocket &to, control::Type type, uint64_t id, const Row *rows, size_t n);
	template <class Row>
	void send_all_rows(PacketSocket &to, control::Type type, uint64_t id, const std::vector<Row> &rows);
	void send_client_rows(PacketSocket &to, uint64_t id);
	static void send_end(PacketSocket &to, uint64_t id);
	void on_signal();
	void on_tick();
	void accept(SocketStream *stream, bool session_port, int fd);
	void resolve_server();
	void publish_listening();

	Host host_;
	Loop loop_;
	core::Engine engine_;
	uv_poll_t signal_poll_, postmaster_poll_;
	uv_timer_t timer_;
	std::vector<Listener *> tcp_, session_tcp_, unix_;
	PacketSocket *manager_ = nullptr;
	PacketListener *control_ = nullptr;
	std::unordered_map<PacketSocket *, uint32_t> drains_; // databases that statements need alone
	sockaddr_storage unix_server_{}, tcp_server_{};
	socklen_t unix_server_length_ = 0, tcp_server_length_ = 0;
	std::unordered_map<uint64_t, Derivation *> derivations_;
	int64_t stop_deadline_ = 0;
	int file_limit_ = 0;
	int64_t listen_again_at_ = 0; // 0: all is bound
	bool stopping_ = false;
	bool finished_ = false;
};

} // namespace pgpool::net
