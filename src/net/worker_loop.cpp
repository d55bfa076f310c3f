// See worker_loop.hpp.
#include "net/worker_loop.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <stdexcept>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/rand.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/crash.hpp"
#include "proto/scram.hpp"
#include "proto/secret.hpp"
#include "region/files.hpp"
#include "region/names.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

constexpr uint64_t kTickMs = 100;
constexpr char kHashThreads[] = "2";      // many logins at once must leave the event loop its processor
constexpr int64_t kListenAgain = 1000000; // microseconds

template <class Row> constexpr size_t kRowsInPacket = (control::kMaxPacket - sizeof(control::Rows)) / sizeof(Row);

std::string control_path(uint32_t worker)
{
	char path[64];
	snprintf(path, sizeof(path), control::kWorkerSocketFormat, worker);
	return path;
}

// What a client costs that is connected in plain text and has no statement, setting or byte on its way.
static_assert(sizeof(core::Session) + sizeof(SocketStream) <= 800);

} // namespace

WorkerLoop::WorkerLoop(const Host &host)
    : host_(host), loop_(region::present_settings(*host.region.header())), engine_(*this, host.region, host.worker)
{
	setenv("UV_THREADPOOL_SIZE", kHashThreads, 0);
	loop_.set_hooks([this] { engine_.end_event(); }, host_.log);
}

WorkerLoop::~WorkerLoop() = default;

// ---- core::Outside

int64_t WorkerLoop::wall_us()
{
	timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return int64_t{t.tv_sec} * 1000000 + t.tv_nsec / 1000;
}

void WorkerLoop::random(void *out, size_t size)
{
	if (RAND_bytes(static_cast<unsigned char *>(out), static_cast<int>(size)) != 1)
		throw std::runtime_error("no random bytes");
}

void WorkerLoop::log(std::string_view line)
{
	host_.log(std::string(line).c_str());
}

bool WorkerLoop::ask_manager(const control::AuthLookup &lookup)
{
	if (!manager_)
		return false;
	manager_->send(&lookup, sizeof(lookup));
	return true;
}

void WorkerLoop::wake_manager()
{
	auto m = control::make<control::Poke>(control::Type::Poke);
	if (manager_)
		manager_->send(&m, sizeof(m));
}

// One hash in a thread of libuv's. It lives until its thread is done with it, also when nobody waits any more.
struct WorkerLoop::Derivation {
	uv_work_t work;
	WorkerLoop *loop;
	uint64_t id;
	proto::SecretString password;
	proto::Secret<proto::ScramVerifier> verifier;
	proto::Secret<proto::ScramKey> key;
	bool right = false;
};

void WorkerLoop::derive(uint64_t id, std::string_view password, const proto::ScramVerifier &verifier)
{
	auto d = std::make_unique<Derivation>();
	d->work.data = d.get();
	d->loop = this;
	d->id = id;
	proto::assign(d->password, password);
	d->verifier = verifier;
	const int rc = uv_queue_work(
	    loop_.uv(), &d->work,
	    [](uv_work_t *w) {
		    use_crash_stack();
		    auto *self = static_cast<Derivation *>(w->data);
		    self->right = proto::scram_keys_from_password(*self->password, *self->verifier, self->key.edit());
	    },
	    [](uv_work_t *w, int) {
		    const std::unique_ptr<Derivation> self(static_cast<Derivation *>(w->data));
		    self->loop->loop_.guarded([&self] {
			    if (self->loop->derivations_.erase(self->id) > 0)
				    self->loop->engine_.questions().on_derived(self->id, self->right, *self->key);
		    });
	    });
	if (rc != 0)
		throw std::runtime_error("no thread for a hash");
	derivations_[id] = d.release();
}

void WorkerLoop::forget_derivation(uint64_t id)
{
	auto it = derivations_.find(id);
	if (it == derivations_.end())
		return;
	uv_cancel(reinterpret_cast<uv_req_t *>(&it->second->work)); // unless it is at work already
	derivations_.erase(it);
}

