// See server_settings.hpp.
#include "core/server/server_settings.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "proto/startup.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

constexpr uint8_t kSavedVersion = 1;
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

ServerSettings::ServerSettings(ParamStore &store, const region::Settings &limits, const AgentLink &agent)
    : store_(store), limits_(limits), agent_(agent), now_(store.empty())
{
}

// ---- what the backend tells

bool ServerSettings::tell(std::string_view name, std::string_view value, bool whole)
{
	const bool reported = !(agent_.there() && native_ && !native_->find(name));
	keep(name, value, whole, reported);
	return reported;
}

void ServerSettings::tell_reset(std::string_view name, std::string_view value, bool whole)
{
	if (defaults_ && defaults_->find(name))
		keep(name, value, whole, false);
	else
		now_ = now_.without(name);
}

// A value above what is kept of one client is known by its name alone, and so the client keeps this server: until the
// setting is reset, or for good when there are twice as many as may be.
void ServerSettings::keep(std::string_view name, std::string_view value, bool whole, bool reported)
{
	const auto most = static_cast<size_t>(limits_.max_session_settings);
	const Param *there = now_->find(name);
	const size_t others = now_->bytes - (there ? there->name.size() + there->value.size() : 0);
	const bool too_long = !whole || others + name.size() + value.size() >
	                                    size_t{1024} * static_cast<size_t>(limits_.session_settings_memory);
	untracked_ |= name.size() >= kLongestName || (!there && now_->own > 2 * most);
	if (!untracked_)
		now_ = now_.with(name, too_long ? std::string_view() : value, reported, too_long,
		                 reported && is_preset(name, value));
	preset_changed_ |= reported;
}

// The agent tells which are not. Without it, what is as it was at the login.
bool ServerSettings::is_preset(std::string_view name, std::string_view value) const
{
	if (!native_) // at the login
		return true;
	const Param *p = agent_.there() ? now_->find(name) : native_->find(name);
	return p && (agent_.there() ? p->preset : p->value == value);
}

// Presets change after a reload, which reaches a session that is there, too.
void ServerSettings::end_round()
{
	if (!std::exchange(preset_changed_, false))
		return;
	for (const auto &p : now_->items) {
		if (p->reported && p->preset && reports(p->name))
			native_ = native_.with(p->name, p->value, true, p->unknown, true);
	}
}

bool ServerSettings::too_many() const
{
	return untracked_ || now_->unknown > 0 || now_->own > static_cast<size_t>(limits_.max_session_settings);
}

size_t ServerSettings::most_value() const
{
	const auto kilobytes = static_cast<size_t>(limits_.session_settings_memory);
	return std::max(kilobytes * 1024, kChunk) + kLongestName;
}

// ---- a change

void ServerSettings::begin(const Params &want)
{
	told_ = want;
	target_ = want.preset_as(now_, native_);
	refused_.clear();
}

bool ServerSettings::change_to(const Params &want, bool must_wait, std::string_view ground)
{
	bool only_reported = true;
	begin(want);
	const std::string sql = sql_between(*now_.get(), *target_.get(), only_reported);
	if (sql.empty()) {
		now_ = target_;
		return false;
	}
	// A serializable transaction may wait for those of others before its first SELECT, and a standby has none.
	const bool serializable = now_->find("default_transaction_isolation") != nullptr;
	const std::string calm = serializable ? "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;" : "";
	query_.clear();
	proto::append_query(query_, calm + std::string(ground) + sql);
	// Only the agent keeps the client's messages from running under other settings, should these be refused.
	const bool waits = must_wait || !(only_reported || agent_.there()) || has_short_timeout(*now_.get());
	change_ = waits ? Change::Awaited : Change::Sent;
	if (!waits) // the client's messages go out as if they were in force
		now_ = target_;
	return true;
}

bool ServerSettings::change_one_by_one(const Params &want)
{
	begin(want);
	each_ = each_between(*now_.get(), *target_.get());
	each_done_ = 0;
	each_again_ = kMostAgain;
	each_canceled_ = false;
	if (each_.empty()) {
		now_ = target_;
		return false;
	}
	change_ = Change::OneByOne;
	return true;
}

ServerSettings::Progress ServerSettings::answered(const proto::Error &error)
{
	each_canceled_ |= error.sqlstate == proto::sqlstate::kQueryCanceled; // by somebody who meant another statement
	if (!error.sqlstate.empty())
		refused_.push_back({each_[each_done_].name, error});
	if (++each_done_ < each_.size())
		return Progress::More;
	if (!std::exchange(each_canceled_, false) || each_again_-- <= 0)
		return Progress::Done;
	// All of them, in their order: with the role some may not be set.
	if (each_.front().sql != kResetRole)
		each_.insert(each_.begin(), {"role", kResetRole});
	refused_.clear();
	each_done_ = 0;
	return Progress::Again;
}

// What the server reports it has told; the rest is as we set it, in the server's spelling if the agent told that.
void ServerSettings::in_force()
{
	Params now = now_.reported_only();
	for (const auto &p : target_->items) {
		const Param *told = agent_.there() || p->reported ? now_->find(p->name) : nullptr;
		if (is_refused(p->name))
			continue;
		if (!p->reported)
			now = now.with(p->name, told ? told->value : p->value, false);
		else if (!agent_.there() && (!reports(p->name) || (told && told->value == p->value))) // who set it, nobody says
			now = now.with(p->name, p->value, true, p->unknown, p->preset);
	}
	now_ = now;
	std::string().swap(query_);
	unproved_.clear();
	each_.clear();
	change_ = Change::None;
}

void ServerSettings::fail()
{
	std::string().swap(query_);
	if (change_ == Change::Sent)
		change_ = Change::None;
}

std::string ServerSettings::news() const
{
	std::string out;
	for (const auto &p : now_->items) {
		const Param *known = p->reported ? told_->find(p->name) : nullptr;
		if (known && known->value != p->value)
			proto::append_parameter(out, p->name, p->value);
	}
	return out;
}

// A version, the two of them that may be, and the sets.
std::string ServerSettings::save() const
{
	std::string out;
	proto::Writer(out).u8(kSavedVersion).u8(untracked_).u8(defaults_ ? 1 : 0);
	ParamStore::save(*native_.get(), out);
	ParamStore::save(*now_.get(), out);
	if (defaults_)
		ParamStore::save(*defaults_.get(), out);
	return out;
}

bool ServerSettings::load(std::string_view saved)
{
	proto::Reader r(saved);
	const uint8_t version = r.u8(), untracked = r.u8(), has_defaults = r.u8();
	if (!r.ok() || version != kSavedVersion || untracked > 1 || has_defaults > 1)
		return false;
	const Params native = store_.load(r);
	const Params now = store_.load(r);
	const Params defaults = has_defaults ? store_.load(r) : Params();
	if (!native || !now || (has_defaults && !defaults) || r.left() > 0)
		return false;
	native_ = native;
	now_ = now;
	defaults_ = defaults;
	untracked_ = untracked;
	return true;
}

// Another server of the client may do so that has a library more.
bool ServerSettings::reports(std::string_view name) const
{
	return native_ && native_->find(name);
}

bool ServerSettings::is_refused(std::string_view name) const
{
	return std::any_of(refused_.begin(), refused_.end(),
	                   [&](const Refused &r) { return proto::equal_names(r.name, name); });
}

} // namespace pgpool::core
