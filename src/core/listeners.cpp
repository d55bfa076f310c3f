// See listeners.hpp.
#include "core/listeners.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "core/engine.hpp"
#include "core/pool.hpp"
#include "core/server.hpp"
#include "core/session.hpp"
#include "core/subscription.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr int64_t kLinger = 5000000;     // of a listener without clients, microseconds
constexpr int64_t kRetryAfter = 5000000; // when it could not be opened
constexpr size_t kMostUnread = 8 << 20;  // notifications for a client that reads too slowly

} // namespace

Notification::Notification(std::string_view body)
    : bytes(body.data() - proto::kHeaderSize, body.size() + proto::kHeaderSize)
{
	proto::Reader r(body);
	pid = static_cast<int32_t>(r.u32());
	channel = r.string();
	payload = r.string();
}

void append_command(std::string &sql, const char *command, std::string_view channel)
{
	if (!sql.empty())
		sql += "; ";
	sql += command;
	proto::append_identifier(sql, channel);
}

// ---- who is parked

bool Listener::unavailable() const
{
	return !server_ && engine_.now() < retry_at_;
}

void Listener::attach(Subscription *s)
{
	subscriptions_[s->id()] = s;
}

void Listener::subscribe(Subscription *s)
{
	std::string listen;
	s->round = 0;
	for (const std::string &c : s->channels()) {
		const auto [it, is_new] = channels_.try_emplace(c, Channel{sent_ + 1, {}});
		it->second.subscribers[s->id()] = s;
		if (is_new)
			append_command(listen, "LISTEN ", c);
		s->round = std::max(s->round, it->second.round);
	}
	if (!server_ && !open(*s->session().pool())) {
		retry_at_ = engine_.now() + kRetryAfter;
		detach(s);
		s->on_listener_lost({});
		return;
	}
	if (!ready_)
		return; // on_ready() asks for all
	if (!listen.empty())
		run(listen);
	tell_subscribed();
}

void Listener::detach(Subscription *s)
{
	if (subscriptions_.erase(s->id()) == 0)
		return;
	forget(s);
	std::string unlisten;
	for (const std::string &c : s->channels()) {
		const auto it = channels_.find(c);
		if (it == channels_.end() || it->second.subscribers.erase(s->id()) == 0 || !it->second.subscribers.empty())
			continue;
		channels_.erase(it);
		append_command(unlisten, "UNLISTEN ", c);
	}
	if (ready_ && !unlisten.empty())
		run(unlisten);
	if (subscriptions_.empty())
		unused_since_ = engine_.now();
}

void Listener::expect(Subscription *s)
{
	expected_[s->marker()] = s;
}

void Listener::forget(Subscription *s)
{
	expected_.erase(s->marker());
}

// ---- its server

bool Listener::open(Pool &pool)
{
	server_ = pool.open_listener(this);
	return server_ != nullptr;
}

void Listener::run(const std::string &sql)
{
	sent_++;
	server_->run(sql);
}

void Listener::on_ready()
{
	ready_ = true;
	std::string listen;
	append_command(listen, "LISTEN ", engine_.listeners().marker_channel());
	for (const auto &c : channels_)
		append_command(listen, "LISTEN ", c.first);
	run(listen);
}

void Listener::tell_subscribed()
{
	// Each of them may come and go when it is told.
	std::vector<uint64_t> told;
	for (const auto &s : subscriptions_) {
		if (!s.second->subscribed && s.second->round <= done_)
			told.push_back(s.first);
	}
	for (const uint64_t id : told) {
		if (const auto it = subscriptions_.find(id); it != subscriptions_.end())
			it->second->on_subscribed();
	}
}

void Listener::on_round(const proto::Error &error)
{
	done_++;
	if (!error.sqlstate.empty()) { // which channels it has cannot be known any more
		server_->close();
		return;
	}
	tell_subscribed();
}

void Listener::on_notification(const Notification &n)
{
	if (n.channel == engine_.listeners().marker_channel()) {
		const auto it = expected_.find(std::string(n.payload));
		if (it != expected_.end())
			it->second->on_marker(n);
		return;
	}
	const auto it = channels_.find(std::string(n.channel));
	if (it == channels_.end())
		return;
	for (const auto &s : it->second.subscribers) {
		if (s.second->on_notification(n))
			touched_.push_back(s.first);
	}
}

void Listener::flush()
{
	for (const uint64_t id : std::exchange(touched_, {})) {
		const auto it = subscriptions_.find(id);
		if (it == subscriptions_.end())
			continue;
		Session &session = it->second->session();
		session.stream()->flush();
		if (session.stream()->unsent() > kMostUnread) {
			engine_.outside().log("a client that listens does not read its notifications; it is disconnected");
			session.close(false);
		}
	}
}

void Listener::on_lost(const proto::Error &why)
{
	if (!ready_)
		retry_at_ = engine_.now() + kRetryAfter;
	flush();
	server_ = nullptr;
	ready_ = false;
	sent_ = done_ = 0; // the next one counts anew, from the channels on that are asked for before it is there
	channels_.clear();
	expected_.clear();
	for (const auto &s : std::exchange(subscriptions_, {}))
		s.second->on_listener_lost(why);
}

void Listener::tick(int64_t now)
{
	if (engine_.draining() || now - unused_since_ >= kLinger)
		close_unused();
}

bool Listener::close_unused()
{
	if (!server_ || !subscriptions_.empty())
		return false;
	server_->close();
	return true;
}

// ---- all of them

Listener &Listeners::find(Session &session)
{
	const Param *p = session.server()->params()->find("client_encoding");
	const std::string encoding = p ? p->value : "UTF8";
	std::unique_ptr<Listener> &l = all_[{session.pool()->shared().database_oid, encoding}];
	if (!l)
		l = std::make_unique<Listener>(engine_, encoding);
	return *l;
}

void Listeners::tick(int64_t now)
{
	for (auto it = all_.begin(); it != all_.end();) {
		it->second->tick(now);
		it = it->second->unused() ? all_.erase(it) : std::next(it);
	}
}

uint32_t Listeners::close_unused(uint32_t database_oid)
{
	uint32_t n = 0;
	for (auto &l : all_)
		n += l.first.first == database_oid && l.second->close_unused();
	return n;
}

const std::string &Listeners::marker_channel()
{
	if (marker_channel_.empty()) {
		uint64_t random[2];
		engine_.outside().random(random, sizeof(random));
		char name[48];
		snprintf(name, sizeof(name), "_pgpool_%016llx%016llx", static_cast<unsigned long long>(random[0]),
		         static_cast<unsigned long long>(random[1]));
		marker_channel_ = name;
	}
	return marker_channel_;
}

} // namespace pgpool::core
