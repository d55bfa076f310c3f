// Intrusive doubly linked list: membership without allocation, removal in constant time.
//
// An object may stand in one list per Hook member. Owns nothing: the objects belong to whoever made them. What may end
// objects while it goes through them says each(); next() is for what changes nothing.
#pragma once

#include <cstddef>

namespace pgpool::core
{

template <class T> struct Hook {
	T *previous = nullptr;
	T *next = nullptr;
	bool linked = false;
};

template <class T, Hook<T> T::*hook> class List
{
public:
	bool empty() const { return first_ == nullptr; }
	size_t size() const { return size_; }
	T *front() const { return first_; }
	T *back() const { return last_; }
	static T *next(const T *item) { return (item->*hook).next; }

	// f may take out any item, its own and the next one, too; what is put in meanwhile may not be seen.
	template <class F> void each(F f)
	{
		Walk walk{first_, walks_};
		walks_ = &walk;
		while (T *item = walk.next) {
			walk.next = next(item);
			f(item);
		}
		walks_ = walk.outer;
	}

	void push_back(T *item) { link(item, last_, nullptr); }
	void push_front(T *item) { link(item, nullptr, first_); }
	void remove(T *item)
	{
		Hook<T> &h = item->*hook;
		if (!h.linked)
			return;
		for (Walk *w = walks_; w; w = w->outer) {
			if (w->next == item)
				w->next = h.next;
		}
		(h.previous ? (h.previous->*hook).next : first_) = h.next;
		(h.next ? (h.next->*hook).previous : last_) = h.previous;
		h = Hook<T>();
		size_--;
	}

private:
	struct Walk { // an each() under way
		T *next;
		Walk *outer;
	};

	void link(T *item, T *before, T *after)
	{
		Hook<T> &h = item->*hook;
		h.previous = before;
		h.next = after;
		h.linked = true;
		(before ? (before->*hook).next : first_) = item;
		(after ? (after->*hook).previous : last_) = item;
		size_++;
	}

	T *first_ = nullptr;
	T *last_ = nullptr;
	Walk *walks_ = nullptr;
	size_t size_ = 0;
};

} // namespace pgpool::core