core::Stream *WorkerLoop::dial(const core::ServerAddress &address, core::StreamOwner *owner)
{
	const bool tcp = address.route == control::ServerRoute::Tcp;
	const sockaddr_storage &to = tcp ? tcp_server_ : unix_server_;
	const socklen_t length = tcp ? tcp_server_length_ : unix_server_length_;
	if (length == 0)
		return nullptr;
	return SocketStream::dial(loop_, reinterpret_cast<const sockaddr *>(&to), length, owner);
}

// The group, as the postmaster does: a COPY ... PROGRAM child gets it too.
static void signal_backend(int32_t pid, int signal)
{
	if (kill(-pid, signal) != 0)
		kill(pid, signal);
}

void WorkerLoop::interrupt_backend(int32_t pid)
{
	signal_backend(pid, SIGINT);
}

void WorkerLoop::terminate_backend(int32_t pid)
{
	signal_backend(pid, SIGTERM);
}

void WorkerLoop::tell_worker(uint32_t worker, const void *packet, size_t size)
{
	if (host_.region.worker(worker).pid.load() != 0)
		PacketSocket::send_once(control_path(worker).c_str(), packet, size);
}

void WorkerLoop::forward_cancel(const control::CancelKey &cancel, uint64_t session)
{
	// One more than there are workers to ask, so that it cannot reach zero before all were asked.
	auto left = std::make_shared<int>(1);
	auto done = [this, left, session] {
		if (--*left == 0)
			engine_.clients().on_cancel_done(session);
	};
	for (uint32_t w = 0; w < host_.region.header()->workers; w++) {
		if (w == host_.worker || host_.region.worker(w).pid.load() == 0)
			continue;
		PacketSocket *to = PacketSocket::connect(
		    loop_, control_path(w).c_str(),
		    [done](PacketSocket &from, const control::Head &, const std::vector<int> &) {
			    from.close();
			    done();
		    },
		    [done](PacketSocket &) { done(); });
		if (!to)
			continue;
		++*left;
		to->send(&cancel, sizeof(cancel));
	}
	done();
}

void WorkerLoop::resolve_server()
{
	const region::Settings &s = loop_.settings();
	unix_server_length_ = tcp_server_length_ = 0;
	if (s.server_socket_directory[0] != '\0') {
		auto *a = reinterpret_cast<sockaddr_un *>(&unix_server_);
		a->sun_family = AF_UNIX;
		const int n =
		    snprintf(a->sun_path, sizeof(a->sun_path), "%s/.s.PGSQL.%d", s.server_socket_directory, s.server_port);
		// PostgreSQL writes abstract sockets with a leading @.
		if (n > 0 && a->sun_path[0] == '@')
			a->sun_path[0] = '\0';
		if (n > 0 && static_cast<size_t>(n) < sizeof(a->sun_path))
			unix_server_length_ = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + static_cast<size_t>(n) +
			                                             (a->sun_path[0] != '\0' ? 1 : 0));
	}
	if (s.server_loopback[0] != '\0') {
		auto *v4 = reinterpret_cast<sockaddr_in *>(&tcp_server_);
		auto *v6 = reinterpret_cast<sockaddr_in6 *>(&tcp_server_);
		memset(&tcp_server_, 0, sizeof(tcp_server_));
		if (inet_pton(AF_INET, s.server_loopback, &v4->sin_addr) == 1) {
			v4->sin_family = AF_INET;
			v4->sin_port = htons(static_cast<uint16_t>(s.server_port));
			tcp_server_length_ = sizeof(*v4);
		} else if (inet_pton(AF_INET6, s.server_loopback, &v6->sin6_addr) == 1) {
			v6->sin6_family = AF_INET6;
			v6->sin6_port = htons(static_cast<uint16_t>(s.server_port));
			tcp_server_length_ = sizeof(*v6);
		}
	}
}

// ---- start

