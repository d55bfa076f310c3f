// Secret: a value that leaves no trace of itself in memory.
//
// Owns the wiping of passwords, keys, verifiers and what carries them, on assignment, move and destruction, so that
// nobody has to think of it. Plain structs stay what they are (they travel in packets); whoever keeps one keeps it in
// here. Must not know what a value means.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "proto/bytes.hpp"
#include "proto/scram.hpp"

namespace pgpool::proto
{

template <class T> inline void wipe_value(T &value)
{
	static_assert(std::is_trivially_copyable_v<T> && !std::is_pointer_v<T>);
	wipe(&value, sizeof(value));
}

// What stands behind the end of a string that became shorter, too.
inline void wipe_value(std::string &value)
{
	value.resize(value.capacity());
	wipe(value.data(), value.size());
	value.clear();
}

template <class T> class Secret
{
public:
	Secret() = default;
	explicit Secret(const T &value) : value_(value) {}
	explicit Secret(T &&value) : value_(value) { wipe_value(value); }
	Secret(const Secret &other) : value_(other.value_) {}
	Secret(Secret &&other) : value_(other.value_) { wipe_value(other.value_); }
	~Secret() { wipe_value(value_); }
	Secret &operator=(const Secret &other) { return this == &other ? *this : *this = other.value_; }
	Secret &operator=(Secret &&other)
	{
		if (this != &other) {
			*this = other.value_;
			wipe_value(other.value_);
		}
		return *this;
	}
	Secret &operator=(const T &value)
	{
		wipe_value(value_);
		value_ = value;
		return *this;
	}

	const T &operator*() const { return value_; }
	const T *operator->() const { return &value_; }
	T &edit() { return value_; } // in place: what it is changed to must not need more memory than it has
	const T &get() const { return value_; }

private:
	T value_{};
};

using SecretString = Secret<std::string>;

// The same for what is too large to stand in its owner all the time.
template <class T> struct WipeAndDelete {
	void operator()(T *value) const
	{
		wipe_value(*value);
		delete value;
	}
};
template <class T> using SecretPtr = std::unique_ptr<T, WipeAndDelete<T>>;

inline void assign(SecretString &to, std::string_view text)
{
	wipe_value(to.edit());
	to.edit() = text;
}

// As try_append() of a plain buffer; the one that it grows out of is wiped.
[[nodiscard]] inline bool try_append(SecretString &to, std::string_view bytes)
{
	std::string &now = to.edit();
	if (now.capacity() - now.size() >= bytes.size()) {
		now.append(bytes);
		return true;
	}
	std::string larger;
	if (!try_reserve(larger, 2 * (now.size() + bytes.size())))
		return false;
	larger.append(now).append(bytes);
	now.swap(larger);
	wipe_value(larger);
	return true;
}

// The first `size` bytes.
inline void drop_front(SecretString &from, size_t size)
{
	std::string &text = from.edit();
	const size_t left = text.size() - size;
	text.erase(0, size);
	text.resize(left + size);
	wipe(text.data() + left, size);
	text.resize(left);
}

} // namespace pgpool::proto
