// Rows of pg_stat_prepared: which shared statements there are, who has them, where they are.
//
// Owns nothing. Clients and servers of a statement are counted when somebody asks, by walking over all of them:
// serving costs nothing for it. Must not know who may see the text.
#include <algorithm>
#include <unordered_map>

#include "core/worker/engine.hpp"
#include "proto/wire.hpp"

#include "proto/no_postgres.hpp"

namespace pgpool::core
{

namespace
{

// No client is served while the answer is made, and it stays in memory until it is read.
constexpr size_t kMostRows = 5000;

struct Place {
	control::PreparedRow *row;
	const Session *counted; // it may have several names for one statement
};

template <size_t N> void copy(char (&to)[N], std::string_view from)
{
	memcpy(to, from.data(), std::min(from.size(), N));
}

void fill(control::PreparedRow &row, const Statement &s)
{
	proto::Reader body(s.body);
	copy(row.name, s.name);
	copy(row.text, body.string());
	for (uint32_t left = body.u16(); left > 0 && row.type_count < control::kTypesShown; left--) {
		const uint32_t type = body.u32();
		if (!body.ok())
			break;
		row.types[row.type_count++] = type;
	}
	row.bytes = s.body.size();
	row.uses = s.uses;
	row.hits = s.hits;
	row.parses = s.parses;
	row.evictions = s.evictions;
}

void add_tenant(control::PreparedRow &row, const std::string &tenant)
{
	for (uint32_t i = 0; i < row.tenant_count; i++) {
		if (tenant == row.tenants[i])
			return;
	}
	if (row.tenant_count < control::kTenantsShown)
		copy(row.tenants[row.tenant_count++], tenant);
}

} // namespace

std::vector<control::PreparedRow> Engine::prepared_rows()
{
	std::vector<const Statement *> shown;
	context_.statements().each([&](const Statement &s) { shown.push_back(&s); });
	if (shown.size() > kMostRows) {
		std::nth_element(shown.begin(), shown.begin() + kMostRows, shown.end(),
		                 [](const Statement *a, const Statement *b) { return a->uses > b->uses; });
		shown.resize(kMostRows);
	}
	std::vector<control::PreparedRow> rows(shown.size());
	std::unordered_map<const Statement *, Place> places;
	for (size_t i = 0; i < shown.size(); i++) {
		fill(rows[i], *shown[i]);
		places.emplace(shown[i], Place{&rows[i], nullptr});
	}
	for (Session *s = clients_.sessions().front(); s; s = List<Session, &Session::all_hook>::next(s)) {
		const ClientStatements *names = s->statements()->names();
		if (!names)
			continue;
		names->each([&](const Statement *statement) {
			auto it = places.find(statement);
			if (it == places.end() || it->second.counted == s)
				return;
			it->second.counted = s;
			it->second.row->clients++;
		});
	}
	pools_.each([&](PoolGroup &group) {
		group.each_server([&](ServerConn *server) {
			server->statements().table().each([&](const Statement *statement) {
				auto it = places.find(statement);
				if (it == places.end())
					return;
				it->second.row->servers++;
				add_tenant(*it->second.row, group.tenant());
			});
		});
	});
	return rows;
}

} // namespace pgpool::core
