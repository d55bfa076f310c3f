// isocheck: is this message the next one, and this client's own? See isocheck.hpp. Must not know sockets.
#include "isocheck.hpp"

#include <cstring>

namespace iso
{

static bool own_tags_only(Client &c, const Message &m)
{
	for (size_t at = m.body.find("iso@"); at != Bytes::npos; at = m.body.find("iso@", at + 4)) {
		if (m.body.compare(at + 4, 32, c.self.tag) == 0)
			continue;
		auto owner = owner_of_tag.find(m.body.substr(at + 4, 32));
		fail(c, "foreign tag" + (owner == owner_of_tag.end() ? "" : ", of client " + std::to_string(owner->second)),
		     brief(m));
		return false;
	}
	return true;
}

static bool take_parameter(Client &c, const Message &m)
{
	totals.parameter_status++;
	size_t end = m.body.find('\0');
	std::string name = m.body.substr(0, end);
	if (end == Bytes::npos || m.body.back() != '\0' || c.reported.count(name) == 0) {
		fail(c, "a ParameterStatus that no login reported", brief(m));
		return false;
	}
	c.parameters[name] = m.body.substr(end + 1, m.body.size() - end - 2);
	return true;
}

static bool payload_is(const char *data, size_t size, const Expect &e)
{
	size_t unit = e.pattern.size();
	return size == e.size && memcmp(data, e.pattern.data(), unit) == 0 && memcmp(data, data + unit, size - unit) == 0;
}

static Strings row_text(const Expect &e)
{
	Strings cells{e.numbered ? e.id + "." + std::to_string(e.at) : e.id};
	cells.insert(cells.end(), e.more.begin(), e.more.end());
	return cells;
}

static bool row_matches(const Expect &e, const Message &m)
{
	auto cells = columns(m.body);
	Strings wanted = row_text(e);
	if (!cells || cells->size() != wanted.size() + (e.pattern.empty() ? 0 : 1))
		return false;
	for (size_t i = 0; i < wanted.size(); i++)
		if (!(*cells)[i] || *(*cells)[i] != wanted[i])
			return false;
	return e.pattern.empty() || (cells->back() && payload_is(cells->back()->data(), cells->back()->size(), e));
}

static bool copy_row_matches(const Expect &e, const Message &m)
{
	Bytes head;
	for (const std::string &cell : row_text(e))
		head += cell + "\t";
	if (m.body.size() != head.size() + e.size + 1 || m.body.compare(0, head.size(), head) != 0 || m.body.back() != '\n')
		return false;
	return payload_is(m.body.data() + head.size(), e.size, e);
}

static bool matches(Client &c, const Expect &e, const Message &m)
{
	if (e.type != m.type)
		return false;
	switch (m.type) {
	case 'D':
		return row_matches(e, m);
	case 'd':
		return copy_row_matches(e, m);
	case 'T':
		return e.id.empty() || m.body.find(e.id + '\0') != Bytes::npos;
	case 'N':
		return field(m.body, 'M') == e.id;
	case 'E':
		return field(m.body, 'C') == e.text && field(m.body, 'M').find(e.id) != std::string::npos &&
		       field(m.body, 'S') == "ERROR";
	case 'C':
		return e.text.empty() || m.body == e.text + '\0';
	case 'Z': {
		char wanted = c.skipping ? c.episode.steps[c.step].cancelled : e.status;
		return m.body.size() == 1 && m.body[0] == wanted;
	}
	default:
		return true;
	}
}

static void on_ready(Client &c, const Expect &e, char status)
{
	if (!c.skipping) {
		for (size_t i : e.commit)
			c.episode.inserts[i].state = Insert::State::Committed;
		for (size_t i : e.abort)
			c.episode.inserts[i].state = Insert::State::Aborted;
	}
	c.skipping = false;
	if (status != 'I')
		return;
	for (const auto &setting : c.self.settings) {
		auto known = c.parameters.find(setting.first);
		if (known != c.parameters.end() && known->second != setting.second)
			fail(c,
			     "ParameterStatus view of " + setting.first + " is \"" + known->second + "\" instead of \"" +
			         setting.second + "\"",
			     "Z");
	}
}

// An error that replaces the rest of the replies up to ReadyForQuery. True: taken care of.
static bool take_exception(Client &c, const Message &m)
{
	std::string state = field(m.body, 'C'), severity = field(m.body, 'S');
	bool own_cancel = c.cancel == Client::Cancel::Sent || c.cancel == Client::Cancel::Over;
	bool running =
	    c.sent == c.out.size() && !c.expects.empty() && (c.phase == Phase::Running || c.phase == Phase::Closing);
	if (state == "57014" && own_cancel && running && c.episode.steps[c.step].cancel && !c.cancelled) {
		totals.cancelled++;
		totals.replies++;
		c.cancelled = c.skipping = true;
		while (c.expects.front().type != 'Z')
			c.expects.pop_front();
		return true;
	}
	if (state == "53300" && cfg.allow_wait_timeout && c.phase == Phase::Running) {
		totals.wait_timeouts++;
		c.step = c.episode.steps.size(); // whatever was to be committed is unknown now
		leave(c, false);
		return true;
	}
	bool broken = state.compare(0, 2, "08") == 0 || state.compare(0, 2, "57") == 0 || severity == "FATAL";
	if (c.phase == Phase::Closing && broken && state != "57014") {
		c.given_up = true; // the server says that we left; now only the end may come, and nothing foreign
		return true;
	}
	if (cfg.allow_disconnect && (broken || severity == "PANIC")) {
		lost(c, brief(m));
		return true;
	}
	return false;
}

void take(Client &c, const Message &m)
{
	totals.messages++;
	totals.bytes += m.body.size() + 5;
	remember(c, m);
	if (!own_tags_only(c, m) || (m.type == 'S' && !take_parameter(c, m)) || m.type == 'S')
		return;
	if (c.phase == Phase::Closing && c.given_up)
		return;
	if (c.expects.empty() || !matches(c, c.expects.front(), m)) {
		if (m.type == 'E' && take_exception(c, m))
			return;
		fail(c, c.expects.empty() ? "a message that nobody asked for" : "not the expected message", brief(m));
		return;
	}
	Expect &e = c.expects.front();
	if (c.sent == 0 && !e.early) {
		fail(c, "an answer before the question was sent", brief(m));
		return;
	}
	if (e.type == 'Z')
		on_ready(c, e, m.body[0]);
	if (e.rows > 1) {
		e.rows--;
		e.at++;
		return;
	}
	totals.replies += (e.type == 'D' || e.type == 'd' || e.type == 'E' || e.type == 'N') ? 1 : 0;
	c.expects.pop_front();
	next_step_or_episode(c);
}

} // namespace iso
