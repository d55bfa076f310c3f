// Servers that listen for clients which have none: LISTEN without a server of one's own.
//
// A Listener is one server of this worker in one database, of one role and with one client_encoding. It subscribes to
// the channels of all clients that are parked on it (subscription.hpp) and hands each notification to those who listen
// to its channel, in the order in which it comes and as the backend wrote it. It is opened for the first client, by
// that client's pool, takes no place of the pool but one of pgpool.max_server_connections, and is closed when nobody
// has been parked for a while. When it is lost, its clients are: they may have missed something.
// Owns who is parked and which channels its server has. Must not know SQL beyond LISTEN and UNLISTEN, nor sessions.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/server/server_user.hpp"
#include "proto/message.hpp"

namespace pgpool::core
{

class Context;
class Listeners;
class PoolGroup;
class ServerConn;
class Stream;

// A client that is parked on a listener, or on its way there or back.
class Subscriber
{
public:
	virtual uint64_t id() const = 0; // of the client
	virtual Stream *stream() = 0;    // to the client
	const std::vector<std::string> &channels() const { return channels_; }
	const std::string &marker() const { return marker_; }
	size_t missing = 0; // channels that the listener does not have yet

	virtual void on_subscribed() = 0;
	virtual bool on_listener_notification(const Notification &n) = 0; // true: the client was given something
	virtual void on_marker(const Notification &n) = 0;
	virtual void on_listener_lost(const proto::Error &why) = 0;
	virtual void on_too_slow() = 0; // the client reads too little of what it is given, and has to go

protected:
	~Subscriber() = default; // nobody owns it by this

	std::vector<std::string> channels_;
	std::string marker_; // payload of the notification that both streams are to pass
};

// One more LISTEN or UNLISTEN (with a blank behind it) to be run with those that `sql` has.
void append_command(std::string &sql, const char *command, std::string_view channel);

class Listener final : public ServerUser
{
public:
	Listener(Context &context, Listeners &all, std::string encoding)
	    : context_(context), all_(all), encoding_(std::move(encoding))
	{
	}
	Listener(const Listener &) = delete;
	Listener &operator=(const Listener &) = delete;

	// ---- for subscriptions
	// It could not be opened a moment ago.
	bool unavailable() const;
	// From its beginning to its end; the channels come later.
	void attach(Subscriber *s);
	// Hears on_subscribed() or on_listener_lost(), perhaps at once.
	void subscribe(Subscriber *s, PoolGroup &group);
	void detach(Subscriber *s);
	// `s` hears on_marker() when that notification comes by.
	void expect(Subscriber *s);
	void forget(Subscriber *s);

	// ---- for its server
	void on_logged_in() override;
	bool on_notification(const Notification &n) override;
	void on_replies(uint64_t forwarded) override;
	void on_round(For purpose, const proto::Error &error) override;
	void on_lost(Loss loss, const proto::Error *why) override;

	// ---- for the engine
	void tick(int64_t now);
	bool close_unused(); // true: it was
	bool unused() const { return !server_ && subscriptions_.empty() && !unavailable(); }

private:
	struct Channel {
		uint64_t round = 0; // in which the server is asked for it, 0 = not yet
		bool there = false;
		std::map<uint64_t, Subscriber *> subscribers;
	};
	// A query of ours, and so a transaction: all of its commands are done, or none.
	struct Round {
		enum class Kind : uint8_t { Marker, Listen, Unlisten } kind;
		uint64_t number;
		std::vector<std::string> channels;
	};

	bool open(PoolGroup &group);
	uint64_t run(Round::Kind kind, std::vector<std::string> channels);
	void ask(const Subscriber &s);
	bool in_force(const Round &round, const std::string &channel) const;
	void done(const Round &round);
	void failed(const Round &round);

	Context &context_;
	Listeners &all_;
	const std::string encoding_;
	ServerConn *server_ = nullptr;
	bool ready_ = false;
	uint64_t last_round_ = 0;
	std::deque<Round> rounds_; // that are not answered
	std::unordered_map<std::string, Channel> channels_;
	std::map<uint64_t, Subscriber *> subscriptions_; // by the client's id, so that the order is always the same
	std::unordered_map<std::string, Subscriber *> expected_;
	std::vector<uint64_t> touched_; // clients that were given something since the last on_replies()
	int64_t unused_since_ = 0;
	int64_t retry_at_ = 0;
};

// Those of a worker.
class Listeners
{
public:
	explicit Listeners(Context &context) : context_(context) {}
	Listener &find(const PoolGroup &group, const Params &params);
	void tick(int64_t now);
	uint32_t close_unused(uint32_t database_oid);
	// The channel of the markers: nobody can guess it, so no client listens to it or notifies it.
	const std::string &marker_channel();
	std::string next_marker() { return std::to_string(next_marker_++); }

private:
	Context &context_;
	// By database, role and encoding: a role may terminate its own backends, and so ends no client of another one.
	std::map<std::tuple<uint32_t, uint32_t, std::string>, std::unique_ptr<Listener>> all_;
	std::string marker_channel_;
	uint64_t next_marker_ = 1;
};

} // namespace pgpool::core