void WorkerLoop::raise_file_limit()
{
	rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	getrlimit(RLIMIT_NOFILE, &limit);
	file_limit_ = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, INT32_MAX));
	engine_.context().slot().file_limit.store(file_limit_);
	const int64_t needed = int64_t{loop_.settings().max_client_connections} / std::max(1, loop_.settings().workers);
	if (client_files() < needed)
		problem("the limit of open files, " + std::to_string(file_limit_) + ", is too low for this worker's share of " +
		        "pgpool.max_client_connections (" + std::to_string(loop_.settings().max_client_connections) + " over " +
		        std::to_string(loop_.settings().workers) + " workers)");
}

int WorkerLoop::client_files() const
{
	return file_limit_ - region::reserved_files(file_limit_, loop_.settings().max_server_connections);
}

void WorkerLoop::load_tls()
{
	std::string why;
	if (!loop_.tls().load(loop_.settings(), why))
		log(why +
		    (loop_.tls().enabled() ? "; the old TLS configuration stays in force" : "; TLS is off on pgpool's port"));
}

void WorkerLoop::problem(const std::string &text)
{
	region::WorkerSlot &slot = engine_.context().slot();
	memset(slot.problem, 0, sizeof(slot.problem));
	memcpy(slot.problem, text.data(), std::min(text.size(), sizeof(slot.problem) - 1));
	log(text);
}

void WorkerLoop::solved(const std::string &text)
{
	memset(engine_.context().slot().problem, 0, sizeof(engine_.context().slot().problem));
	log(text);
}

void WorkerLoop::listen()
{
	const region::Settings &s = loop_.settings();
	if (host_.region.header()->port_taken.load()) {
		if (listen_again_at_ == 0)
			problem("port " + std::to_string(s.port) +
			        " or the session port is used by pgpool of another cluster on this machine: "
			        "not listening until that has left it");
		listen_again_at_ = now_us() + kListenAgain;
		return;
	}
	auto on_accept = [this](SocketStream *stream, bool session_port, int fd) { accept(stream, session_port, fd); };
	std::string why;
	bool complete =
	    Listener::bind_tcp(loop_, s.listen_addresses, s.port, s.listen_backlog, false, on_accept, tcp_, why);
	if (s.session_port != 0)
		complete &= Listener::bind_tcp(loop_, s.listen_addresses, s.session_port, s.listen_backlog, true, on_accept,
		                               session_tcp_, why);
	// A name that cannot be translated is asked for again only if there is nothing else: that may take seconds.
	complete &= !tcp_.empty() && (s.session_port == 0 || !session_tcp_.empty());
	if (!why.empty() && listen_again_at_ == 0)
		problem(why + (complete ? "" : "; trying again every second"));
	else if (complete && listen_again_at_ != 0)
		solved("now listening on port " + std::to_string(s.port));
	listen_again_at_ = complete ? 0 : now_us() + kListenAgain;
	publish_listening();
}

void WorkerLoop::publish_listening()
{
	engine_.context().slot().listening.store((!tcp_.empty() ? region::kListenTcp : 0) |
	                                         (!session_tcp_.empty() ? region::kListenSession : 0) |
	                                         (!unix_.empty() ? region::kListenUnix : 0));
}

void WorkerLoop::stop_listening()
{
	for (auto *list : {&tcp_, &session_tcp_, &unix_}) {
		for (Listener *l : *list)
			l->close();
		list->clear();
	}
	listen_again_at_ = 0;
	publish_listening();
}

// While no manager held the claim another cluster took it: with SO_REUSEPORT each would get a part of the connections.
void WorkerLoop::give_up_ports()
{
	for (auto *list : {&tcp_, &session_tcp_}) {
		for (Listener *l : *list)
			l->close();
		list->clear();
	}
	listen_again_at_ = 0;
	listen();
	publish_listening();
}

void WorkerLoop::accept(SocketStream *stream, bool session_port, int fd)
{
	engine_.accept(stream, session_port, fd >= client_files());
}

