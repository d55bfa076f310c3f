// How a server sends the settings of its client, and what follows when the backend has answered. See server.hpp, and
// server_settings.hpp for what it sends.
//
// If the difference is refused, another server gets the settings one by one, so that those that cannot be made again
// are known. Must not know what a client sends.
#include "core/server/server.hpp"

#include "core/group/group.hpp"
#include "proto/message.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

bool ServerConn::apply(const Params &want, bool must_wait, std::string_view ground)
{
	if (want == settings_.now())
		return true;
	if (!settings_.change_to(want, must_wait, ground)) {
		tell_preset();
		return true;
	}
	// queue() borrows; when the client waits, flush() sends this alone.
	replies_.sent('Q', For::Settings);
	stream_->queue(settings_.query().data(), settings_.query().size());
	agent_.announce_own();
	return !settings_.awaited();
}

bool ServerConn::apply_each(const Params &want)
{
	if (want == settings_.now())
		return true;
	if (!settings_.change_one_by_one(want)) {
		tell_preset();
		return true;
	}
	std::string out;
	for (const SettingSql &s : settings_.each()) {
		proto::append_query(out, s.sql);
		replies_.sent('Q', For::Setting);
	}
	agent_.hush(true);
	stream_->queue(out.data(), out.size());
	stream_->flush();
	return false;
}

void ServerConn::tell_preset()
{
	if (!client_.stream) // not while it logs in: the greeting has them all
		return;
	const std::string news = settings_.news();
	if (news.empty())
		return;
	client_.stream->queue(news.data(), news.size());
	client_.stream->flush();
}

void ServerConn::applied(const proto::Error &why)
{
	const bool awaited = settings_.awaited();
	if (!why.sqlstate.empty()) {
		settings_.fail();
		// Without the agent the backend has run what came behind.
		const bool unserved = awaited || agent_.there();
		const bool canceled = why.sqlstate == proto::sqlstate::kQueryCanceled;
		if (user_ && unserved && !canceled && user_->on_settings_refused())
			return;
		if (awaited && user_ && !client_.session_mode && canceled) {
			ServerUser *user = leave_user();
			close();
			user->on_lost(Loss::Unused, nullptr);
			return;
		}
		lost(&why);
		return;
	}
	settings_.in_force();
	tell_preset();
	pins_.tell_settings(settings_.too_many());
	if (awaited && user_)
		user_->on_settings(settings_.refused().empty());
}

// The reply to one of those that apply_each() sent.
void ServerConn::applied_one(const proto::Error &error)
{
	switch (settings_.answered(error)) {
	case ServerSettings::Progress::More:
		break;
	case ServerSettings::Progress::Again:
		for (const SettingSql &s : settings_.each())
			run(s.sql, For::Setting);
		break;
	case ServerSettings::Progress::Done:
		agent_.hush(false);
		applied({});
		break;
	}
}

} // namespace pgpool::core
