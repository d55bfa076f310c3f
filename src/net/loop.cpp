// See loop.hpp.
#include "net/loop.hpp"

#include <cstdio>
#include <ctime>
#include <stdexcept>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "net/crash.hpp"

#include "net/no_postgres.hpp"

namespace pgpool::net
{

Loop::Loop(const region::Settings &settings)
    : buffer_(new char[core::kChunk]), scratch_(new char[core::kChunk]), settings_(settings)
{
	if (uv_loop_init(&uv_) != 0)
		throw std::runtime_error("could not create the event loop");
}

int64_t Loop::now_us()
{
	if (event_time_ > kNotRead)
		return event_time_;
	const int64_t now = clock_us();
	if (event_time_ == kNotRead)
		event_time_ = now;
	return now;
}

int64_t Loop::clock_us()
{
	timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return int64_t{t.tv_sec} * 1000000 + t.tv_nsec / 1000;
}

void Loop::after_event()
{
	// What is deferred meanwhile waits for its turn in the same loop: the list only ever empties here.
	while (!deferred_.empty()) {
		std::vector<SocketStream *> batch;
		batch.swap(deferred_);
		for (SocketStream *s : batch)
			s->deferred();
	}
	after_();
}

void Loop::give_up(const char *what)
{
	char line[256];
	snprintf(line, sizeof(line), "pgpool worker: ends because of an unexpected exception: %s", what);
	if (log_)
		log_(line);
	end_process();
}

void Loop::tick()
{
	const int64_t now = now_us();
	lingering_.each([now](SocketStream *s) { s->linger_tick(now); });
}

void Loop::set_tcp_options(int fd, const region::Settings &s)
{
	const int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	auto set = [fd](int option, int value) {
		if (value > 0)
			setsockopt(fd, IPPROTO_TCP, option, &value, sizeof(value));
	};
	set(TCP_KEEPIDLE, s.tcp_keepalives_idle);
	set(TCP_KEEPINTVL, s.tcp_keepalives_interval);
	set(TCP_KEEPCNT, s.tcp_keepalives_count);
	const int user_timeout = s.tcp_user_timeout; // 0 is a value, too
	setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
}

} // namespace pgpool::net