void WorkerLoop::run()
{
	mkdir(control::kDirectory, 0700);
	raise_file_limit();
	resolve_server();
	load_tls();
	std::string why;
	control_ = PacketListener::listen(
	    loop_, control_path(host_.worker).c_str(),
	    [this](int fd) {
		    PacketSocket::adopt(
		        loop_, fd,
		        [this](PacketSocket &from, const control::Head &head, const std::vector<int> &) {
			        on_control_packet(from, head);
		        },
		        [this](PacketSocket &from) { end_drain(from); });
	    },
	    why);
	if (!control_)
		problem(why);
	listen();

	signal_poll_.data = postmaster_poll_.data = timer_.data = this;
	uv_poll_init(loop_.uv(), &signal_poll_, host_.signal_fd);
	uv_poll_start(&signal_poll_, UV_READABLE, [](uv_poll_t *h, int, int) {
		auto *self = static_cast<WorkerLoop *>(h->data);
		self->loop_.guarded([self] { self->on_signal(); });
	});
	uv_poll_init(loop_.uv(), &postmaster_poll_, host_.postmaster_fd);
	uv_poll_start(&postmaster_poll_, UV_READABLE | UV_DISCONNECT, [](uv_poll_t *h, int, int) {
		auto *self = static_cast<WorkerLoop *>(h->data);
		if (!self->host_.postmaster_alive())
			_exit(1);
	});
	uv_timer_init(loop_.uv(), &timer_);
	uv_timer_start(
	    &timer_,
	    [](uv_timer_t *h) {
		    auto *self = static_cast<WorkerLoop *>(h->data);
		    self->loop_.guarded([self] { self->on_tick(); });
	    },
	    0, kTickMs);

	region::WorkerSlot &slot = engine_.context().slot();
	slot.started_at.store(wall_us());
	slot.starts.store(slot.starts.load() + 1);
	slot.pid.store(getpid());
	slot.state.store(region::WorkerState::Running);
	while (!finished_) {
		uv_run(loop_.uv(), engine_.clients().has_turns() ? UV_RUN_NOWAIT : UV_RUN_ONCE);
		if (engine_.clients().has_turns())
			loop_.guarded([this] { engine_.clients().take_turns(); });
	}
	slot.state.store(region::WorkerState::Down);
	slot.pid.store(0);
}

// ---- events

void WorkerLoop::on_signal()
{
	uint64_t n;
	while (read(host_.signal_fd, &n, sizeof(n)) > 0)
		;
	if (host_.stop_requested() && !stopping_) {
		stopping_ = true;
		stop_deadline_ = now_us() + int64_t{loop_.settings().shutdown_timeout} * 1000;
		engine_.context().slot().state.store(region::WorkerState::Draining);
		stop_listening();
		engine_.drain();
	}
}

void WorkerLoop::on_tick()
{
	if (!manager_)
		connect_manager();
	for (auto *list : {&tcp_, &session_tcp_, &unix_}) {
		for (Listener *l : *list)
			l->tick();
	}
	if (host_.region.header()->port_taken.load(std::memory_order_relaxed) && !(tcp_.empty() && session_tcp_.empty()) &&
	    !stopping_)
		give_up_ports();
	if (listen_again_at_ != 0 && now_us() > listen_again_at_ && !stopping_)
		listen();
	loop_.tick();
	engine_.tick();
	if (stopping_) {
		if (now_us() > stop_deadline_)
			engine_.abandon();
		finished_ = (engine_.drained() && loop_.lingering().empty()) || now_us() > stop_deadline_ + 1000000;
	}
}

void WorkerLoop::connect_manager()
{
	manager_ = PacketSocket::connect(
	    loop_, control::kManagerSocket,
	    [this](PacketSocket &, const control::Head &head, const std::vector<int> &fds) {
		    on_manager_packet(head, fds);
	    },
	    [this](PacketSocket &) { manager_ = nullptr; });
	if (!manager_)
		return;
	auto hello = control::make<control::Hello>(control::Type::Hello);
	hello.worker = host_.worker;
	hello.pid = getpid();
	manager_->send(&hello, sizeof(hello));
	engine_.on_manager();
}

