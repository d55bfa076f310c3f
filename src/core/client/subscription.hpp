// One client that only listens: how it leaves its server for the listener of its database, and comes back.
//
// Both servers get the notifications of all commits in the same order. So a notification of ours, the marker, tells
// where to change from one stream to the other: what comes before it is taken from the old one, what comes behind it
// from the new one. Nothing is lost, nothing comes twice, and the client sees no marker.
//
//   parking   own server: SELECT pg_listening_channels()   listener: LISTEN ...
//             own server: LISTEN marker; NOTIFY marker     from the marker on, the listener's count; UNLISTEN *
//   return    own server: LISTEN ..., marker; NOTIFY marker; UNLISTEN marker
//             the client's message waits until both have passed the marker
//
// What the client sends meanwhile is kept by the session. A parking that fails before the marker has come by on the
// own server is taken back: the client has missed nothing and keeps its server. A return that fails before it is
// complete is done again on another server: the client is still parked.
// Owns the steps and what is kept back from the client. Must not know why a client is parked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/client/deputy.hpp"
#include "core/listening/listeners.hpp"
#include "proto/message.hpp"

namespace pgpool::core
{

class Subscription final : public Deputy, public Subscriber
{
public:
	Subscription(Session &session, Listener &listener);
	~Subscription() override;
	Subscription(const Subscription &) = delete;
	Subscription &operator=(const Subscription &) = delete;

	// ---- for the session. Each of these may end in a call to it that destroys this object.
	void begin();
	void come_back(); // the session has a server
	// The listener has taken over: the client can do without its own server.
	bool taken_over() const { return step_ >= Step::Leaving; }
	bool returning() const { return step_ == Step::Returning; }

	// ---- for its own server, in a handover
	void on_row(std::string_view body) override;
	bool on_notification(const Notification &n) override;
	void on_round(For purpose, const proto::Error &error) override;
	void on_replies(uint64_t forwarded) override;
	void on_lost(Loss loss, const proto::Error *why) override;
	void end(const proto::Error &why) override;
	void check_timeouts(int64_t now) override;

	// ---- for the listener
	uint64_t id() const override;
	Stream *stream() override;
	void on_subscribed() override;
	bool on_listener_notification(const Notification &n) override;
	void on_marker(const Notification &n) override;
	void on_listener_lost(const proto::Error &why) override;
	void on_too_slow() override;

private:
	enum class Step : uint8_t { Asking, Subscribing, Marking, TakingBack, Leaving, Away, Returning };

	void mark();
	void own_marker();
	void on_own_server_gone();
	void returned();
	void return_failed(const proto::Error &why);
	void run(const std::string &sql);
	void deliver(std::string &kept);

	Listener *listener_; // nullptr: it is lost, but nothing more is needed of it
	std::string kept_;   // of the new stream, for when the old one has passed the marker
	std::string late_;   // of the listener behind the marker: for the client if the return fails
	proto::Error error_;
	uint32_t due_ = 0; // queries of ours that are not done
	uint32_t failures_ = 0;
	int32_t own_pid_ = 0;
	Step step_ = Step::Asking;
	bool own_passed_ = false, listener_passed_ = false; // the marker
};

} // namespace pgpool::core
