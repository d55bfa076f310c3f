// What is known of the names of one database: which functions, operators, types and relations are harmless to reads.
//
// Owns one immutable set of them, as a facts worker of the manager wrote it (src/postgres/manager/facts.cpp), with an
// index. A name stands for all that have it: its verdict is the worst of theirs, so overloads and search_path need not
// be resolved. A function or operator that is not listed is not harmless; a type or relation that is not listed is.
// Made without libstdc++, for both libraries have it. Must not know where the text comes from.
//
//   pgpool facts 1 <database OID> <version>    the counter of the catalog's changes that was read before
//   <what><verdict> <name>                     what: f function, o operator, t type, r relation, a attribute, c cast
//   <what><verdict> <schema><tab><name>        the same of one schema; qualified names are looked up by it
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace pgpool::core
{

// The letters are those of the file, the worst last.
enum class Verdict : char {
	Harmless = 'h',
	Stable = 's',    // of the users': IMMUTABLE or STABLE, in a language other than C, and not declared for replicas
	Unknown = 'u',   // VOLATILE, or calls one
	OfSession = 'n', // says something of the session or the server
	Writes = 'w',
	Relation = 'x', // a relation that a standby cannot read, or reads as something else
};

class Facts
{
public:
	enum What : char { Function = 'f', Operator = 'o', Type = 't', Relation = 'r', Attribute = 'a', Cast = 'c' };

	Facts() = default;
	// Takes a copy of the text. False from usable(): it is not of that form, or there is no memory.
	explicit Facts(std::string_view text) { usable_ = load(text); }
	~Facts()
	{
		free(text_);
		free(slots_);
	}
	Facts(const Facts &) = delete;
	Facts &operator=(const Facts &) = delete;

	bool usable() const { return usable_; }
	uint32_t database() const { return database_; }
	uint64_t version() const { return version_; }
	// Of what they say: the same for two that differ in their version alone.
	uint64_t edition() const { return edition_; }

	// `schema` may be NULL. What is not listed is `otherwise`. A name that has no place in a line is no safe one.
	Verdict of(What what, const char *schema, const char *name, Verdict otherwise) const
	{
		if (!slots_ || strpbrk(name, "\t\n") || (schema && strpbrk(schema, "\t\n")))
			return Verdict::Unknown;
		const size_t in_schema = schema ? strlen(schema) : 0, named = strlen(name);
		uint64_t h = hash(kSeed ^ static_cast<unsigned char>(what), schema, in_schema);
		if (schema)
			h = hash(h, "\t", 1);
		h = hash(h, name, named);
		for (size_t i = h & mask_; slots_[i] != 0; i = (i + 1) & mask_) {
			const char *line = text_ + slots_[i];
			if (line[0] == what && is_name(line + 3, schema, in_schema, name, named))
				return static_cast<Verdict>(line[1]);
		}
		return otherwise;
	}
	// Of casts that happen without being written.
	Verdict implicit_casts() const { return of(Cast, nullptr, "implicit", Verdict::Unknown); }

private:
	static constexpr uint64_t kSeed = 0xcbf29ce484222325u;
	static uint64_t hash(uint64_t h, const char *p, size_t n)
	{
		for (size_t i = 0; i < n; i++)
			h = (h ^ static_cast<unsigned char>(p[i])) * 0x100000001b3u;
		return h ^ (h >> 29);
	}
	static bool is_name(const char *at, const char *schema, size_t in_schema, const char *name, size_t named)
	{
		if (schema) {
			if (strncmp(at, schema, in_schema) != 0 || at[in_schema] != '\t')
				return false;
			at += in_schema + 1;
		}
		return strncmp(at, name, named) == 0 && at[named] == '\n';
	}
	bool load(std::string_view text)
	{
		unsigned database = 0;
		unsigned long long version = 0;
		text_ = static_cast<char *>(malloc(text.size() + 1));
		if (!text_ || text.empty() || text.size() > UINT32_MAX / 2)
			return false;
		memcpy(text_, text.data(), text.size());
		text_[text.size()] = '\0';
		if (text_[text.size() - 1] != '\n' || sscanf(text_, "pgpool facts 1 %u %llu\n", &database, &version) != 2)
			return false;
		database_ = database;
		version_ = version;
		size_t lines = 0;
		for (size_t i = 0; i < text.size(); i++)
			lines += text_[i] == '\n';
		mask_ = 16;
		while (mask_ < lines * 2)
			mask_ *= 2;
		slots_ = static_cast<uint32_t *>(calloc(mask_, sizeof *slots_));
		if (!slots_)
			return false;
		mask_--;
		const char *end = text_ + text.size();
		for (const char *line = text_; line < end;) {
			const char *stop = static_cast<const char *>(memchr(line, '\n', static_cast<size_t>(end - line)));
			if (line != text_) {
				edition_ += hash(kSeed, line, static_cast<size_t>(stop - line));
				put(line, static_cast<size_t>(stop - line));
			}
			line = stop + 1;
		}
		return true;
	}
	void put(const char *line, size_t size)
	{
		if (size < 4)
			return;
		const char *name = line + 3;
		const size_t rest = size - 3;
		const auto *tab = static_cast<const char *>(memchr(name, '\t', rest));
		const size_t in_schema = tab ? static_cast<size_t>(tab - name) : 0, behind = tab ? in_schema + 1 : 0;
		uint64_t h = hash(kSeed ^ static_cast<unsigned char>(line[0]), name, in_schema);
		if (tab)
			h = hash(h, "\t", 1);
		h = hash(h, name + behind, rest - behind);
		size_t i = h & mask_;
		while (slots_[i] != 0)
			i = (i + 1) & mask_;
		slots_[i] = static_cast<uint32_t>(line - text_);
	}

	char *text_ = nullptr;
	uint32_t *slots_ = nullptr; // places of lines, 0 = free
	size_t mask_ = 0;
	uint32_t database_ = 0;
	uint64_t version_ = 0, edition_ = 0;
	bool usable_ = false;
};

} // namespace pgpool::core
