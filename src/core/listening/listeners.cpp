// See listeners.hpp.
#include "core/listening/listeners.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "core/context/context.hpp"
#include "core/pool/pool_group.hpp"
#include "core/server/server.hpp"
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
	return !server_ && context_.now() < retry_at_;
}

void Listener::attach(Subscriber *s)
{
	subscriptions_[s->id()] = s;
}

void Listener::subscribe(Subscriber *s, PoolGroup &group)
{
	s->missing = 0;
	for (const std::string &c : s->channels()) {
		Channel &channel = channels_[c];
		channel.subscribers[s->id()] = s;
		s->missing += channel.there ? 0 : 1;
	}
	if (!server_ && !open(group)) {
		retry_at_ = context_.now() + kRetryAfter;
		detach(s);
		s->on_listener_lost({});
		return;
	}
	if (ready_) // else on_logged_in() asks for all
		ask(*s);
	if (s->missing == 0)
		s->on_subscribed();
}

void Listener::detach(Subscriber *s)
{
	if (subscriptions_.erase(s->id()) == 0)
		return;
	forget(s);
	std::vector<std::string> unlisten;
	for (const std::string &c : s->channels()) {
		const auto it = channels_.find(c);
		if (it == channels_.end() || it->second.subscribers.erase(s->id()) == 0 || !it->second.subscribers.empty())
			continue;
		if (it->second.round > 0)
			unlisten.push_back(c);
		channels_.erase(it);
	}
	if (ready_)
		run(Round::Kind::Unlisten, std::move(unlisten));
	if (subscriptions_.empty())
		unused_since_ = context_.now();
}

void Listener::expect(Subscriber *s)
{
	expected_[s->marker()] = s;
}

void Listener::forget(Subscriber *s)
{
	expected_.erase(s->marker());
}

// ---- its server

bool Listener::open(PoolGroup &group)
{
	server_ = group.pool(Target::Primary).open_listener(this, encoding_);
	return server_ != nullptr;
}

uint64_t Listener::run(Round::Kind kind, std::vector<std::string> channels)
{
	if (channels.empty())
		return last_round_;
	std::string sql;
	for (const std::string &c : channels)
		append_command(sql, kind == Round::Kind::Unlisten ? "UNLISTEN " : "LISTEN ", c);
	rounds_.push_back({kind, ++last_round_, std::move(channels)});
	server_->run(sql, For::Round);
	return last_round_;
}

void Listener::on_logged_in()
{
	ready_ = true;
	run(Round::Kind::Marker, {all_.marker_channel()});
	for (const auto &s : subscriptions_)
		ask(*s.second);
}

// For those of its channels that nobody asked for.
void Listener::ask(const Subscriber &s)
{
	std::vector<std::string> channels;
	for (const std::string &c : s.channels()) {
		const auto it = channels_.find(c);
		if (it == channels_.end() || it->second.round > 0)
			continue;
		it->second.round = last_round_ + 1;
		channels.push_back(c);
	}
	run(Round::Kind::Listen, std::move(channels));
}

// What it asked for is still wanted, and nobody has asked for it again.
bool Listener::in_force(const Round &round, const std::string &channel) const
{
	const auto it = channels_.find(channel);
	if (round.kind == Round::Kind::Unlisten)
		return it == channels_.end();
	return it != channels_.end() && it->second.round == round.number;
}

void Listener::on_round(For /*purpose*/, const proto::Error &error)
{
	const Round round = std::move(rounds_.front());
	rounds_.pop_front();
	if (!error.sqlstate.empty())
		failed(round);
	else if (round.kind == Round::Kind::Listen)
		done(round);
}

void Listener::done(const Round &round)
{
	std::vector<uint64_t> told; // each of them may come and go when it is told
	for (const std::string &c : round.channels) {
		if (!in_force(round, c))
			continue;
		Channel &channel = channels_[c];
		channel.there = true;
		for (const auto &s : channel.subscribers) {
			if (--s.second->missing == 0)
				told.push_back(s.first);
		}
	}
	for (const uint64_t id : told) {
		if (const auto it = subscriptions_.find(id); it != subscriptions_.end())
			it->second->on_subscribed();
	}
}

