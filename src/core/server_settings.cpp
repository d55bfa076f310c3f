// How a server gets the settings of the client that it serves next, and what happens when it refuses some. See
// server.hpp.
//
// The difference goes out in front of the client's own bytes. If it is refused, another server gets the settings one by
// one, so that those that cannot be made again are known. Must not know what a client sends.
#include "core/server.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/engine.hpp"
#include "core/pool.hpp"
#include "proto/message.hpp"
#include "proto/startup.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr int kMostAgain = 3; // times that settings of one client are set: by a timeout a SET may be canceled each time
constexpr const char *kResetRole = "RESET \"role\";";

// statement_timeout is that of the last client until ours is set, and to set it may take longer than a short one.
bool has_short_timeout(const ParamSet &settings)
{
	constexpr double kShort = 1000; // ms
	const Param *p = settings.find("statement_timeout");
	if (!p)
		return false;
	char *unit = nullptr;
	const double value = strtod(p->value.c_str(), &unit);
	if (strcmp(unit, "us") == 0)
		return value > 0;
	return value > 0 && value < kShort && (*unit == '\0' || strcmp(unit, "ms") == 0);
}

} // namespace

bool ServerConn::apply(const Params &want, bool must_wait, std::string_view ground)
{
	bool only_reported = true;
	if (want == params_)
		return true;
	told_ = want;
	target_ = want.preset_as(params_, native_);
	const std::string sql = sql_between(*params_.get(), *target_.get(), only_reported);
	if (sql.empty()) {
		params_ = target_;
		tell_preset();
		return true;
	}
	// A serializable transaction may wait for those of others before its first SELECT, and a standby has none.
	const bool serializable = params_->find("default_transaction_isolation") != nullptr;
	const std::string calm = serializable ? "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;" : "";
	std::string message;
	proto::append_query(message, calm + std::string(ground) + sql);
	// queue() borrows; the text must live until flush(), so it goes out alone when nobody waits for it.
	replies_.sent('Q', For::Settings);
	applying_ = true;
	stash_out_ = std::move(message);
	stream_->queue(stash_out_.data(), stash_out_.size());
	// Only the agent keeps the client's messages from running under other settings, should these be refused.
	holding_ = must_wait || !(only_reported || agent_) || has_short_timeout(*params_.get());
	announce_own();
	if (!holding_)
		params_ = target_;
	return !holding_;
}

// What the client has not set is what a fresh login would have now; it hears so where it was told something else.
void ServerConn::tell_preset()
{
	if (!client_.stream) // not while it logs in: the greeting has them all
		return;
	std::string out;
	for (const auto &p : params_->items) {
		const Param *known = p->reported ? told_->find(p->name) : nullptr;
		if (known && known->value != p->value)
			proto::append_parameter(out, p->name, p->value);
	}
	if (out.empty())
		return;
	client_.stream->queue(out.data(), out.size());
	client_.stream->flush();
}

void ServerConn::applied(const proto::Error &why)
{
	applying_ = false;
	std::string().swap(stash_out_);
	if (!why.sqlstate.empty()) {
		// Without the agent the backend has run what came behind.
		const bool unserved = holding_ || agent_;
		const bool canceled = why.sqlstate == proto::sqlstate::kQueryCanceled;
		if (user_ && unserved && !canceled && user_->on_settings_refused())
			return;
		if (holding_ && user_ && !client_.session_mode && canceled) {
			ServerUser *user = leave_user();
			close();
			user->on_lost(Loss::Unused, nullptr);
			return;
		}
		lost(&why);
		return;
	}
	// What the server reports it has told; the rest is as we set it, in the server's spelling if the agent told that.
	Params now = params_.reported_only();
	for (const auto &p : target_->items) {
		const Param *told = agent_ || p->reported ? params_->find(p->name) : nullptr;
		if (is_refused(p->name))
			continue;
		if (!p->reported)
			now = now.with(p->name, told ? told->value : p->value, false);
		else if (!agent_ && told && told->value == p->value) // who set it, nobody else says
			now = now.with(p->name, p->value, true, p->unknown, p->preset);
	}
	params_ = now;
	tell_preset();
	update_pins();
	unproved_.clear();
	if (holding_) {
		holding_ = false;
		if (user_)
			user_->on_settings(refused_.empty());
	}
}

bool ServerConn::apply_each(const Params &want)
{
	std::string out;
	each_.clear();
	refused_.clear();
	each_done_ = 0;
	each_again_ = kMostAgain;
	each_canceled_ = false;
	if (want == params_)
		return true;
	told_ = want;
	target_ = want.preset_as(params_, native_);
	for (SettingSql &s : each_between(*params_.get(), *target_.get())) {
		proto::append_query(out, s.sql);
		replies_.sent('Q', For::Setting);
		each_.push_back(std::move(s));
	}
	if (each_.empty()) {
		params_ = target_;
		tell_preset();
		return true;
	}
	hush(true);
	stream_->queue(out.data(), out.size());
	stream_->flush();
	applying_ = holding_ = true;
	return false;
}

// The reply to one of those that apply_each() sent.
void ServerConn::applied_one(const proto::Error &error)
{
	each_canceled_ |= error.sqlstate == proto::sqlstate::kQueryCanceled; // by somebody who meant another statement
	if (!error.sqlstate.empty())
		refused_.push_back({each_[each_done_].name, error});
	if (++each_done_ < each_.size())
		return;
	if (std::exchange(each_canceled_, false) && each_again_-- > 0) {
		// All of them, in their order: with the role some may not be set.
		if (each_.front().sql != kResetRole)
			each_.insert(each_.begin(), {"role", kResetRole});
		refused_.clear();
		each_done_ = 0;
		for (const SettingSql &s : each_)
			run(s.sql, For::Setting);
		return;
	}
	each_.clear();
	hush(false);
	applied({});
	refused_.clear();
}

bool ServerConn::is_refused(std::string_view name) const
{
	return std::any_of(refused_.begin(), refused_.end(),
	                   [&](const Refused &r) { return proto::equal_names(r.name, name); });
}

} // namespace pgpool::core
