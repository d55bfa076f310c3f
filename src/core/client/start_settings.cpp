// See start_settings.hpp.
#include "core/client/start_settings.hpp"

#include <string_view>

#include "proto/message.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

std::string StartSettings::key() const
{
	std::string key;
	for (const proto::Setting &s : startup_.settings)
		key += s.first + '=' + s.second + '\0';
	for (const proto::Setting &s : startup_.overridden)
		key += '<' + s.first + '=' + s.second + '\0';
	return key;
}

const Params &StartSettings::wanted(const Params &base)
{
	if (!wanted_) {
		wanted_ = base;
		for (const proto::Setting &s : startup_.settings)
			wanted_ = wanted_.with(s.first, s.second, false);
		wanted_ = with_name(wanted_);
	}
	return wanted_;
}

std::string StartSettings::ground(const Params &base) const
{
	const Param *style = base ? base->find("DateStyle") : nullptr;
	std::string sql;
	auto set = [&](std::string_view name, std::string_view value) {
		sql += "SELECT pg_catalog.set_config(";
		proto::append_literal(sql, name);
		sql += ',';
		proto::append_literal(sql, value);
		sql += ",false);";
	};
	for (const proto::Setting &s : startup_.settings) {
		const bool is_style = style && proto::equal_names(s.first, style->name);
		if (is_style)
			set(style->name, style->value);
		bool replaced = false;
		for (const proto::Setting &o : startup_.overridden) {
			if (!proto::equal_names(o.first, s.first))
				continue;
			set(o.first, o.second);
			replaced = true;
		}
		if (is_style || replaced)
			set(s.first, s.second);
	}
	return sql;
}

Params StartSettings::without_name(const Params &now, const Params &base)
{
	const Param *p = base->find("application_name");
	return p ? now.with(p->name, p->value, true, p->unknown, p->preset) : now;
}

Params StartSettings::with_name(const Params &remembered) const
{
	return startup_.has_application_name ? remembered.with("application_name", startup_.application_name, true)
	                                     : remembered;
}

Params StartSettings::defaults(const Params &now, Params none) const
{
	auto add = [&](const std::string &name) {
		if (const Param *p = now->find(name))
			none = none.with(p->name, p->value, false);
	};
	for (const proto::Setting &s : startup_.settings)
		add(s.first);
	if (startup_.has_application_name)
		add("application_name");
	return none;
}

} // namespace pgpool::core