void WorkerLoop::on_manager_packet(const control::Head &head, const std::vector<int> &fds)
{
	switch (head.type) {
	case control::Type::Settings:
		if (head.size == sizeof(control::SettingsMessage)) {
			loop_.settings() = reinterpret_cast<const control::SettingsMessage &>(head).settings;
			engine_.on_settings(loop_.settings());
			resolve_server();
			load_tls();
		}
		break;
	case control::Type::UnixListeners:
		if (head.size == sizeof(control::UnixListeners))
			replace_unix_listeners(reinterpret_cast<const control::UnixListeners &>(head), fds);
		break;
	case control::Type::AuthAnswer:
		if (head.size == sizeof(control::AuthAnswer))
			engine_.questions().on_answer(reinterpret_cast<const control::AuthAnswer &>(head));
		break;
	case control::Type::Poke:
		engine_.on_poke();
		break;
	default:
		break;
	}
}

void WorkerLoop::replace_unix_listeners(const control::UnixListeners &m, const std::vector<int> &fds)
{
	for (Listener *l : unix_)
		l->close();
	unix_.clear();
	for (size_t i = 0; i < fds.size(); i++) {
		if (stopping_ || i >= size_t{m.transaction_fds} + m.session_fds) {
			close(fds[i]);
			continue;
		}
		Listener *l = Listener::watch(
		    loop_, fds[i], i >= m.transaction_fds,
		    [this](SocketStream *stream, bool session_port, int fd) { accept(stream, session_port, fd); });
		if (l)
			unix_.push_back(l);
	}
	publish_listening();
}

// The backend that asked has closed its connection: the statement is over.
void WorkerLoop::end_drain(PacketSocket &from)
{
	auto it = drains_.find(&from);
	if (it == drains_.end())
		return;
	const uint32_t database = it->second;
	drains_.erase(it);
	engine_.pools().end_drain(database);
}

template <class Row>
void WorkerLoop::send_rows(PacketSocket &to, control::Type type, uint64_t id, const Row *rows, size_t n)
{
	auto head = control::make<control::Rows>(type, id);
	head.count = static_cast<uint32_t>(n);
	head.head.size = static_cast<uint32_t>(sizeof(head) + n * sizeof(Row));
	std::string packet(reinterpret_cast<const char *>(&head), sizeof(head));
	packet.append(reinterpret_cast<const char *>(rows), n * sizeof(Row));
	to.send(packet.data(), packet.size());
}

template <class Row>
void WorkerLoop::send_all_rows(PacketSocket &to, control::Type type, uint64_t id, const std::vector<Row> &rows)
{
	for (size_t at = 0; at < rows.size(); at += kRowsInPacket<Row>)
		send_rows(to, type, id, &rows[at], std::min(kRowsInPacket<Row>, rows.size() - at));
	send_end(to, id);
}

void WorkerLoop::send_end(PacketSocket &to, uint64_t id)
{
	const control::Head end{control::kMagic, region::kVersion, control::Type::End, sizeof(end), id};
	to.send(&end, sizeof(end));
}

void WorkerLoop::send_client_rows(PacketSocket &to, uint64_t id)
{
	auto clients = std::make_shared<core::ClientRows>(engine_.clients());
	to.feed([this, &to, id, clients] {
		const auto rows = clients->next(kRowsInPacket<control::ClientRow>);
		if (!rows.empty())
			send_rows(to, control::Type::ClientRows, id, rows.data(), rows.size());
		else
			send_end(to, id);
		return !rows.empty();
	});
}

void WorkerLoop::on_control_packet(PacketSocket &from, const control::Head &head)
{
	auto ack = control::make<control::Ack>(control::Type::Ack, head.id);
	switch (head.type) {
	case control::Type::ListClients:
		send_client_rows(from, head.id);
		return;
	case control::Type::ListServers:
		send_all_rows(from, control::Type::ServerRows, head.id, engine_.server_rows());
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
			const auto &m = reinterpret_cast<const control::PlaceFree &>(head);
			engine_.pools().on_place_free(m.pool_slot, m.pool_generation);
		}
		return;
	default:
		return;
	}
	from.send(&ack, sizeof(ack));
}

} // namespace pgpool::net