// None of its commands was done. Each is tried by itself; one that fails even so fails those alone who need it.
void Listener::failed(const Round &round)
{
	if (round.kind == Round::Kind::Marker) { // nobody can be parked here
		ready_ = false;
		server_->close();
		return;
	}
	if (round.channels.size() > 1) {
		for (const std::string &c : round.channels) {
			if (!in_force(round, c))
				continue;
			const uint64_t again = run(round.kind, {c});
			if (round.kind == Round::Kind::Listen)
				channels_[c].round = again;
		}
		return;
	}
	// A channel too many does no harm: nobody is given what comes there.
	if (round.kind == Round::Kind::Unlisten || !in_force(round, round.channels.front()))
		return;
	const auto it = channels_.find(round.channels.front());
	const std::map<uint64_t, Subscriber *> losers = std::move(it->second.subscribers);
	channels_.erase(it);
	for (const auto &l : losers) {
		const auto s = subscriptions_.find(l.first);
		if (s == subscriptions_.end())
			continue;
		Subscriber *loser = s->second;
		detach(loser);
		loser->on_listener_lost({});
	}
}

bool Listener::on_notification(const Notification &n)
{
	if (n.channel == all_.marker_channel()) {
		const auto it = expected_.find(std::string(n.payload));
		if (it != expected_.end())
			it->second->on_marker(n);
		return false;
	}
	const auto it = channels_.find(std::string(n.channel));
	if (it == channels_.end())
		return false;
	for (const auto &s : it->second.subscribers) {
		if (s.second->on_listener_notification(n))
			touched_.push_back(s.first);
	}
	return false;
}

// What the clients were given goes out.
void Listener::on_replies(uint64_t /*forwarded*/)
{
	for (const uint64_t id : std::exchange(touched_, {})) {
		const auto it = subscriptions_.find(id);
		if (it == subscriptions_.end())
			continue;
		Stream *stream = it->second->stream();
		stream->flush();
		if (stream->unsent() > kMostUnread) {
			context_.outside().log("a client that listens does not read its notifications; it is disconnected");
			it->second->on_too_slow();
		}
	}
}

void Listener::on_lost(Loss /*loss*/, const proto::Error *why)
{
	if (!ready_)
		retry_at_ = context_.now() + kRetryAfter;
	on_replies(0);
	server_ = nullptr;
	ready_ = false;
	rounds_.clear();
	channels_.clear();
	expected_.clear();
	for (const auto &s : std::exchange(subscriptions_, {}))
		s.second->on_listener_lost(why ? *why : proto::Error());
}

void Listener::tick(int64_t now)
{
	if (context_.draining() || now - unused_since_ >= kLinger)
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

// For a client with these settings.
Listener &Listeners::find(const PoolGroup &group, const Params &params)
{
	const Param *p = params->find("client_encoding");
	const std::string encoding = p ? p->value : "UTF8";
	const region::PoolSlot &pool = group.shared();
	std::unique_ptr<Listener> &l = all_[{pool.database_oid, pool.role_oid, encoding}];
	if (!l)
		l = std::make_unique<Listener>(context_, *this, encoding);
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
		n += std::get<0>(l.first) == database_oid && l.second->close_unused();
	return n;
}

const std::string &Listeners::marker_channel()
{
	if (marker_channel_.empty()) {
		uint64_t random[2];
		context_.outside().random(random, sizeof(random));
		char name[48];
		snprintf(name, sizeof(name), "_pgpool_%016llx%016llx", static_cast<unsigned long long>(random[0]),
		         static_cast<unsigned long long>(random[1]));
		marker_channel_ = name;
	}
	return marker_channel_;
}

} // namespace pgpool::core
