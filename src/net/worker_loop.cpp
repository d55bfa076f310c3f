// See worker_loop.hpp.
#include "net/worker_loop.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <openssl/rand.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "proto/scram.hpp"
#include "region/facts.hpp"
#include "region/files.hpp"
#include "region/names.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

namespace
{

constexpr uint64_t kTickMs = 100;
constexpr char kHashThreads[] = "2"; // many logins at once must leave the event loop its processor

// What a client costs that is connected in plain text and has no statement, setting or byte on its way.
static_assert(sizeof(core::Session) + sizeof(SocketStream) <= 800);

} // namespace

WorkerLoop::WorkerLoop(const Host &host)
    : host_(host), loop_(region::present_settings(*host.region.header())), engine_(*this, host.region, host.worker),
      problem_(engine_.context().slot(), host_.log),
      ports_(loop_, host.region, host.worker, problem_,
             [this](SocketStream *stream, bool session_port, int fd) {
	             engine_.accept(stream, session_port, fd >= client_files());
             }),
      control_(loop_, engine_),
      derivations_(loop_, [this](uint64_t id, bool right,
                                 const proto::ScramKey &key) { engine_.questions().on_derived(id, right, key); }),
      nodes_(loop_, [view = host.region](uint32_t i) { return &view.node(i); }),
      node_cancels_(loop_, nodes_, [this](uint64_t id, core::CancelEnd end) { engine_.on_cancel_over(id, end); }),
      node_pulses_(loop_, [this](uint32_t node) { engine_.node_watch().on_pulse(node); })
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

// The loop may have an older idea of the time than the core.
void WorkerLoop::alarm()
{
	if (uv_is_active(reinterpret_cast<uv_handle_t *>(&alarm_)) != 0)
		return;
	uv_update_time(loop_.uv());
	uv_timer_start(
	    &alarm_,
	    [](uv_timer_t *h) {
		    auto *self = static_cast<WorkerLoop *>(h->data);
		    self->loop_.guarded([self] { self->engine_.clients().on_alarm(); });
	    },
	    1, 0);
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

bool WorkerLoop::read_facts(uint32_t database, std::string &text)
{
	char path[64];
	region::facts_path(path, sizeof(path), database);
	std::ifstream file(path, std::ios::binary);
	text.assign(std::istreambuf_iterator<char>(file), {});
	return file.good() || file.eof();
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

core::Stream *WorkerLoop::dial(const core::ServerAddress &address, core::StreamOwner *owner)
{
	if (address.route == control::ServerRoute::Node)
		return nodes_.dial(address.node, owner);
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
		problem_.is("the limit of open files, " + std::to_string(file_limit_) +
		            ", is too low for this worker's share of " + "pgpool.max_client_connections (" +
		            std::to_string(loop_.settings().max_client_connections) + " over " +
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

void WorkerLoop::run()
{
	mkdir(control::kDirectory, 0700);
	raise_file_limit();
	resolve_server();
	load_tls();
	std::string why;
	if (!control_.listen(host_.worker, why))
		problem_.is(why);
	ports_.listen();

	signal_poll_.data = postmaster_poll_.data = timer_.data = alarm_.data = this;
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
	uv_timer_init(loop_.uv(), &alarm_);
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
		ports_.stop();
		engine_.drain();
	}
}

void WorkerLoop::on_tick()
{
	if (!manager_)
		connect_manager();
	ports_.tick();
	loop_.tick();
	nodes_.tick();
	node_cancels_.tick();
	node_pulses_.tick();
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
			nodes_.reload();
		}
		break;
	case control::Type::UnixListeners:
		if (head.size == sizeof(control::UnixListeners))
			ports_.replace_unix(reinterpret_cast<const control::UnixListeners &>(head), fds);
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

} // namespace pgpool::net
