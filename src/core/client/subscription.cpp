// See subscription.hpp.
#include "core/client/subscription.hpp"

#include "core/client/clients.hpp"
#include "core/listening/listeners.hpp"
#include "core/server/server.hpp"
#include "core/client/session.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr uint32_t kMostReturns = 3; // on as many servers, then the client is told why not

// Each query is a transaction of its own, under the client's settings: none of them may make it wait or end it.
constexpr char kCalm[] = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; "
                         "SET LOCAL lock_timeout = 0; ";

proto::Error lost_error()
{
	return {proto::sqlstate::kAdminShutdown, "terminating connection due to administrator command",
	        "The server connection that listened for this client was lost.", ""};
}

} // namespace

Subscription::Subscription(Session &session, Listener &listener) : Deputy(session), listener_(&listener)
{
	listener_->attach(this);
}

Subscription::~Subscription()
{
	if (listener_)
		listener_->detach(this);
}

uint64_t Subscription::id() const
{
	return session_.id();
}

Stream *Subscription::stream()
{
	return session_.stream();
}

void Subscription::on_too_slow()
{
	session_.close(false);
}

void Subscription::run(const std::string &sql)
{
	due_++;
	session_.server()->run(kCalm + sql, For::Handover);
}

void Subscription::deliver(std::string &kept)
{
	session_.stream()->queue(kept.data(), kept.size());
	session_.stream()->flush();
	kept.clear();
}

// ---- parking

void Subscription::begin()
{
	run("SELECT pg_catalog.pg_listening_channels()");
}

void Subscription::on_row(std::string_view body)
{
	proto::Reader r(body);
	if (r.u16() == 1)
		channels_.emplace_back(r.bytes(r.u32()));
}

void Subscription::on_subscribed()
{
	mark();
}

// The NOTIFY is a transaction of its own and comes after the LISTEN, or this server would not hear it. That it may be
// lost in a crash does no harm, and nobody must wait for a standby.
void Subscription::mark()
{
	step_ = step_ == Step::Away ? Step::Returning : Step::Marking;
	const std::string &channel = session_.clients().listeners().marker_channel();
	marker_ = session_.clients().listeners().next_marker();
	own_pid_ = session_.server()->pid();
	own_passed_ = listener_passed_ = false;
	listener_->expect(this);
	std::string listen;
	if (step_ == Step::Returning) {
		for (const std::string &c : channels_)
			append_command(listen, "LISTEN ", c);
	}
	append_command(listen, "LISTEN ", channel);
	run(listen);
	run("SET LOCAL synchronous_commit = off; NOTIFY " + channel + ", '" + marker_ + "'");
	if (step_ == Step::Returning)
		run("UNLISTEN " + channel);
}

bool Subscription::on_notification(const Notification &n)
{
	if (n.channel == session_.clients().listeners().marker_channel()) {
		if (n.payload == marker_ && n.pid == own_pid_)
			own_marker();
		return false;
	}
	switch (step_) {
	case Step::Returning:
		if (own_passed_)
			kept_ += n.bytes;
		return false;
	case Step::Leaving:
	case Step::Away:
		return false;
	default:
		return true;
	}
}

void Subscription::own_marker()
{
	own_passed_ = true;
	if (step_ != Step::Marking || !listener_)
		return;
	step_ = Step::Leaving;
	deliver(kept_);
	run("UNLISTEN *");
}

void Subscription::on_round(For /*purpose*/, const proto::Error &error)
{
	due_--;
	if (!error.sqlstate.empty())
		error_ = error;
	if (due_ > 0)
		return;
	const bool failed = !error_.sqlstate.empty();
	switch (step_) {
	case Step::Asking:
		if (failed || channels_.empty() || !listener_) {
			session_.on_park_failed();
			return;
		}
		step_ = Step::Subscribing;
		listener_->subscribe(this, *session_.group());
		return;
	case Step::Marking: // and no marker came, or nobody is there to take over
		step_ = Step::TakingBack;
		run("UNLISTEN " + session_.clients().listeners().marker_channel());
		return;
	case Step::TakingBack:
		session_.on_park_failed();
		return;
	case Step::Leaving:
		if (failed) // it still listens, so nobody else may have it
			session_.drop_server();
		if (listener_passed_) {
			step_ = Step::Away;
			session_.on_parked(false);
		}
		return;
	case Step::Returning:
		if (failed || !own_passed_)
			return_failed(error_);
		else if (listener_passed_)
			returned();
		return;
	default:
		return;
	}
}

// What the listener has taken over needs the server no more; before that the client has lost what it had there.
void Subscription::on_lost(Loss loss, const proto::Error *why)
{
	if (loss == Loss::Broken || !taken_over()) {
		session_.on_lost(loss, why);
		return;
	}
	session_.leave_lost_server(step_ != Step::Returning);
	on_own_server_gone();
}

void Subscription::on_own_server_gone()
{
	due_ = 0;
	if (step_ == Step::Returning) {
		return_failed({});
		return;
	}
	if (step_ == Step::Leaving && !listener_passed_)
		return;
	step_ = Step::Away;
	session_.on_parked(false);
}

// ---- what is the client's, whoever uses its server

void Subscription::on_replies(uint64_t forwarded)
{
	session_.on_replies(forwarded);
}

void Subscription::end(const proto::Error &why)
{
	session_.end(why);
}

void Subscription::check_timeouts(int64_t now)
{
	session_.check_timeouts(now);
}

// ---- the listener's stream

bool Subscription::on_listener_notification(const Notification &n)
{
	switch (step_) {
	case Step::Marking:
		if (listener_passed_)
			kept_ += n.bytes;
		return false;
	case Step::Returning:
		if (listener_passed_)
			late_ += n.bytes;
		break;
	case Step::Leaving:
	case Step::Away:
		break;
	default:
		return false;
	}
	// Parked: behind the marker. On the way back: before it.
	if (listener_passed_ == (step_ == Step::Returning))
		return false;
	session_.stream()->queue(n.bytes.data(), n.bytes.size());
	return true;
}

void Subscription::on_marker(const Notification &n)
{
	if (n.payload != marker_ || n.pid != own_pid_ || listener_passed_)
		return;
	listener_passed_ = true;
	if (due_ > 0)
		return;
	if (step_ == Step::Leaving) {
		step_ = Step::Away;
		session_.on_parked(true);
	} else if (step_ == Step::Returning && own_passed_) {
		returned();
	}
}

void Subscription::on_listener_lost(const proto::Error &why)
{
	listener_ = nullptr;
	switch (step_) {
	case Step::Subscribing:
		session_.on_park_failed();
		return;
	case Step::Asking:
	case Step::Marking: // taken back as soon as the own server is done
	case Step::TakingBack:
		return;
	case Step::Returning:
		if (listener_passed_)
			return;
		break;
	default:
		break;
	}
	session_.fatal(why.sqlstate.empty() ? lost_error() : why);
}

// ---- the way back

void Subscription::come_back()
{
	error_ = {};
	mark();
}

void Subscription::returned()
{
	session_.on_came_back(std::move(kept_));
}

// The client is still parked. What the listener sent since its marker is the client's now.
void Subscription::return_failed(const proto::Error &why)
{
	if (!listener_ || (++failures_ >= kMostReturns && !why.sqlstate.empty())) {
		session_.fatal(why.sqlstate.empty() ? lost_error() : why);
		return;
	}
	step_ = Step::Away;
	due_ = 0;
	kept_.clear();
	listener_->forget(this);
	deliver(late_);
	listener_passed_ = true;
	session_.on_return_failed();
}

} // namespace pgpool::core
