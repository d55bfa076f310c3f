// The event loop of a worker, as far as streams need it: buffers, deferred work, lingering streams, TLS.
//
// Owns the uv_loop_t and the read buffer that all streams share. Every callback from libuv goes through
// guarded(): after each event the deferred work is done and what was buried is freed. An exception ends the process:
// what the event left half done, in the account of replies or in what is queued for a peer, could be served to another.
// Must not know sessions.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include <uv.h>

#include "core/base/list.hpp"
#include "net/stream.hpp"
#include "net/tls.hpp"
#include "region/settings.hpp"

namespace pgpool::net
{

class Loop
{
public:
	explicit Loop(const region::Settings &settings);
	Loop(const Loop &) = delete;
	Loop &operator=(const Loop &) = delete;

	uv_loop_t *uv() { return &uv_; }
	char *buffer() { return buffer_.get(); }
	char *scratch() { return scratch_.get(); } // for bytes that nobody reads
	int64_t now_us();                          // CLOCK_MONOTONIC; within an event always the same, when first asked
	static int64_t clock_us();                 // the same, read anew
	TlsContext &tls() { return tls_; }
	region::Settings &settings() { return settings_; }
	const region::Settings &settings() const { return settings_; }
	core::List<SocketStream, &SocketStream::linger_hook> &lingering() { return lingering_; }

	void defer(SocketStream *stream) { deferred_.push_back(stream); }
	void tick();
	static void set_tcp_options(int fd, const region::Settings &settings);

	// Runs one event's work and what follows from it.
	template <class F> void guarded(F f) noexcept
	{
		event_time_ = kNotRead;
		try {
			f();
			after_event();
		} catch (const std::exception &e) {
			give_up(e.what());
		} catch (...) {
			give_up("unknown exception");
		}
		event_time_ = kNoEvent;
	}
	// `log` is told why the process ends, and must not need memory.
	void set_hooks(std::function<void()> after, void (*log)(const char *))
	{
		after_ = std::move(after);
		log_ = log;
	}

private:
	static constexpr int64_t kNoEvent = -1, kNotRead = 0;

	void after_event();
	[[noreturn]] void give_up(const char *what);

	uv_loop_t uv_;
	std::unique_ptr<char[]> buffer_, scratch_;
	region::Settings settings_;
	TlsContext tls_;
	int64_t event_time_ = kNoEvent;
	core::List<SocketStream, &SocketStream::linger_hook> lingering_;
	std::vector<SocketStream *> deferred_;
	std::function<void()> after_;
	void (*log_)(const char *) = nullptr;
};

} // namespace pgpool::net
